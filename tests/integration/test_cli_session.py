"""``publish --session``: what was accepted is delivered by this call, or by the next one."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.commands import Pieces, one_line, posix_only, run_command, running
from tests.memory_persistence import MemoryPersistence
from trio_mqtt import Down, adopt_session, init_session, open_client
from trio_mqtt import _packets as p
from trio_mqtt._storer import LAST
from trio_mqtt.cli._publish import Publishing
from trio_mqtt.testing import Broker, open_broker


def payloads(broker: Broker) -> list[bytes]:
    packets = [record.packet for record in broker.log if record.direction == "in"]
    return [packet.message.payload for packet in packets if isinstance(packet, p.Delivery)]


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "session")


async def test_delivered_at_once(directory: str) -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        options = ("--broker", url, "--session", directory)
        for text in ("one", "two"):
            done = await run_command("publish", "a", "-m", text, *options)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert payloads(broker) == [b"one", b"two"]
        (client_id,) = broker.sessions
        assert client_id.startswith("triomqtt")
        assert not broker.violations


@pytest.mark.parametrize("qos", ["1", "2"])
async def test_delivered_by_the_next_call(directory: str, qos: str) -> None:
    options = ("--session", directory, "--qos", qos)
    async with open_broker() as broker:
        gone = await broker.listen()
    for text in ("one", "two"):
        done = await run_command("publish", "a", "-m", text, *options, "--broker", gone)
        assert done.returncode == 1
    said = done.stderr.decode().splitlines()
    assert said[0] == "1 message is of earlier calls to be delivered first"
    assert f"publish: 2 messages are in {directory} not confirmed yet" in said[1]
    assert "the next call with this --session delivers what is there" in said[1]
    async with open_broker() as broker:
        url = await broker.listen()
        done = await run_command("publish", "a", "-m", "three", *options, "--broker", url)
        assert done.returncode == 0
        assert done.stderr == b"2 messages are of earlier calls to be delivered first\n"
        assert payloads(broker) == [b"one", b"two", b"three"]
        assert not broker.violations


async def test_lines_and_a_call_that_has_nothing_to_send(directory: str) -> None:
    async with open_broker() as broker:
        gone = await broker.listen()
    lines = [b"line %d" % number for number in range(50)]
    options = ("publish", "a", "--lines", "--session", directory)
    done = await run_command(*options, "--broker", gone, stdin=b"\n".join(lines))
    assert done.returncode == 1
    assert "50 messages are in" in one_line(done)
    async with open_broker() as broker:
        done = await run_command(*options, "--broker", await broker.listen())
        assert done.returncode == 0
        assert payloads(broker) == lines


async def test_refused(directory: str) -> None:
    async with open_broker(users={"alice": "s3cret"}) as broker:
        url = await broker.listen()
        done = await run_command("publish", "a", "-m", "x", "--session", directory, "--broker", url)
        assert done.returncode == 9
        assert "return code 5: not authorized" in one_line(done)


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_what_was_accepted_survives_a_signal(directory: str, number: int) -> None:
    came = trio.Event()

    def withhold(_: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        if not isinstance(packet, p.PubAck):
            return None
        came.set()
        return ()

    options = ("publish", "a", "--lines", "--session", directory)
    async with (
        open_broker(answer=withhold) as broker,
        running(*options, "--broker", await broker.listen()) as it,
    ):
        await it.stdin.send_all(b"one\n")
        await came.wait()
        it.process.send_signal(number)
        assert await it.process.wait() in (128 + number, -number)
    async with open_broker() as broker:
        done = await run_command(*options, "--broker", await broker.listen())
        assert done.returncode == 0
        assert payloads(broker) == [b"one"]


async def test_in_use(directory: str) -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        options = ("publish", "a", "--lines", "--session", directory, "--broker", url)
        async with running(*options, "--verbose") as first:
            await first.errors.wait_for("connected")
            done = await run_command(*options)
            assert done.returncode == 1
            assert directory in one_line(done)
            await first.stdin.aclose()
            assert await first.process.wait() == 0


async def test_the_client_identifier(directory: str) -> None:
    async with open_broker() as broker:
        options = ("publish", "a", "-m", "x", "--session", directory)
        url = await broker.listen()
        for client_id, code in (("me", 0), ("me", 0), ("you", 2)):
            done = await run_command(*options, "--broker", url, "--client-id", client_id)
            assert done.returncode == code
        assert f"the session in {directory} is that of --client-id me" in one_line(done)
        assert set(broker.sessions) == {"me"}
        # It can be continued, and not be cleaned.
        done = await run_command(*options, "--broker", url, "--clean-session")
        assert done.returncode == 2
        done = await run_command(*options, "--broker", url)
        assert done.returncode == 0


async def test_no_such_place() -> None:
    done = await run_command("publish", "a", "-m", "x", "--session", "/nowhere/at/all")
    assert done.returncode == 1
    assert "No such file or directory" in one_line(done)


async def test_a_directory_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear Bob")
    done = await run_command("publish", "a", "-m", "x", "--session", str(tmp_path))
    assert done.returncode == 1
    assert str(tmp_path) in one_line(done)
    assert (tmp_path / "letter").exists()


async def test_it_ends_once_all_is_stored(autojump_clock: trio.testing.MockClock) -> None:
    """On a disk that takes longer than a client which is closed would wait."""

    async def unreachable() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError("nobody is there")

    storage = MemoryPersistence()
    session = await init_session("me", storage)
    storage.commit_seconds = 2 * LAST
    arguments = argparse.Namespace(
        topic="a", qos=1, retain=False, empty=False, message=None, lines=True, quiet=True
    )
    async with open_client(unreachable, session=session, wait_online=False) as client:
        with pytest.raises(Down):
            await Publishing(arguments, client, session).run(Pieces(b"one\ntwo\n", b"three\n"))
        assert client.statistics().unconfirmed == 3
        storage.commit_seconds = 0
        await client.aclose()
    again = await adopt_session(storage)
    messages = [exchange.message for exchange in again.pending]
    assert [message.payload for message in messages if message] == [b"one", b"two", b"three"]
    await again.aclose()
