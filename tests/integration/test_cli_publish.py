"""``publish``: where payloads come from, in what order they arrive, and when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.commands import (
    PATIENCE,
    Pieces,
    command_line,
    environment,
    one_line,
    posix_only,
    run_command,
    running,
)
from trio_mqtt import Message, open_client
from trio_mqtt import _packets as p
from trio_mqtt.cli._failures import Failure, Misuse
from trio_mqtt.cli._input import Input, Lines
from trio_mqtt.cli._progress import show_progress
from trio_mqtt.cli._sender import MOST_BYTES, MOST_MESSAGES, Sender
from trio_mqtt.testing import Broker, Record, open_broker


def published(broker: Broker) -> list[Message]:
    """What clients sent, in order."""
    packets = [record.packet for record in broker.log if record.direction == "in"]
    deliveries = [packet.message for packet in packets if isinstance(packet, p.Delivery)]
    return deliveries or [packet for packet in packets if isinstance(packet, Message)]


def disconnects(broker: Broker) -> int:
    return sum(isinstance(record.packet, p.Disconnect) for record in broker.log)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message(qos: p.QoS) -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        done = await run_command(
            "publish", "a/b", "--broker", url, "--message", "20.8℃", "--qos", str(qos)
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert published(broker) == [Message("a/b", "20.8℃".encode(), qos)]
        assert disconnects(broker) == 1
        assert not broker.violations


async def test_quality_of_service_is_1_by_default() -> None:
    async with open_broker() as broker:
        await run_command("publish", "a", "-m", "x", "--broker", await broker.listen())
        assert published(broker) == [Message("a", b"x", 1)]


async def test_standard_input_is_one_message() -> None:
    payload = bytes(range(256)) * 1000
    async with open_broker() as broker:
        url = await broker.listen()
        done = await run_command("publish", "a", "--broker", url, stdin=payload)
        assert (done.returncode, done.stderr) == (0, b"")
        assert [message.payload for message in published(broker)] == [payload]


async def test_file(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"\x00\xff\r\n")
    async with open_broker() as broker:
        url = await broker.listen()
        done = await run_command("publish", "a", "--broker", url, "--file", str(path))
        assert (done.returncode, done.stderr) == (0, b"")
        assert [message.payload for message in published(broker)] == [b"\x00\xff\r\n"]


async def test_lines() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        done = await run_command(
            "publish", "a", "--broker", url, "--lines", "--qos", "2", stdin=b"one\r\n\ntwo\nthree"
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert [message.payload for message in published(broker)] == [b"one", b"two", b"three"]


async def test_a_line_is_sent_before_the_next_is_there() -> None:
    came = trio.Event()

    def notice(record: Record) -> None:
        if isinstance(record.packet, p.Delivery):
            came.set()

    async with (
        open_broker(watch=notice) as broker,
        running("publish", "a", "--lines", "--broker", await broker.listen()) as command,
    ):
        await command.stdin.send_all(b"first\nsec")
        await came.wait()
        await command.stdin.aclose()
        assert await command.process.wait() == 0


@pytest.mark.parametrize("arguments", [["--empty"], ["--retain", "-m", ""], ["--retain"]])
async def test_an_empty_message_clears_what_is_retained(arguments: list[str]) -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        done = await run_command("publish", "a", "--broker", url, "-m", "x", "--retain")
        assert done.returncode == 0
        assert set(broker.retained) == {"a"}
        done = await run_command("publish", "a", "--broker", url, *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert not broker.retained


async def test_it_ends_when_the_message_is_confirmed() -> None:
    held = trio.Event()

    def hold(_: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        if not isinstance(packet, p.PubAck) or held.is_set():
            return None
        held.set()
        return ()

    async with (
        open_broker(answer=hold) as broker,
        running("publish", "a", "-m", "x", "--broker", await broker.listen()) as command,
    ):
        await held.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert command.process.poll() is None
        broker.disconnect_all()  # so that it is sent again
        assert await command.process.wait() == 0
        assert "lost" in await command.errors.rest()
        assert [message.dup for message in published(broker)] == [False, False]


async def test_what_cannot_be_read_is_told_before_connecting() -> None:
    done = await run_command("publish", "a", "--file", "/nowhere", "--broker", "mqtt://nowhere")
    assert done.returncode == 1
    assert one_line(done).endswith("publish: cannot read /nowhere: No such file or directory")


async def test_directory_as_file(tmp_path: Path) -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        done = await run_command("publish", "a", "--file", str(tmp_path), "--broker", url)
    assert done.returncode == 1
    assert f"cannot read {tmp_path}: Is a directory" in one_line(done)


MEASURED = """
import sys
from tests.memory_peak import peak
from trio_mqtt.cli import main
code = main()
print(peak(), file=sys.stderr)
sys.exit(code)
"""
LINES = 100_000


async def peak_bytes(url: str, lines: int) -> int:
    """Publishes that many lines, and returns the most memory that it took."""
    command = [sys.executable, "-c", MEASURED, "publish", "a", "--lines", "--broker", url]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command,
            stdin=b"".join(b"line %d\n" % number for number in range(lines)),
            capture_stderr=True,
            check=False,
            env=environment(),
        )
    assert done.returncode == 0
    return int(done.stderr)


@posix_only
async def test_a_hundred_thousand_lines_arrive_in_order_and_take_no_more_memory() -> None:
    expected = 0

    def count(record: Record) -> None:
        nonlocal expected
        if isinstance(record.packet, p.Delivery):
            assert record.packet.message.payload == b"line %d" % expected
            expected += 1

    async with open_broker(watch=count) as broker:
        url = await broker.listen()
        few = await peak_bytes(url, 2 * MOST_MESSAGES)
        expected = 0
        many = await peak_bytes(url, LINES)
    assert expected == LINES
    # A payload, and what a client has for a message, come to 500 bytes: all of them to 50 MB.
    assert many - few < 5_000_000


@posix_only
async def test_only_errors_are_shown_where_no_terminal_is() -> None:
    async with open_broker() as broker:
        done = await run_command(
            "publish", "a", "--lines", "--broker", await broker.listen(), stdin=b"x\n" * 10_000
        )
    assert done.stderr == b""


@posix_only
async def test_a_terminal_is_told_how_to_end_the_input() -> None:
    master, slave = os.openpty()
    try:
        async with open_broker() as broker, trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    command_line("publish", "a", "--broker", await broker.listen()),
                    stdin=slave,
                    stderr=subprocess.PIPE,
                    env=environment(),
                )
            )
            assert process.stderr is not None
            with trio.fail_after(PATIENCE):
                said = bytes(await process.stderr.receive_some())
                assert b"type the message; Ctrl-D" in said
                os.write(master, b"Hello\n\x04")
                assert await process.wait() == 0
            assert [message.payload for message in published(broker)] == [b"Hello\n"]
    finally:
        os.close(master)
        os.close(slave)


# In this process


async def in_window(broker: Broker, payloads: Sequence[bytes]) -> int:
    """How many of the messages are sent to a broker that confirms none."""
    async with open_client(broker.dialer) as client:
        sender = Sender(client, "a", 1, retain=False)

        async def send() -> None:
            for payload in payloads:
                await sender.send(payload)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        unconfirmed = client.statistics().unconfirmed
        await client.aclose()
        return unconfirmed


def withhold(_: str, packet: p.Packet) -> Sequence[p.Packet] | None:
    return () if isinstance(packet, p.PubAck) else None


@pytest.mark.parametrize(
    ("payloads", "unconfirmed"),
    [
        ([b"x"] * 2 * MOST_MESSAGES, MOST_MESSAGES),
        ([bytes(MOST_BYTES // 4)] * 8, 4),
        ([bytes(MOST_BYTES + 1)] * 2, 1),
    ],
)
async def test_the_window_is_bounded(payloads: list[bytes], unconfirmed: int) -> None:
    async with open_broker(answer=withhold) as broker:
        assert await in_window(broker, payloads) == unconfirmed


def pipe_with(data: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a", [b"a"]),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\n\r\nb\rc", [b"a", b"b\rc"]),
    ],
)
async def test_lines_of_an_input(data: bytes, lines: list[bytes]) -> None:
    source = Lines(Input(pipe_with(data)))
    found: list[bytes] = []
    while some := await source.next_some():
        found += some
    assert found == lines


async def test_a_line_in_pieces() -> None:
    lines = Lines(Pieces(b"on", b"e\ntw", b"o", b"\n\nthree"))
    assert await lines.next_some() == [b"one"]
    assert await lines.next_some() == [b"two"]
    assert await lines.next_some() == [b"three"]
    assert await lines.next_some() == []
    assert await lines.next_some() == []


async def test_too_large_an_input() -> None:
    many = (bytes(1_000_000),) * 269
    with pytest.raises(Misuse, match="larger than a message can be"):
        await Pieces(*many).read_all()
    with pytest.raises(Misuse, match="a line is larger"):
        await Lines(Pieces(*many)).next_some()


async def test_an_input_that_cannot_be_read() -> None:
    with pytest.raises(Failure, match="cannot read standard input: Bad file descriptor"):
        await Input(-1).read_some()


async def test_progress(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_broker() as broker, open_client(broker.dialer) as client:
        sender = Sender(client, "a", 1, retain=False)
        with trio.move_on_after(1.5):
            await show_progress(client, sender)
        for _ in range(1234):
            await sender.send(bytes(1000))
        await sender.wait_confirmed()
        before, after = capsys.readouterr().err, None
        with trio.move_on_after(1.1):
            await show_progress(client, sender)
        after = capsys.readouterr().err
    assert "\r\033[K0 confirmed, " in before
    assert "\r\033[K1,234 confirmed, 1.2 MB sent" in after
    for shown in (before, after):
        assert "\n" not in shown
        assert shown.endswith("\r\033[K")  # nothing is left of it
