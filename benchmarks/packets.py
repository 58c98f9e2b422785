"""The few packets of MQTT 3.1.1 that a load consists of, taken apart by stride.

All PUBLISH packets of a load have one size, and its other packets have four bytes. So one look
at every n-th byte tells how many of a kind follow one another, and two slices are their packet
identifiers: no step is taken for each packet, which is what makes the peer faster than any client.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

CONNACK = b"\x20\x02\x00\x00"
PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x03"
"""Before the packet identifier, and the return code of one topic filter."""
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
PINGREQ = 0xC0

ANSWER_SIZE = 4
"""Of PUBACK, PUBREC, PUBREL and PUBCOMP: two bytes of header and a packet identifier."""


LARGE = 32 * 1024
"""Bytes of a packet that is copied as little as can be."""


class Run(NamedTuple):
    """Packets of one kind that follow one another."""

    first_byte: int
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


def identifier_offset(publish: bytes) -> int:
    """Where a PUBLISH of QoS 1 or 2 has its packet identifier."""
    header = 1
    while publish[header] >= 0x80:
        header += 1
    topic = header + 1
    return topic + 2 + int.from_bytes(publish[topic : topic + 2], "big")


def split(data: bytes) -> Iterator[Run]:
    """The packets, in runs. What is left over, part of a packet, is the caller's to keep."""
    start = 0
    while (size := packet_size(data[start : start + 5])) and start + size <= len(data):
        whole = (len(data) - start) // size * size
        firsts = data[start : start + whole : size]
        count = len(firsts) - len(firsts.lstrip(firsts[:1]))
        end = start + count * size
        yield Run(firsts[0], size, data[start:end])
        start = end


def publish_template(qos: int, topic: bytes, payload_size: int) -> bytes:
    """A PUBLISH, with the packet identifier 0 if it has one."""
    identifier = bytes(2 if qos else 0)
    body = len(topic).to_bytes(2, "big") + topic + identifier + b"x" * payload_size
    header = bytearray((PUBLISH_0 + 2 * qos,))
    length = len(body)
    while length >= 0x80:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return bytes(header) + body


def publish_run(template: bytes, identifiers: bytes) -> bytes:
    """A PUBLISH for each packet identifier, of two bytes."""
    size, at = len(template), identifier_offset(template)
    if size >= LARGE:
        each = [identifiers[i : i + 2] for i in range(0, len(identifiers), 2)]
        return b"".join([_large_publish(template, identifier) for identifier in each])
    data = bytearray(template) * (len(identifiers) // 2)
    data[at::size] = identifiers[::2]
    data[at + 1 :: size] = identifiers[1::2]
    return bytes(data)


@lru_cache(maxsize=16)
def _large_publish(template: bytes, identifier: bytes) -> bytes:
    """One that is not put together anew each time, which takes about as long as sending it."""
    at = identifier_offset(template)
    return template[:at] + identifier + template[at + 2 :]


def subscribe(topic_filter: bytes, qos: int) -> bytes:
    """A SUBSCRIBE with the packet identifier 1. The filter is short."""
    body = b"\0\1" + len(topic_filter).to_bytes(2, "big") + topic_filter + bytes((qos,))
    return bytes((SUBSCRIBE, len(body))) + body
