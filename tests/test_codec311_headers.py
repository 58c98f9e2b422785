"""Fixed headers: all 256 first bytes, the lengths behind them, and waiting for what they say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec, client_decoder
from trio_mqtt._errors import ConnectionLost, ProtocolViolation
from trio_mqtt._framing import Decoder
from trio_mqtt.testing._server311 import server_decoder

from .wire import encode_publish

NewDecoder: TypeAlias = Callable[[], Decoder[p.Packet]]
SIDES = [pytest.param(client_decoder, id="client"), pytest.param(server_decoder, id="server")]

# First bytes

NAMES = [
    "packet type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT",
    "packet type 15",
]  # fmt: skip

# Table 2.2: the flags that each packet may have. QoS 3 is reserved, and QoS 0 has no DUP.
LEGAL_FLAGS = {
    "CONNECT": {0b0000},
    "CONNACK": {0b0000},
    "PUBLISH": {
        0b0000, 0b0001,
        0b0010, 0b0011, 0b1010, 0b1011,
        0b0100, 0b0101, 0b1100, 0b1101,
    },
    "PUBACK": {0b0000},
    "PUBREC": {0b0000},
    "PUBREL": {0b0010},
    "PUBCOMP": {0b0000},
    "SUBSCRIBE": {0b0010},
    "SUBACK": {0b0000},
    "UNSUBSCRIBE": {0b0010},
    "UNSUBACK": {0b0000},
    "PINGREQ": {0b0000},
    "PINGRESP": {0b0000},
    "DISCONNECT": {0b0000},
}  # fmt: skip

# Table 2.1: who sends what.
EITHER = {"PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP"}
BROKER = EITHER | {"CONNACK", "SUBACK", "UNSUBACK", "PINGRESP"}
CLIENT = EITHER | {"CONNECT", "SUBSCRIBE", "UNSUBSCRIBE", "PINGREQ", "DISCONNECT"}

# The statements on a packet's flags, beside the general one.
ON_FLAGS = {
    "PUBREL": ("MQTT-3.6.1-1",),
    "SUBSCRIBE": ("MQTT-3.8.1-1",),
    "UNSUBSCRIBE": ("MQTT-3.10.1-1",),
    "DISCONNECT": ("MQTT-3.14.1-1",),
}


def on_first_byte(first: int) -> tuple[str, ...]:
    name, flags = NAMES[first >> 4], first & 0xF
    if name == "PUBLISH" and flags & 0b0110 == 0b0110:
        return ("MQTT-2.2.2-2", "MQTT-3.3.1-4")
    if name == "PUBLISH" and flags & 0b1110 == 0b1000:
        return ("MQTT-2.2.2-2", "MQTT-3.3.1-2")
    return ("MQTT-2.2.2-2", *ON_FLAGS.get(name, ()))


def classified(first: int, senders: set[str]) -> bool:
    name = NAMES[first >> 4]
    return name in senders and first & 0xF in LEGAL_FLAGS[name]


@pytest.mark.parametrize(
    ("new_decoder", "first"),
    [
        pytest.param(new_decoder, first, id=f"{side} {first:#04x}")
        for side, new_decoder, senders in [
            ("client", client_decoder, BROKER),
            ("server", server_decoder, CLIENT),
        ]
        for first in range(256)
        if classified(first, senders)
    ],
)
def test_a_legal_first_byte(new_decoder: NewDecoder, first: int) -> None:
    decoder = new_decoder()
    assert decoder.feed(bytes([first])) == []
    assert decoder.partial
    assert decoder.violation is None


@pytest.mark.parametrize(
    ("new_decoder", "first"),
    [
        pytest.param(
            new_decoder,
            first,
            id=f"{side} {first:#04x}",
            marks=pytest.mark.conformance(*on_first_byte(first)),
        )
        for side, new_decoder, senders in [
            ("client", client_decoder, BROKER),
            ("server", server_decoder, CLIENT),
        ]
        for first in range(256)
        if not classified(first, senders)
    ],
)
def test_an_illegal_first_byte(new_decoder: NewDecoder, first: int) -> None:
    decoder = new_decoder()
    expected = f"{NAMES[first >> 4]} with flags 0b{first & 0xF:04b} is not for this side to send"
    with pytest.raises(ProtocolViolation, match=f"^{expected}$"):
        decoder.feed(bytes([first]))  # without waiting for its length
    assert not decoder.partial


def test_a_violation_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost, match="packet type 0"):
        client_decoder().feed(b"\0")


# Lengths that are illegal are refused before the packet behind them is awaited.


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    ("new_decoder", "header", "message"),
    [
        *(
            (new_decoder, bytes([first, length]), f"{name} with a remaining length of {length}")
            for new_decoder in (client_decoder, server_decoder)
            for first, name in [
                (0x40, "PUBACK"), (0x50, "PUBREC"), (0x62, "PUBREL"), (0x70, "PUBCOMP"),
            ]
            for length in (0, 1, 3, 127)
        ),
        *(
            (client_decoder, bytes([first, length]), f"{name} with a remaining length of {length}")
            for first, name in [(0x20, "CONNACK"), (0xB0, "UNSUBACK")]
            for length in (0, 1, 3, 127)
        ),
        *(
            (new_decoder, bytes([first, length]), f"PUBLISH with a remaining length of {length}")
            for new_decoder in (client_decoder, server_decoder)
            for first, lengths in [(0x30, (0, 1)), (0x32, (0, 2, 3)), (0x3C, (0, 2, 3))]
            for length in lengths
        ),
        (client_decoder, b"\x90\x00", "SUBACK with a remaining length of 0"),
        (client_decoder, b"\x90\x02", "SUBACK with a remaining length of 2"),
        (client_decoder, b"\x90\x0b", "SUBACK with a remaining length of 11"),
        (client_decoder, b"\xd0\x01", "PINGRESP with a remaining length of 1"),
        (client_decoder, b"\xd0\x80\x01", "PINGRESP with a remaining length of 128"),
        (client_decoder, b"\x40\xff\xff\xff\x7f", "PUBACK with a remaining length of 268435455"),
        (server_decoder, b"\x10\x00", "CONNECT with a remaining length of 0"),
        (server_decoder, b"\x10\x06", "CONNECT with a remaining length of 6"),
        # The largest has ten bytes and five fields of 65,537.
        (server_decoder, b"\x10\x90\x80\x14", "CONNECT with a remaining length of 327696"),
        (server_decoder, b"\x82\x01", "SUBSCRIBE with a remaining length of 1"),
        (server_decoder, b"\xa2\x01", "UNSUBSCRIBE with a remaining length of 1"),
        (server_decoder, b"\xc0\x01", "PINGREQ with a remaining length of 1"),
        (server_decoder, b"\xe0\x01", "DISCONNECT with a remaining length of 1"),
        *(
            (new_decoder, header, "a remaining length of more than four bytes")
            for new_decoder in (client_decoder, server_decoder)
            for header in (
                b"\x30\xff\xff\xff\xff\x7f",
                b"\x30\x80\x80\x80\x80\x01",
                b"\x30\x80\x80\x80\x80\x00",
                b"\x30\xff\xff\xff\xff",  # the fourth says that a fifth follows
                b"\x40\x82\x80\x80\x80\x00\0\1",
            )
        ),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else "",
)  # fmt: skip
def test_an_illegal_length(
    new_decoder: NewDecoder, header: bytes, message: str, slowly: bool
) -> None:
    decoder = new_decoder()
    pieces = [header]
    if slowly:
        assert decoder.feed(header[:1]) == []
        pieces = [bytes([byte]) for byte in header[1:]]
    with pytest.raises(ProtocolViolation, match=f"^{message}$"):
        feed_all(decoder, pieces)


@pytest.mark.parametrize(
    ("new_decoder", "header"),
    [
        (client_decoder, b"\x30\x02"),
        (client_decoder, b"\x32\x04"),
        (client_decoder, b"\x34\x04"),
        (client_decoder, b"\x30\xff\xff\xff\x7f"),
        (client_decoder, b"\x3d\xff\xff\xff\x7f"),
        (client_decoder, b"\x90\x03"),
        (client_decoder, b"\x90\x0a"),
        (server_decoder, b"\x10\x07"),
        (server_decoder, b"\x10\x8f\x80\x14"),
        (server_decoder, b"\x82\x02"),
        (server_decoder, b"\x82\xff\xff\xff\x7f"),
        (server_decoder, b"\xa2\x02"),
        (server_decoder, b"\xa2\xff\xff\xff\x7f"),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else "",
)
def test_the_least_and_the_largest_length_are_awaited(
    new_decoder: NewDecoder, header: bytes
) -> None:
    decoder = new_decoder()
    assert decoder.feed(header) == []
    assert decoder.partial


# Lengths that are legal, on either side of each border of Table 2.4

BORDERS = [
    (0, b"\x30\x03"),
    (124, b"\x30\x7f"),
    (125, b"\x30\x80\x01"),
    (16_380, b"\x30\xff\x7f"),
    (16_381, b"\x30\x80\x80\x01"),
    (2_097_148, b"\x30\xff\xff\x7f"),
    (2_097_149, b"\x30\x80\x80\x80\x01"),
]


def assert_same(actual: bytes, expected: bytes) -> None:
    """Unlike a bare assertion, shows no difference of megabytes when it fails."""
    if actual != expected:
        pytest.fail(f"{actual[:20]!r}, {len(actual)} bytes, is not {expected[:20]!r}")


def feed_all(decoder: Decoder[p.Packet], pieces: list[bytes]) -> list[p.Packet]:
    return [packet for piece in pieces for packet in decoder.feed(piece)]


@pytest.mark.parametrize(("size", "header"), BORDERS, ids=str)
def test_encode_a_payload(size: int, header: bytes) -> None:
    payload = bytes(size)
    expected = header + b"\0\1a" + payload
    assert_same(Codec().encode(p.Message("a", payload)), expected)
    assert_same(encode_publish(Codec(), "a", payload, 0, 0, retain=False), expected)


@pytest.mark.parametrize("new_decoder", SIDES)
@pytest.mark.parametrize(("size", "header"), BORDERS, ids=str)
def test_decode_a_payload(new_decoder: NewDecoder, size: int, header: bytes) -> None:
    decoder = new_decoder()
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    wire = header + b"\0\1a" + payload

    # Each byte on its own, but for the middle of what is long: that would only prove patience.
    slow = 5_000
    middle = wire[slow : max(slow, len(wire) - slow)]
    slowly = [bytes([byte]) for byte in wire[:slow]]
    if middle:
        slowly.append(middle)
    slowly += [bytes([byte]) for byte in wire[slow + len(middle) :]]
    assert sum(map(len, slowly)) == len(wire)

    for pieces in ([wire], slowly, [wire + b"\x40\x02\0", b"\1"]):
        message = feed_all(decoder, pieces)[0]
        assert isinstance(message, p.Message)
        assert_same(message.payload, payload)
        assert not decoder.partial


def test_a_large_packet_costs_no_more_by_arriving_slowly() -> None:
    wire = b"\x30\xff\xff\xff\x03\0\1a" + bytes(8 * 1024 * 1024 - 4)
    decoder = client_decoder()
    assert len(decoder.feed(wire + wire[:1_000])) == 1
    begin = time.process_time()
    for position in range(1_000, len(wire) - 1, 1_000):
        assert decoder.feed(wire[position : min(position + 1_000, len(wire) - 1)]) == []
    assert len(decoder.feed(wire[-1:])) == 1
    # About 0.01 s. To join the pieces for each of them takes some 10 s.
    assert time.process_time() - begin < 1


def test_nothing_comes_of_a_payload_but_its_last_byte() -> None:
    decoder = client_decoder()
    wire = b"\x30\x80\x80\x01\0\1a" + bytes(16_381)
    assert decoder.feed(wire[:-1]) == []
    assert decoder.partial
    assert len(decoder.feed(wire[-1:])) == 1


def test_decoders_are_independent() -> None:
    codec = Codec()
    one, other = codec.new_decoder(), codec.new_decoder()
    assert one.feed(b"\x40\x02") == []
    assert other.feed(b"\xd0\x00") == [p.PingResp()]
    assert one.partial
    assert not other.partial


def test_nothing_decodes_to_nothing() -> None:
    decoder = Codec().new_decoder()
    assert not decoder.partial
    assert decoder.violation is None
    assert decoder.feed(b"") == []
    assert not decoder.partial
    assert decoder.feed(b"\x40") == []
    assert decoder.feed(b"") == []
    assert decoder.partial
    assert decoder.feed(b"\x02\0\1") == [p.PubAck(1)]
