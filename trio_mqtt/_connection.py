"""One network connection: handshake, the only reader, the only writer, keep-alive.

Three tasks use a connection, and each does one thing. The reader calls `receive`, inside `reading`.
The writer runs `write`, and nobody else ever touches the sending side: a `send_all` that is
cancelled leaves half a packet, so it is cancelled only together with the connection. The third runs
`keep_alive`. Whatever ends the connection is raised as `ConnectionLost` in one of the three.

Progress is measured in bytes. Whenever the broker owes something, the rest of a packet or an answer
to PINGREQ, one byte has to arrive within `pause_timeout`; whenever we write, one piece has to leave
within it. While the application keeps the reader waiting (`resting`), nothing is owed.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import outcome
import trio

from . import _packets as p
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
from ._session import Ping, Session

READ_SIZE = 65_536
PIECE_SIZE = 65_536
"""How much is written at once, so that progress shows."""
SEND_BUFFER = 1024 * 1024
"""How many bytes may wait for the network before more messages at QoS 0 have to."""
KEEP_ALIVE_SHARE = 0.75
"""How much of the keep-alive may pass in silence. The specification allows all of it
[MQTT-3.1.2-23]; the rest is for a task that is scheduled late and a network that is slow."""
LINGER = 2.0
"""Seconds that the broker has to close the connection after DISCONNECT. Closing it before all that
it sent is read may reset the connection, and with it undo a DISCONNECT that is on its way."""

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
    """Wakes the one task that waits for work. Without one, the next wait returns at once."""

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._due = False

    def set(self) -> None:
        if self._task is None:
            self._due = True
        else:
            trio.lowlevel.reschedule(self._task, outcome.Value(None))
            self._task = None

    async def wait(self) -> None:
        """Returns without a checkpoint if it is due."""
        if not self._due:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        self._due = False

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Connection:
    """A transport with a decoder: see above."""

    def __init__(self, stream: trio.abc.Stream, decoder: p.Decoder, pause_timeout: float) -> None:
        self._stream = stream
        self._decoder = decoder
        self._pause_timeout = pause_timeout
        self._ahead: Sequence[p.Inbound] = ()
        """What arrived together with CONNACK."""
        self._read_scope = trio.CancelScope()
        self._resting = False
        self._last_read = self._last_written = trio.current_time()
        self._writing_since = math.inf
        self.outbox = Outbox()
        """What `write` writes. After the handshake the session brings its own."""
        self.written = trio.lowlevel.ParkingLot()
        """Tasks that wait for the transport to take certain bytes."""
        self.space = trio.lowlevel.ParkingLot()
        """Tasks that wait until `has_space`."""
        self.bytes_read = 0

    # Before and after

    async def handshake(self, connect: bytes, *, clean_session: bool) -> bool:
        """CONNECT and CONNACK. Returns whether the broker has the session.

        Raises:
            ConnectionRefused: the broker's answer.
            ConnectionLost: it did not answer in time, closed the connection, or answered what it
                must not.
        """
        with self.reading():
            await self._send(connect)
            while not self._ahead:
                self._owed()
                self._ahead = await self._read()
        answer, *self._ahead = self._ahead
        if not isinstance(answer, p.ConnAck):  # [MQTT-3.2.0-1]
            raise ProtocolViolation(f"{type(answer).__name__} in the place of CONNACK")
        if answer.return_code:
            raise _REFUSALS[answer.return_code]
        if answer.session_present and clean_session:  # [MQTT-3.2.2-1]
            raise ProtocolViolation("the broker has a session that was to be clean")
        return answer.session_present

    async def disconnect(self, packet: bytes) -> None:
        """Sends DISCONNECT on a connection that has no writer, and waits as `linger` does."""
        await self._send(packet)
        await self.linger()

    async def linger(self) -> None:
        """After DISCONNECT, waits for the broker to close the connection, and not for long."""
        with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, OSError):
            while await self._stream.receive_some(READ_SIZE):
                pass

    def close(self) -> None:
        """Wakes who waits for it. The stream itself is its opener's to close."""
        self.written.unpark_all()
        self.space.unpark_all()

    # The reader

    @contextmanager
    def reading(self) -> Generator[None, None, None]:
        """Surrounds the reader, to end it when the broker makes no progress.

        Raises:
            ConnectionLost: no byte came in `pause_timeout` seconds, and one was due.
        """
        with trio.CancelScope() as self._read_scope:
            yield
        if self._read_scope.cancelled_caught:
            raise ConnectionLost(f"nothing came for {self._pause_timeout} s while a byte was due")

    @contextmanager
    def resting(self) -> Generator[None, None, None]:
        """Surrounds the reader's waiting for the application, while nothing is due."""
        self._resting = True
        self._read_scope.deadline = math.inf
        try:
            yield
        finally:
            self._resting = False

    async def receive(self, session: Session) -> Sequence[p.Inbound]:
        """The next packets, at least one.

        Raises:
            ConnectionLost: the broker closed the connection, or sent what it must not.
        """
        packets, self._ahead = self._ahead, ()
        while not packets:
            if self._decoder.partial or session.awaits_ping:
                self._owed()
            elif self._read_scope.deadline != math.inf:
                self._read_scope.deadline = math.inf
            packets = await self._read()
        return packets

    async def _read(self) -> Sequence[p.Inbound]:
        if self._decoder.violation is not None:
            raise self._decoder.violation
        try:
            data = await self._stream.receive_some(READ_SIZE)
        except (trio.BrokenResourceError, OSError) as error:
            raise ConnectionLost(f"the connection broke: {error!r}") from error
        if not data:
            raise ConnectionLost("the broker closed the connection")
        self._last_read = trio.current_time()
        self.bytes_read += len(data)
        return self._decoder.feed(bytes(data))

    def _owed(self) -> None:
        """A byte is due within `pause_timeout` from now."""
        self._read_scope.deadline = trio.current_time() + self._pause_timeout

    # The writer

    async def write(self, wakeup: Wakeup) -> None:
        """Writes what is in the outbox, until that was closed and everything is written.

        Raises:
            ConnectionLost: the transport broke, or took nothing for `pause_timeout` seconds.
        """
        outbox = self.outbox
        while True:
            packets = outbox.take()
            if packets:
                await self._write(outbox, packets)
            elif outbox.closed:
                return
            else:
                await wakeup.wait()

    async def _write(self, outbox: Outbox, packets: list[bytes]) -> None:
        for piece in _pieces(packets):
            outbox.begun += len(piece)
            await self._send(piece)
            outbox.written += len(piece)
            if self.written:
                self.written.unpark_all()
            if self.space and self.has_space:
                self.space.unpark_all()

    async def _send(self, piece: bytes | memoryview) -> None:
        self._writing_since = trio.current_time()
        with trio.move_on_after(self._pause_timeout) as scope:
            try:
                await self._stream.send_all(piece)
            except (trio.BrokenResourceError, OSError) as error:
                raise ConnectionLost(f"the connection broke: {error!r}") from error
        if scope.cancelled_caught:
            raise ConnectionLost(f"nothing could be written for {self._pause_timeout} s")
        self._writing_since = math.inf
        self._last_written = trio.current_time()

    @property
    def has_space(self) -> bool:
        """Whether another message at QoS 0 may be queued."""
        return self.outbox.backlog < SEND_BUFFER

    @property
    def is_full(self) -> bool:
        """Whether it may not, or others wait for it already."""
        return bool(self.space) or not self.has_space

    @property
    def writing_since(self) -> float:
        """When the write that is under way began, in Trio's time; infinity when there is none."""
        return self._writing_since

    # Keep-alive

    async def keep_alive(self, session: Session, wakeup: Wakeup, interval: float) -> NoReturn:
        """Sends PINGREQ before `interval` seconds pass without a packet [MQTT-3.1.2-23].

        Also before as many pass without a byte from the broker: a connection that is dead swallows
        what is written for a long time.
        """
        patience = interval * KEEP_ALIVE_SHARE
        pinged = -math.inf
        while True:
            quiet = self._last_written
            if not (self._resting or session.awaits_ping):
                quiet = min(quiet, self._last_read)
            due = max(quiet, pinged) + patience
            if due > trio.current_time():
                await trio.sleep_until(due)
            else:
                pinged = trio.current_time()
                self.ping(session)
                wakeup.set()

    def ping(self, session: Session) -> Ping:
        """Queues PINGREQ, and expects a byte in answer."""
        ping = session.ping()
        if not self._resting and self._read_scope.deadline == math.inf:
            self._owed()
        return ping


def _pieces(packets: list[bytes]) -> Iterator[bytes | memoryview]:
    """The packets in pieces of about `PIECE_SIZE`: small ones joined, large ones cut."""
    small: list[bytes] = []
    size = 0
    for packet in packets:
        large = len(packet) > PIECE_SIZE
        if small and (large or size >= PIECE_SIZE):
            yield b"".join(small)
            small.clear()
            size = 0
        if large:
            view = memoryview(packet)
            for start in range(0, len(packet), PIECE_SIZE):
                yield view[start : start + PIECE_SIZE]
        else:
            small.append(packet)
            size += len(packet)
    if small:
        yield b"".join(small)
