"""``ping``, ``chat``, ``broker`` and ``completion``; what the client commands have in common."""

from __future__ import annotations

import argparse
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests import certificates
from tests.commands import one_line, posix_only, run_command, running
from trio_mqtt import Message, Will, open_client
from trio_mqtt import _packets as p
from trio_mqtt._transport import resolve_broker
from trio_mqtt.cli import main
from trio_mqtt.cli._failures import Misuse
from trio_mqtt.cli._opening import client_from, credentials
from trio_mqtt.cli._options import add_client_options
from trio_mqtt.cli._trace import printable
from trio_mqtt.testing import Broker, open_broker

PASSWORD = "xyzzy-the-secret"


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_client_options(parser)
    return parser.parse_args(arguments)


def connect(broker: Broker) -> p.Connect:
    (packet,) = [one.packet for one in broker.log if isinstance(one.packet, p.Connect)]
    return packet


# ping


async def test_ping() -> None:
    async with open_broker() as broker:
        done = await run_command("ping", "--count", "2", "--broker", await broker.listen())
        assert done.returncode == 0
        first, second = done.stdout.decode().splitlines()
        for line in (first, second):
            number, unit = line.split()
            assert float(number) > 0
            assert unit == "ms"
        assert isinstance(broker.log[-1].packet, p.Disconnect)


async def test_the_reader_of_the_output_leaves() -> None:
    async with open_broker() as broker:
        options = ("ping", "--count", "1000", "--broker", await broker.listen())
        async with running(*options) as command:
            await command.output.next()
            await command.output.stream.aclose()
            assert await command.process.wait() == 0
            assert await command.errors.rest() == ""
        assert isinstance(broker.log[-1].packet, p.Disconnect)
    async with running("broker", "--port", "0") as command:
        await command.output.stream.aclose()
        assert await command.process.wait() == 0
        assert await command.errors.rest() == ""


# What the commands have in common


async def test_the_broker_of_the_environment() -> None:
    async with open_broker(users={"alice": PASSWORD}) as broker:
        url = (await broker.listen()).replace("//", f"//alice:{PASSWORD}@")
        done = await run_command("ping", "--quiet", variables={"MQTT_BROKER": url})
        assert done.returncode == 0
        done = await run_command("ping", "--broker", "mqtt://", variables={"MQTT_BROKER": url})
        assert done.returncode == 2


async def test_options_of_the_connection() -> None:
    async with open_broker(users={"alice": PASSWORD}) as broker:
        options = [
            *("--username", "alice", "--client-id", "me", "--keep-alive", "7"),
            *("--will-topic", "will", "--will-message", "gone", "--will-qos", "2", "--will-retain"),
        ]
        done = await run_command(
            *("ping", "--broker", await broker.listen(), *options),
            variables={"MQTT_PASSWORD": PASSWORD},
        )
        assert (done.returncode, done.stderr) == (0, b"")
        will = Will("will", b"gone", qos=2, retain=True)
        expected = p.Connect(
            "me", clean_session=False, keep_alive=7, will=will, username="alice",
            password=PASSWORD.encode(),
        )  # fmt: skip
        assert connect(broker) == expected


async def test_clean_session() -> None:
    async with open_broker() as broker:
        options = ("--broker", await broker.listen(), "--client-id", "me")
        broker.publish("a", "x", retain=True)
        await run_command("subscribe", "a", "--keep", "-n", "1", *options)
        assert broker.sessions["me"].subscriptions
        done = await run_command("ping", "--clean-session", *options)
        assert done.returncode == 0
        assert not broker.sessions["me"].subscriptions


