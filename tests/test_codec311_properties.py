"""The codec under any packets, any bytes, and any cuts between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec, client_decoder, encode
from trio_mqtt._errors import ProtocolViolation
from trio_mqtt._framing import Decoder
from trio_mqtt.testing._server311 import server_decoder

from .wire import encode_publish

NewDecoder: TypeAlias = Callable[[], Decoder[p.Packet]]

# Packets

STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
TOPICS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=40
)
LEVELS = st.lists(TOPICS.map(lambda topic: topic.replace("/", "")) | st.just("+"), max_size=4)
TOPIC_FILTERS = (
    st.tuples(LEVELS, st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)
# Some of them need a remaining length of two or three bytes.
PAYLOADS = st.binary(max_size=300) | st.sampled_from([200, 16_384]).map(bytes)
PACKET_IDS = st.integers(1, 65_535)
ANY_QOS: st.SearchStrategy[p.QoS] = st.sampled_from((0, 1, 2))
ACKNOWLEDGED: st.SearchStrategy[p.QoS] = st.sampled_from((1, 2))

MESSAGES = st.builds(p.Message, TOPICS, PAYLOADS, st.just(0), st.booleans(), st.just(False))
DELIVERIES = st.builds(
    p.Delivery,
    st.builds(p.Message, TOPICS, PAYLOADS, ACKNOWLEDGED, st.booleans(), st.booleans()),
    PACKET_IDS,
)
FROM_EITHER_SIDE: st.SearchStrategy[p.Inbound | p.Served] = st.one_of(
    MESSAGES,
    DELIVERIES,
    *(st.builds(answer, PACKET_IDS) for answer in (p.PubAck, p.PubRec, p.PubRel, p.PubComp)),
)
FROM_BROKER: st.SearchStrategy[p.Packet] = st.one_of(
    FROM_EITHER_SIDE,
    st.builds(p.ConnAck, st.booleans(), st.just(0)),
    st.builds(p.ConnAck, st.just(False), st.integers(1, 5)),
    st.builds(
        p.SubAck,
        PACKET_IDS,
        st.lists(st.sampled_from((0, 1, 2, p.FAILED)), min_size=1, max_size=8).map(tuple),
    ),
    st.builds(p.UnsubAck, PACKET_IDS),
    st.just(p.PingResp()),
)
WILLS = st.builds(p.Will, TOPICS, st.binary(max_size=300), qos=ANY_QOS, retain=st.booleans())
CREDENTIALS = st.one_of(
    st.just((None, None)),
    st.tuples(STRINGS, st.none()),
    st.tuples(STRINGS, st.binary(max_size=300)),
)


def connect(
    client_id: str,
    clean_session: bool,
    keep_alive: int,
    will: p.Will | None,
    credentials: tuple[str | None, bytes | None],
) -> p.Connect:
    return p.Connect(client_id, clean_session, keep_alive, will, *credentials)


FROM_CLIENT: st.SearchStrategy[p.Packet] = st.one_of(
    FROM_EITHER_SIDE,
    st.builds(
        connect,
        STRINGS,
        st.booleans(),
        st.integers(0, 65_535),
        st.none() | WILLS,
        CREDENTIALS,
    ),
    st.builds(p.UnsupportedLevel, st.integers(0, 255).filter(lambda level: level != 4)),
    st.builds(
        p.Subscribe,
        PACKET_IDS,
        st.lists(st.tuples(TOPIC_FILTERS, ANY_QOS), min_size=1, max_size=10).map(tuple),
    ),
    st.builds(
        p.Unsubscribe, PACKET_IDS, st.lists(TOPIC_FILTERS, min_size=1, max_size=10).map(tuple)
    ),
    st.just(p.PingReq()),
    st.just(p.Disconnect()),
)
SIDES = [
    pytest.param(client_decoder, FROM_BROKER, id="client"),
    pytest.param(server_decoder, FROM_CLIENT, id="server"),
]


def cut(wire: bytes, data: st.DataObject) -> list[bytes]:
    """`wire` in pieces, some of them empty."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12), label="cuts"))
    return [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


def as_values(packets: Iterable[p.Packet]) -> list[tuple[type, object]]:
    """Packets that compare by what they say: deliveries are compared by identity."""
    return [(type(packet), attrs.astuple(packet)) for packet in packets]


@pytest.mark.conformance("MQTT-6.0.0-2")
@pytest.mark.parametrize(("new_decoder", "packets"), SIDES)
@settings(deadline=None)
@given(data=st.data())
def test_round_trip(
    new_decoder: NewDecoder, packets: st.SearchStrategy[p.Packet], data: st.DataObject
) -> None:
    sent = data.draw(st.lists(packets, min_size=1, max_size=6), label="packets")
    decoder = new_decoder()
    received = [
        packet for piece in cut(b"".join(map(encode, sent)), data) for packet in decoder.feed(piece)
    ]
    assert as_values(received) == as_values(sent)
    assert not decoder.partial
    assert decoder.violation is None


@settings(deadline=None)
@given(packet=MESSAGES | DELIVERIES, times=st.integers(1, 2))
def test_the_hot_path_encodes_as_the_plain_one_does(
    packet: p.Message | p.Delivery, times: int
) -> None:
    message, packet_id = packet, 0
    if isinstance(packet, p.Delivery):
        message, packet_id = packet.message, packet.packet_id
    assert isinstance(message, p.Message)
    codec = Codec()
    encoded = [
        encode_publish(
            codec, message.topic, message.payload, message.qos, packet_id, retain=message.retain
        )
        for _ in range(times)
    ]
    if message.dup:
        encoded = [codec.as_duplicate(publish) for publish in encoded]
    assert encoded == [encode(packet)] * times


# Bytes


def outcome(
    decoder: Decoder[p.Packet], pieces: Iterable[bytes]
) -> tuple[list[tuple[type, object]], bool, str | None]:
    """The packets, whether another began, and what was wrong behind them, if anything."""
    packets: list[p.Packet] = []
    wrong: ProtocolViolation | None = None
    try:
        for piece in pieces:
            packets += decoder.feed(piece)
        wrong = decoder.violation
    except ProtocolViolation as violation:
        wrong = violation
    return as_values(packets), decoder.partial, None if wrong is None else str(wrong)


@pytest.mark.parametrize("new_decoder", [client_decoder, server_decoder])
@settings(deadline=None, max_examples=300)
@given(wire=st.binary(max_size=60), data=st.data())
def test_any_bytes_are_packets_or_a_violation(
    new_decoder: NewDecoder, wire: bytes, data: st.DataObject
) -> None:
    # The same, however the network cuts them.
    assert outcome(new_decoder(), cut(wire, data)) == outcome(new_decoder(), [wire])


@pytest.mark.parametrize(("new_decoder", "packets"), SIDES)
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_packets_with_a_byte_changed_are_packets_or_a_violation(
    new_decoder: NewDecoder, packets: st.SearchStrategy[p.Packet], data: st.DataObject
) -> None:
    sent = data.draw(st.lists(packets, min_size=1, max_size=3), label="packets")
    wire = bytearray(b"".join(map(encode, sent)))
    # Mostly near the beginning, where the lengths are.
    position = data.draw(st.integers(0, min(len(wire), 40) - 1), label="position")
    wire[position] = data.draw(st.integers(0, 255), label="byte")
    changed = bytes(wire)
    assert outcome(new_decoder(), cut(changed, data)) == outcome(new_decoder(), [changed])
