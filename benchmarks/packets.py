"""The few packets of MQTT 3.1.1 that a load consists of, taken apart by stride.

All PUBLISH packets of a load have one size, and its other packets have four bytes, but SUBSCRIBE
and UNSUBSCRIBE, which are taken one by one. So one look at every n-th byte tells how many of a kind
follow one another, and two slices are their packet identifiers: no step is taken for each packet,
which is what makes the peer faster than any client.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

CONNACK = b"\x20\x02\x00\x00"
PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"

CONNECT = 0x10
PUBLISH_0 = 0x30
PUBLISH_1 = 0x32
PUBLISH_2 = 0x34
PUBACK = 0x40
PUBREC = 0x50
PUBREL = 0x62
PUBCOMP = 0x70
SUBSCRIBE = 0x82
SUBACK = 0x90
UNSUBSCRIBE = 0xA2
UNSUBACK = 0xB0
PINGREQ = 0xC0
DUP = 0x08
"""Of PUBLISH. Nothing else has this bit in its first byte."""

ANSWER_SIZE = 4
"""Of PUBACK, PUBREC, PUBREL and PUBCOMP: two bytes of header and a packet identifier."""


LARGE = 32 * 1024
"""Bytes of a packet that is copied as little as can be."""


class Run(NamedTuple):
    """Packets of one kind that follow one another."""

    first_byte: int
    """Of each, without `DUP`."""
    size: int
    """In bytes, of each."""
    data: bytes
    """All of them."""

    def __len__(self) -> int:
        """How many they are."""
        return len(self.data) // self.size

    def answers(self, first_byte: int, identifier_at: int) -> bytes:
        """As many packets of four bytes, with the same packet identifiers."""
        packets = bytearray((first_byte, 2, 0, 0)) * len(self)
        packets[2::ANSWER_SIZE] = self.data[identifier_at :: self.size]
        packets[3::ANSWER_SIZE] = self.data[identifier_at + 1 :: self.size]
        return bytes(packets)


def packet_size(data: bytes) -> int:
    """Of the packet at the beginning, in bytes; 0 while its header is not there."""
    length = shift = 0
    for index, byte in enumerate(data[1:5], start=2):
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return index + length
        shift += 7
    return 0


def topic_of(publish: bytes) -> bytes:
    """That of the PUBLISH at the beginning."""
    at = _body(publish) + 2
    return publish[at : at + int.from_bytes(publish[at - 2 : at], "big")]


def identifier_offset(publish: bytes) -> int:
    """Where a PUBLISH of QoS 1 or 2 has its packet identifier."""
    topic = _body(publish)
    return topic + 2 + int.from_bytes(publish[topic : topic + 2], "big")


def split(data: bytes) -> Iterator[Run]:
    """The packets, in runs. What is left over, part of a packet, is the caller's to keep."""
    start = 0
    while (size := packet_size(data[start : start + 5])) and start + size <= len(data):
        alone = data[start] in {SUBSCRIBE, UNSUBSCRIBE}
        alike = 1 if alone else (len(data) - start) // size
        whole = alike * size
        firsts = data[start : start + whole : size]
        count = len(firsts) - len(firsts.lstrip(firsts[:1]))
        end = start + count * size
        yield Run(firsts[0] & ~DUP, size, data[start:end])
        start = end


def packet(first_byte: int, body: bytes) -> bytes:
    """A packet of any kind and length."""
    header = bytearray((first_byte,))
    length = len(body)
    while length >= 0x80:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return bytes(header) + body


def publish_template(qos: int, topic: bytes, payload_size: int) -> bytes:
    """A PUBLISH, with the packet identifier 0 if it has one."""
    identifier = bytes(2 if qos else 0)
    body = len(topic).to_bytes(2, "big") + topic + identifier + b"x" * payload_size
    return packet(PUBLISH_0 + 2 * qos, body)


def publish_run(template: bytes, identifiers: bytes) -> bytes:
    """A PUBLISH for each packet identifier, of two bytes."""
    if len(template) >= LARGE:
        each = [identifiers[i : i + 2] for i in range(0, len(identifiers), 2)]
        return b"".join([_large_publish(template, identifier) for identifier in each])
    data = bytearray(template) * (len(identifiers) // 2)
    put_identifiers(data, len(template), identifier_offset(template), identifiers)
    return bytes(data)


def put_identifiers(data: bytearray, size: int, at: int, identifiers: bytes) -> None:
    """Gives packet identifiers, of two bytes, to packets of one size, in that place of each."""
    data[at::size] = identifiers[::2]
    data[at + 1 :: size] = identifiers[1::2]


@lru_cache(maxsize=16)
def _large_publish(template: bytes, identifier: bytes) -> bytes:
    """One that is not put together anew each time, which takes about as long as sending it."""
    at = identifier_offset(template)
    return template[:at] + identifier + template[at + 2 :]


def subscribe(topic_filter: bytes, qos: int) -> bytes:
    """A SUBSCRIBE with the packet identifier 1. The filter is short."""
    body = b"\0\1" + len(topic_filter).to_bytes(2, "big") + topic_filter + bytes((qos,))
    return bytes((SUBSCRIBE, len(body))) + body


def requests(subscribe: bytes) -> Iterator[tuple[bytes, int]]:
    """The topic filters of a SUBSCRIBE, each with its QoS."""
    at = _body(subscribe) + 2
    while at < len(subscribe):
        end = at + 2 + int.from_bytes(subscribe[at : at + 2], "big")
        yield subscribe[at + 2 : end], subscribe[end]
        at = end + 1


def suback(subscribe: bytes, return_codes: bytes) -> bytes:
    """The answer to a SUBSCRIBE."""
    at = _body(subscribe)
    return packet(SUBACK, subscribe[at : at + 2] + return_codes)


def unsuback(unsubscribe: bytes) -> bytes:
    """The answer to an UNSUBSCRIBE."""
    at = _body(unsubscribe)
    return packet(UNSUBACK, unsubscribe[at : at + 2])


def _body(packet: bytes) -> int:
    """Where it begins, behind the header."""
    header = 1
    while packet[header] >= 0x80:
        header += 1
    return header + 1
