"""One network connection: handshake, the only reader, the only writer, keep-alive.

Four tasks use a connection, and each does one thing. The reader calls `receive`.
The writer runs `write`, and nobody else ever touches the sending side: a `send_all` that is
cancelled leaves half a packet, so it is cancelled only together with the connection. The others run
`watch` and `keep_alive`. Whatever ends the connection is raised as `ConnectionLost` in one of the
four.

Progress is measured in bytes. Whenever the broker owes something, the rest of a packet or an answer
to PINGREQ, one byte has to arrive within `pause_timeout`; whenever we write, one piece has to leave
within it. While the application keeps the reader waiting (`resting`), nothing is owed. The reader
and the writer merely note when something is due, and `watch` looks at it when the time has come: a
cancel scope around each read and each write would cost as much as some messages.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import attrs
import trio

from . import _packets as p
from ._dialers import describe
from ._errors import (
    BadCredentials,
    ConnectionLost,
    ConnectionRefused,
    IdentifierRejected,
    NotAuthorized,
    ProtocolViolation,
    ServerUnavailable,
    UnacceptableProtocolVersion,
)
from ._outbox import Outbox
from ._session import SessionState
from ._turns import Turns

READ_SIZE = 65_536
LARGE_READ_SIZE = 4 * READ_SIZE
"""Of a large message, for which reading costs more than all else."""
PIECE_SIZE = 65_536
"""How much is handed to the transport at once, so that progress shows."""
LARGE_PIECE_SIZE = 4 * PIECE_SIZE
"""Of a large packet, between which other tasks have their turn. A plain socket may take it all."""
SEND_BUFFER = 1024 * 1024
"""How many bytes may wait for the network before more messages at QoS 0 have to."""
KEEP_ALIVE_SHARE = 0.75
"""How much of the keep-alive may pass in silence. The specification allows all of it
[MQTT-3.1.2-23]; the rest is for a task that is scheduled late and a network that is slow."""
LINGER = 2.0
"""Seconds that the broker has to close the connection after DISCONNECT. Closing it before all that
it sent is read may reset the connection, and with it undo a DISCONNECT that is on its way."""

LOST = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""How a transport says that it is gone. Closed it may be by the dialer that made it."""

_REFUSALS: dict[int, type[ConnectionRefused]] = {
    refusal.code: refusal
    for refusal in (
        UnacceptableProtocolVersion,
        IdentifierRejected,
        ServerUnavailable,
        BadCredentials,
        NotAuthorized,
    )
}


class Wakeup:
    """Wakes the tasks that wait for work, mostly one. Without any, the next wait ends at once."""

    def __init__(self) -> None:
        self.waiting: list[trio.lowlevel.Task] = []
        """Who waits now."""
        self._due = False

    def set(self) -> None:
        if self.waiting:
            for task in self.waiting:
                trio.lowlevel.reschedule(task)
            self.waiting.clear()
        else:
            self._due = True

    async def wait(self) -> None:
        """Returns without a checkpoint if it is due."""
        if not self._due:
            task = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                self.waiting.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            self.waiting.append(task)
            await trio.lowlevel.wait_task_rescheduled(abort)
        self._due = False


@attrs.frozen
class Bells:
    """What wakes tasks, on all connections of a session."""

    reader: Wakeup
    """The reader that rests may have reason to go on."""
    writer: Wakeup = attrs.Factory(Wakeup)
    """Something may be in the outbox."""
    storer: Wakeup = attrs.Factory(Wakeup)
    """Something may be in the journal."""
    progress: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    """Something was written, answered, or stored."""
    space: Turns[None] = attrs.Factory(Turns[None])
    """There may be space for messages at QoS 0."""
    stored: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    """A commit ended."""