@pytest.mark.parametrize(
    ("arguments", "variable", "expected"),
    [
        ([], None, ("bob", "of the URL")),
        ([], "of the environment", ("bob", "of the environment")),
        (["--username", "alice"], "of the environment", ("alice", "of the environment")),
        (["--password-file", "FILE"], "of the environment", ("bob", b"of the file")),
    ],
)
def test_credentials(
    arguments: list[str],
    variable: str | None,
    expected: tuple[str, str | bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MQTT_PASSWORD", raising=False)
    if variable is not None:
        monkeypatch.setenv("MQTT_PASSWORD", variable)
    path = tmp_path / "password"
    path.write_bytes(b"of the file\r\nand more\n")
    arguments = [str(path) if argument == "FILE" else argument for argument in arguments]
    address = resolve_broker("mqtt://bob:of%20the%20URL@localhost")
    assert credentials(parsed(*arguments), address) == expected


def test_a_password_of_the_environment_is_for_who_has_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
    assert credentials(parsed(), resolve_broker("mqtt://localhost")) == (None, None)


async def test_a_password_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    async with open_broker(users={"alice": PASSWORD}) as broker:
        url = await broker.listen()
        options = ("--username", "alice", "--password-file", str(path), "--trace", "--verbose")
        async with running("subscribe", "a", "--broker", url, *options) as command:
            said = [
                await command.errors.wait_for("CONNECT"),
                await command.errors.wait_for("subsc"),
            ]
            listed = ""
            if sys.platform == "linux":
                listed = await trio.Path(f"/proc/{command.process.pid}/cmdline").read_text()
                assert "--password-file" in listed
            command.process.terminate()
            said += [await command.errors.rest(), await command.output.rest()]
        done = await run_command(
            *("ping", "--broker", url, "--username", "bob", "--trace", "--verbose"),
            variables={"MQTT_PASSWORD": PASSWORD},
        )
        assert done.returncode == 9
    assert "user alice, password ****" in said[0]
    assert "user bob, password ****" in done.stderr.decode()
    for text in (*said, listed, done.stderr.decode(), done.stdout.decode()):
        assert PASSWORD not in text


async def test_trace() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        done = await run_command("publish", "a", "-m", "\x1b[2J", "--trace", "--broker", url)
    lines = [line.split(" ", 1) for line in done.stderr.decode().splitlines()]
    assert all(len(time) == len("12:34:56.789") for time, _ in lines)
    packets = [packet for _, packet in lines]
    assert packets[0].startswith("sends CONNECT I am triomqtt")
    assert packets[1:] == [
        "gets CONNACK welcome, a new session",
        'sends PUBLISH 1 a "�[2J" QoS 1',
        "gets PUBACK 1",
        "sends DISCONNECT",
    ]


async def test_trace_names_the_broker_in_failures() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
    done = await run_command("ping", "--trace", "--broker", url)
    assert done.returncode == 1
    assert f"cannot connect to {url}" in one_line(done)


async def test_verbose_and_warnings() -> None:
    lost = trio.Event()

    def notice(_: str, packet: p.Packet) -> None:
        if isinstance(packet, p.ConnAck) and packet.return_code:
            lost.set()

    async with open_broker(answer=notice) as broker:
        options = ("a", "--broker", await broker.listen(), "--client-id")
        async with (
            running("subscribe", *options, "me", "--verbose") as verbose,
            running("subscribe", *options, "you", "--quiet") as quiet,
        ):
            await broker.wait_subscribed("you", "a")
            await verbose.errors.wait_for("connected to mqtt://")
            await verbose.errors.wait_for("subscribed to a")
            broker.refuse(3)
            broker.disconnect_all()
            await verbose.errors.wait_for("lost")
            await verbose.errors.wait_for("return code 3")
            for command in (verbose, quiet):
                command.process.terminate()
                assert await command.process.wait() == 143
            assert await quiet.errors.rest() == ""


def test_printable() -> None:
    assert printable("20.8℃\x1b\n\x9b") == "20.8℃���"


def test_options_about_tls_are_for_tls() -> None:
    for option in (("--ca", certificates_file()), ("--server-name", "broker.example")):
        with pytest.raises(Misuse, match="are for a --broker by mqtts:// or wss://"):
            client_from(parsed(*option, "--broker", "mqtt://host"))


def certificates_file() -> str:
    return ssl.get_default_verify_paths().cafile or ""


@posix_only
async def test_tls(tmp_path: Path) -> None:
    authority, certificate = tmp_path / "authority.pem", certificates.client_files(tmp_path)
    certificates.authority("ours").cert_pem.write_to_path(authority)
    context = certificates.server("127.0.0.1", wants_certificate=True)
    named = certificates.server("broker.test")
    async with open_broker() as broker:
        for tls, options in (
            (context, ("--cert", certificate)),
            (context, ("--cert", certificate, "--trace")),
            (named, ("--server-name", "broker.test")),
            (named, ("--server-name", "broker.test", "--trace")),
        ):
            url = await broker.listen(tls=tls)
            more = ("--ca", str(authority), *options, "--broker", url)
            done = await run_command("ping", "--count", "1", *more)
            assert done.returncode == 0, done.stderr
            assert (b"PINGREQ" in done.stderr) is ("--trace" in options)
        done = await run_command("ping", "--ca", str(authority), "--broker", url)
        assert done.returncode == 1
        said = one_line(done)
        assert f"{url} is not to be trusted: " in said
        assert "not valid for '127.0.0.1'" in said
        done = await run_command("ping", "--broker", url)
        assert "--ca FILE names the authority that the broker's is from" in one_line(done)


# chat


async def test_chat() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        options = ("--broker", url, "--client-id")
        async with (
            running("chat", "test", "--name", "alice", *options, "a") as alice,
            running("chat", "test", *options, "b", "--retain") as bob,
        ):
            joined = await alice.errors.next()
            assert joined == "joined 'test' as alice: type a line, or Ctrl-D to leave"
            assert "as anonymous" in await bob.errors.next()
            await alice.stdin.send_all("Hi! 20.8℃ here\n   \n\x1b[2J\n".encode())
            for chatter in (alice, bob):
                assert await chatter.output.next() == "* alice: Hi! 20.8℃ here"
                assert await chatter.output.next() == "* alice: �[2J"
            await bob.stdin.send_all(b"Cold.\n")
            for chatter in (alice, bob):
                assert await chatter.output.next() == "* anonymous: Cold."
            for chatter in (alice, bob):
                await chatter.stdin.aclose()
                assert await chatter.process.wait() == 0
                assert await chatter.errors.rest() == ""
        assert set(broker.retained) == {"test"}
        done = await run_command("chat", "test", "--clear-retained", "--broker", url)
        assert (done.returncode, done.stderr) == (0, b"")
        assert not broker.retained
        assert not broker.violations


async def test_chat_is_called_as_the_user() -> None:
    async with open_broker() as broker:
        url = (await broker.listen()).replace("//", "//bob%20b@")
        done = await run_command("chat", "test", "--broker", url)
        assert "joined 'test' as bob b" in one_line(done)
        done = await run_command("chat", "test", "--broker", url, "--username", "al", "--quiet")
        assert (done.returncode, done.stderr) == (0, b"")


async def test_chat_offline() -> None:
    refused = trio.Event()

    def notice(_: str, packet: p.Packet) -> None:
        if isinstance(packet, p.ConnAck) and packet.return_code:
            refused.set()

    async with open_broker(answer=notice) as broker:
        options = ("--broker", await broker.listen(), "--client-id", "me")
        async with running("chat", "a", *options) as chat:
            await chat.errors.wait_for("joined")
            broker.refuse(3)
            broker.disconnect_all()
            await refused.wait()
            await chat.stdin.send_all(b"Anybody?\n")
            await chat.errors.wait_for("not sent: ")
            await chat.stdin.aclose()
            assert await chat.process.wait() == 0


# broker


async def test_broker() -> None:
    async with running("broker", "--port", "0", "--trace") as command:
        url = await command.output.next()
        async with open_client(url, client_id="me", username="al", password=PASSWORD) as client:
            await client.publish("a", "x\x1b", qos=1)
        shown = [await command.errors.next() for _ in range(5)]
    packets = [line.split(" ", 1)[1] for line in shown]
    assert packets == [
        "me sends CONNECT I am me, user al, password ****, keep my session",
        "me gets CONNACK welcome, a new session",
        'me sends PUBLISH 1 a "x�" QoS 1',
        "me gets PUBACK 1",
        "me sends DISCONNECT",
    ]


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_listen(host: str, shown: str) -> None:
    watched: list[Message | p.Packet | bytes] = []
    async with open_broker(watch=lambda record: watched.append(record.packet)) as broker:
        try:
            url = await broker.listen(host=host)
        except OSError:
            pytest.skip(f"no {host} here")
        assert url.startswith(f"mqtt://{shown}:")
        async with open_client(url) as client:
            await client.ping()
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await broker.listen(host=host, port=port)
    assert [type(packet) for packet in watched] == [
        p.Connect,
        p.ConnAck,
        p.PingReq,
        p.PingResp,
        p.Disconnect,
    ]
    assert not broker.log


# completion


def completion(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@posix_only
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pu"], ["publish"]),
        (["subscribe", "--q"], ["--quote", "--qos", "--quiet"]),
        (["publish", "--qos", ""], ["0", "1", "2"]),
        (["publish", "--file", ""], []),
        (["completion", "b"], ["bash"]),
        (["nothing", ""], []),
    ],
)
def test_bash(words: list[str], offered: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    quoted = " ".join(f"'{word}'" for word in ["trio-mqtt", *words])
    script = completion("bash", capsys) + (
        f"\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _trio_mqtt\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered
    assert done.stderr == ""


def test_zsh(capsys: pytest.CaptureFixture[str]) -> None:
    assert completion("zsh", capsys).startswith("autoload -Uz bashcompinit && bashcompinit\n")


def test_fish(capsys: pytest.CaptureFixture[str]) -> None:
    lines = completion("fish", capsys).splitlines()
    assert "complete -c trio-mqtt -n __fish_use_subcommand -fa ping" in lines
    (qos,) = [line for line in lines if "from subscribe'" in line and "-l qos " in line]
    assert "-fa '0 1 2' -r -d 'at which messages may come at most (default: 2)'" in qos
    assert all(line.startswith("complete -c trio-mqtt -n ") for line in lines)
