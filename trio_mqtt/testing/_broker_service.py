"""Serves network connections: the part of the broker that does I/O.

Each connection has a task that reads and one that writes. The reader has `Core` act on what came,
and `Service.settle` then wakes every writer, as a packet of one client's concerns others. A writer
takes all that is queued at once. So a slow client keeps nobody waiting; what it does not read piles
up, which a broker for tests can afford. A cancel scope for each connection is how others end it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import attrs
import trio

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt._errors import ProtocolViolation

from ._broker_core import Core
from ._broker_link import Link, LinkState
from ._broker_session import Raw, Session
from ._server311 import server_decoder

CONNECT_WAIT = 10
"""Seconds that a network connection has for its CONNECT."""
KEEP_ALIVE_FACTOR = 1.5
"""How much of the keep-alive a client may be silent [MQTT-3.1.2-24]. A part of a packet counts as a
sign of life, as it does with mosquitto: a large one may take long."""
PARTED_WAIT = 0.05
"""Seconds that a client has to close the connection after DISCONNECT, as it must
[MQTT-3.14.4-1]. Until then the broker looks out for bytes that may not follow; it is short, as
clients wait for the broker to close first."""
CLOSING_WAIT = 10
"""Seconds that a client which is being disconnected has to read what is still to be said."""

Answer: TypeAlias = Callable[[str, p.Packet], Sequence[p.Packet] | None]
"""From a client's identifier and a packet for it to what it gets instead; None lets it pass."""


@attrs.frozen
class Record:
    """One packet that went over a network connection."""

    time: float
    """By Trio's clock."""
    client_id: str
    """Empty before CONNECT."""
    direction: Literal["in", "out"]
    """As the broker sees it: "in" is from the client."""
    packet: p.Packet | bytes
    """Bytes only where a test sent such, with `Broker.send`."""


Watch: TypeAlias = Callable[[Record], None]
"""Is told each packet."""


class Service:
    """What the connections of one broker share."""

    def __init__(
        self,
        core: Core,
        answer: Answer | None,
        *,
        watch: Watch | None = None,
        session_expiry: float = math.inf,
    ) -> None:
        self.core = core
        self.answer = answer
        self._watch = watch
        self.log: list[Record] = []
        self.ended = False
        self._session_expiry = session_expiry
        self._expiring: dict[Session, float] = {}
        """The sessions without connection, and when they end: the next one first."""
        self._scopes: dict[Link, trio.CancelScope] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self._resumed = trio.Event()
        self._resumed.set()

    def record(self, link: Link, direction: Literal["in", "out"], packet: p.Packet | bytes) -> None:
        """Appends to the log, or tells who watches."""
        record = Record(trio.current_time(), link.client_id, direction, packet)
        if self._watch is None:
            self.log.append(record)
        else:
            self._watch(record)

    def settle(self) -> None:
        """Has the connections perform what the core decided. To be called after a transition."""
        for link, scope in self._scopes.items():
            if link.state is LinkState.CUT:
                scope.cancel()
        self._note_expiring()
        self._changed.unpark_all()

    def _note_expiring(self) -> None:
        if self._session_expiry < math.inf:
            end = trio.current_time() + self._session_expiry
            for session in self.core.left:
                self._expiring.pop(session, None)  # to go to the end
                self._expiring[session] = end
        self.core.left.clear()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits until transitions have made `condition` true. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.park()

    @trio.lowlevel.enable_ki_protection
    async def expire_sessions(self) -> None:
        """Ends each session when its client has been away for too long. Runs until cancelled."""
        while True:
            await self.wait_until(lambda: bool(self._expiring))
            session, end = next(iter(self._expiring.items()))
            await trio.sleep_until(end)
            if self._expiring.get(session) == end:  # else it was used meanwhile
                del self._expiring[session]
                self.core.end_session(session)
                self.settle()

    @property
    def paused(self) -> bool:
        """Whether the broker stands still."""
        return not self._resumed.is_set()

    def pause(self) -> None:
        """Stands still: no connection is read from, or written to."""
        if not self.paused:
            self._resumed = trio.Event()

    def resume(self) -> None:
        """Ends `pause`."""
        self._resumed.set()

    async def wait_resumed(self) -> None:
        """Waits while the broker stands still. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.paused:
            await self._resumed.wait()

    @trio.lowlevel.enable_ki_protection
    async def serve(
        self,
        stream: trio.abc.Stream,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves `stream` to its end, and closes it. Started when the core knows of it."""
        link = self.core.open_link()
        connection = _Connection(self, link, stream)
        try:
            with trio.CancelScope() as scope:
                self._scopes[link] = scope
                task_status.started()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.write_all, scope)
                    nursery.start_soon(connection.read_all, scope)
        finally:
            self._scopes.pop(link, None)
            self.core.close_link(link)
            self.settle()
            await trio.aclose_forcefully(stream)