class Connection:
    """A transport with a decoder: see above."""

    _session: SessionState
    _bells: Bells
    _outbox: Outbox

    def __init__(self, stream: trio.abc.Stream, decoder: p.Decoder, pause_timeout: float) -> None:
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._decoder = decoder
        self._pause_timeout = pause_timeout
        self._ahead: Sequence[p.Decoded] = ()
        """What arrived together with CONNACK."""
        self._due = math.inf
        """When the next byte has to be here, in Trio's time."""
        self._watch_scope = trio.CancelScope()
        self._watched_at = math.inf
        """When `watch` looks next."""
        self._resting = False
        self._last_read = self._last_written = trio.current_time()
        self._writing_since = math.inf
        self.bytes_read = 0

    # Before and after

    async def aclose(self) -> None:
        """Closes it at once."""
        await trio.aclose_forcefully(self._stream)

    async def handshake(self, connect: bytes, *, clean_session: bool) -> bool:
        """CONNECT and CONNACK. Returns whether the broker has the session.

        Raises:
            ConnectionRefused: the broker's answer.
            ConnectionLost: it did not answer in time, closed the connection, or answered what it
                must not.
        """
        await self._send_in_time(connect)
        while not self._ahead:
            with self._in_time(self._nothing_came):
                self._ahead = await self._read()
        answer, *self._ahead = self._ahead
        if not isinstance(answer, p.ConnAck):  # [MQTT-3.2.0-1]
            raise ProtocolViolation(f"{type(answer).__name__} in the place of CONNACK")
        if answer.return_code:
            raise _REFUSALS[answer.return_code]
        if answer.session_present and clean_session:  # [MQTT-3.2.2-1]
            raise ProtocolViolation("the broker has a session that was to be clean")
        return answer.session_present

    def attach(self, session: SessionState, outbox: Outbox, bells: Bells) -> None:
        """Serves `session` from now on, after the handshake."""
        self._session = session
        self._outbox = outbox
        self._bells = bells

    async def disconnect(self, packet: bytes) -> None:
        """Sends DISCONNECT on a connection that has no writer, and waits as `linger` does."""
        await self._send_in_time(packet)
        await self.linger()

    async def _send_in_time(self, packet: bytes) -> None:
        with self._in_time(self._nothing_left):
            await self._send(packet)

    @contextmanager
    def _in_time(self, otherwise: str) -> Generator[None, None, None]:
        """Surrounds what has to be done within `pause_timeout` while there is no `watch`."""
        with trio.move_on_after(self._pause_timeout) as scope:
            yield
        if scope.cancelled_caught:
            raise ConnectionLost(otherwise)

    async def linger(self) -> None:
        """After DISCONNECT, waits for the broker to close the connection, and not for long."""
        with trio.move_on_after(LINGER), suppress(*LOST):
            while await self._stream.receive_some(READ_SIZE):
                pass

    # The reader

    @contextmanager
    def resting(self) -> Generator[None, None, None]:
        """Surrounds the reader's waiting for the application, while nothing is due."""
        self._resting = True
        self._due = math.inf
        try:
            yield
        finally:
            self._resting = False

    async def receive(self) -> Sequence[p.Decoded]:
        """The next packets, at least one.

        Raises:
            ConnectionLost: the broker closed the connection, or sent what it must not.
        """
        packets, self._ahead = self._ahead, ()
        while not packets:
            if self._decoder.partial or self._awaits_ping():
                self._owed()
            else:
                self._due = math.inf
            packets = await self._read()
        return packets

    async def _read(self) -> Sequence[p.Decoded]:
        if self._decoder.violation is not None:
            raise self._decoder.violation
        try:
            large = self._decoder.missing >= LARGE_READ_SIZE
            data = await self._stream.receive_some(LARGE_READ_SIZE if large else READ_SIZE)
        except LOST as error:
            raise _broke(error) from error
        if not data:
            raise ConnectionLost("the broker closed the connection")
        self._last_read = trio.current_time()
        self.bytes_read += len(data)
        return self._decoder.feed(bytes(data))

    def _awaits_ping(self) -> bool:
        """Whether the broker has a PINGREQ to answer: one that is written."""
        ping = self._session.oldest_ping
        return ping is not None and ping.end <= self._outbox.written

    def _owed(self) -> None:
        """A byte is due within `pause_timeout` from now."""
        self._due = trio.current_time() + self._pause_timeout
        self._watch_from(self._due)

    # The writer

    async def write(self) -> None:
        """Writes what is in the outbox, until that was closed and everything is written.

        Raises:
            ConnectionLost: the transport broke, or took nothing for `pause_timeout` seconds.
        """
        outbox = self._outbox
        while True:
            packets = outbox.take()
            if packets:
                for piece in _pieces(packets, outbox.queued - outbox.begun):
                    await self._write(piece)
            elif outbox.closed:
                return
            else:
                await self._bells.writer.wait()

    async def _write(self, piece: bytes | memoryview) -> None:
        outbox, bells = self._outbox, self._bells
        # It has not begun if cancelled here. Between large pieces others have their turn.
        if len(piece) < PIECE_SIZE:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        outbox.begun += len(piece)
        await self._send(piece)
        outbox.written += len(piece)
        if self._due == math.inf and not self._resting and self._awaits_ping():
            self._owed()
        if bells.progress:
            bells.progress.unpark_all()
        if bells.space.waiting:
            bells.space.serve(lambda: self.has_space)

    async def _send(self, piece: bytes | memoryview) -> None:
        rest = piece
        try:
            while rest:
                sent = self._send_nowait(rest)
                if not sent:
                    part = rest if len(rest) <= PIECE_SIZE else memoryview(rest)[:PIECE_SIZE]
                    self._writing_since = now = trio.current_time()
                    self._watch_from(now + self._pause_timeout)
                    if self._resting:
                        self._bells.reader.set()  # for it to see whether this write is blocked
                    await self._stream.send_all(part)
                    sent = len(part)
                rest = b"" if sent == len(rest) else memoryview(rest)[sent:]
        except LOST as error:
            raise _broke(error) from error
        self._writing_since = math.inf
        self._last_written = trio.current_time()

    def _send_nowait(self, piece: bytes | memoryview) -> int:
        """How much of it a plain socket takes at once: saves the writer a turn of the scheduler."""
        if self._descriptor is None:
            return 0
        try:
            return os.write(self._descriptor(), piece)
        except BlockingIOError:
            return 0

    @property
    def has_space(self) -> bool:
        """Whether another message at QoS 0 may be queued."""
        outbox = self._outbox
        return outbox.queued - outbox.written < SEND_BUFFER and not outbox.closed

    @property
    def writing_since(self) -> float:
        """When the write that is under way began, in Trio's time; infinity when there is none."""
        return self._writing_since

    # Time

    async def watch(self) -> NoReturn:
        """Waits for something to be overdue.

        Raises:
            ConnectionLost: something is.
        """
        while True:
            due = min(self._due, self._writing_since + self._pause_timeout)
            if due > trio.current_time():
                self._watched_at = due
                with trio.CancelScope(deadline=due) as self._watch_scope:
                    await trio.sleep_forever()
            # What came together with the deadline, as it may when the application was slow, counts:
            # the reader and the writer have their turn first.
            await trio.lowlevel.checkpoint()
            if self._due <= trio.current_time():
                raise ConnectionLost(self._nothing_came)
            if self._writing_since + self._pause_timeout <= trio.current_time():
                raise ConnectionLost(self._nothing_left)

    def _watch_from(self, due: float) -> None:
        """Has `watch` look at `due`, if not before: it sees by itself what is due later."""
        if due < self._watched_at:
            self._watched_at = self._watch_scope.deadline = due

    @property
    def _nothing_came(self) -> str:
        return f"nothing came for {self._pause_timeout} s while a byte was due"

    @property
    def _nothing_left(self) -> str:
        return f"nothing could be written for {self._pause_timeout} s"

    async def keep_alive(self, interval: float) -> NoReturn:
        """Sends PINGREQ before `interval` seconds pass without a packet [MQTT-3.1.2-23].

        Also before as many pass without a byte from the broker: a connection that is dead swallows
        what is written for a long time.
        """
        session = self._session
        patience = interval * KEEP_ALIVE_SHARE
        pinged = -math.inf
        while True:
            quiet = self._last_written
            if not (self._resting or session.oldest_ping):
                quiet = min(quiet, self._last_read)
            due = max(quiet, pinged) + patience
            if due > trio.current_time():
                await trio.sleep_until(due)
            else:
                pinged = trio.current_time()
                session.ping()
                self._bells.writer.set()


def _broke(error: Exception) -> ConnectionLost:
    return ConnectionLost(f"the connection broke: {describe(error)}")


def _descriptor(stream: trio.abc.Stream) -> Callable[[], int] | None:
    """What tells the descriptor of a plain socket, where it can be written to like a file."""
    if sys.platform != "win32" and type(stream) is trio.SocketStream:
        return stream.socket.fileno
    return None


def _pieces(packets: list[bytes], size: int) -> Iterator[bytes | memoryview]:
    """The packets, of so many bytes, in pieces of about `PIECE_SIZE`: small ones joined, large ones
    cut."""
    if size <= PIECE_SIZE:
        yield b"".join(packets)
        return
    small: list[bytes] = []
    size = 0
    for packet in packets:
        large = len(packet) > PIECE_SIZE
        if small and size + len(packet) > PIECE_SIZE:
            yield b"".join(small)
            small.clear()
            size = 0
        if large:
            view = memoryview(packet)
            for start in range(0, len(packet), LARGE_PIECE_SIZE):
                yield view[start : start + LARGE_PIECE_SIZE]
        else:
            small.append(packet)
            size += len(packet)
    if small:
        yield b"".join(small)
