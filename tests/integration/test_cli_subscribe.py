"""``subscribe``: what is printed, and when it ends."""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
import trio

from tests.commands import command_line, environment, posix_only, run_command, running
from trio_mqtt import Message
from trio_mqtt import _packets as p
from trio_mqtt.cli._failures import Failure
from trio_mqtt.cli._output import Output, say, standard_output, write_line
from trio_mqtt.cli._render import render_by
from trio_mqtt.testing import Broker, open_broker

TOPIC = "a/b"
ME = ("--client-id", "me")
"""So that the broker can be asked for its session."""


def disconnects(broker: Broker) -> int:
    return sum(isinstance(record.packet, p.Disconnect) for record in broker.log)


async def test_payloads_are_printed_as_they_come() -> None:
    async with (
        open_broker() as broker,
        running("subscribe", "a/#", "--broker", await broker.listen(), *ME) as command,
    ):
        await broker.wait_subscribed("me", "a/#")
        for text in ("one", "20.8℃"):
            broker.publish(TOPIC, text, qos=1)
            # Each before the next, though the output is a pipe.
            assert await command.output.next() == text


async def printed(*arguments: str, payload: bytes, count: int = 1, retain: bool = False) -> bytes:
    async with open_broker() as broker:
        if retain:
            broker.publish(TOPIC, payload, qos=1, retain=True)
        url = await broker.listen()
        options = (*ME, "--broker", url, "--count", str(count))
        async with running("subscribe", TOPIC, *options, *arguments) as command:
            if not retain:
                await broker.wait_subscribed("me", TOPIC)
            for _ in range(count - retain):
                broker.publish(TOPIC, payload, qos=1)
            output = await command.output.rest()
            assert await command.process.wait() == 0
            assert await command.errors.rest() == ""
        assert disconnects(broker) == 1
        assert not broker.violations
    return output.encode()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], b"x\ny\n" * 2),
        (["--topic"], b"a/b x\ny\n" * 2),
        (["--quote"], b'"x\\ny"\n' * 2),
        (["--quote", "--topic"], b'a/b "x\\ny"\n' * 2),
        (["--raw"], b"x\ny" * 2),
    ],
)
async def test_how_it_is_printed(arguments: list[str], expected: bytes) -> None:
    assert await printed(*arguments, payload=b"x\ny", count=2) == expected


async def test_json() -> None:
    line = await printed("--json", "--qos", "1", payload="20.8℃".encode(), retain=True)
    fields = json.loads(line)
    assert datetime.fromisoformat(fields.pop("time")).tzinfo is not None
    assert fields == {
        "topic": TOPIC,
        "payload": "20.8℃",
        "qos": 1,
        "retain": True,
        "dup": False,
    }


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_quality_of_service(qos: int) -> None:
    async with open_broker() as broker:
        broker.publish(TOPIC, "x", qos=2, retain=True)
        arguments = ("--json", "--count", "1", "--qos", str(qos), "--broker", await broker.listen())
        done = await run_command("subscribe", TOPIC, *arguments)
    assert json.loads(done.stdout)["qos"] == qos


async def test_a_message_is_acknowledged_once_it_is_printed() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        payload = bytes(1_000_000)  # more than a pipe holds
        async with running("subscribe", TOPIC, "--raw", "-n", "1", *ME, "--broker", url) as command:
            await broker.wait_subscribed("me", TOPIC)
            broker.publish(TOPIC, payload, qos=1)
            assert await command.output.stream.receive_some(1) == b"\0"
            assert broker.sessions["me"].in_flight == 1
            assert len(await command.output.rest()) == len(payload) - 1
            assert await command.process.wait() == 0
        acks = [record for record in broker.log if isinstance(record.packet, p.PubAck)]
        assert len(acks) == 1


async def test_keep() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        arguments = ("subscribe", TOPIC, "--count", "1", "--broker", url, *ME)
        broker.publish(TOPIC, "retained", retain=True)
        assert (await run_command(*arguments, "--keep")).stdout == b"retained\n"
        assert list(broker.sessions["me"].subscriptions) == [TOPIC]
        broker.publish(TOPIC, "", retain=True)
        broker.publish(TOPIC, "collected", qos=1)
        assert (await run_command(*arguments)).stdout == b"collected\n"
        assert not broker.sessions["me"].subscriptions


# The reader of the output


