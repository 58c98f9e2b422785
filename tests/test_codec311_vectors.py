"""Every packet of MQTT 3.1.1, in bytes that were written by hand from the specification.

Each is encoded, and decoded in three ways: whole, byte by byte, and with the beginning of another
packet behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import attrs
import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec, client_decoder
from trio_mqtt._framing import Decoder
from trio_mqtt.testing._server311 import server_decoder

NewDecoder: TypeAlias = Callable[[], Decoder[p.Packet]]


class Vector(NamedTuple):
    name: str
    wire: bytes
    packet: p.Packet
    statements: tuple[str, ...] = ()


FROM_EITHER_SIDE = [
    Vector(
        "PUBLISH at QoS 0",
        b"\x30\x07\0\3a/bhi",
        p.Message("a/b", b"hi"),
        ("MQTT-2.2.2-1", "MQTT-2.3.1-5", "MQTT-3.3.1-2", "MQTT-3.3.2-1"),
    ),
    Vector("PUBLISH at QoS 0 retained", b"\x31\x04\0\1ab", p.Message("a", b"b", 0, True)),
    Vector("PUBLISH at QoS 0 without payload", b"\x30\x03\0\1a", p.Message("a", b"")),
    Vector(
        "PUBLISH at QoS 0 retained without payload",
        b"\x31\x03\0\1a",
        p.Message("a", b"", 0, True),
    ),
    Vector(
        # The example of section 3.3.2.3.
        "PUBLISH at QoS 1",
        b"\x32\x07\0\3a/b\0\x0a",
        p.Delivery(p.Message("a/b", b"", 1), 10),
        ("MQTT-2.3.1-1", "MQTT-3.3.2-1"),
    ),
    Vector(
        "PUBLISH at QoS 1 retained",
        b"\x33\x06\0\1a\0\1x",
        p.Delivery(p.Message("a", b"x", 1, True), 1),
    ),
    Vector(
        "PUBLISH at QoS 1 again",
        b"\x3a\x06\0\1a\0\1x",
        p.Delivery(p.Message("a", b"x", 1, False, True), 1),
        ("MQTT-3.3.1-1",),
    ),
    Vector(
        "PUBLISH at QoS 1 retained again",
        b"\x3b\x06\0\1a\0\1x",
        p.Delivery(p.Message("a", b"x", 1, True, True), 1),
        ("MQTT-3.3.1-1",),
    ),
    Vector(
        "PUBLISH at QoS 2",
        b"\x34\x07\0\1a\xff\xffxy",
        p.Delivery(p.Message("a", b"xy", 2), 65_535),
        ("MQTT-2.3.1-1", "MQTT-3.3.2-1"),
    ),
    Vector(
        "PUBLISH at QoS 2 retained",
        b"\x35\x05\0\1a\1\0",
        p.Delivery(p.Message("a", b"", 2, True), 256),
    ),
    Vector(
        "PUBLISH at QoS 2 again",
        b"\x3c\x06\0\1a\x12\x34x",
        p.Delivery(p.Message("a", b"x", 2, False, True), 0x1234),
        ("MQTT-3.3.1-1",),
    ),
    Vector(
        "PUBLISH at QoS 2 retained again",
        b"\x3d\x06\0\1a\x12\x34x",
        p.Delivery(p.Message("a", b"x", 2, True, True), 0x1234),
        ("MQTT-3.3.1-1",),
    ),
    Vector(
        "PUBLISH with U+FEFF",
        b"\x30\x0a\0\7\xef\xbb\xbfa\xef\xbb\xbf!",
        p.Message("\ufeffa\ufeff", b"!"),
        ("MQTT-1.5.3-3",),
    ),
    Vector(
        # The example of section 1.5.3: "A" and CJK IDEOGRAPH EXTENSION B.
        "PUBLISH with a character of four bytes",
        b"\x30\x07\0\5A\xf0\xaa\x9b\x94",
        p.Message("A\U0002a6d4", b""),
        ("MQTT-1.5.3-1",),
    ),
    Vector("PUBLISH of any bytes", b"\x30\x06\0\1/\0\xff\xfe", p.Message("/", b"\0\xff\xfe")),
    Vector("PUBLISH in spite of $", b"\x30\x06\0\4$SYS", p.Message("$SYS", b"")),
    Vector("PUBACK", b"\x40\x02\0\1", p.PubAck(1), ("MQTT-2.2.2-1",)),
    Vector("PUBACK of the largest", b"\x40\x02\xff\xff", p.PubAck(65_535)),
    Vector("PUBREC", b"\x50\x02\1\2", p.PubRec(0x0102), ("MQTT-2.2.2-1",)),
    Vector("PUBREL", b"\x62\x02\1\0", p.PubRel(256), ("MQTT-2.2.2-1", "MQTT-3.6.1-1")),
    Vector("PUBCOMP", b"\x70\x02\0\xff", p.PubComp(255), ("MQTT-2.2.2-1",)),
]

FROM_BROKER = [
    Vector("CONNACK of a new session", b"\x20\x02\0\0", p.ConnAck(False, 0), ("MQTT-2.2.2-1",)),
    Vector("CONNACK of a session kept", b"\x20\x02\1\0", p.ConnAck(True, 0)),
    *(
        Vector(
            f"CONNACK of code {code}",
            b"\x20\x02\0" + bytes([code]),
            p.ConnAck(False, code),
            ("MQTT-3.2.2-4",),
        )
        for code in (1, 2, 3, 4, 5)
    ),
    Vector("SUBACK of QoS 0", b"\x90\x03\0\1\0", p.SubAck(1, (0,)), ("MQTT-2.2.2-1",)),
    Vector(
        # The example of section 3.9.3, and the fourth code there is.
        "SUBACK of each code",
        b"\x90\x06\x12\x34\0\2\x80\1",
        p.SubAck(0x1234, (0, 2, 0x80, 1)),
        ("MQTT-3.9.3-2",),
    ),
    Vector(
        "SUBACK of eight", b"\x90\x0a\0\1\0\1\2\0\1\2\0\1", p.SubAck(1, (0, 1, 2, 0, 1, 2, 0, 1))
    ),
    Vector("UNSUBACK", b"\xb0\x02\x12\x34", p.UnsubAck(0x1234), ("MQTT-2.2.2-1",)),
    Vector("PINGRESP", b"\xd0\x00", p.PingResp(), ("MQTT-2.2.2-1",)),
]

FROM_CLIENT = [
    Vector(
        "CONNECT",
        b"\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a",
        p.Connect("a", True, 60),
        (
            "MQTT-2.2.2-1", "MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-15", "MQTT-3.1.2-18",
            "MQTT-3.1.2-20", "MQTT-3.1.3-3",
        ),
    ),
    Vector("CONNECT to a kept session", b"\x10\x0d\0\4MQTT\4\0\0\0\0\1a", p.Connect("a", False, 0)),
    Vector(
        "CONNECT without identifier",
        b"\x10\x0c\0\4MQTT\4\2\xff\xff\0\0",
        p.Connect("", True, 65_535),
        ("MQTT-3.1.3-3",),
    ),
    Vector(
        "CONNECT in UTF-8",
        b"\x10\x16\0\4MQTT\4\x82\0\1\0\4\xef\xbb\xbf1\0\4\xc3\xa9\xc3\xa8",
        p.Connect("\ufeff1", True, 1, username="éè"),
        ("MQTT-1.5.3-3", "MQTT-3.1.3-4", "MQTT-3.1.3-11"),
    ),
    Vector(
        "CONNECT with a Will at QoS 0",
        b"\x10\x15\0\4MQTT\4\6\0\x3c\0\1a\0\2w/\0\2by",
        p.Connect("a", True, 60, p.Will("w/", b"by")),
        ("MQTT-3.1.2-9", "MQTT-3.1.2-14", "MQTT-3.1.3-10"),
    ),
    Vector(
        "CONNECT with a Will at QoS 1",
        b"\x10\x12\0\4MQTT\4\x0e\0\x3c\0\1a\0\1w\0\0",
        p.Connect("a", True, 60, p.Will("w", b"", qos=1)),
        ("MQTT-3.1.2-9", "MQTT-3.1.2-14"),
    ),
    Vector(
        "CONNECT with a Will at QoS 2",
        b"\x10\x14\0\4MQTT\4\x14\0\x3c\0\1a\0\1w\0\2\0\xff",
        p.Connect("a", False, 60, p.Will("w", b"\0\xff", qos=2)),
        ("MQTT-3.1.2-9", "MQTT-3.1.2-14"),
    ),
    Vector(
        "CONNECT with a retained Will",
        b"\x10\x12\0\4MQTT\4\x26\0\x3c\0\1a\0\1w\0\0",
        p.Connect("a", True, 60, p.Will("w", b"", retain=True)),
        ("MQTT-3.1.2-9",),
    ),
    Vector(
        "CONNECT with a retained Will at QoS 2",
        b"\x10\x12\0\4MQTT\4\x36\0\x3c\0\1a\0\1w\0\0",
        p.Connect("a", True, 60, p.Will("w", b"", qos=2, retain=True)),
        ("MQTT-3.1.2-9", "MQTT-3.1.2-14"),
    ),
    Vector(
        "CONNECT with a user name",
        b"\x10\x11\0\4MQTT\4\x82\0\x3c\0\1a\0\2me",
        p.Connect("a", True, 60, username="me"),
        ("MQTT-3.1.2-19", "MQTT-3.1.2-20"),
    ),
    Vector(
        "CONNECT with an empty user name",
        b"\x10\x0f\0\4MQTT\4\x82\0\x3c\0\1a\0\0",
        p.Connect("a", True, 60, username=""),
        ("MQTT-3.1.2-19",),
    ),
    Vector(
        "CONNECT with a user name and a password",
        b"\x10\x15\0\4MQTT\4\xc2\0\x3c\0\1a\0\2me\0\2\0\xff",
        p.Connect("a", True, 60, username="me", password=b"\0\xff"),
        ("MQTT-3.1.2-19", "MQTT-3.1.2-21", "MQTT-3.1.2-22"),
    ),
    Vector(
        "CONNECT with an empty password",
        b"\x10\x11\0\4MQTT\4\xc2\0\x3c\0\1a\0\0\0\0",
        p.Connect("a", True, 60, username="", password=b""),
        ("MQTT-3.1.2-19", "MQTT-3.1.2-21"),
    ),
    Vector(
        # The flags of the example in section 3.1.2.11, and every field of section 3.1.3.
        "CONNECT with everything",
        b"\x10\x19\0\4MQTT\4\xce\0\x0a\0\1a\0\1b\0\1c\0\1d\0\1e",
        p.Connect("a", True, 10, p.Will("b", b"c", qos=1), "d", b"e"),
        ("MQTT-3.1.2-9", "MQTT-3.1.2-19", "MQTT-3.1.2-21", "MQTT-3.1.3-1", "MQTT-3.1.3-3"),
    ),
    Vector(
        "CONNECT of MQTT 5.0",
        b"\x10\x0a\0\4MQTT\5\0\0\0",
        p.UnsupportedLevel(5),
        ("MQTT-3.1.2-2",),
    ),
    Vector(
        "SUBSCRIBE to one",
        b"\x82\x06\0\1\0\1#\0",
        p.Subscribe(1, (("#", 0),)),
        ("MQTT-2.2.2-1", "MQTT-2.3.1-1", "MQTT-3.8.1-1", "MQTT-3.8.3-1", "MQTT-3.8.3-3"),
    ),
    Vector(
        # The example of section 3.8.3.
        "SUBSCRIBE to two",
        b"\x82\x0e\0\x0a\0\3a/b\1\0\3c/d\2",
        p.Subscribe(10, (("a/b", 1), ("c/d", 2))),
        ("MQTT-2.3.1-1", "MQTT-3.8.1-1", "MQTT-3.8.3-1", "MQTT-3.8.3-3"),
    ),
    Vector(
        "SUBSCRIBE in UTF-8",
        b"\x82\x0b\xff\xff\0\6\xe2\x84\x83/+/\2",
        p.Subscribe(65_535, (("℃/+/", 2),)),
        ("MQTT-3.8.3-1",),
    ),
    Vector(
        "UNSUBSCRIBE from one",
        b"\xa2\x05\0\1\0\1+",
        p.Unsubscribe(1, ("+",)),
        ("MQTT-2.2.2-1", "MQTT-2.3.1-1", "MQTT-3.10.1-1", "MQTT-3.10.3-1", "MQTT-3.10.3-2"),
    ),
    Vector(
        # The example of section 3.10.3.
        "UNSUBSCRIBE from two",
        b"\xa2\x0c\0\x0a\0\3a/b\0\3c/d",
        p.Unsubscribe(10, ("a/b", "c/d")),
        ("MQTT-2.3.1-1", "MQTT-3.10.1-1", "MQTT-3.10.3-1", "MQTT-3.10.3-2"),
    ),
    Vector("PINGREQ", b"\xc0\x00", p.PingReq(), ("MQTT-2.2.2-1",)),
    Vector("DISCONNECT", b"\xe0\x00", p.Disconnect(), ("MQTT-2.2.2-1", "MQTT-3.14.1-1")),
]  # fmt: skip

# What we read and would write in another way. MQTT 3.1.1 does not forbid the longer lengths.
ONLY_READ_FROM_BROKER = [
    Vector("PINGRESP with a length of two bytes", b"\xd0\x80\x00", p.PingResp()),
    Vector("PUBACK with a length of four bytes", b"\x40\x82\x80\x80\x00\0\1", p.PubAck(1)),
]
ONLY_READ_FROM_CLIENT = [
    Vector(
        "CONNECT of MQTT 5.0 in full",
        b"\x10\x0e\0\4MQTT\5\2\0\x3c\0\0\1a",
        p.UnsupportedLevel(5),
        ("MQTT-3.1.2-2",),
    ),
    Vector(
        "CONNECT of MQTT 3.1",
        b"\x10\x0f\0\6MQIsdp\3\2\0\x3c\0\1a",
        p.UnsupportedLevel(3),
        ("MQTT-3.1.2-2",),
    ),
    Vector(
        "CONNECT of MQTT 3.1 at level 4",
        b"\x10\x0f\0\6MQIsdp\4\2\0\x3c\0\1a",
        p.UnsupportedLevel(4),
        ("MQTT-3.1.2-1",),
    ),
    Vector(
        "CONNECT of a later version, unlike ours behind its level",
        b"\x10\x07\0\4MQTT\xff",
        p.UnsupportedLevel(255),
        ("MQTT-3.1.2-2",),
    ),
]


def param(vector: Vector, *values: object, side: str = "") -> pytest.ParameterSet:
    marks = [pytest.mark.conformance(*vector.statements)] if vector.statements else []
    return pytest.param(*values, id=side + vector.name, marks=marks)


def decoded_by(side: str, new: NewDecoder, vectors: Iterable[Vector]) -> list[pytest.ParameterSet]:
    return [param(vector, new, vector.wire, vector.packet, side=side) for vector in vectors]


ENCODED = [
    param(vector, vector.packet, vector.wire)
    for vector in (*FROM_EITHER_SIDE, *FROM_BROKER, *FROM_CLIENT)
]
NEW_CLIENT_DECODER: NewDecoder = client_decoder
DECODED = [
    *decoded_by("client: ", NEW_CLIENT_DECODER, FROM_EITHER_SIDE),
    *decoded_by("client: ", NEW_CLIENT_DECODER, FROM_BROKER),
    *decoded_by("client: ", NEW_CLIENT_DECODER, ONLY_READ_FROM_BROKER),
    *decoded_by("server: ", server_decoder, FROM_EITHER_SIDE),
    *decoded_by("server: ", server_decoder, FROM_CLIENT),
    *decoded_by("server: ", server_decoder, ONLY_READ_FROM_CLIENT),
]


def as_values(packets: Iterable[p.Packet]) -> list[tuple[type, object]]:
    """Packets that compare by what they say: deliveries are compared by identity."""
    return [(type(packet), attrs.astuple(packet)) for packet in packets]


@pytest.mark.parametrize(("packet", "wire"), ENCODED)
def test_encode(packet: p.Packet, wire: bytes) -> None:
    assert Codec().encode(packet) == wire


@pytest.mark.parametrize(("new_decoder", "wire", "packet"), DECODED)
def test_decode_whole(new_decoder: NewDecoder, wire: bytes, packet: p.Packet) -> None:
    decoder = new_decoder()
    assert as_values(decoder.feed(wire)) == as_values([packet])
    assert not decoder.partial
    assert decoder.violation is None


@pytest.mark.parametrize(("new_decoder", "wire", "packet"), DECODED)
def test_decode_byte_by_byte(new_decoder: NewDecoder, wire: bytes, packet: p.Packet) -> None:
    decoder = new_decoder()
    for position in range(len(wire) - 1):
        assert decoder.feed(wire[position : position + 1]) == []
        assert decoder.partial
    assert as_values(decoder.feed(wire[-1:])) == as_values([packet])
    assert not decoder.partial


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize(("new_decoder", "wire", "packet"), DECODED)
def test_decode_with_the_beginning_of_another(
    new_decoder: NewDecoder, wire: bytes, packet: p.Packet, cut: int
) -> None:
    another = b"\x40\x02\1\2"
    decoder = new_decoder()
    assert as_values(decoder.feed(wire + another[:cut])) == as_values([packet])
    assert decoder.partial
    assert as_values(decoder.feed(another[cut:])) == as_values([p.PubAck(0x0102)])
    assert not decoder.partial


@pytest.mark.parametrize(("new_decoder", "wire", "packet"), DECODED)
def test_decode_twice_at_once(new_decoder: NewDecoder, wire: bytes, packet: p.Packet) -> None:
    assert as_values(new_decoder().feed(wire + wire)) == as_values([packet, packet])


@pytest.mark.parametrize(("new_decoder", "wire", "packet"), DECODED)
def test_decode_behind_another_at_every_cut(
    new_decoder: NewDecoder, wire: bytes, packet: p.Packet
) -> None:
    # The one in front is the longer, so that to count its bytes for those behind would show.
    front = b"\x30\x7f\0\1a" + bytes(124)
    for cut in range(len(wire)):
        decoder = new_decoder()
        assert decoder.feed(front + wire[:cut]) == [p.Message("a", bytes(124))]
        assert decoder.partial == (cut > 0)
        assert as_values(decoder.feed(wire[cut:])) == as_values([packet])
        assert not decoder.partial


def test_a_payload_is_bytes_of_its_own() -> None:
    # A view of what the network gave would compare as equal, and keep all of it alive.
    (message,) = Codec().new_decoder().feed(b"\x30\x04\0\1ab")
    assert isinstance(message, p.Message)
    assert type(message.payload) is bytes
