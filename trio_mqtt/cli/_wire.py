"""Watches the packets of one client on the wire, and cuts its connection at a chosen one.

A `Wire` stands between a client and its broker: its `dialer` makes the real connections, and each
is wrapped into a stream that takes the bytes of both directions apart into packets, reports them,
and passes them on unchanged. What it cannot decode it passes on unreported: to complain is the
client's business. It passes whole packets only, so that a cut is exactly where it is told to be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeAlias, TypeVar

import attrs
import trio

from trio_mqtt import Dialer, ProtocolViolation
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import client_decoder
from trio_mqtt._framing import Decoder
from trio_mqtt.testing._server311 import server_decoder

_P = TypeVar("_P")


@attrs.frozen
class Sight:
    """One packet, as it passes."""

    packet: p.Packet
    sent: bool
    """By the client; otherwise it is the broker's."""
    cut: bool = False
    """Whether the connection is cut here: behind a packet that was sent, before one received."""


Report: TypeAlias = Callable[[Sight], None]


@attrs.frozen
class Cut:
    """Where to cut: behind the next of these packets that is sent, or before the next received."""

    kinds: tuple[type[p.Packet], ...]
    sent: bool = False

    def is_at(self, packet: p.Packet, *, sent: bool) -> bool:
        return sent is self.sent and isinstance(packet, self.kinds)


class Wire:
    """What one client and its broker say to each other, over all its connections."""

    def __init__(self, dial: Dialer, name: str, report: Report) -> None:
        """Watches connections that `dial` makes, to a broker that is called `name`."""
        self._dial = dial
        self._report = report
        self._cuts: deque[Cut] = deque()
        self._open: set[tuple[bool, int]] = set()
        self._settled = trio.lowlevel.ParkingLot()

        async def dialer() -> trio.abc.Stream:
            return WatchedStream(await self._dial(), self)

        # By this name the client calls its broker in messages.
        dialer.__qualname__ = name
        self.dialer: Dialer = dialer
        """For `trio_mqtt.open_client`."""

    def cut_at(self, *cuts: Cut) -> None:
        """Cuts the connection at each of these, one after the other, and forgets earlier orders."""
        self._cuts = deque(cuts)

    async def wait_settled(self) -> None:
        """Waits until no exchange is open, be it the client's or the broker's."""
        await trio.lowlevel.checkpoint()
        while self._open:
            await self._settled.park()

    def saw(self, packet: p.Packet, *, sent: bool) -> bool:
        """Takes note of a packet. Returns whether to cut the connection here."""
        cut = bool(self._cuts) and self._cuts[0].is_at(packet, sent=sent)
        if cut:
            self._cuts.popleft()
        if sent or not cut:
            self._follow(packet, sent=sent)
        self._report(Sight(packet, sent, cut))
        return cut

    def _follow(self, packet: p.Packet, *, sent: bool) -> None:
        match packet:
            case p.Delivery(packet_id=packet_id):
                self._open.add((sent, packet_id))
            case p.PubAck(packet_id) | p.PubComp(packet_id):
                self._open.discard((not sent, packet_id))
            case p.ConnAck(session_present=False):  # the broker's exchanges are over
                self._open = {exchange for exchange in self._open if exchange[0]}
            case _:
                pass
        if not self._open:
            self._settled.unpark_all()


class WatchedStream(trio.abc.Stream):
    """One connection under a `Wire`."""

    def __init__(self, stream: trio.abc.Stream, wire: Wire) -> None:
        self._stream = stream
        self._wire = wire
        self._sent = _Packets(server_decoder())
        self._received = _Packets(client_decoder())
        self._ready = bytearray()
        """What was received and not yet taken."""
        self._cut = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check()
        for raw, packet in self._sent.feed(bytes(data)):
            # First reported, then sent: the answer may come before `send_all` is back.
            cut = packet is not None and self._wire.saw(packet, sent=True)
            await self._stream.send_all(raw)
            if cut:
                await self._break()
                self._check()
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        self._check()
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._ready:
            self._check()
            data = await self._receive()
            if not data:
                return b""
            if self._take_in(data):
                await self._break()
        taken = bytes(self._ready[:max_bytes])
        del self._ready[: len(taken)]
        return taken

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some())
        except trio.ClosedResourceError:
            self._check()  # it was us who closed it
            raise

    def _take_in(self, data: bytes) -> bool:
        """Makes ready what may pass. Returns whether to cut the connection behind it."""
        for raw, packet in self._received.feed(data):
            if packet is not None and self._wire.saw(packet, sent=False):
                return True
            self._ready += raw
        return False

    async def _break(self) -> None:
        self._cut = True
        await trio.aclose_forcefully(self._stream)

    def _check(self) -> None:
        if self._cut:
            raise trio.BrokenResourceError("it was cut")


class _Packets(Generic[_P]):
    """Takes the bytes of one direction apart into packets."""

    def __init__(self, decoder: Decoder[_P]) -> None:
        self._decoder = decoder
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, _P | p.Message | p.Delivery | None]]:
        """The packets that `data` completes: their bytes, and what they mean, if anything."""
        self._held += data
        while size := _size(self._held):
            raw = bytes(self._held[:size])
            del self._held[:size]
            yield raw, self._decode(raw)

    def _decode(self, raw: bytes) -> _P | p.Message | p.Delivery | None:
        try:
            return self._decoder.feed(raw)[0]
        except ProtocolViolation:
            return None


def _size(data: bytearray) -> int:
    """The size of the first packet, 0 if it is incomplete. Behind a malformed length: all of it."""
    remaining = 0
    for index, byte in enumerate(data[1:5]):
        remaining |= (byte & 0x7F) << 7 * index
        if byte <= 0x7F:
            size = 2 + index + remaining
            return size if size <= len(data) else 0
    return len(data) if len(data) >= 5 else 0
