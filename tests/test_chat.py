"""The chat, as processes that talk to each other over the broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, open_broker

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
PATIENCE = 20
"""Seconds. Nothing takes as long, unless it hangs."""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals and ptys of POSIX")


def command(url: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / "chat.py"), *arguments, url]


class Lines:
    """The lines of a stream."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._held = b""

    async def next(self) -> str:
        """The next line, empty at the end."""
        await trio.lowlevel.checkpoint()
        while b"\n" not in self._held:
            data = await self._stream.receive_some()
            if not data:
                return ""
            self._held += bytes(data)
        line, _, self._held = self._held.partition(b"\n")
        return line.decode().rstrip("\r")

    async def wait_for(self, beginning: str) -> str:
        """The next line that begins so."""
        while line := await self.next():
            if line.startswith(beginning):
                return line
        raise AssertionError(f"no line begins with {beginning!r}")


class Chatter:
    """Somebody who chats."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.output = Lines(process.stdout)
        self.errors = Lines(process.stderr)

    async def type(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")

    async def end_input(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()


@asynccontextmanager
async def chatting(
    url: str, *arguments: str, stdin: int = subprocess.PIPE
) -> AsyncGenerator[Chatter]:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    command(url, *arguments),
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    check=False,
                    env=ENVIRONMENT,
                )
            )
            yield Chatter(process)
            nursery.cancel_scope.cancel()


async def finish(url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            command(url, *arguments),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=ENVIRONMENT,
        )


def disconnects(broker: Broker) -> int:
    return sum(isinstance(record.packet, p.Disconnect) for record in broker.log)


async def test_two_talk() -> None:
    async with open_broker(users={"alice": "s3cret", "bob": "hush"}) as broker:
        url = await broker.listen()
        credentials = "--user", "alice", "--password", "s3cret"
        async with (
            chatting(f"{url}/test", *credentials) as alice,
            chatting(url.replace("//", "//bob:hush@") + "/test") as bob,
        ):
            joined = await alice.errors.next()
            assert joined == "joined 'test' as alice: type a line, or Ctrl-C to leave"
            await bob.errors.wait_for("joined 'test' as bob")
            await alice.type("Hi Bob! 20.8℃ here")
            await alice.type("   ")
            await alice.type("\x1b[2J and you?")
            for chatter in (alice, bob):
                assert await chatter.output.next() == "* alice: Hi Bob! 20.8℃ here"
                assert await chatter.output.next() == "* alice:  [2J and you?"
            await bob.type("Cold.")
            for chatter in (alice, bob):
                assert await chatter.output.next() == "* bob: Cold."
            await alice.end_input()
            await bob.end_input()
            assert await alice.process.wait() == 0
            assert await bob.process.wait() == 0
            assert await alice.errors.next() == ""
        assert disconnects(broker) == 2
        assert not broker.violations


async def test_what_was_typed_before_the_end_of_input_is_sent() -> None:
    async with open_broker() as broker:
        url = await broker.listen() + "/test"
        async with chatting(url, "--user", "alice") as alice:
            await alice.type("Bye")
            await alice.end_input()
            assert await alice.process.wait() == 0
        sent = [record.packet for record in broker.log if record.direction == "in"]
        assert p.Message("test", b"alice: Bye") in sent
        assert isinstance(sent[-1], p.Disconnect)


async def test_retained_line() -> None:
    async with open_broker() as broker:
        url = await broker.listen() + "/some/topic"
        async with chatting(url, "--user", "alice", "--retain") as alice:
            await alice.type("The key is under the mat")
            assert await alice.output.next() == "* alice: The key is under the mat"
        assert set(broker.retained) == {"some/topic"}
        async with chatting(url, "--user", "bob") as bob:
            assert await bob.output.next() == "* alice: The key is under the mat"
            cleared = await finish(url, "--user", "alice", "--clear-retained")
            assert (cleared.returncode, cleared.stdout, cleared.stderr) == (0, b"", b"")
            assert not broker.retained
            await bob.type("Thanks")
            assert await bob.output.next() == "* bob: Thanks"


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal(number: signal.Signals) -> None:
    async with open_broker() as broker:
        async with chatting(await broker.listen() + "/test", "--user", "alice") as alice:
            await alice.errors.wait_for("joined")
            alice.process.send_signal(number)
            # Its input is still open, and a thread of its blocked there.
            assert await alice.process.wait() == 0
            assert await alice.errors.next() == ""
        assert disconnects(broker) == 1


@posix_only
async def test_signal_at_a_terminal() -> None:
    master, slave = os.openpty()
    try:
        async with open_broker() as broker:
            url = await broker.listen() + "/test"
            async with chatting(url, "--user", "alice", stdin=slave) as alice:
                await alice.errors.wait_for("joined")
                os.write(master, b"Hello\n")
                assert await alice.output.next() == "* alice: Hello"
                alice.process.send_signal(signal.SIGINT)
                assert await alice.process.wait() == 0
                assert await alice.errors.next() == ""
            assert disconnects(broker) == 1
    finally:
        os.close(master)
        os.close(slave)


async def test_offline() -> None:
    refused = trio.Event()

    def notice(_: str, packet: p.Packet) -> None:
        if isinstance(packet, p.ConnAck) and packet.return_code:
            refused.set()

    async with (
        open_broker(answer=notice) as broker,
        chatting(await broker.listen() + "/test", "--user", "alice") as alice,
    ):
        await alice.errors.wait_for("joined")
        broker.refuse(3)
        broker.disconnect_all()
        await refused.wait()  # before that she may not know that the connection is gone
        await alice.type("Anybody?")
        await alice.errors.wait_for("not sent: ")
        await alice.end_input()
        assert await alice.process.wait() == 0


async def test_refused() -> None:
    async with open_broker(users={"alice": "s3cret"}) as broker:
        url = await broker.listen() + "/test"
        done = await finish(url, "--user", "alice", "--password", "guess")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode().splitlines() == [
        "chat: the broker refused the connection with return code 5: not authorized"
    ]


async def test_unreachable() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
    done = await finish(url + "/test", "--user", "alice")
    assert done.returncode == 1
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"chat: cannot connect to {url}")


async def test_subscription_fails() -> None:
    async with open_broker(fail_filters={"test"}) as broker:
        done = await finish(await broker.listen() + "/test", "--user", "alice")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["chat: the broker failed 'test'"]


async def test_no_topic() -> None:
    done = await finish("mqtt://localhost", "--user", "alice")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1].endswith("the URL names no topic")
