"""The payload of a message that is streamed, between the reader and those who read it.

Scopes that overlap share it, each with a cursor. What arrived is held in memory until the slowest
of them has read it; from `WINDOW` bytes on the reader stops. If it has to go on all the same, what
is in memory goes to a temporary file, from which the cursors read then. So what is in the file
comes before what is in memory, and memory stays flat.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import IO

import attrs
import trio

from ._errors import ConnectionLost
from ._exchange import Demand
from ._packets import Body, Streamed

WINDOW = 128 * 1024
"""Bytes that are held in memory, and one read of the network more. Half of it would have the reader
and the application wait for each other, at half the speed."""


class LargePayload:
    """What there is of one payload.

    Arguments:
        body: what brings it.
        shares: how many scopes get it.
        demand: that tasks which wait for more count in; it also wakes the reader.
    """

    def __init__(self, body: Body, shares: int, demand: Demand) -> None:
        self._body = body
        self._demand = demand
        self._untaken = shares
        self._cursors: set[Cursor] = set()
        self._pieces: deque[bytes] = deque()
        self._in_memory = 0
        self._end = 0
        """How much of the payload has passed."""
        self._start = 0
        """Where the payload begins that is still there."""
        self._file: IO[bytes] | None = None
        self._file_start = self._file_end = 0
        self._file_lock = trio.Lock()
        self._lost: ConnectionLost | None = None
        self.is_missed = False
        """Whether a reader was told that the rest will not come."""
        self._is_ended = False
        self._more = trio.lowlevel.ParkingLot()

    @property
    def size(self) -> int:
        """Bytes of it, in the end."""
        return self._body.size

    # The reader's side

    @property
    def is_complete(self) -> bool:
        """Whether all of it arrived."""
        return self._body.is_complete

    @property
    def is_ahead(self) -> bool:
        """Whether so much waits to be read that the reader has to stop."""
        return self._in_memory >= WINDOW and not self._body.is_complete

    def grow(self) -> None:
        """More may have arrived."""
        for piece in self._body.take():
            self._pieces.append(piece)
            self._in_memory += len(piece)
            self._end += len(piece)
        self._let_go()
        self._more.unpark_all()

    async def spool(self) -> None:
        """Moves what is in memory to the temporary file.

        Raises:
            ConnectionLost: there is no place for it. The broker has to send it again.
        """
        async with self._using_file():
            data, start = b"".join(self._pieces), self._memory_start
            if self._file is None:
                self._file = await trio.to_thread.run_sync(tempfile.TemporaryFile)
                self._file_start = self._file_end = start
            await trio.to_thread.run_sync(_write, self._file, start - self._file_start, data)
            self._file_end = start + len(data)
            while self._pieces and self._memory_start < self._file_end:
                self._drop_piece()

    def lose(self, error: ConnectionLost) -> None:
        """The connection was lost in the middle of it."""
        self._lost = error
        self._more.unpark_all()

    def end(self) -> None:
        """The client ended, and nobody can read it any more."""
        self._lost = self._lost or ConnectionLost("the client was closed")
        self._untaken = 0
        self._is_ended = True
        self._cursors.clear()
        self._let_go()
        self._more.unpark_all()

    # Its readers' side

    @property
    def is_lost(self) -> bool:
        """Whether the rest of it will not come."""
        return self._lost is not None

    @property
    def is_whole(self) -> bool:
        """Whether it can be read from its beginning, or will be."""
        return self._lost is None and self._start == 0

    def put_back(self) -> None:
        """One more is to have it, from its beginning: a reader that failed gave it back."""
        assert self.is_whole
        self._untaken += 1

    def open(self) -> Cursor:
        """Somebody has it, and reads it or not."""
        self._untaken = max(self._untaken - 1, 0)
        cursor = Cursor(self)
        if not self._is_ended:
            self._cursors.add(cursor)
        return cursor

    def give_up(self) -> None:
        """One who was to have it will not."""
        self._untaken -= 1
        self._let_go()

    def close(self, cursor: Cursor) -> None:
        """One who had it wants no more of it."""
        self._cursors.discard(cursor)
        self._let_go()
        self._more.unpark_all()

    async def read(self, cursor: Cursor, most: int) -> bytes:
        """The next bytes, at least one; none at the end.

        Raises:
            ConnectionLost: the connection was lost in the middle.
        """
        while True:
            if cursor not in self._cursors:
                if self._lost is not None:
                    break
                raise trio.ClosedResourceError("the next message was asked for")
            if cursor.position < self._file_end:
                return await self._read_file(cursor, most)
            if cursor.position < self._end:
                await trio.lowlevel.checkpoint()
                if cursor in self._cursors and cursor.position >= self._file_end:
                    return self._read_memory(cursor, most)
                continue
            if cursor.position == self.size:
                await trio.lowlevel.checkpoint()
                return b""
            if self._lost is not None:
                break
            await self._demand.park(self._more)
        self.is_missed = True
        raise ConnectionLost(f"in the middle of a message: {self._lost}") from self._lost

    async def _read_file(self, cursor: Cursor, most: int) -> bytes:
        async with self._using_file():
            if self._file is None:  # the client ended meanwhile
                raise ConnectionLost(f"in the middle of a message: {self._lost}") from self._lost
            place = cursor.position - self._file_start
            most = min(most, self._file_end - cursor.position)
            data = await trio.to_thread.run_sync(_read, self._file, place, most)
            cursor.position += len(data)
        self._let_go()
        return data

    @asynccontextmanager
    async def _using_file(self) -> AsyncGenerator[None, None]:
        """One at a time. Meanwhile it is not closed, though nobody may want it any more.

        Raises:
            ConnectionLost: the file system failed. The broker has to send the message again.
        """
        try:
            async with self._file_lock:
                yield
        except OSError as error:
            raise ConnectionLost(f"cannot store a large message meanwhile: {error}") from error
        finally:
            self._close_unused()

    def _read_memory(self, cursor: Cursor, most: int) -> bytes:
        offset = self._memory_start
        for piece in self._pieces:
            if cursor.position < offset + len(piece):
                begin = cursor.position - offset
                data = piece[begin : begin + most]
                cursor.position += len(data)
                self._let_go()
                return data
            offset += len(piece)
        raise AssertionError("it has arrived, and is not there")

    # What is held

    @property
    def _memory_start(self) -> int:
        """Where in the payload the first piece in memory begins."""
        return self._end - self._in_memory

    def _let_go(self) -> None:
        """Drops what everybody has read, or no one will."""
        was_ahead = self.is_ahead
        if not (self._untaken or self._cursors):
            self._body.discard()
            self._start = self.size  # none of it is left
            self._pieces.clear()
            self._in_memory = 0
            self._close_unused()
        elif not self._untaken:
            slowest = min(cursor.position for cursor in self._cursors)
            self._start = max(self._start, slowest if self._file is None else self._file_start)
            while self._pieces and self._memory_start + len(self._pieces[0]) <= slowest:
                self._drop_piece()
        if was_ahead and not self.is_ahead:
            self._demand.reader.set()

    def _drop_piece(self) -> None:
        self._in_memory -= len(self._pieces.popleft())

    def _close_unused(self) -> None:
        used = self._untaken or self._cursors or self._file_lock.locked()
        if self._file is not None and not used:
            with suppress(OSError):  # a disk that is full, which by now is of no consequence
                self._file.close()
            self._file = None


@attrs.define(eq=False)
class Cursor:
    """How far somebody has read."""

    payload: LargePayload
    position: int = 0


@attrs.define(eq=False)
class Large(Streamed):
    """A message whose payload is in a `LargePayload`."""

    payload_stream: LargePayload = attrs.field(kw_only=True)


def _write(file: IO[bytes], place: int, data: bytes) -> None:
    file.seek(place)
    file.write(data)
    file.flush()


def _read(file: IO[bytes], place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)
