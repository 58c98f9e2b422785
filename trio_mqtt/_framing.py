"""Bytes to packets, incrementally: what the versions of MQTT have in common (section 2.2)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

from . import _packets as p
from ._errors import ProtocolViolation

PUBLISH = 0x30
"""The first byte of the packet, with neither flag set."""

_NAMES = (
    "packet type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT",
    "packet type 15",
)  # fmt: skip

_P = TypeVar("_P", covariant=True)


class Reader(NamedTuple, Generic[_P]):
    """How to read the packets that begin with one certain byte."""

    least: int
    """The least remaining length."""
    most: int
    read: Callable[[bytes, int, int], _P]
    """From the packet's bytes, where its variable header starts, and where its payload stops."""


LARGE = 65_536
"""Bytes of a PUBLISH from which on its payload is gathered on its own: copied once, not twice."""


FORESEEN = 4 * 1024 * 1024
"""Bytes of a payload for which memory is taken before they arrive."""


class _LargePublish:
    """A PUBLISH of which the payload is not complete.

    What `BytesIO` gathers it hands over without a copy. So a message takes its own size in memory,
    and no more.
    """

    def __init__(self, packet: p.Message | p.Delivery, remaining: int) -> None:
        self._packet = packet
        self._message = p.message_of(packet)
        size = len(self._message.payload) + remaining
        # To write in the place where all of it goes costs a third of growing with what arrives, but
        # more than a little is not taken on the mere word of the broker.
        self._payload = io.BytesIO(bytes(size)) if size <= FORESEEN else io.BytesIO()
        self._payload.write(self._message.payload)
        self.remaining = remaining

    def feed(self, data: bytes) -> int:
        """Takes what it can use of `data`, and returns how much that is."""
        used = min(len(data), self.remaining)
        self._payload.write(data if used == len(data) else memoryview(data)[:used])
        self.remaining -= used
        return used

    def complete(self) -> p.Message | p.Delivery | None:
        """The packet, once all of it is there."""
        if self.remaining:
            return None
        self._message.payload = self._payload.getvalue()
        return self._packet


class Streaming(NamedTuple, Generic[_P]):
    """Which messages are streamed, and how it is told that more of one arrived."""

    over: int
    grown: Callable[[p.Message | p.Delivery], _P]


