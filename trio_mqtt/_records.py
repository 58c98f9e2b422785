"""Records: what a durable session stores, and whether a value is still what was stored.

A record has a key of 17 bits: the packet identifier, and above it one bit for the broker's.

======================  ===========================================================
``0x00000``             the session itself, with its client identifier
``0x10000``             the same again, as nothing goes on without it
``0x00001 - 0x0FFFF``   a message of ours, published or released
``0x10001 - 0x1FFFF``   a message of the broker's at QoS 2, received and not yet released
======================  ===========================================================

Its value is a header of 14 bytes, big-endian, and a body::

    offset  size
         0     4  CRC-32 of the key, as four bytes, and of all that follows here
         4     1  format of the body: 1
         5     1  kind: 1 SESSION, 2 PUBLISH, 3 RELEASED, 4 RECEIVED
         6     8  sequence number
        14        body

SESSION has a byte of flags (1: the broker is to forget its session before the first use), the
number of reserved packet identifiers and then these, each in two bytes, and the client identifier
in UTF-8. PUBLISH has the packet of MQTT 3.1.1, with DUP 0. The others have no body.

The sequence number counts the records of a session as they are made, and only orders them: the
messages by their PUBLISH, the releases by their PUBREC [MQTT-4.6.0-1] [MQTT-4.6.0-4]. Answers come
in any order, so that a number which is missing means nothing.

A format is added when a body changes. The checksum and the format stay where they are, so that a
record of a later version is told from one that is damaged.
"""

from __future__ import annotations

import enum
import struct
import zlib

import attrs

SESSION_KEY = 0x00000
SESSION_COPY_KEY = 0x10000
BROKERS = 0x10000
"""The bit of a key for the broker's packet identifiers."""
MAX_KEY = 0x1FFFF

MAX_SEQUENCE = 2**63
"""Half of what 64 bits can say, so that the numbering can go on from any record."""

FORMAT = 1
DISCARD_DUE = 1

_HEADER = struct.Struct(">IBBQ")
_KEY = struct.Struct(">I")
_COUNT = struct.Struct(">H")


class Kind(enum.IntEnum):
    """What a record says."""

    SESSION = 1
    PUBLISH = 2
    RELEASED = 3
    RECEIVED = 4


@attrs.define
class Record:
    """One record, without its key. Nobody changes it: not frozen it is made in half the time."""

    kind: Kind
    sequence: int
    body: bytes = b""


class Damaged(Exception):
    """A value is not what was stored under its key. The message says why."""


class LaterFormat(Exception):
    """A value is intact, and of a later version of this library."""


def encode_record(key: int, record: Record) -> bytes:
    """The value to be stored under `key`."""
    body = record.body
    header = _HEADER.pack(key, FORMAT, record.kind, record.sequence)
    checksum = zlib.crc32(body, zlib.crc32(header))  # with the key in the place of the checksum
    return _KEY.pack(checksum) + header[_KEY.size :] + body


def decode_record(key: int, value: bytes) -> Record:
    """The record that was stored under `key`.

    Raises:
        Damaged: the value is something else.
        LaterFormat: it is for a later version of this library to read.
    """
    if len(value) < _HEADER.size:
        raise Damaged(f"{len(value)} bytes are no record")
    checksum, version, kind, sequence = _HEADER.unpack_from(value)
    rest = memoryview(value)[_KEY.size :]
    if zlib.crc32(rest, zlib.crc32(_KEY.pack(key))) != checksum:
        raise Damaged("the checksum differs")
    if version != FORMAT:
        raise LaterFormat(f"format {version} is not known here")
    if sequence > MAX_SEQUENCE:
        raise Damaged(f"no session comes to {sequence} records")
    try:
        return Record(Kind(kind), sequence, value[_HEADER.size :])
    except ValueError as error:
        raise Damaged(f"no record is of kind {kind}") from error


@attrs.frozen
class Identity:
    """The record of the session itself."""

    client_id: str
    discard_due: bool = False
    """Whether the broker is to forget its session before the first use of this one."""
    reserved: frozenset[int] = frozenset()
    """Packet identifiers that the broker may still know, of records that were damaged."""

    def encode(self) -> bytes:
        """The body of its record."""
        identifiers = b"".join(map(_COUNT.pack, sorted(self.reserved)))
        flags = bytes([DISCARD_DUE if self.discard_due else 0])
        count = _COUNT.pack(len(self.reserved))
        return flags + count + identifiers + self.client_id.encode()

    @classmethod
    def decode(cls, body: bytes) -> Identity:
        """The identity from the body of its record.

        Raises:
            Damaged: it is none, though its checksum was right.
        """
        try:
            (count,) = _COUNT.unpack_from(body, 1)
            start = 1 + _COUNT.size
            stop = start + count * _COUNT.size
            reserved = frozenset(number for (number,) in _COUNT.iter_unpack(body[start:stop]))
            return cls(body[stop:].decode(), bool(body[0] & DISCARD_DUE), reserved)
        except (struct.error, UnicodeDecodeError) as error:
            raise Damaged(f"it says nothing of a session: {error}") from error