class _Connection:
    """The two tasks of one network connection. The end of either is that of both."""

    def __init__(self, service: Service, link: Link, stream: trio.abc.Stream) -> None:
        self._service = service
        self._link = link
        self._stream = stream
        self._decoder = server_decoder()
        self._deadline = trio.current_time() + self._patience()

    # Reading

    @trio.lowlevel.enable_ki_protection
    async def read_all(self, scope: trio.CancelScope) -> None:
        """Reads until the client closes, or is silent for too long."""
        while True:
            await self._wait_resumed()
            data: bytes | None = None
            try:
                with trio.CancelScope(deadline=self._deadline):
                    data = bytes(await self._stream.receive_some())
            except trio.BrokenResourceError:
                data = b""
            if data is None and self._service.paused:
                continue
            if not data:
                break
            await self._wait_resumed()
            self._receive(data)
        scope.cancel()

    async def _wait_resumed(self) -> None:
        """Waits while the broker stands still, which does not count as the client's silence."""
        paused = self._service.paused
        await self._service.wait_resumed()
        if paused:
            self._deadline = trio.current_time() + self._patience()

    def _patience(self) -> float:
        """The seconds that the client may be silent in this state."""
        link = self._link
        if link.state is not LinkState.OPEN:
            return PARTED_WAIT if link.state is LinkState.PARTED else CLOSING_WAIT
        if link.session is None:
            return CONNECT_WAIT
        return link.keep_alive * KEEP_ALIVE_FACTOR or math.inf

    def _receive(self, data: bytes) -> None:
        state = self._link.state
        try:
            if state is LinkState.OPEN:
                self._feed(data)
            elif state is LinkState.PARTED:
                raise ProtocolViolation("bytes after DISCONNECT")  # [MQTT-3.14.4-2]
        except ProtocolViolation as violation:
            self._service.core.violated(self._link, violation)
        if self._link.session is not None or self._link.state is not state:
            self._deadline = trio.current_time() + self._patience()
        self._service.settle()

    def _feed(self, data: bytes) -> None:
        for packet in self._decoder.feed(data):
            try:
                self._service.core.receive(self._link, packet)
            finally:
                self._service.record(self._link, "in", packet)
            if not self._listening:
                return  # [MQTT-3.1.4-5]
        if self._decoder.violation is not None:
            raise self._decoder.violation
        if self._link.state is LinkState.PARTED and self._decoder.partial:
            raise ProtocolViolation("bytes after DISCONNECT")  # [MQTT-3.14.4-2]

    @property
    def _listening(self) -> bool:
        return self._link.state in (LinkState.OPEN, LinkState.PARTED)

    # Writing

    @trio.lowlevel.enable_ki_protection
    async def write_all(self, scope: trio.CancelScope) -> None:
        """Writes what is queued, until the client is gone or there is nothing more to say."""
        while True:
            await self._service.wait_until(self._has_work)
            await self._service.wait_resumed()
            data = self._take_outbound()
            if data:
                try:
                    await self._stream.send_all(data)
                except trio.BrokenResourceError:
                    break
            elif self._link.state is LinkState.CLOSING:
                break
        scope.cancel()

    def _has_work(self) -> bool:
        return bool(self._link.outbound) or self._link.state is LinkState.CLOSING

    def _take_outbound(self) -> bytes:
        pieces: list[bytes] = []
        while self._link.outbound:  # the hook may add to it, or cut the connection
            outgoing = self._link.outbound.popleft()
            if isinstance(outgoing, Raw):
                pieces.append(self._encoded(outgoing.packet))
                continue
            for packet in self._answers(outgoing):
                self._link.wrote(packet)
                pieces.append(self._encoded(packet))
        return b"".join(pieces)

    def _answers(self, packet: p.Packet) -> Iterable[p.Packet]:
        hook = self._service.answer
        answers = None if hook is None else hook(self._link.client_id, packet)
        return (packet,) if answers is None else answers

    def _encoded(self, packet: p.Packet | bytes) -> bytes:
        self._service.record(self._link, "out", packet)
        return packet if isinstance(packet, bytes) else encode(packet)
