"""MQTT 3.1.1 bytes to packets and back, incrementally, in batches.

How decoding works. The first byte of a packet holds its type and its flags, and for all of them but
PUBLISH the flags are fixed. So one table, from first byte to `Reader`, says all there is to say
about what a peer may send: a byte that is missing *is* the protocol violation, be it a reserved
flag [MQTT-2.2.2-2], QoS 3 [MQTT-3.3.1-4], or a packet that only the other side sends. A reader also
knows the least and the largest length of its packet, so that a declared length is refused before
anything of that length is awaited, let alone held.

`Decoder.feed` takes whatever the network gave and returns the packets that it completes, in one
pass. What is left at the end, the beginning of a packet, is kept in pieces, and joined once when
the last of them is there: a large message costs no more by arriving slowly.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from . import _packets as p
from ._errors import Denied, ProtocolViolation
from ._framing import Decoder, Reader, Streaming, long_length
from ._topics import topic_name_flaw

PROTOCOL_LEVEL = 4
MAX_REMAINING_LENGTH = p.MAX_PACKET_BYTES

_CACHED_TOPICS = 1_000
"""Applications use few topics, many times. A cache that is full starts anew, so that it stays small
where each message has a topic of its own."""
_CACHED_TOPIC_BYTES = 256
"""Longer topics are not worth the memory."""

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = (
    0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70,
)  # fmt: skip
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = (
    0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xD0, 0xE0,
)  # fmt: skip
DUP, RETAIN = 0x08, 0x01

# The bits of the connect flags, section 3.1.2.
USERNAME, PASSWORD, WILL_RETAIN, WILL, CLEAN = 0x80, 0x40, 0x20, 0x04, 0x02

_CUT_SHORT = "PUBLISH ends before its topic and packet identifier do"
_PACKET_ID_0 = "packet identifier 0"

_pack_short_head = struct.Struct(">BB").pack
_pack_ack = struct.Struct(">BBH").pack
_ACKS = {p.PubAck: PUBACK, p.PubRec: PUBREC, p.PubRel: PUBREL, p.PubComp: PUBCOMP}


# Packets to bytes


def _length(remaining: int) -> bytes:
    """A remaining length, section 2.2.3."""
    if remaining > MAX_REMAINING_LENGTH:
        raise Denied(f"the packet takes {remaining} bytes, of {MAX_REMAINING_LENGTH} at most")
    encoded = bytearray()
    while remaining > 0x7F:
        encoded.append(remaining & 0x7F | 0x80)
        remaining >>= 7
    encoded.append(remaining)
    return bytes(encoded)


def _packet(first: int, *body: bytes) -> bytes:
    return b"".join((bytes((first,)), _length(sum(map(len, body))), *body))


def _string(data: str | bytes) -> bytes:
    """A string or binary data behind its length, section 1.5.3."""
    if isinstance(data, str):
        data = data.encode()
    return len(data).to_bytes(2) + data


@functools.singledispatch
def encode(packet: p.Packet) -> bytes:
    """The bytes of any packet."""
    raise AssertionError(f"no packet: {packet!r}")


@encode.register
def _(packet: p.Connect) -> bytes:
    flags = CLEAN if packet.clean_session else 0
    payload = [_string(packet.client_id)]  # [MQTT-3.1.3-1] [MQTT-3.1.3-3]
    if packet.will is not None:
        flags |= WILL | packet.will.qos << 3 | (WILL_RETAIN if packet.will.retain else 0)
        payload += (_string(packet.will.topic), _string(packet.will.payload))
    if packet.username is not None:
        flags |= USERNAME
        payload.append(_string(packet.username))
    if packet.password is not None:
        flags |= PASSWORD
        payload.append(_string(packet.password))
    header = struct.pack(">6sBBH", b"\0\4MQTT", PROTOCOL_LEVEL, flags, packet.keep_alive)
    return _packet(CONNECT, header, *payload)


@encode.register
def _(packet: p.UnsupportedLevel) -> bytes:
    return _packet(CONNECT, b"\0\4MQTT", bytes((packet.level, 0, 0, 0)))


@encode.register
def _(packet: p.ConnAck) -> bytes:
    return _packet(CONNACK, bytes((packet.session_present, packet.return_code)))


@encode.register
def _(packet: p.Message) -> bytes:
    return _publish(packet, _string(packet.topic), b"")


@encode.register
def _(packet: p.Delivery) -> bytes:
    message = packet.message
    return _publish(message, _string(message.topic), packet.packet_id.to_bytes(2))


def _publish(message: p.Message, topic: bytes, packet_id: bytes) -> bytes:
    flags = message.qos << 1 | (RETAIN if message.retain else 0) | (DUP if message.dup else 0)
    return _packet(PUBLISH | flags, topic, packet_id, message.payload)


@encode.register(p.PubAck)
@encode.register(p.PubRec)
@encode.register(p.PubRel)
@encode.register(p.PubComp)
def _(packet: p.Ack) -> bytes:
    return _pack_ack(_ACKS[type(packet)], 2, packet.packet_id)


@encode.register
def _(packet: p.Subscribe) -> bytes:
    body = (_string(topic_filter) + bytes((qos,)) for topic_filter, qos in packet.requests)
    return _packet(SUBSCRIBE, packet.packet_id.to_bytes(2), *body)


@encode.register
def _(packet: p.SubAck) -> bytes:
    return _packet(SUBACK, packet.packet_id.to_bytes(2), bytes(packet.return_codes))


@encode.register
def _(packet: p.Unsubscribe) -> bytes:
    return _packet(UNSUBSCRIBE, packet.packet_id.to_bytes(2), *map(_string, packet.topic_filters))


@encode.register
def _(packet: p.UnsubAck) -> bytes:
    return _pack_ack(UNSUBACK, 2, packet.packet_id)


@encode.register
def _(_: p.PingReq) -> bytes:
    return _packet(PINGREQ)


@encode.register
def _(_: p.PingResp) -> bytes:
    return _packet(PINGRESP)


@encode.register
def _(_: p.Disconnect) -> bytes:
    return _packet(DISCONNECT)


class Codec:
    """MQTT 3.1.1 for one client: see `trio_mqtt._packets.Codec`."""

    def __init__(self) -> None:
        self._topics: dict[str, bytes] = {}

    def encode(self, packet: p.Packet) -> bytes:
        return encode(packet)

    def encode_publish_header(
        self, topic: str, payload_size: int, qos: p.QoS, packet_id: int, *, retain: bool
    ) -> bytes:
        variable_header = self._topics.get(topic) or self._encode_topic(topic)
        if qos:
            variable_header += packet_id.to_bytes(2)
        remaining = len(variable_header) + payload_size
        first = PUBLISH | qos << 1 | retain
        if remaining < 0x80:
            return _pack_short_head(first, remaining) + variable_header
        return bytes((first,)) + _length(remaining) + variable_header

    def _encode_topic(self, topic: str) -> bytes:
        encoded = _string(topic)
        if len(encoded) <= _CACHED_TOPIC_BYTES:
            if len(self._topics) >= _CACHED_TOPICS:
                self._topics.clear()
            self._topics[topic] = encoded
        return encoded

    def encode_ack(self, answer: type[p.Ack], packet_id: int) -> bytes:
        return _pack_ack(_ACKS[answer], 2, packet_id)

    def encode_acks(self, answer: type[p.Ack], packet_ids: Sequence[int]) -> bytes:
        head = _ACKS[answer] << 24 | 2 << 16
        return struct.pack(f">{len(packet_ids)}I", *[head | packet_id for packet_id in packet_ids])

    def as_duplicate(self, publish: bytes) -> bytes:
        return bytes((publish[0] | DUP,)) + publish[1:]

    def with_packet_id(self, publish: bytes, packet_id: int) -> bytes:
        start = 2 if publish[1] <= 0x7F else long_length(publish, 1)[0]
        position = start + 2 + int.from_bytes(publish[start : start + 2])
        return b"".join((publish[:position], packet_id.to_bytes(2), publish[position + 2 :]))

    def new_decoder(self, stream_over: int | None = None) -> p.Decoder:
        return client_decoder() if stream_over is None else streaming_decoder(stream_over)


# Bytes to packets


def client_decoder() -> Decoder[p.Inbound]:
    """A decoder of what a broker sends, which streams nothing."""
    return Decoder({**_CLIENT_READERS, **publish_readers()}, publish_header)


def streaming_decoder(over: int) -> Decoder[p.Decoded]:
    """A decoder of what a broker sends, which streams payloads of more than so many bytes."""
    readers: Mapping[int, Reader[p.Decoded]] = {**_CLIENT_READERS, **publish_readers()}
    return Decoder(readers, publish_header, Streaming(over, p.Grown))


def publish_readers() -> dict[int, Reader[p.Message | p.Delivery]]:
    """Of PUBLISH, with a cache of topics of their own."""
    topics = _TopicCache()
    return {
        PUBLISH | dup << 3 | qos << 1 | retain: _publish_reader(topics, qos, retain=retain, dup=dup)
        for qos in p.QOS_LEVELS
        for retain in (False, True)
        for dup in ((False, True) if qos else (False,))  # [MQTT-3.3.1-2]
    }


def publish_header(data: bytes, start: int) -> int:
    """How many bytes are enough to know the topic and the packet identifier, or to look again."""
    if len(data) < start + 2:
        return 2
    return 2 + (data[start] << 8 | data[start + 1]) + 2


class _TopicCache(dict[bytes, str]):
    """The topics that arrived of late, so that each is decoded and checked once."""

    def __missing__(self, encoded: bytes) -> str:
        topic = decode_string(encoded)
        flaw = topic_name_flaw(topic)
        if flaw is not None:
            raise ProtocolViolation(f"PUBLISH's topic {topic[:100]!r} {flaw}")
        if len(encoded) <= _CACHED_TOPIC_BYTES:
            if len(self) >= _CACHED_TOPICS:
                self.clear()
            self[encoded] = topic
        return topic


def decode_string(encoded: bytes) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError as error:  # [MQTT-1.5.3-1]
        raise ProtocolViolation(f"ill-formed UTF-8: {error.reason}") from error


def read_packet_id(data: bytes, start: int) -> int:
    """Written out, for the sake of a call less, by the readers of what comes once a message."""
    packet_id = data[start] << 8 | data[start + 1]
    if not packet_id:
        raise ProtocolViolation(_PACKET_ID_0)  # [MQTT-2.3.1-1]
    return packet_id


def _publish_reader(
    topics: _TopicCache, qos: p.QoS, *, retain: bool, dup: bool
) -> Reader[p.Message | p.Delivery]:
    """Reads PUBLISH with these flags: nothing is left to decide for each packet."""
    message, delivery = p.Message, p.Delivery

    def at_most_once(data: bytes, start: int, stop: int) -> p.Message:
        topic = start + 2
        end = topic + (data[start] << 8 | data[start + 1])
        if end > stop:
            raise ProtocolViolation(_CUT_SHORT)
        return message(topics[data[topic:end]], data[end:stop], qos, retain, dup)

    def acknowledged(data: bytes, start: int, stop: int) -> p.Delivery:
        topic = start + 2
        end = topic + (data[start] << 8 | data[start + 1])
        payload = end + 2
        if payload > stop:
            raise ProtocolViolation(_CUT_SHORT)
        packet_id = data[end] << 8 | data[end + 1]
        if not packet_id:
            raise ProtocolViolation(_PACKET_ID_0)  # [MQTT-2.3.1-1]
        body = message(topics[data[topic:end]], data[payload:stop], qos, retain, dup)
        return delivery(body, packet_id)

    if qos:
        return Reader(4, MAX_REMAINING_LENGTH, acknowledged)
    return Reader(2, MAX_REMAINING_LENGTH, at_most_once)


_A = TypeVar("_A", p.PubAck, p.PubRec, p.PubRel, p.PubComp, p.UnsubAck)


def _ack_reader(answer: Callable[[int], _A]) -> Reader[_A]:
    def read(data: bytes, start: int, _stop: int) -> _A:
        packet_id = data[start] << 8 | data[start + 1]
        if not packet_id:
            raise ProtocolViolation(_PACKET_ID_0)  # [MQTT-2.3.1-1]
        return answer(packet_id)

    return Reader(2, 2, read)


def _read_connack(data: bytes, start: int, _stop: int) -> p.ConnAck:
    flags, return_code = data[start], data[start + 1]
    if flags > 1:
        raise ProtocolViolation(f"CONNACK with reserved flags {flags:#010b}")  # [MQTT-2.2.2-2]
    if return_code > 5:
        raise ProtocolViolation(f"CONNACK with the reserved return code {return_code}")
    if flags and return_code:
        raise ProtocolViolation("CONNACK refuses a session that is present")  # [MQTT-3.2.2-4]
    return p.ConnAck(bool(flags), return_code)


def _read_suback(data: bytes, start: int, stop: int) -> p.SubAck:
    return_codes = tuple(data[start + 2 : stop])
    for code in return_codes:
        if code > 2 and code != p.FAILED:  # [MQTT-3.9.3-2]
            raise ProtocolViolation(f"SUBACK with the reserved return code {code:#04x}")
    return p.SubAck(read_packet_id(data, start), return_codes)


def _read_pingresp(_data: bytes, _start: int, _stop: int) -> p.PingResp:
    return p.PingResp()


ACK_READERS: Mapping[int, Reader[p.Ack]] = {
    PUBACK: _ack_reader(p.PubAck),
    PUBREC: _ack_reader(p.PubRec),
    PUBREL: _ack_reader(p.PubRel),  # [MQTT-3.6.1-1]
    PUBCOMP: _ack_reader(p.PubComp),
}

_CLIENT_READERS: Mapping[int, Reader[p.Inbound]] = {
    **ACK_READERS,
    CONNACK: Reader(2, 2, _read_connack),
    SUBACK: Reader(3, 2 + p.MAX_TOPIC_FILTERS, _read_suback),
    UNSUBACK: _ack_reader(p.UnsubAck),
    PINGRESP: Reader(0, 0, _read_pingresp),
}
