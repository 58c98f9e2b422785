"""What the in-process broker does not let its clients do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from trio.testing import MockClock

from trio_mqtt import _packets as p
from trio_mqtt.testing import open_broker
from trio_mqtt.testing._raw_client import RawClient

ONE, TWO, TWO_AGAIN = (
    p.Message("a", b"x", 1),
    p.Message("a", b"x", 2),
    p.Message("a", b"x", 2, dup=True),
)


@pytest.mark.parametrize(
    ("packets", "flaw"),
    [
        pytest.param(
            [p.Delivery(TWO, 5), p.Delivery(TWO, 5)],
            "PUBLISH 5 without DUP, before its PUBREL",
            marks=pytest.mark.conformance("MQTT-2.3.1-2", "MQTT-3.3.1-1"),
        ),
        pytest.param(
            [p.Delivery(TWO, 5), p.Delivery(p.Message("a", b"y", 2, dup=True), 5)],
            "PUBLISH 5 is resent as another message",
            marks=pytest.mark.conformance("MQTT-2.3.1-3"),
        ),
        pytest.param(
            [p.Delivery(TWO, 5), p.Delivery(ONE, 5)],
            "packet identifier 5 is that of an unreleased PUBLISH",
            marks=pytest.mark.conformance("MQTT-2.3.1-2"),
        ),
        pytest.param(
            [p.Delivery(TWO, 5), p.Subscribe(5, (("a", 0),))],
            "packet identifier 5 is that of an unreleased PUBLISH",
            marks=pytest.mark.conformance("MQTT-2.3.1-2"),
        ),
        ([p.Delivery(TWO, n) for n in (1, 2, 3)], "PUBLISH 3, with 2 others unreleased"),
        (
            [p.Delivery(TWO, 1), p.Delivery(TWO, 2), p.PubRec(1), p.PubRel(2)],
            "PUBREL 2 before PUBREL 1",
        ),
    ],
)
async def test_publishing(
    packets: Sequence[p.Packet], flaw: str, autojump_clock: MockClock
) -> None:
    async with open_broker(max_unreleased=2, strict=False) as broker:
        client = await RawClient.connect(broker.dialer)
        for packet in packets:
            await client.send(packet)
            await client.settle(0) if packet is packets[-1] else await client.settle()
        assert await client.wait_closed() == []
        assert [(name, str(error)) for name, error in broker.violations] == [("raw", flaw)]


@pytest.mark.conformance("MQTT-2.3.1-2", "MQTT-2.3.1-3")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (p.Subscribe(5, (("a", 0),)), p.Unsubscribe(5, ("a",))),
        (p.Unsubscribe(5, ("a",)), p.Delivery(ONE, 5)),
        (p.Delivery(ONE, 5), p.Delivery(ONE, 5)),
        (p.Delivery(ONE, 5), p.Delivery(TWO, 5)),
        (p.PubRel(5), p.Subscribe(5, (("a", 0),))),
    ],
)
async def test_identifier_whose_answer_is_owed(
    first: p.Packet, second: p.Packet, autojump_clock: MockClock
) -> None:
    def answer(_client_id: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        return None if isinstance(packet, p.ConnAck) else []

    async with open_broker(answer=answer, strict=False) as broker:
        client = await RawClient.connect(broker.dialer)
        await client.send(first)
        assert await client.settle() == []
        await client.send(second)
        assert await client.wait_closed() == []
        [(_, violation)] = broker.violations
        assert str(violation) == "packet identifier 5 is in use"


@pytest.mark.parametrize(
    ("qos", "answers", "flaw"),
    [
        pytest.param(
            1,
            [p.PubAck(2)],
            "PUBACK 2 before PUBACK 1",
            marks=pytest.mark.conformance("MQTT-4.6.0-2"),
        ),
        pytest.param(
            2,
            [p.PubRec(2)],
            "PUBREC 2 before PUBREC 1",
            marks=pytest.mark.conformance("MQTT-4.6.0-3"),
        ),
        pytest.param(
            1,
            [p.PubRec(1)],
            "PUBREC 1 answers PUBLISH at QoS 1",
            marks=pytest.mark.conformance("MQTT-3.3.4-1"),
        ),
        (1, [p.PubComp(1)], "PUBCOMP 1 answers PUBLISH at QoS 1"),
        (2, [p.PubAck(1)], "PUBACK 1 answers PUBLISH at QoS 2"),
        pytest.param(
            2,
            [p.PubComp(1)],
            "PUBCOMP 1 answers PUBLISH at QoS 2",
            marks=pytest.mark.conformance("MQTT-4.3.3-1"),
        ),
        (2, [p.PubRec(1), p.PubAck(1)], "PUBACK 1 answers PUBREL"),
    ],
)
async def test_answering(
    qos: p.QoS, answers: Sequence[p.Packet], flaw: str, autojump_clock: MockClock
) -> None:
    async with open_broker(strict=False) as broker:
        client = await RawClient.connect(broker.dialer)
        await client.send(p.Subscribe(1, (("a", 2),)))
        broker.publish("a", "1", qos=qos)
        await client.settle()
        broker.publish("a", "1", qos=qos)
        broker.publish("a", "2", qos=qos)
        await client.settle()
        await client.send(*answers)
        await client.wait_closed()
        assert [str(violation) for _, violation in broker.violations] == [flaw]


@pytest.mark.conformance("MQTT-4.6.0-4")
async def test_pubrel_in_the_order_in_which_pubrec_was_sent(autojump_clock: MockClock) -> None:
    withheld: list[p.Packet] = []

    def answer(_client_id: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        if packet == p.PubRec(1):
            withheld.append(packet)
            return []
        return [packet, *withheld] if isinstance(packet, p.PubRec) else None

    async with open_broker(answer=answer) as broker:
        client = await RawClient.connect(broker.dialer)
        await client.send(p.Delivery(TWO, 1), p.Delivery(TWO, 2))
        assert await client.settle() == [p.PubRec(2), p.PubRec(1)]
        await client.send(p.PubRel(2), p.PubRel(1))
        assert await client.settle() == [p.PubComp(2), p.PubComp(1)]
        assert not broker.violations


async def test_a_violation_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="client '': Subscribe comes before CONNECT"):
        async with open_broker() as broker:
            client = RawClient(await broker.dialer())
            await client.send(p.Subscribe(1, (("a", 0),)))
            assert await client.wait_closed() == []


async def test_a_test_that_fails_fails_as_itself() -> None:
    with pytest.raises(KeyError):
        async with open_broker() as broker:
            client = RawClient(await broker.dialer())
            await client.send(p.PingReq())
            assert await client.wait_closed() == []
            raise KeyError