@posix_only
async def test_it_ends_with_the_reader_of_its_output() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        shell = subprocess.list2cmdline([*command_line("subscribe", "a/#", "--broker", url)])
        script = f"{shell} | head -1; echo ${{PIPESTATUS[0]}}"
        broker.publish(TOPIC, "first", retain=True)
        with trio.fail_after(30):
            done = await trio.run_process(
                ["bash", "-c", script],
                capture_stdout=True,
                capture_stderr=True,
                env=environment(),
            )
        # Without a second message.
        assert (done.stdout, done.stderr) == (b"first\n0\n", b"")
        assert disconnects(broker) == 1


async def test_it_ends_with_the_reader_while_it_writes() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        async with running("subscribe", TOPIC, *ME, "--broker", url) as command:
            await broker.wait_subscribed("me", TOPIC)
            broker.publish(TOPIC, bytes(1_000_000), qos=1)
            assert await command.output.stream.receive_some(1) == b"\0"
            await command.output.stream.aclose()
            assert await command.process.wait() == 0
            assert await command.errors.rest() == ""
        assert disconnects(broker) == 1


@posix_only
async def test_a_reader_that_is_slow_does_not_stop_the_client() -> None:
    pinged = trio.Event()

    def notice(_: str, packet: p.Packet) -> None:
        if isinstance(packet, p.PingResp):
            pinged.set()

    async with open_broker(answer=notice) as broker:
        url = await broker.listen()
        arguments = ("subscribe", TOPIC, *ME, "--broker", url, "--keep-alive", "1")
        async with running(*arguments) as command:
            await broker.wait_subscribed("me", TOPIC)
            broker.publish(TOPIC, bytes(1_000_000), qos=1)
            # Its output is full, as nobody reads.
            await pinged.wait()
            await command.output.stream.aclose()
            assert await command.process.wait() == 0


async def test_output_that_cannot_be_written() -> None:
    with pytest.raises(Failure, match="cannot write the output: Bad file descriptor"):
        await Output(100_000).write(b"x" * 100_000)


@posix_only
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
async def test_full_disk() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(Failure, match="cannot write the output: No space left on device"):
            await Output(descriptor).write(b"x")
    finally:
        os.close(descriptor)


def test_no_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(Failure, match="standard output is closed"):
        standard_output()


def test_nobody_hears_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    say("anything")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out, suppress(BrokenPipeError):
        write_line(out, "lost")
        write_line(out, "lost as well")  # and so is what the interpreter flushes in the end


async def test_a_file_is_never_broken(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    try:
        with trio.move_on_after(0.01) as scope:
            await Output(descriptor).wait_broken()
        assert scope.cancelled_caught
    finally:
        os.close(descriptor)


# How messages are rendered


def render(message: Message, *, terminal: bool = False, **options: bool) -> bytes:
    chosen = {"json": False, "raw": False, "quote": False, "topic": False, **options}
    return render_by(argparse.Namespace(**chosen), is_terminal=terminal)(message)


def test_a_terminal_is_not_taken_over() -> None:
    message = Message(TOPIC, b"\x1b[2J\tok\n\x9b\xff")
    assert render(message, terminal=True).decode() == "�[2J\tok\n��\n"
    assert render(message) == b"\x1b[2J\tok\n\x9b\xff\n"
    assert render(message, terminal=True, raw=True) == message.payload


@pytest.mark.parametrize(
    "text", ["", "20.8℃", 'say "hi"', "back\\slash", "\t\n\r\0\x1b\x7f\x85", "\u2028\ue000🍸"]
)
def test_quoted_text_reads_back(text: str) -> None:
    line = render(Message(TOPIC, text.encode()), quote=True).decode().removesuffix("\n")
    assert line.isprintable()
    assert eval(line) == text  # noqa: S307, what it is for


def test_quoted_bytes() -> None:
    assert render(Message(TOPIC, b"\xff\x00a\xc3"), quote=True) == b'"\\xff\\x00a\\xc3"\n'


def test_json_of_bytes() -> None:
    fields = json.loads(render(Message(TOPIC, b"\xff\x00"), json=True))
    assert "payload" not in fields
    assert base64.b64decode(fields["payload_base64"]) == b"\xff\x00"


@pytest.mark.parametrize("arguments", [["--topic", "--raw"], ["--keep"]])
async def test_what_makes_no_sense_together(arguments: list[str]) -> None:
    done = await run_command("subscribe", TOPIC, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
