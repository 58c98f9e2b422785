"""The command line as processes: how they are started, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_mqtt.cli._input import Input

ROOT = Path(__file__).parent.parent
PATIENCE = 60
"""Seconds. Nothing takes as long, unless it hangs."""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of POSIX")

Done = subprocess.CompletedProcess[bytes]


def environment(**more: str) -> dict[str, str]:
    """That of this process, without what the command line reads from it."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MQTT_")}
    return {**ours, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more}


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trio_mqtt", *arguments]


async def run_command(
    *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] | None = None
) -> Done:
    """Runs a command to its end."""
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            command_line(*arguments),
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(**(variables or {})),
        )


class Running:
    """A command that runs."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.stdin = process.stdin
        self.output = Lines(process.stdout)
        self.errors = Lines(process.stderr)


class Lines:
    """The lines of a stream."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self.stream = stream
        self._held = b""

    async def next(self) -> str:
        """The next line, empty at the end."""
        await trio.lowlevel.checkpoint()
        while b"\n" not in self._held:
            data = await self.stream.receive_some()
            if not data:
                return ""
            self._held += bytes(data)
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    async def wait_for(self, part: str) -> str:
        """The next line that has this in it."""
        while line := await self.next():
            if part in line:
                return line
        raise AssertionError(f"no line has {part!r} in it")

    async def rest(self) -> str:
        """All of it, to the end."""
        while data := await self.stream.receive_some():
            self._held += bytes(data)
        return self._held.decode()


@asynccontextmanager
async def running(
    *arguments: str, variables: Mapping[str, str] | None = None
) -> AsyncGenerator[Running]:
    """Starts a command, and kills it in the end if it still runs."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    command_line(*arguments),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    check=False,
                    env=environment(**(variables or {})),
                    deliver_cancel=_kill,
                )
            )
            yield Running(process)
            nursery.cancel_scope.cancel()


async def _kill(process: trio.Process) -> None:
    process.kill()
    await trio.lowlevel.checkpoint()


class Pieces(Input):
    """An input that comes in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(-1)
        self._pieces = list(pieces)

    async def read_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._pieces.pop(0) if self._pieces else b""


def one_line(done: Done) -> str:
    """What is on standard error, which is one line."""
    (line,) = done.stderr.decode().splitlines()
    return line
