"""Malformed packets that only a server would read: whole, byte by byte, and behind good ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._errors import ProtocolViolation
from trio_mqtt._framing import Decoder
from trio_mqtt.testing._server311 import server_decoder

NewDecoder: TypeAlias = Callable[[], Decoder[p.Packet]]


class Malformed(NamedTuple):
    name: str
    wire: bytes
    message: str
    """A regular expression, for the whole of the message."""
    statements: tuple[str, ...] = ()


CUT = "a packet ends in the middle of a field"
NO_WILL = "CONNECT qualifies a Will that it lacks"
NO_USER = "CONNECT has a password without user name"
BEYOND = "CONNECT goes on after its last field"

FROM_A_BROKER = [
    Malformed("CONNACK", b"\x20\x02\0\0", "CONNACK with flags 0b0000 is not .*"),
    Malformed("SUBACK", b"\x90\x03\0\1\0", "SUBACK with flags 0b0000 is not .*"),
    Malformed("UNSUBACK", b"\xb0\x02\0\1", "UNSUBACK with flags 0b0000 is not .*"),
    Malformed("PINGRESP", b"\xd0\x00", "PINGRESP with flags 0b0000 is not .*"),
]

MALFORMED_CONNECT = [
    # Its variable header.
    Malformed(
        "a protocol of another name",
        b"\x10\x0d\0\4mqtt\4\2\0\x3c\0\1a",
        "CONNECT of protocol b'mqtt'",
        ("MQTT-3.1.2-1",),
    ),
    Malformed(
        "a protocol without name",
        b"\x10\x09\0\0\4\2\0\x3c\0\1a",
        "CONNECT of protocol b''",
        ("MQTT-3.1.2-1",),
    ),
    Malformed(
        "a protocol with more of a name",
        b"\x10\x0e\0\5MQTTX\4\2\0\x3c\0\1a",
        "CONNECT of protocol b'MQTTX'",
        ("MQTT-3.1.2-1",),
    ),
    Malformed("a protocol whose name goes on", b"\x10\x07\0\x20MQTT\4", CUT, ("MQTT-3.1.4-1",)),
    Malformed("no level", b"\x10\x08\0\6MQIsdp", CUT, ("MQTT-3.1.4-1",)),
    Malformed("no connect flags", b"\x10\x07\0\4MQTT\4", CUT, ("MQTT-3.1.4-1",)),
    Malformed("half a keep alive", b"\x10\x09\0\4MQTT\4\2\0", CUT, ("MQTT-3.1.4-1",)),
    Malformed(
        "the reserved flag",
        b"\x10\x0d\0\4MQTT\4\3\0\x3c\0\1a",
        "CONNECT with its reserved flag set",
        ("MQTT-3.1.2-3",),
    ),
    Malformed(
        "a password without user name",
        b"\x10\x10\0\4MQTT\4\x42\0\x3c\0\1a\0\1b",
        NO_USER,
        ("MQTT-3.1.2-22",),
    ),
    Malformed(
        "QoS 1 without Will",
        b"\x10\x0d\0\4MQTT\4\x0a\0\x3c\0\1a",
        NO_WILL,
        ("MQTT-3.1.2-11", "MQTT-3.1.2-13"),
    ),
    Malformed(
        "QoS 2 without Will",
        b"\x10\x0d\0\4MQTT\4\x12\0\x3c\0\1a",
        NO_WILL,
        ("MQTT-3.1.2-11", "MQTT-3.1.2-13"),
    ),
    Malformed(
        "Retain without Will",
        b"\x10\x0d\0\4MQTT\4\x22\0\x3c\0\1a",
        NO_WILL,
        ("MQTT-3.1.2-11", "MQTT-3.1.2-15"),
    ),
    # Its payload.
    Malformed("no client identifier", b"\x10\x0a\0\4MQTT\4\2\0\x3c", CUT, ("MQTT-3.1.3-3",)),
    Malformed(
        "half a client identifier", b"\x10\x0d\0\4MQTT\4\2\0\x3c\0\2a", CUT, ("MQTT-3.1.3-3",)
    ),
    Malformed("no Will topic", b"\x10\x0d\0\4MQTT\4\6\0\x3c\0\1a", CUT, ("MQTT-3.1.2-9",)),
    Malformed("no Will message", b"\x10\x10\0\4MQTT\4\6\0\x3c\0\1a\0\1w", CUT, ("MQTT-3.1.2-9",)),
    Malformed(
        "a Will at QoS 3",
        b"\x10\x12\0\4MQTT\4\x1e\0\x3c\0\1a\0\1w\0\0",
        "QoS 3",
        ("MQTT-3.1.2-14",),
    ),
    Malformed(
        "a Will without topic",
        b"\x10\x11\0\4MQTT\4\6\0\x3c\0\1a\0\0\0\0",
        "the Will's topic '' is empty",
        ("MQTT-4.7.3-1",),
    ),
    Malformed(
        "a Will's wildcard",
        b"\x10\x12\0\4MQTT\4\6\0\x3c\0\1a\0\1#\0\0",
        "the Will's topic '#' contains a wildcard",
        ("MQTT-4.7.1-1",),
    ),
    Malformed("no user name", b"\x10\x0d\0\4MQTT\4\x82\0\x3c\0\1a", CUT, ("MQTT-3.1.2-19",)),
    Malformed("no password", b"\x10\x10\0\4MQTT\4\xc2\0\x3c\0\1a\0\1u", CUT, ("MQTT-3.1.2-21",)),
    Malformed(
        "a Will topic without Will",
        b"\x10\x12\0\4MQTT\4\2\0\x3c\0\1a\0\1w\0\0",
        BEYOND,
        ("MQTT-3.1.2-11",),
    ),
    Malformed(
        "a user name unannounced",
        b"\x10\x10\0\4MQTT\4\2\0\x3c\0\1a\0\1u",
        BEYOND,
        ("MQTT-3.1.2-18",),
    ),
    Malformed(
        "a password unannounced",
        b"\x10\x13\0\4MQTT\4\x82\0\x3c\0\1a\0\1u\0\1p",
        BEYOND,
        ("MQTT-3.1.2-20",),
    ),
    Malformed("one byte too many", b"\x10\x0e\0\4MQTT\4\2\0\x3c\0\1a\0", BEYOND, ("MQTT-3.1.4-1",)),
]

NOT_UTF_8 = [
    Malformed(f"{what} of {name}", wire.replace(b"??", text), message, (general, statement))
    for name, text, message, general in [
        ("ill-formed UTF-8", b"a\xff", "ill-formed UTF-8: invalid start byte", "MQTT-1.5.3-1"),
        ("half a surrogate", b"\xed\xa0", "ill-formed UTF-8: .*", "MQTT-1.5.3-1"),
        ("U+0000", b"a\0", r"a string contains U\+0000", "MQTT-1.5.3-2"),
    ]
    for what, wire, statement in [
        ("client identifier", b"\x10\x0e\0\4MQTT\4\2\0\x3c\0\2??", "MQTT-3.1.3-4"),
        ("Will topic", b"\x10\x13\0\4MQTT\4\6\0\x3c\0\1a\0\2??\0\0", "MQTT-3.1.3-10"),
        ("user name", b"\x10\x11\0\4MQTT\4\x82\0\x3c\0\1a\0\2??", "MQTT-3.1.3-11"),
        ("topic filter", b"\x82\x07\0\1\0\2??\0", "MQTT-3.8.3-1"),
        ("topic filter to leave", b"\xa2\x06\0\1\0\2??", "MQTT-3.10.3-1"),
    ]
]

MALFORMED_REQUESTS = [
    Malformed(
        "SUBSCRIBE to nothing",
        b"\x82\x02\0\1",
        "SUBSCRIBE without a topic filter",
        ("MQTT-3.8.3-3",),
    ),
    Malformed("SUBSCRIBE 0", b"\x82\x06\0\0\0\1a\0", "packet identifier 0", ("MQTT-2.3.1-1",)),
    Malformed("SUBSCRIBE with a cut filter", b"\x82\x06\0\1\0\4a\0", CUT, ("MQTT-3.8.3-1",)),
    Malformed("SUBSCRIBE without QoS", b"\x82\x05\0\1\0\1a", CUT, ("MQTT-3.8.3-3",)),
    Malformed("SUBSCRIBE with a second one cut", b"\x82\x07\0\1\0\1a\0\0", CUT, ("MQTT-3.8.3-1",)),
    Malformed("SUBSCRIBE at QoS 3", b"\x82\x06\0\1\0\1a\3", "QoS 3"),
    Malformed("SUBSCRIBE with a reserved bit", b"\x82\x06\0\1\0\1a\x04", "QoS 4"),
    Malformed("SUBSCRIBE with the last reserved bit", b"\x82\x06\0\1\0\1a\x80", "QoS 128"),
    Malformed(
        "SUBSCRIBE to an empty one",
        b"\x82\x05\0\1\0\0\0",
        "topic filter '' is empty",
        ("MQTT-4.7.3-1",),
    ),
    Malformed(
        "SUBSCRIBE to a#",
        b"\x82\x07\0\1\0\2a#\0",
        "topic filter 'a#' has a wildcard that .*",
        ("MQTT-4.7.1-2",),
    ),
    Malformed(
        "SUBSCRIBE to #/a",
        b"\x82\x08\0\1\0\3#/a\0",
        "topic filter '#/a' has '#' before .*",
        ("MQTT-4.7.1-2",),
    ),
    Malformed(
        "SUBSCRIBE to a good one and a+",
        b"\x82\x0b\0\1\0\1a\0\0\2a+\0",
        r"topic filter 'a\+' has .*",
        ("MQTT-4.7.1-3",),
    ),
    Malformed(
        "UNSUBSCRIBE from nothing",
        b"\xa2\x02\0\1",
        "UNSUBSCRIBE without a topic filter",
        ("MQTT-3.10.3-2",),
    ),
    Malformed("UNSUBSCRIBE 0", b"\xa2\x05\0\0\0\1a", "packet identifier 0", ("MQTT-2.3.1-1",)),
    Malformed("UNSUBSCRIBE with a cut filter", b"\xa2\x05\0\1\0\2a", CUT, ("MQTT-3.10.3-1",)),
    Malformed("UNSUBSCRIBE with half a length", b"\xa2\x06\0\1\0\1a\0", CUT, ("MQTT-3.10.3-1",)),
    Malformed(
        "UNSUBSCRIBE from +a",
        b"\xa2\x06\0\1\0\2+a",
        r"topic filter '\+a' has a wildcard that .*",
        ("MQTT-4.7.1-3",),
    ),
    Malformed(
        "UNSUBSCRIBE from an empty one",
        b"\xa2\x04\0\1\0\0",
        "topic filter '' is empty",
        ("MQTT-4.7.3-1",),
    ),
]


def params(side: str, new_decoder: NewDecoder, table: list[Malformed]) -> list[pytest.ParameterSet]:
    return [
        pytest.param(
            new_decoder,
            row.wire,
            f"^{row.message}$",
            id=f"{side}: {row.name}",
            marks=[pytest.mark.conformance(*row.statements)] if row.statements else [],
        )
        for row in table
    ]


MALFORMED = [
    *params("server", server_decoder, MALFORMED_CONNECT),
    *params("server", server_decoder, NOT_UTF_8),
    *params("server", server_decoder, MALFORMED_REQUESTS),
    *params("server", server_decoder, FROM_A_BROKER),
]


def feed_all(decoder: Decoder[p.Packet], pieces: list[bytes]) -> list[p.Packet]:
    return [packet for piece in pieces for packet in decoder.feed(piece)]


@pytest.mark.parametrize(("new_decoder", "wire", "message"), MALFORMED)
def test_whole(new_decoder: NewDecoder, wire: bytes, message: str) -> None:
    decoder = new_decoder()
    with pytest.raises(ProtocolViolation, match=message) as violation:
        decoder.feed(wire)
    assert decoder.violation is violation.value
    assert not decoder.partial


@pytest.mark.parametrize(("new_decoder", "wire", "message"), MALFORMED)
def test_byte_by_byte(new_decoder: NewDecoder, wire: bytes, message: str) -> None:
    decoder = new_decoder()
    with pytest.raises(ProtocolViolation, match=message):
        feed_all(decoder, [bytes([byte]) for byte in wire])


@pytest.mark.parametrize(("new_decoder", "wire", "message"), MALFORMED)
def test_behind_good_packets(new_decoder: NewDecoder, wire: bytes, message: str) -> None:
    decoder = new_decoder()
    assert decoder.feed(b"\x40\x02\0\1\x62\x02\0\2" + wire) == [p.PubAck(1), p.PubRel(2)]
    assert decoder.violation is not None
    with pytest.raises(ProtocolViolation, match=message) as violation:
        decoder.feed(b"\x40\x02\0\3")
    assert violation.value is decoder.violation


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"\x82\xcd\x01\0\1\0\xc8" + b"a" * 199 + b"#\0", "topic filter 'a{100}' has a wildcard"),
        (
            b"\x10\xd9\x01\0\4MQTT\4\6\0\x3c\0\1a\0\xc8" + b"a" * 199 + b"#\0\0",
            "the Will's topic 'a{100}' contains a wildcard",
        ),
        (b"\x10\x1d\0\x15" + b"a" * 21 + b"\4\2\0\x3c\0\0", "CONNECT of protocol b'a{20}'$"),
    ],
)
def test_what_is_long_is_shown_in_part(wire: bytes, message: str) -> None:
    with pytest.raises(ProtocolViolation, match=f"^{message}"):
        server_decoder().feed(wire)
