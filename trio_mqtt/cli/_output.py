"""Standard output, for messages: each is handed to the system before the next one is taken.

Who reads our output may be slow, or leave. So a write that could block is left to a thread, or the
client could not even keep its connection alive; and a pipe is watched for the end of its reader,
as ``subscribe ... | head -1`` is to end with that line, and not with the next message.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from contextlib import suppress
from typing import TextIO

import trio

from ._failures import Failure

_AT_ONCE = getattr(select, "PIPE_BUF", 0)
"""Bytes that do not block where the system says that there is room. Windows says nothing."""


class Output:
    """A file descriptor to write to. Nothing is buffered, also not for the interpreter's end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks on."""
        return os.isatty(self._descriptor)

    async def write(self, data: bytes) -> None:
        """Writes all of it. Cancelled, a part may be written.

        Raises:
            BrokenPipeError: who read it has left.
            Failure: it cannot be written.
        """
        try:
            if len(data) <= _AT_ONCE and self._has_room():
                self._write(data)
                await trio.lowlevel.checkpoint()
            else:
                await trio.to_thread.run_sync(self._write, data, abandon_on_cancel=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(f"cannot write the output: {error.strerror}") from error

    async def wait_broken(self) -> None:
        """Waits until who reads it has left, where the system tells: otherwise for ever."""
        mode = os.fstat(self._descriptor).st_mode
        if hasattr(select, "poll") and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            # Trio can wait until it may be written to, which is nearly always.
            await trio.to_thread.run_sync(self._poll, abandon_on_cancel=True)
        else:
            await trio.sleep_forever()

    def _has_room(self) -> bool:
        return bool(select.select([], [self._descriptor], [], 0)[1])

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def _poll(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, 0)  # of errors one is told in any case
        poll.poll()


def standard_output() -> Output:
    """That of the process.

    Raises:
        Failure: it was closed by whoever started the process.
    """
    if sys.stdout is None:
        raise Failure("standard output is closed")
    return Output(sys.stdout.fileno())


def say(text: str, *, end: str = "\n") -> None:
    """Writes to standard error. Nothing is wrong if nobody listens."""
    write_line(sys.stderr, text, end=end)


def write_line(out: TextIO | None, text: str, *, end: str = "\n") -> None:
    """Writes a line at once, escaped if need be. Once its reader left the rest goes nowhere."""
    if out is None:
        return
    try:
        try:
            print(text, file=out, flush=True, end=end)
        except UnicodeEncodeError:  # of what others say: a message, an error of the system
            print(ascii(text), file=out, flush=True, end=end)
    except OSError:
        # As an OSError it must not get into a stream, where it means that the network failed. What
        # was buffered would be tried again at the interpreter's end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
