"""Payloads that are streamed: the same bytes, in whatever pieces they come."""

from __future__ import annotations

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec, encode, streaming_decoder
from trio_mqtt._errors import ProtocolViolation

PAYLOAD = bytes(range(256)) * 20


def collect(data: bytes, over: int, piece: int) -> list[p.Inbound]:
    """What arrives, with the streamed payloads put together; each message before its payload."""
    decoder = streaming_decoder(over)
    got: list[p.Inbound] = []
    bodies: dict[int, list[bytes]] = {}
    for start in range(0, len(data), piece):
        for packet in decoder.feed(data[start : start + piece]):
            if isinstance(packet, p.Grown):
                message = p.message_of(packet.packet)
                assert isinstance(message, p.Streamed)
                bodies.setdefault(id(message), []).extend(message.body.take())
                if message.body.is_complete:
                    message.payload = b"".join(bodies[id(message)])
                    assert len(message.payload) == message.size
            else:
                got.append(packet)
    assert not decoder.partial
    assert all(packet.complete for packet in got if isinstance(packet, p.Delivery))
    return got


def told(packet: p.Inbound) -> tuple[object, ...]:
    """What it comes to, however it came."""
    if not isinstance(packet, p.Message | p.Delivery):
        return (packet,)
    message = p.message_of(packet)
    packet_id = packet.packet_id if isinstance(packet, p.Delivery) else 0
    return message.topic, message.payload, message.qos, message.retain, message.dup, packet_id


@pytest.mark.parametrize("topic", ["t", "topic/" * 100])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 99, 100, 101, 102, 127, 128, 129, 5_000])
@pytest.mark.parametrize("piece", [1, 2, 3, 64, 100_000])
@pytest.mark.parametrize("over", [0, 100])
def test_pieces_of_any_size_give_the_same_messages(
    topic: str, size: int, piece: int, over: int
) -> None:
    payload = PAYLOAD[:size]
    packets: list[p.Inbound] = [
        p.Message(topic, payload, retain=True),
        p.PubAck(1),
        p.Delivery(p.Message(topic, payload, 1, dup=True), 7),
        p.Delivery(p.Message(topic, payload, 2), 65_535),
        p.Message("small", b""),
        p.PingResp(),
    ]
    got = collect(b"".join(map(encode, packets)), over, piece)
    assert list(map(told, got)) == list(map(told, packets))


@pytest.mark.parametrize("qos", [0, 1])
def test_only_what_is_larger_is_streamed(qos: p.QoS) -> None:
    decoder = Codec().new_decoder(100)
    for size in (100, 101):
        message = p.Message("t", bytes(size), qos)
        packet, *rest = decoder.feed(encode(message if qos == 0 else p.Delivery(message, 1)))
        assert isinstance(packet, p.Message | p.Delivery)
        assert isinstance(p.message_of(packet), p.Streamed) is (size > 100)
        assert len(rest) == (size > 100)


def test_what_nobody_wants_is_not_kept() -> None:
    data = encode(p.Message("t", PAYLOAD))
    decoder = streaming_decoder(100)
    message, _ = decoder.feed(data[:1000])
    assert isinstance(message, p.Streamed)
    assert decoder.partial
    message.body.discard()
    decoder.feed(data[1000:])
    assert message.body.take() == []
    assert message.body.is_complete
    assert not decoder.partial


@pytest.mark.parametrize("length", [300, 65_535])
def test_a_topic_beyond_its_packet_is_a_violation(length: int) -> None:
    decoder = streaming_decoder(100)
    data = b"\x30\xc8\x01" + length.to_bytes(2) + b"x" * 198
    assert decoder.feed(data[:-1]) == []
    with pytest.raises(ProtocolViolation, match="ends before its topic"):
        decoder.feed(data[-1:])
