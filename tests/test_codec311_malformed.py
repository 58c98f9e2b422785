"""Malformed packets, to either side and to a client: whole, byte by byte, and behind good ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import client_decoder
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


ILL_FORMED = ("MQTT-1.5.3-1", "MQTT-3.3.2-1")
NULL = ("MQTT-1.5.3-2", "MQTT-4.7.3-2")
WILDCARD = ("MQTT-3.3.2-2", "MQTT-4.7.1-1")
PUBLISH_ENDS = "PUBLISH ends before its topic and packet identifier do"

TO_EITHER_SIDE = [
    Malformed("QoS 3", b"\x36\x05\0\1a\0\1", "PUBLISH with flags 0b0110 .*", ("MQTT-3.3.1-4",)),
    Malformed(
        "QoS 0 with DUP", b"\x38\x03\0\1a", "PUBLISH with flags 0b1000 .*", ("MQTT-3.3.1-2",)
    ),
    Malformed(
        "PUBREL without its flag", b"\x60\x02\0\1", "PUBREL with flags 0b0000 .*", ("MQTT-2.2.2-2",)
    ),
    Malformed(
        "PUBACK with a flag", b"\x42\x02\0\1", "PUBACK with flags 0b0010 .*", ("MQTT-2.2.2-2",)
    ),
    Malformed(
        "identifier 0 at QoS 1", b"\x32\x05\0\1a\0\0", "packet identifier 0", ("MQTT-2.3.1-1",)
    ),
    Malformed(
        "identifier 0 at QoS 2", b"\x34\x06\0\1a\0\0x", "packet identifier 0", ("MQTT-2.3.1-1",)
    ),
    Malformed("PUBACK 0", b"\x40\x02\0\0", "packet identifier 0"),
    Malformed("PUBREC 0", b"\x50\x02\0\0", "packet identifier 0"),
    Malformed("PUBREL 0", b"\x62\x02\0\0", "packet identifier 0"),
    Malformed("PUBCOMP 0", b"\x70\x02\0\0", "packet identifier 0"),
    Malformed("topic beyond its packet", b"\x30\x03\0\2a", PUBLISH_ENDS),
    Malformed("topic of the largest size, missing", b"\x30\x02\xff\xff", PUBLISH_ENDS),
    Malformed("topic over the identifier", b"\x32\x05\0\3a\0\1", PUBLISH_ENDS),
    Malformed("topic over half the identifier", b"\x34\x05\0\2a\0\1", PUBLISH_ENDS),
    Malformed("no identifier at QoS 1", b"\x32\x04\0\2ab", PUBLISH_ENDS),
    Malformed("half an identifier at QoS 2", b"\x34\x04\0\1a\1", PUBLISH_ENDS),
    Malformed("empty topic", b"\x30\x02\0\0", "PUBLISH's topic '' is empty", ("MQTT-4.7.3-1",)),
    Malformed(
        "empty topic at QoS 1",
        b"\x32\x04\0\0\0\1",
        "PUBLISH's topic '' is empty",
        ("MQTT-4.7.3-1",),
    ),
    Malformed("# as topic", b"\x30\x03\0\1#", "PUBLISH's topic '#' contains a wildcard", WILDCARD),
    Malformed(
        "+ in a topic",
        b"\x32\x07\0\3a/+\0\1",
        r"PUBLISH's topic 'a/\+' contains a wildcard",
        WILDCARD,
    ),
    Malformed(
        "U+0000 in a topic",
        b"\x30\x05\0\3a\0b",
        r"PUBLISH's topic 'a\\x00b' contains U\+0000",
        NULL,
    ),
    Malformed(
        "U+0000 as topic at QoS 2",
        b"\x34\x05\0\1\0\0\1",
        r"PUBLISH's topic '\\x00' contains U\+0000",
        NULL,
    ),
    *(
        Malformed(
            f"{name} in a topic",
            bytes([0x30, 2 + len(text), 0, len(text)]) + text,
            "ill-formed UTF-8: (invalid .* byte|unexpected end of data)",
            ILL_FORMED,
        )
        for name, text in [
            ("a lone continuation", b"\x80"),
            ("a byte that UTF-8 lacks", b"a\xfe"),
            ("an overlong U+0000", b"\xc0\x80"),
            ("an overlong slash", b"\xe0\x80\xaf"),
            ("a character cut short", b"\xe2\x84"),
            ("Latin-1", b"caf\xe9/a"),
            ("the first surrogate", b"\xed\xa0\x80"),
            ("the last surrogate", b"\xed\xbf\xbf"),
            ("a pair of surrogates", b"\xed\xa1\x83\xed\xbb\x94"),
            ("a code point beyond the last", b"\xf4\x90\x80\x80"),
        ]
    ),
]

TO_CLIENT = [
    Malformed("CONNACK with flag 1", b"\x20\x02\2\0", "CONNACK with reserved flags 0b00000010"),
    Malformed(
        "CONNACK with flags 0 and 7", b"\x20\x02\x81\0", "CONNACK with reserved flags 0b10000001"
    ),
    Malformed(
        "CONNACK of code 6",
        b"\x20\x02\0\6",
        "CONNACK with the reserved return code 6",
        ("MQTT-3.2.2-6",),
    ),
    Malformed(
        "CONNACK of code 255",
        b"\x20\x02\0\xff",
        "CONNACK with the reserved return code 255",
        ("MQTT-3.2.2-6",),
    ),
    *(
        Malformed(
            f"CONNACK of code {code} for a session present",
            b"\x20\x02\1" + bytes([code]),
            "CONNACK refuses a session that is present",
            ("MQTT-3.2.2-4",),
        )
        for code in (1, 2, 3, 4, 5)
    ),
    *(
        Malformed(
            f"SUBACK of code {code:#04x}",
            b"\x90\x04\0\1\0" + bytes([code]),
            f"SUBACK with the reserved return code {code:#04x}",
            ("MQTT-3.9.3-2",),
        )
        for code in (0x03, 0x7F, 0x81, 0xFF)
    ),
    Malformed(
        "SUBACK of a reserved code at first",
        b"\x90\x04\0\1\3\0",
        "SUBACK .* code 0x03",
        ("MQTT-3.9.3-2",),
    ),
    Malformed(
        "SUBACK without codes",
        b"\x90\x02\0\1",
        "SUBACK with a remaining length of 2",
        ("MQTT-3.8.4-5",),
    ),
    Malformed("SUBACK 0", b"\x90\x03\0\0\0", "packet identifier 0"),
    Malformed("UNSUBACK 0", b"\xb0\x02\0\0", "packet identifier 0"),
    Malformed("CONNECT", b"\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a", "CONNECT with flags 0b0000 is not .*"),
    Malformed("SUBSCRIBE", b"\x82\x06\0\1\0\1#\0", "SUBSCRIBE with flags 0b0010 is not .*"),
    Malformed("UNSUBSCRIBE", b"\xa2\x05\0\1\0\1+", "UNSUBSCRIBE with flags 0b0010 is not .*"),
    Malformed("PINGREQ", b"\xc0\x00", "PINGREQ with flags 0b0000 is not .*"),
    Malformed("DISCONNECT", b"\xe0\x00", "DISCONNECT with flags 0b0000 is not .*"),
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
    *params("client", client_decoder, TO_EITHER_SIDE),
    *params("server", server_decoder, TO_EITHER_SIDE),
    *params("client", client_decoder, TO_CLIENT),
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


@pytest.mark.conformance("MQTT-4.8.0-1")
def test_nothing_is_read_behind_a_violation() -> None:
    decoder = client_decoder()
    with pytest.raises(ProtocolViolation, match="packet identifier 0") as first:
        decoder.feed(b"\x40\x02\0\0" + b"\x40\x02\0\1")
    for data in (b"", b"\x40\x02\0\1", b"\0"):
        with pytest.raises(ProtocolViolation, match="packet identifier 0") as again:
            decoder.feed(data)
        assert again.value is first.value


def test_the_end_of_a_packet_may_come_with_a_malformed_one() -> None:
    decoder = client_decoder()
    assert decoder.feed(b"\x40\x02\0") == []
    assert decoder.feed(b"\1\x40\x02\0\0") == [p.PubAck(1)]
    assert str(decoder.violation) == "packet identifier 0"


def test_a_long_topic_is_shown_in_part() -> None:
    with pytest.raises(ProtocolViolation, match=r"^PUBLISH's topic 'a{100}' contains a wildcard$"):
        client_decoder().feed(b"\x30\xca\x01\0\xc8" + b"a" * 199 + b"#")