class Decoder(Generic[_P]):
    """Bytes to packets: see `trio_mqtt._packets.Decoder`.

    Arguments:
        readers: by the first byte of a packet.
        publish_header: how many bytes of a PUBLISH, from where its variable header starts, have to
            be there to know its topic and all else but the payload.
        streams: which messages are streamed, if any: these are complete without their payload.
    """

    def __init__(
        self,
        readers: Mapping[int, Reader[_P | p.Message | p.Delivery]],
        publish_header: Callable[[bytes, int], int],
        streams: Streaming[_P] | None = None,
    ) -> None:
        self._readers = readers
        self._publish_header = publish_header
        self._pieces: list[bytes] = []
        self._held = 0  # how many bytes the pieces hold
        self._wanted = 0  # how many they must hold before a look at them is worth it
        self._large: _LargePublish | None = None
        self._streams = streams
        self._stream_over = p.MAX_PACKET_BYTES if streams is None else streams.over
        self._streamed: p.Message | p.Delivery | None = None
        self.violation: ProtocolViolation | None = None

    @property
    def partial(self) -> bool:
        return self._held > 0 or self._large is not None or self._streamed is not None

    @property
    def missing(self) -> int:
        return 0 if self._large is None else self._large.remaining

    def feed(self, data: bytes) -> list[_P | p.Message | p.Delivery]:
        if self.violation is not None:
            raise self.violation
        packets: list[_P | p.Message | p.Delivery] = []
        if self._streamed is not None:
            data = data[self._go_on_streaming(self._streamed, data, packets) :]
            if self._streamed is not None:
                return packets
        elif self._large is not None:
            used = self._large.feed(data)
            packet = self._large.complete()
            if packet is None:
                return packets
            self._large = None
            packets.append(packet)
            data = data[used:]
        elif self._held:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return packets
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held = 0
        try:
            self._decode(data, packets)
        except ProtocolViolation as violation:
            self.violation = violation
            if not packets:
                raise
        return packets

    def _decode(self, data: bytes, packets: list[_P | p.Message | p.Delivery]) -> None:
        """Appends what `data` completes to `packets`, and keeps the rest."""
        readers, stream_over = self._readers, self._stream_over
        position, end, wanted = 0, len(data), 0
        while position < end:
            reader = readers.get(data[position])
            if reader is None:
                raise _unexpected(data[position])
            start = position + 2
            if start > end:
                wanted = 2
                break
            remaining = data[position + 1]
            if remaining > 0x7F:
                start, remaining = long_length(data, position + 1)
                if not start:
                    wanted = end - position + 1
                    break
            least, most, read = reader
            if not least <= remaining <= most:
                name = _NAMES[data[position] >> 4]
                raise ProtocolViolation(f"{name} with a remaining length of {remaining}")
            stop = start + remaining
            if stop <= end and remaining <= stream_over:
                packets.append(read(data, start, stop))
                position = stop
            else:
                position, wanted = self._take_large(data, position, start, stop, packets)
                if wanted:
                    break
        if wanted:
            self._pieces.append(data[position:])
            self._held = end - position
            self._wanted = wanted

    def _take_large(
        self,
        data: bytes,
        position: int,
        start: int,
        stop: int,
        packets: list[_P | p.Message | p.Delivery],
    ) -> tuple[int, int]:
        """Takes a packet that is not all there, or large enough to be streamed, as far as it can.

        Returns where it got to, and how many bytes the packet wants to go on, if any.
        """
        end, read = len(data), self._readers[data[position]].read
        if stop - start > self._stream_over and data[position] & 0xF0 == PUBLISH:
            behind = min(start + self._publish_header(data, start), stop)
            if behind > end:
                return position, behind - position
            if self._begin_streaming(read(data, start, behind), data, behind, stop, packets):
                return min(stop, end), 0
        if stop > end:
            wanted = self._begin_large(data, position, start, stop)
            return (position, wanted) if wanted else (end, 0)
        packets.append(read(data, start, stop))
        return stop, 0

    def _begin_streaming(
        self,
        packet: _P | p.Message | p.Delivery,
        data: bytes,
        position: int,
        stop: int,
        packets: list[_P | p.Message | p.Delivery],
    ) -> bool:
        """Appends a PUBLISH, if its payload is to be streamed, and what there is of that.

        Arguments:
            packet: read with what stands before `position`, of which a little may be payload.
        """
        assert isinstance(packet, p.Message | p.Delivery)
        message = p.message_of(packet)
        size = stop - position + len(message.payload)
        if size <= self._stream_over:
            return False
        streamed = p.Streamed(
            message.topic, b"", message.qos, message.retain, message.dup, body=p.Body(size)
        )
        if isinstance(packet, p.Message):
            packet = streamed
        else:
            packet.message = streamed
            packet.complete = False
        packets.append(packet)
        self._go_on_streaming(packet, message.payload + data[position:stop], packets)
        return True

    def _go_on_streaming(
        self,
        packet: p.Message | p.Delivery,
        data: bytes,
        packets: list[_P | p.Message | p.Delivery],
    ) -> int:
        """Hands on what there is of the payload, and returns how much of `data` that was."""
        message = p.message_of(packet)
        assert isinstance(message, p.Streamed)
        assert self._streams is not None
        used = message.body.feed(data)
        self._streamed = packet
        if message.body.is_complete:
            self._streamed = None
            if isinstance(packet, p.Delivery):
                packet.complete = True
        packets.append(self._streams.grown(packet))
        return used

    def _begin_large(self, data: bytes, position: int, start: int, stop: int) -> int:
        """How many bytes a packet wants that is not all there; 0 when its beginning is enough."""
        if stop - start < LARGE or data[position] & 0xF0 != PUBLISH:
            return stop - position
        header = self._publish_header(data, start)
        if start + header > len(data):
            return min(start + header, stop) - position
        # No other packet is that large.
        packet = self._readers[data[position]].read(data, start, len(data))
        assert isinstance(packet, p.Message | p.Delivery)
        self._large = _LargePublish(packet, stop - len(data))
        return 0


def _unexpected(first: int) -> ProtocolViolation:
    name = _NAMES[first >> 4]
    return ProtocolViolation(f"{name} with flags {first & 0xF:#06b} is not for this side to send")


def long_length(data: bytes, position: int) -> tuple[int, int]:
    """Where a remaining length of two bytes and more ends, and what it says; 0 where it goes on
    beyond `data` (section 2.2.3)."""
    remaining = 0
    for index, byte in enumerate(data[position : position + 4]):
        remaining |= (byte & 0x7F) << 7 * index
        if byte <= 0x7F:
            return position + index + 1, remaining
    if len(data) >= position + 4:
        raise ProtocolViolation("a remaining length of more than four bytes")
    return 0, 0
