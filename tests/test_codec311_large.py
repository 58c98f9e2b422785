"""Large payloads, gathered on their own: whole, in pieces of all sizes, with neighbours."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import client_decoder, encode
from trio_mqtt._errors import ProtocolViolation
from trio_mqtt._framing import FORESEEN, LARGE

SIZES = [LARGE - 10, LARGE - 3, LARGE, 3 * LARGE + 7]


def stream(size: int, topic: str) -> tuple[bytes, list[p.Inbound]]:
    """Large messages at each QoS, with small packets before, between and behind them."""
    payload = random.Random(size).randbytes(size)
    packets: list[p.Inbound] = [
        p.PubAck(1),
        p.Message(topic, payload, retain=True),
        p.Message("small", b"x"),
        p.Delivery(p.Message(topic, payload, 1, dup=True), 7),
        p.Delivery(p.Message(topic, payload, 2), 65_535),
        p.PingResp(),
    ]
    return b"".join(map(encode, packets)), packets


def same(got: p.Inbound, expected: p.Inbound) -> bool:
    if isinstance(got, p.Delivery) and isinstance(expected, p.Delivery):
        return (got.message, got.packet_id) == (expected.message, expected.packet_id)
    return got == expected


@pytest.mark.parametrize("topic", ["t", "x" * 65_535])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1_000, LARGE - 1, LARGE, LARGE + 1, 10**9])
def test_pieces_of_any_size_give_the_same_packets(topic: str, size: int, piece: int) -> None:
    data, expected = stream(size, topic)
    decoder = client_decoder()
    got: list[p.Inbound] = []
    for start in range(0, len(data), piece):
        got += decoder.feed(data[start : start + piece])
    assert len(got) == len(expected)
    assert all(map(same, got, expected))
    assert not decoder.partial


@pytest.mark.parametrize("size", [FORESEEN - 1, FORESEEN, FORESEEN + 1])
def test_memory_that_is_foreseen_and_not(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    data = encode(p.Message("t", payload)) + encode(p.PingResp())
    decoder = client_decoder()
    got: list[p.Inbound] = []
    for start in range(0, len(data), 300_000):
        assert decoder.missing == (max(0, size + 8 - start) if start else 0)
        got += decoder.feed(data[start : start + 300_000])
    assert got == [p.Message("t", payload), p.PingResp()]
    assert decoder.missing == 0


def test_the_mere_word_of_a_broker_takes_little_memory() -> None:
    """PITFALLS: a length that is declared is not yet one that comes."""
    decoders = [client_decoder() for _ in range(10)]
    data = b"\x30\xff\xff\xff\x7f" + b"\0\1t" + bytes(10)
    tracemalloc.start()
    try:
        for decoder in decoders:
            assert decoder.feed(data) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(decoder.missing > 268_000_000 for decoder in decoders)
    assert peak < 100_000


def test_the_header_may_come_byte_by_byte() -> None:
    data, expected = stream(LARGE, "a/topic")
    decoder = client_decoder()
    got: list[p.Inbound] = []
    for position in range(40):
        got += decoder.feed(data[position : position + 1])
    assert decoder.partial
    got += decoder.feed(data[40:])
    assert all(map(same, got, expected))


def test_it_is_partial_until_the_last_byte() -> None:
    data = encode(p.Message("t", bytes(LARGE)))
    decoder = client_decoder()
    assert decoder.feed(data[:-1]) == []
    assert decoder.partial
    assert decoder.feed(data[-1:]) == [p.Message("t", bytes(LARGE))]
    assert not decoder.partial


def test_a_violation_behind_a_large_message_is_told_after_it() -> None:
    data = encode(p.Message("t", bytes(LARGE)))
    decoder = client_decoder()
    decoder.feed(data[:-1])
    assert len(decoder.feed(data[-1:] + b"\x00\x00")) == 1
    assert decoder.violation is not None
    with pytest.raises(ProtocolViolation):
        decoder.feed(b"")


@pytest.mark.parametrize("topic", ["a/#", "a\0b"])
def test_an_illegal_topic_is_a_violation_before_the_payload_is_here(topic: str) -> None:
    data = encode(p.Message(topic, bytes(LARGE)))
    with pytest.raises(ProtocolViolation):
        client_decoder().feed(data[:1_000])


def test_a_topic_that_exceeds_the_packet_is_a_violation() -> None:
    data = b"\x30\x80\x80\x04" + b"\xff\xff" + bytes(LARGE)
    with pytest.raises(ProtocolViolation):
        decoder = client_decoder()
        decoder.feed(data[: LARGE // 2])
        decoder.feed(data[LARGE // 2 :])


def test_a_message_takes_its_own_size_in_memory_and_little_more() -> None:
    size, piece = 64 * 1024 * 1024, bytes(65_536)
    decoder = client_decoder()
    header = encode(p.Message("t", bytes(LARGE)))[:1] + b"\x83\x80\x80\x20" + b"\0\x01t"
    decoder.feed(header)
    tracemalloc.start()
    for _ in range(size // len(piece)):
        got = decoder.feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (message,) = got
    assert isinstance(message, p.Message)
    assert len(message.payload) == size
    assert peak < 1.15 * size
