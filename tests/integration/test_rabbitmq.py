"""What RabbitMQ does in its own way."""

from __future__ import annotations

import pytest
import trio

import trio_mqtt

from .brokers import FORBIDDEN, HOST, USERS, Broker
from .clients import open_client
from .relay import open_relay

pytestmark = pytest.mark.rabbitmq


async def test_it_confirms_qos_2_as_if_it_were_qos_1(rabbitmq: Broker, topic: str) -> None:
    with trio.fail_after(20):
        async with trio_mqtt.open_client(rabbitmq.url) as client:
            assert await client.subscribe(topic, qos=2) == (1,)
            for number in range(50):  # more than the window
                await client.enqueue(topic, str(number), qos=2)
            await client.publish(topic, "confirmed", qos=2)
            assert client.statistics().downgrades == client.statistics().confirmed == 51
            for number in range(50):
                message = await client.messages.receive()
                assert message.payload == str(number).encode()
                assert message.qos == 1
            assert (await client.messages.receive()).payload == b"confirmed"
            await client.publish(topic, "at least once", qos=1)
            assert client.statistics().downgrades == 51


async def test_it_keeps_no_session_for_subscriptions_at_qos_0_alone(
    rabbitmq: Broker, topic: str
) -> None:
    with trio.fail_after(20):
        async with (
            open_relay(rabbitmq.port) as relay,
            open_client(rabbitmq.url_at(relay.port), client_id=topic) as client,
        ):
            await client.subscribe(topic, qos=0)
            relay.cut()
            await client.wait_offline()
            await client.wait_online()
            assert not client.session_present
            await client.publish(topic, "subscribed again")
            assert (await client.messages.receive()).payload == b"subscribed again"
            await client.disconnect(discard=True)


async def test_it_answers_a_forbidden_subscription_by_closing_the_connection(
    rabbitmq: Broker, topic: str
) -> None:
    url = f"mqtt://bob:{USERS['bob']}@{HOST}:{rabbitmq.port}"
    with trio.fail_after(20):
        async with open_client(url) as client:
            with pytest.raises(trio_mqtt.ResponseLost):
                await client.subscribe(f"{FORBIDDEN}/{topic}", qos=1)
            await client.wait_online()
            assert await client.subscribe(topic, qos=1) == (1,)
            await client.publish(topic, "granted", qos=1)
            assert (await client.messages.receive()).payload == b"granted"
            assert client.statistics().connects == 2
