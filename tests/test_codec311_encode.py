"""What the client's hot path encodes without making packets, and the caches of topics."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import MAX_REMAINING_LENGTH, Codec, client_decoder, encode
from trio_mqtt._errors import Denied
from trio_mqtt.testing._server311 import server_decoder

from .wire import encode_publish

# PUBLISH


@pytest.mark.parametrize(
    ("qos", "retain", "wire"),
    [
        pytest.param(qos, retain, wire, marks=pytest.mark.conformance(*statements))
        for qos, retain, wire, *statements in [
            (0, False, b"\x30\x07\0\3a/bhi", "MQTT-2.3.1-5", "MQTT-3.3.1-2", "MQTT-4.3.1-1"),
            (0, True, b"\x31\x07\0\3a/bhi", "MQTT-2.3.1-5", "MQTT-3.3.1-2", "MQTT-4.3.1-1"),
            (1, False, b"\x32\x09\0\3a/b\1\2hi", "MQTT-2.3.1-1", "MQTT-3.3.2-1"),
            (1, True, b"\x33\x09\0\3a/b\1\2hi", "MQTT-2.3.1-1", "MQTT-3.3.2-1"),
            (2, False, b"\x34\x09\0\3a/b\1\2hi", "MQTT-2.3.1-1", "MQTT-3.3.2-1"),
            (2, True, b"\x35\x09\0\3a/b\1\2hi", "MQTT-2.3.1-1", "MQTT-3.3.2-1"),
        ]
    ],
)
def test_encode_publish(qos: p.QoS, retain: bool, wire: bytes) -> None:
    codec: p.Codec = Codec()
    for _ in range(2):  # from the cache, the second time
        assert encode_publish(codec, "a/b", b"hi", qos, 0x0102, retain=retain) == wire


@pytest.mark.parametrize(
    ("qos", "size", "head"),
    [
        (0, 124, b"\x30\x7f\0\1a"),
        (0, 125, b"\x30\x80\x01\0\1a"),
        (1, 122, b"\x32\x7f\0\1a\0\7"),
        (1, 123, b"\x32\x80\x01\0\1a\0\7"),
        (2, 16_378, b"\x34\xff\x7f\0\1a\0\7"),
        (2, 16_379, b"\x34\x80\x80\x01\0\1a\0\7"),
    ],
)
def test_the_remaining_length_counts_the_identifier(qos: p.QoS, size: int, head: bytes) -> None:
    encoded = encode_publish(Codec(), "a", bytes(size), qos, 7, retain=False)
    assert encoded == head + bytes(size)


@pytest.mark.conformance("MQTT-1.5.3-3")
def test_the_length_of_a_topic_counts_bytes() -> None:
    encoded = encode_publish(Codec(), "\ufeff℃", b"", 0, 0, retain=False)
    assert encoded == b"\x30\x08\0\6\xef\xbb\xbf\xe2\x84\x83"


def test_a_topic_of_the_largest_size() -> None:
    topic = "é" * 32_767 + "a"
    encoded = encode_publish(Codec(), topic, b"", 0, 0, retain=False)
    assert encoded[:6] == b"\x30\x81\x80\x04\xff\xff"
    assert client_decoder().feed(encoded) == [p.Message(topic, b"")]


class Vast(bytes):
    """Claims a size that would take minutes to write. Only its claim is looked at before the
    packet is put together, and `bytes.join` copies what is really there: nothing."""

    size = 0

    def __len__(self) -> int:
        return self.size


def vast(size: int) -> bytes:
    payload = Vast()
    payload.size = size
    return payload


def test_the_largest_packet() -> None:
    assert MAX_REMAINING_LENGTH == 256 * 1024 * 1024 - 1
    codec = Codec()
    at_qos_0 = encode_publish(codec, "a", vast(268_435_455 - 3), 0, 0, retain=False)
    assert at_qos_0 == b"\x30\xff\xff\xff\x7f\0\1a"
    at_qos_1 = encode_publish(codec, "a", vast(268_435_455 - 5), 1, 7, retain=False)
    assert at_qos_1 == b"\x32\xff\xff\xff\x7f\0\1a\0\7"


@pytest.mark.parametrize(("qos", "size"), [(0, 268_435_453), (1, 268_435_451), (2, 268_435_451)])
def test_a_larger_packet_is_denied(qos: p.QoS, size: int) -> None:
    expected = r"^the packet takes 268435456 bytes, of 268435455 at most$"
    with pytest.raises(Denied, match=expected):
        encode_publish(Codec(), "a", vast(size), qos, 7, retain=False)
    message = p.Message("a", vast(size), qos)
    with pytest.raises(Denied, match=expected):
        encode(p.Delivery(message, 7) if qos else message)


# Resends


@pytest.mark.conformance("MQTT-2.3.1-3", "MQTT-3.3.1-1")
@pytest.mark.parametrize(
    ("publish", "duplicate"),
    [
        (b"\x32\x06\0\1a\0\1x", b"\x3a\x06\0\1a\0\1x"),
        (b"\x33\x06\0\1a\0\1x", b"\x3b\x06\0\1a\0\1x"),
        (b"\x34\x06\0\1a\0\1x", b"\x3c\x06\0\1a\0\1x"),
        (b"\x35\x06\0\1a\0\1x", b"\x3d\x06\0\1a\0\1x"),
    ],
)
def test_as_duplicate(publish: bytes, duplicate: bytes) -> None:
    codec: p.Codec = Codec()
    assert codec.as_duplicate(publish) == duplicate
    assert codec.as_duplicate(duplicate) == duplicate


@pytest.mark.parametrize(
    ("publish", "renumbered"),
    [
        (b"\x32\x06\0\1a\0\1x", b"\x32\x06\0\1a\xab\xcdx"),
        (b"\x3d\x07\0\3a/b\1\2", b"\x3d\x07\0\3a/b\xab\xcd"),
        (
            b"\x34\x7f\0\1a\0\1" + bytes(122),
            b"\x34\x7f\0\1a\xab\xcd" + bytes(122),
        ),
        (
            b"\x34\x80\x01\0\1a\0\1" + bytes(123),
            b"\x34\x80\x01\0\1a\xab\xcd" + bytes(123),
        ),
        (
            b"\x32\x86\x80\x01\x40\0" + b"t" * 16_384 + b"\0\1ab",
            b"\x32\x86\x80\x01\x40\0" + b"t" * 16_384 + b"\xab\xcdab",
        ),
    ],
    ids=["QoS 1", "no payload", "length 127", "length 128", "long topic"],
)
def test_with_packet_id(publish: bytes, renumbered: bytes) -> None:
    codec: p.Codec = Codec()
    assert codec.with_packet_id(publish, 0xABCD) == renumbered


# Acknowledgements


@pytest.mark.parametrize(
    ("answer", "wire"),
    [
        (p.PubAck, b"\x40\x02\1\2"),
        (p.PubRec, b"\x50\x02\1\2"),
        (p.PubRel, b"\x62\x02\1\2"),
        (p.PubComp, b"\x70\x02\1\2"),
    ],
)
def test_encode_ack(answer: type[p.Ack], wire: bytes) -> None:
    codec: p.Codec = Codec()
    assert codec.encode_ack(answer, 0x0102) == wire


# The caches of topics. They are bounded, so that a device that never repeats a topic does not
# collect them until it has no memory left.


class Topic(str):
    """Counts how often it is encoded, which is what the cache spares."""

    __slots__ = ("encoded",)
    encoded: list[None]

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        self.encoded.append(None)
        return super().encode(encoding, errors)


def topic_of(size: int) -> Topic:
    topic = Topic("t" * size)
    topic.encoded = []
    return topic


def times_encoded(topic: Topic, between: Callable[[int], str], others: int) -> int:
    """How often `topic` is encoded for two messages, with others between them."""
    codec = Codec()
    expected = encode(p.Message(str(topic), b"x"))
    topic.encoded.clear()
    assert encode_publish(codec, topic, b"x", 0, 0, retain=False) == expected
    for index in range(others):
        encode_publish(codec, between(index), b"", 0, 0, retain=False)
    assert encode_publish(codec, topic, b"x", 0, 0, retain=False) == expected
    return len(topic.encoded)


def test_a_topic_is_encoded_once() -> None:
    assert times_encoded(topic_of(10), "other {}".format, 999) == 1


def test_the_encoder_keeps_no_more_than_a_thousand_topics() -> None:
    assert times_encoded(topic_of(10), "other {}".format, 1_000) == 2


def test_the_encoder_keeps_no_long_topics() -> None:
    assert times_encoded(topic_of(254), "{}".format, 0) == 1
    assert times_encoded(topic_of(255), "{}".format, 0) == 2


def test_long_topics_take_no_place_in_the_encoder() -> None:
    assert times_encoded(topic_of(10), ("{}" + "long " * 60).format, 2_000) == 1


def same_object(size: int, others: int) -> bool:
    """Whether two messages have one topic in memory, with other topics between them."""
    decoder = client_decoder()
    topic = "t" * size
    wire = encode(p.Message(topic, b""))
    between = b"".join(encode(p.Message(f"other {index}", b"")) for index in range(others))
    first, *_, last = decoder.feed(wire + between + wire)
    assert isinstance(first, p.Message)
    assert isinstance(last, p.Message)
    assert first.topic == last.topic == topic
    return first.topic is last.topic


def test_a_topic_is_decoded_once() -> None:
    assert same_object(10, others=999)


def test_the_decoder_keeps_no_more_than_a_thousand_topics() -> None:
    assert not same_object(10, others=1_000)


def test_the_decoder_keeps_no_long_topics() -> None:
    assert same_object(256, others=0)
    assert not same_object(257, others=0)


@pytest.mark.parametrize("new_decoder", [client_decoder, server_decoder])
def test_many_topics_arrive_as_they_are(
    new_decoder: Callable[[], p.Decoder],
) -> None:
    topics = [f"device/{index}" for index in range(2_500)] * 2
    wire = b"".join(encode(p.Message(topic, b"")) for topic in topics)
    assert new_decoder().feed(wire) == [p.Message(topic, b"") for topic in topics]
