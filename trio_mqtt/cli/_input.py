"""What a command reads: standard input or a file, in pieces, whole, or by the line."""

from __future__ import annotations

import os
import sys

import trio

from trio_mqtt._packets import MAX_PAYLOAD_BYTES

from ._failures import Failure, Misuse

_PIECE = 65_536
"""Bytes to read at a time: as many as a pipe holds."""
STANDARD = "standard input"


class Input:
    """A file descriptor to read from.

    A thread waits for it, so that nothing else has to. It cannot be interrupted, so on cancellation
    it is left behind, and does not keep the process from ending.
    """

    def __init__(self, descriptor: int, name: str = STANDARD) -> None:
        self._descriptor = descriptor
        self._name = name

    @property
    def is_terminal(self) -> bool:
        """Whether somebody types it."""
        return os.isatty(self._descriptor)

    async def read_some(self) -> bytes:
        """What is there next; nothing at the end.

        Raises:
            Failure: it cannot be read.
        """
        # Not by `sys.stdin`: the thread would hold its lock, and the interpreter could not end.
        try:
            return await trio.to_thread.run_sync(
                os.read, self._descriptor, _PIECE, abandon_on_cancel=True
            )
        except OSError as error:
            raise Failure(f"cannot read {self._name}: {error.strerror}") from error

    async def read_all(self) -> bytes:
        """All of it.

        Raises:
            Failure: it cannot be read.
            Misuse: it is larger than a message can be.
        """
        data = bytearray()
        while piece := await self.read_some():
            data += piece
            _check_size(self._name, len(data))
        return bytes(data)

    def __repr__(self) -> str:
        return f"<Input from {self._name}>"


class Lines:
    """An input by the line."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._held = bytearray()
        """The beginning of a line."""
        self._ended = False

    async def next_some(self) -> list[bytes]:
        """The lines that are there next, without their ends, those that are empty left out.

        An empty list at the end.

        Raises:
            Failure: the input cannot be read.
            Misuse: a line is larger than a message can be.
        """
        lines: list[bytes] = []
        while not (lines or self._ended):
            piece = await self._source.read_some()
            self._ended = not piece
            lines = self._split(piece or b"\n")
        return lines

    def _split(self, piece: bytes) -> list[bytes]:
        first, *others = piece.split(b"\n")
        self._held += first
        _check_size("a line", len(self._held))
        if not others:
            return []
        lines = [bytes(self._held), *others[:-1]]
        self._held = bytearray(others[-1])
        return [line for whole in lines if (line := whole.removesuffix(b"\r"))]


def standard_input() -> Input:
    """That of the process.

    Raises:
        Failure: it was closed by whoever started the process.
    """
    if sys.stdin is None:
        raise Failure("standard input is closed")
    return Input(sys.stdin.fileno())


async def open_file(path: str) -> Input:
    """A file, for the rest of the process.

    Raises:
        Failure: it cannot be opened.
    """
    try:
        # Of a named pipe it waits for who writes there.
        descriptor = await trio.to_thread.run_sync(
            os.open, path, os.O_RDONLY | getattr(os, "O_BINARY", 0), abandon_on_cancel=True
        )
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    return Input(descriptor, path)


def _check_size(what: str, size: int) -> None:
    if size > MAX_PAYLOAD_BYTES:
        raise Misuse(f"{what} is larger than a message can be: {MAX_PAYLOAD_BYTES} bytes")
