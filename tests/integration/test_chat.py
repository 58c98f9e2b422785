"""`examples/chat.py` over RabbitMQ, as two people use it from two terminals."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import trio

import trio_mqtt

from .brokers import HOST, USERS, Broker
from .processes import start_process

pytestmark = pytest.mark.rabbitmq

ROOT = Path(__file__).parents[2]
CHAT = ROOT / "examples" / "chat.py"


class Lines:
    """What a process writes, by the line."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> str:
        """The next one; empty at the end."""
        await trio.lowlevel.checkpoint()
        while b"\n" not in self._buffer:
            data = await self._stream.receive_some()
            if not data:
                break
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


class Terminal:
    """One who chats."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._input = process.stdin
        self._output = Lines(process.stdout)
        self._errors = Lines(process.stderr)

    async def type(self, line: str) -> None:
        await self._input.send_all(f"{line}\n".encode())

    async def read(self) -> str:
        """The next line on the screen."""
        return await self._output.next()

    async def read_error(self) -> str:
        """The next line on the standard error: the first one says that it joined."""
        return await self._errors.next()

    async def end_input(self) -> None:
        """Types Ctrl-D."""
        await self._input.aclose()

    def interrupt(self) -> None:
        """Types Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    async def status(self) -> int:
        """What it ended with, having said nothing more."""
        status = await self._process.wait()
        assert await self._output.next() == ""
        assert await self._errors.next() == ""
        return status


async def open_terminal(
    nursery: trio.Nursery,
    broker: Broker,
    topic: str,
    user: str,
    *options: str,
    password: str | None = None,
) -> Terminal:
    url = f"mqtt://{HOST}:{broker.port}/{topic}"
    credentials = ["--user", user, "--password", password or USERS[user]]
    command = [sys.executable, str(CHAT), *credentials, *options, url]
    process = await start_process(nursery, command, {"PYTHONPATH": str(ROOT)})
    return Terminal(process)


async def test_two_people_talk(rabbitmq: Broker, topic: str) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            alice = await open_terminal(nursery, rabbitmq, topic, "alice")
            bob = await open_terminal(nursery, rabbitmq, topic, "bob")
            for terminal in [alice, bob]:
                assert topic in await terminal.read_error()

            await alice.type("Hello, is anybody there?")
            for terminal in [alice, bob]:
                assert await terminal.read() == "* alice: Hello, is anybody there?"
            await bob.type("  Привет 🍸  ")
            for terminal in [alice, bob]:
                assert await terminal.read() == "* bob: Привет 🍸"
            for number in range(20):
                await alice.type(str(number))
                for terminal in [alice, bob]:
                    assert await terminal.read() == f"* alice: {number}"

            await alice.end_input()
            assert await alice.status() == 0
            await bob.type("Alone again")
            assert await bob.read() == "* bob: Alone again"
            bob.interrupt()
            assert await bob.status() == 0


async def test_people_and_other_clients_talk(rabbitmq: Broker, topic: str) -> None:
    with trio.fail_after(30):
        async with trio_mqtt.open_client(rabbitmq.url) as client, trio.open_nursery() as nursery:
            await client.subscribe(topic)
            alice = await open_terminal(nursery, rabbitmq, topic, "alice")
            await alice.read_error()
            await alice.type("Hello")
            message = await client.messages.receive()
            assert (message.topic, message.payload) == (topic, b"alice: Hello")
            assert (message.qos, message.retain) == (0, False)
            await client.publish(topic, "robot: beep\x1b[2J", qos=1)
            assert await alice.read() == "* alice: Hello"
            line = await alice.read()
            assert line.startswith("* robot: beep")
            assert "\x1b" not in line
            await alice.end_input()
            assert await alice.status() == 0


async def test_a_newcomer_reads_the_line_that_was_retained_until_it_is_cleared(
    rabbitmq: Broker, topic: str
) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            alice = await open_terminal(nursery, rabbitmq, topic, "alice", "--retain")
            await alice.read_error()
            await alice.type("I was here")
            assert await alice.read() == "* alice: I was here"
            await alice.end_input()
            assert await alice.status() == 0

            bob = await open_terminal(nursery, rabbitmq, topic, "bob")
            await bob.read_error()
            assert await bob.read() == "* alice: I was here"

            janitor = await open_terminal(nursery, rabbitmq, topic, "alice", "--clear-retained")
            assert await janitor.status() == 0

            newcomer = await open_terminal(nursery, rabbitmq, topic, "alice")
            await newcomer.read_error()
            await newcomer.type("What did I miss?")
            for terminal in [bob, newcomer]:
                assert await terminal.read() == "* alice: What did I miss?"
                await terminal.end_input()
                assert await terminal.status() == 0


async def test_a_wrong_password_is_told_and_not_shown(rabbitmq: Broker, topic: str) -> None:
    password = "xyzzy-the-wrong-one"
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            alice = await open_terminal(nursery, rabbitmq, topic, "alice", password=password)
            error = await alice.read_error()
            assert error
            assert password not in error
            assert await alice.status() == 1
