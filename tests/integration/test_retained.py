from __future__ import annotations

import pytest
import trio

import trio_mqtt
from trio_mqtt import QoS

from .brokers import Broker


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_retained_message_meets_new_subscribers_until_it_is_cleared(
    broker: Broker, topic: str, qos: QoS
) -> None:
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as publisher:
            await publisher.publish(topic, "20.8℃", qos=qos, retain=True)
            await publisher.ping()  # behind which QoS 0 has arrived too
            async with trio_mqtt.open_client(broker.url) as newcomer:
                await newcomer.subscribe(topic)
                message = await newcomer.messages.receive()
                assert message.payload == "20.8℃".encode()
                assert message.retain
                # To a subscription that stands already it is a message like any other.
                await publisher.publish(topic, "20.9℃", qos=qos, retain=True)
                message = await newcomer.messages.receive()
                assert message.payload == "20.9℃".encode()
                assert not message.retain

            await publisher.clear_retained(topic)
            async with trio_mqtt.open_client(broker.url) as newcomer:
                await newcomer.subscribe(topic)
                await publisher.publish(topic, "no longer retained", qos=1)
                message = await newcomer.messages.receive()
                assert message.payload == b"no longer retained"
                assert not message.retain


async def test_a_retained_message_that_was_replaced_is_gone(broker: Broker, topic: str) -> None:
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as client:
            for payload in ["old", "new"]:
                await client.publish(topic, payload, qos=1, retain=True)
            await client.subscribe(topic)
            assert (await client.messages.receive()).payload == b"new"
            await client.clear_retained(topic)
            # Its subscribers see it too, as an empty message.
            assert (await client.messages.receive()).payload == b""
