"""The command line against mosquitto, and against its own clients in both directions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.commands import Running, command_line, environment, one_line, run_command, running
from trio_mqtt import open_client

from .brokers import HOST, USERS, Mosquitto
from .processes import start_process

pytestmark = pytest.mark.mosquitto

QOS = ("0", "1", "2")
PATIENCE = 60
"""Seconds. Nothing takes as long, unless it hangs."""
BYTES = bytes(range(256)) * 20
LINES = 100_000


def theirs(program: str, broker: Mosquitto, *arguments: str) -> list[str]:
    """A command line of mosquitto's own clients."""
    user = () if broker.username is None else ("-u", broker.username, "-P", broker.password or "")
    return [program, "-h", HOST, "-p", str(broker.port), *user, *arguments]


async def finish(command: list[str], stdin: bytes = b"") -> bytes:
    """Runs a program to its end, and returns what it printed."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(command, stdin=stdin, capture_stdout=True)
    return done.stdout


async def subscribed(command: Running) -> None:
    """Waits until it is: it was started with ``--verbose``."""
    await command.errors.wait_for("subscribed to")


@pytest.mark.parametrize("qos", QOS)
async def test_they_hear_us(mosquitto: Mosquitto, mosquitto_sub: str, topic: str, qos: str) -> None:
    options = ("--qos", qos, "--broker", mosquitto.url)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            # What is retained says that it is subscribed.
            await run_command("publish", topic, "-m", "ready", "--retain", *options)
            arguments = ("-q", qos, "-t", topic, "-C", "3", "-F", "%q %r %p")
            process = await start_process(nursery, theirs(mosquitto_sub, mosquitto, *arguments))
            listener = Running(process)
            assert await listener.output.next() == f"{qos} 1 ready"
            for text in ("20.8℃", "second"):
                done = await run_command("publish", topic, "--message", text, *options)
                assert (done.returncode, done.stderr) == (0, b"")
                assert await listener.output.next() == f"{qos} 0 {text}"
            assert await process.wait() == 0


@pytest.mark.parametrize("qos", QOS)
async def test_bytes_arrive_at_theirs_as_they_are(
    mosquitto: Mosquitto, mosquitto_sub: str, topic: str, qos: str
) -> None:
    options = ("--qos", qos, "--retain", "--broker", mosquitto.url)
    assert (await run_command("publish", topic, *options, stdin=BYTES)).returncode == 0
    command = theirs(mosquitto_sub, mosquitto, "-q", qos, "-t", topic, "-C", "1", "-N")
    assert await finish(command) == BYTES
    # Nothing is retained any more, so that the next one hears what is published next.
    assert (await run_command("publish", topic, "--empty", *options[3:])).returncode == 0
    async with open_client(mosquitto.url) as client, client.open_subscription(topic) as messages:
        await client.publish(topic, "next")
        assert (await messages.receive()).payload == b"next"


@pytest.mark.parametrize("qos", QOS)
async def test_we_hear_them(mosquitto: Mosquitto, mosquitto_pub: str, topic: str, qos: str) -> None:
    options = ("--json", "--verbose", "--count", "2", "--broker", mosquitto.url)
    async with running("subscribe", topic, *options) as listener:
        await subscribed(listener)
        for text in ("20.8℃", "second"):
            await finish(theirs(mosquitto_pub, mosquitto, "-q", qos, "-t", topic, "-m", text))
        heard = [json.loads(line) for line in (await listener.output.rest()).splitlines()]
        assert await listener.process.wait() == 0
    assert [one["payload"] for one in heard] == ["20.8℃", "second"]
    assert {(one["topic"], one["qos"], one["retain"]) for one in heard} == {
        (topic, int(qos), False)
    }


@pytest.mark.parametrize("qos", QOS)
async def test_their_bytes_arrive_as_they_are(
    mosquitto: Mosquitto, mosquitto_pub: str, topic: str, qos: str
) -> None:
    command = theirs(mosquitto_pub, mosquitto, "-q", qos, "-t", topic, "-r", "-s")
    await finish(command, stdin=BYTES)
    done = await run_command("subscribe", topic, "--raw", "-n", "1", "--broker", mosquitto.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, BYTES, b"")


@pytest.mark.parametrize("qos", QOS)
async def test_lines_of_theirs_and_of_ours(
    mosquitto: Mosquitto, mosquitto_pub: str, topic: str, qos: str
) -> None:
    """Each in the order of its input."""
    count = 300
    lines = [b"line %d" % number for number in range(count)]
    options = ("--verbose", "--count", str(2 * count), "--broker", mosquitto.url)
    async with running("subscribe", topic, *options) as listener:
        await subscribed(listener)
        sent = b"\n".join(lines) + b"\n"
        await finish(theirs(mosquitto_pub, mosquitto, "-q", qos, "-t", topic, "-l"), stdin=sent)
        done = await run_command(
            "publish", topic, "--lines", "--qos", qos, "--broker", mosquitto.url, stdin=sent
        )
        assert done.returncode == 0
        assert (await listener.output.rest()).encode() == sent * 2


MEASURED = """
import sys
from tests.memory_peak import peak
from trio_mqtt.cli import main
code = main()
print(peak(), file=sys.stderr)
sys.exit(code)
"""


async def peak_of_lines(url: str, topic: str, count: int) -> int:
    command = [sys.executable, "-c", MEASURED, "publish", topic, "--lines", "--broker", url]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command,
            stdin=b"".join(b"line %d\n" % number for number in range(count)),
            capture_stderr=True,
            env=environment(),
        )
    return int(done.stderr)


async def test_a_hundred_thousand_lines_in_order(mosquitto: Mosquitto, topic: str) -> None:
    few = await peak_of_lines(mosquitto.url, "other", 2_000)
    options = ("--verbose", "--qos", "1", "--count", str(LINES), "--broker", mosquitto.url)
    async with running("subscribe", topic, *options) as listener:
        await subscribed(listener)
        many = 0

        async def publish() -> None:
            nonlocal many
            many = await peak_of_lines(mosquitto.url, topic, LINES)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            for number in range(LINES):
                assert await listener.output.next() == f"line {number}"
        assert await listener.process.wait() == 0
    assert many - few < 5_000_000  # all of them are 50 MB in memory


# How it ends


@pytest.mark.parametrize(
    ("user", "password", "code"),
    [("alice", USERS["alice"], 0), ("alice", "xyzzy", 9), (None, None, 9)],
)
async def test_credentials(
    strict_mosquitto: Mosquitto, user: str | None, password: str | None, code: int
) -> None:
    url = f"mqtt://{HOST}:{strict_mosquitto.port}"
    options = () if user is None else ("--username", user)
    variables = {} if password is None else {"MQTT_PASSWORD": password}
    done = await run_command("ping", "--trace", "--broker", url, *options, variables=variables)
    assert done.returncode == code
    if password is not None:
        assert password.encode() not in done.stderr + done.stdout
    if code:
        assert "--username" in done.stderr.decode().splitlines()[-1]


async def test_the_will(mosquitto: Mosquitto, topic: str) -> None:
    """It is published after SIGINT, and not after SIGTERM."""
    options = ("--verbose", "--broker", mosquitto.url, "--will-topic", topic, "--will-message")
    async with open_client(mosquitto.url) as client, client.open_subscription(topic) as messages:
        async with running("subscribe", "x", *options, "terminated") as one:
            await subscribed(one)
            one.process.terminate()
            assert await one.process.wait() == 143
        async with running("subscribe", "x", *options, "interrupted") as one:
            await subscribed(one)
            one.process.send_signal(2)
            assert await one.process.wait() == 130
        with trio.fail_after(PATIENCE):
            assert (await messages.receive()).payload == b"interrupted"


async def test_head(mosquitto: Mosquitto, topic: str) -> None:
    done = await run_command("publish", topic, "-m", "first", "-r", "--broker", mosquitto.url)
    assert done.returncode == 0
    ours = subprocess.list2cmdline(command_line("subscribe", topic, "--broker", mosquitto.url))
    with trio.fail_after(PATIENCE):
        piped = await trio.run_process(
            ["bash", "-c", f"{ours} | head -1; echo ${{PIPESTATUS[0]}}"],
            capture_stdout=True,
            capture_stderr=True,
            env=environment(),
        )
    assert (piped.stdout, piped.stderr) == (b"first\n0\n", b"")


async def test_a_session_over_an_outage(mosquitto: Mosquitto, topic: str, tmp_path: Path) -> None:
    options = ("--session", str(tmp_path / "session"), "--broker", mosquitto.url, "--qos", "2")
    mosquitto.stop()
    done = await run_command("publish", topic, "-m", "one", *options)
    assert done.returncode == 1
    assert "the next call with this --session delivers" in one_line(done)
    mosquitto.start()
    async with open_client(mosquitto.url) as client, client.open_subscription(topic) as messages:
        done = await run_command("publish", topic, "-m", "two", *options)
        assert done.returncode == 0
        with trio.fail_after(PATIENCE):
            assert [(await messages.receive()).payload for _ in range(2)] == [b"one", b"two"]


async def test_two_who_chat(mosquitto: Mosquitto, topic: str) -> None:
    options = ("--broker", mosquitto.url, "--name")
    async with (
        running("chat", topic, *options, "alice") as alice,
        running("chat", topic, *options, "bob") as bob,
    ):
        for one in (alice, bob):
            await one.errors.wait_for("joined")
        await alice.stdin.send_all(b"Hi Bob!\n")
        for one in (alice, bob):
            assert await one.output.next() == "* alice: Hi Bob!"
