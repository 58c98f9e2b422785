"""Messages through the in-process broker (sections 3.3, 3.8 to 3.10, 4.3 to 4.7)."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from trio_mqtt import ProtocolViolation
from trio_mqtt import _packets as p
from trio_mqtt.testing import open_broker
from trio_mqtt.testing._raw_client import RawClient

QOS_LEVELS: tuple[p.QoS, ...] = (0, 1, 2)


async def ask(client: RawClient, request: p.Packet) -> p.Inbound:
    await client.send(request)
    return await client.receive()


# From clients


@pytest.mark.conformance(
    "MQTT-3.3.4-1", "MQTT-4.3.2-2", "MQTT-4.3.3-2", "MQTT-2.3.1-6", "MQTT-3.3.1-3", "MQTT-4.5.0-1"
)
async def test_inbound(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        receiver = await RawClient.connect(broker.dialer, "receiver")
        await ask(receiver, p.Subscribe(1, (("a", 0),)))
        client = await RawClient.connect(broker.dialer)
        await client.send(p.Message("a", b"0"))
        once, twice = p.Message("a", b"1", 1), p.Message("a", b"2", 2)
        again = p.Message("a", b"2", 2, dup=True)
        assert await ask(client, p.Delivery(once, 7)) == p.PubAck(7)
        assert await ask(client, p.Delivery(once, 7)) == p.PubAck(7)
        assert await ask(client, p.Delivery(twice, 7)) == p.PubRec(7)
        assert await ask(client, p.Delivery(again, 7)) == p.PubRec(7)
        assert await ask(client, p.PubRel(7)) == p.PubComp(7)
        assert await ask(client, p.PubRel(7)) == p.PubComp(7)
        assert await ask(client, p.Delivery(twice, 7)) == p.PubRec(7)
        assert await receiver.settle() == [
            p.Message("a", payload) for payload in (b"0", b"1", b"1", b"2", b"2")
        ]


@pytest.mark.conformance("MQTT-4.3.3-2", "MQTT-4.4.0-1")
async def test_exactly_once_across_connections(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        receiver = await RawClient.connect(broker.dialer, "receiver")
        await ask(receiver, p.Subscribe(1, (("a", 0),)))
        client = await RawClient.connect(broker.dialer, clean_session=False)
        await ask(client, p.Delivery(p.Message("a", b"", 2), 7))
        broker.disconnect("raw")
        client = await RawClient.connect(broker.dialer, clean_session=False, session_present=True)
        again = p.Delivery(p.Message("a", b"", 2, dup=True), 7)
        assert await ask(client, again) == p.PubRec(7)
        assert await ask(client, p.PubRel(7)) == p.PubComp(7)
        assert await receiver.settle() == [p.Message("a", b"")]


# To clients


@pytest.mark.conformance("MQTT-3.8.4-6", "MQTT-3.3.1-9", "MQTT-4.3.1-1", "MQTT-2.3.1-5")
@pytest.mark.parametrize("published", QOS_LEVELS)
@pytest.mark.parametrize("granted", QOS_LEVELS)
async def test_lower_qos_counts(
    published: p.QoS, granted: p.QoS, autojump_clock: MockClock
) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        assert await ask(client, p.Subscribe(1, (("a", granted),))) == p.SubAck(1, (granted,))
        broker.publish("a", "x", qos=published, retain=True)
        packet_id, message = await client.receive_delivery()
        assert (message.qos, packet_id) == (min(granted, published), 1 if message.qos else 0)
        assert not message.retain


@pytest.mark.conformance("MQTT-4.3.2-1", "MQTT-4.3.3-1", "MQTT-2.3.1-4")
async def test_outbound(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        await ask(client, p.Subscribe(1, (("#", 2),)))
        broker.publish("a", "1", qos=1)
        broker.publish("a", "2", qos=2)
        assert await client.receive_delivery() == (1, p.Message("a", b"1", 1))
        assert await client.receive_delivery() == (2, p.Message("a", b"2", 2))
        await client.send(p.PubAck(1))
        assert await ask(client, p.PubRec(2)) == p.PubRel(2)
        assert await ask(client, p.PubRec(2)) == p.PubRel(2)
        assert broker.sessions["raw"].in_flight == 1
        await client.send(p.PubComp(2), p.PubComp(2), p.PubAck(1))
        assert await client.settle() == []
        assert broker.sessions["raw"].in_flight == 0
        assert not broker.violations


@pytest.mark.conformance("MQTT-4.3.3-1")
async def test_pubrel_answers_a_pubrec_of_nothing(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer, clean_session=False)
        await client.send(p.PubRec(9))
        assert await client.settle() == [p.PubRel(9)]
        assert broker.sessions["raw"].in_flight == 0
        await client.send(p.PubComp(9))
        await client.stream.aclose()
        await broker.wait_disconnected("raw")
        again = await RawClient.connect(broker.dialer, clean_session=False, session_present=True)
        assert await again.settle() == []
        assert not broker.violations


@pytest.mark.conformance("MQTT-4.6.0-6")
async def test_window(autojump_clock: MockClock) -> None:
    async with open_broker(max_in_flight=2) as broker:
        client = await RawClient.connect(broker.dialer)
        await ask(client, p.Subscribe(1, (("a", 1),)))
        for number in range(4):
            broker.publish("a", str(number), qos=1)
        broker.publish("a", "at most once")
        assert [await client.receive_delivery() for _ in range(3)] == [
            (1, p.Message("a", b"0", 1)),
            (2, p.Message("a", b"1", 1)),
            (0, p.Message("a", b"at most once")),
        ]
        assert broker.sessions["raw"].queued == 2
        for packet_id in (1, 2):
            await client.send(p.PubAck(packet_id))
            message = p.Message("a", str(packet_id + 1).encode(), 1)
            assert await client.receive_delivery() == (packet_id + 2, message)


@pytest.mark.conformance(
    "MQTT-3.1.2-5", "MQTT-4.4.0-1", "MQTT-4.6.0-1", "MQTT-3.3.1-1", "MQTT-2.3.1-3"
)
async def test_resends(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer, clean_session=False)
        await ask(client, p.Subscribe(1, (("a", 2),)))
        for number in range(1, 5):
            broker.publish("a", str(number), qos=1 if number % 2 else 2)
            await client.receive_delivery()
        await client.send(p.PubAck(1))
        assert await ask(client, p.PubRec(2)) == p.PubRel(2)
        await client.stream.aclose()
        await broker.wait_disconnected("raw")
        broker.publish("a", "5", qos=1)
        broker.publish("a", "lost", qos=0)
        client = await RawClient.connect(broker.dialer, clean_session=False, session_present=True)
        assert await client.receive_delivery() == (3, p.Message("a", b"3", 1, dup=True))
        assert await client.receive_delivery() == (4, p.Message("a", b"4", 2, dup=True))
        assert await client.receive() == p.PubRel(2)
        assert await client.receive_delivery() == (5, p.Message("a", b"5", 1))
        await client.send(p.PubAck(3), p.PubRec(4), p.PubComp(2), p.PubAck(5))
        assert await client.settle() == [p.PubRel(4)]
        assert not broker.violations


# Retained messages


@pytest.mark.conformance(
    "MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-7", "MQTT-3.3.1-8", "MQTT-3.3.1-10",
    "MQTT-3.3.1-11", "MQTT-3.3.1-12", "MQTT-3.8.4-3",
)  # fmt: skip
async def test_retained(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        kept = p.Message("a/b", b"kept", 1, retain=True)
        assert await ask(client, p.Delivery(kept, 1)) == p.PubAck(1)
        assert await ask(client, p.Delivery(p.Message("a/b", b"not", 1), 1)) == p.PubAck(1)
        assert await ask(client, p.Delivery(p.Message("a/b", b"", 1), 1)) == p.PubAck(1)
        assert broker.retained == {"a/b": kept}
        for granted in (2, 0):
            request = p.Subscribe(1, (("a/#", granted),))
            assert await ask(client, request) == p.SubAck(1, (granted,))
            qos = min(granted, 1)
            message = p.Message("a/b", b"kept", qos, retain=True)  # type: ignore[arg-type]
            assert (await client.receive_delivery())[1] == message
        await client.send(p.PubAck(1), p.Message("a/b", b"", retain=True))
        assert await client.settle() == [p.Message("a/b", b"")]
        assert broker.retained == {}
        assert await ask(client, p.Subscribe(2, (("a/b", 2),))) == p.SubAck(2, (2,))
        assert await client.settle() == []


# Subscriptions


@pytest.mark.conformance(
    "MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.8.4-4", "MQTT-3.8.4-5", "MQTT-3.9.3-1", "MQTT-2.3.1-7"
)
async def test_subscribe(autojump_clock: MockClock) -> None:
    async with open_broker(max_qos=1, fail_filters={"secret"}) as broker:
        client = await RawClient.connect(broker.dialer)
        request = p.Subscribe(300, (("a", 2), ("secret", 1), ("b", 0), ("a", 0)))
        assert await ask(client, request) == p.SubAck(300, (1, p.FAILED, 0, 0))
        assert broker.sessions["raw"].subscriptions == {"a": 0, "b": 0}


async def test_grant(autojump_clock: MockClock) -> None:
    def grant(topic_filter: str, qos: p.QoS) -> int:
        return {"odd": 3, "lower": qos - 1}.get(topic_filter, p.FAILED)

    async with open_broker(grant=grant) as broker:
        client = await RawClient.connect(broker.dialer)
        await client.send(p.Subscribe(1, (("odd", 2), ("lower", 2), ("failed", 1))))
        with pytest.raises(ProtocolViolation, match="return code 0x03"):
            await client.receive()
        assert broker.sessions["raw"].subscriptions == {"lower": 1}


@pytest.mark.conformance("MQTT-3.3.5-1")
async def test_overlapping_filters_give_one_copy(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        await ask(client, p.Subscribe(1, (("a/+", 1), ("a/b", 2), ("#", 0))))
        broker.publish("a/b", "", qos=2)
        assert await client.receive_delivery() == (1, p.Message("a/b", b"", 2))
        assert await client.settle() == []


@pytest.mark.conformance("MQTT-4.7.2-1", "MQTT-3.3.2-3", "MQTT-4.7.3-4")
async def test_matching(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        await ask(client, p.Subscribe(1, (("#", 0), ("+/b", 0), ("$SYS/+", 0))))
        for topic in ("$SYS/b", "$other/b", "A/b", "/b"):
            broker.publish(topic, "")
        assert await client.settle() == [p.Message(topic, b"") for topic in ("$SYS/b", "A/b", "/b")]


@pytest.mark.conformance(
    "MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT-3.10.4-3", "MQTT-3.10.4-4", "MQTT-3.10.4-5",
    "MQTT-3.10.4-6", "MQTT-2.3.1-7",
)  # fmt: skip
async def test_unsubscribe(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        await ask(client, p.Subscribe(1, (("a", 2), ("+", 2), ("b", 2))))
        broker.publish("a", "", qos=2)
        assert (await client.receive_delivery())[0] == 1
        assert await ask(client, p.Unsubscribe(9, ("+", "a", "none"))) == p.UnsubAck(9)
        assert broker.sessions["raw"].subscriptions == {"b": 2}
        broker.publish("a", "", qos=2)
        assert await ask(client, p.PubRec(1)) == p.PubRel(1)
        await client.send(p.PubComp(1))
        assert await client.settle() == []
        assert broker.sessions["raw"].in_flight == 0


@pytest.mark.conformance("MQTT-3.12.4-1")
async def test_ping(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        assert await ask(client, p.PingReq()) == p.PingResp()


# RabbitMQ


async def test_rabbitmq_messages(autojump_clock: MockClock) -> None:
    async with open_broker(rabbitmq=True) as broker:
        client = await RawClient.connect(broker.dialer)
        broker.publish("k.1", "kept", retain=True)
        request = p.Subscribe(1, (("k/+", 2), ("k/1", 1), ("x.y", 0)))
        assert await ask(client, request) == p.SubAck(1, (1, 1, 0))
        assert await client.receive_delivery() == (0, p.Message("k/1", b"kept", retain=True))
        twice = p.Delivery(p.Message("x.y", b"", 2), 5)
        for publish in (twice, p.Delivery(p.Message("x.y", b"", 2, dup=True), 5)):
            await client.send(publish)
            assert await client.settle() == [p.Message("x/y", b""), p.PubAck(5)]
        await client.send(p.PubRel(5))
        assert await client.settle() == []
        assert await ask(client, p.Unsubscribe(6, ("x/y",))) == p.UnsubAck(6)
        assert broker.sessions["raw"].subscriptions == {"k/+": 1, "k/1": 1}
        assert not broker.violations


async def test_rabbitmq_sessions(autojump_clock: MockClock) -> None:
    async with open_broker(rabbitmq=True) as broker:
        for requests, present in (
            ((("a", 0),), False),
            ((("a", 0), ("b", 1)), False),
            ((), True),
        ):
            client = await RawClient.connect(
                broker.dialer, clean_session=False, session_present=present
            )
            if requests:
                await ask(client, p.Subscribe(1, requests))  # type: ignore[arg-type]
            await client.send(p.Disconnect())
            await broker.wait_disconnected("raw")
        assert broker.sessions["raw"].subscriptions == {"b": 1}
