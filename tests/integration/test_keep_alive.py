"""Connections that are idle, dead without a word, or stolen."""

from __future__ import annotations

import pytest
import trio

import trio_mqtt
from trio_mqtt import Buffer, Client

from .brokers import Broker
from .clients import open_client
from .relay import open_relay

IDLE = 4.0
"""Seconds: with a keep-alive of 1, mosquitto loses patience after 1.5, RabbitMQ after 3."""


@pytest.mark.conformance("MQTT-3.1.2-23")
async def test_an_idle_client_stays_connected(broker: Broker, topic: str) -> None:
    """Whether its application waits for messages, or is stuck and the broker cannot write."""
    # RabbitMQ reads nothing, and so no PINGREQ, while it cannot write: it gets less than a socket
    # holds.
    times = 20_000 if broker.name == "mosquitto" else 1
    payloads = [str(number).encode() * times for number in range(100, 250)]
    with trio.fail_after(30):
        async with (
            trio_mqtt.open_client(broker.url) as publisher,
            trio_mqtt.open_client(broker.url, keep_alive=1) as idle,
            trio_mqtt.open_client(
                broker.url, keep_alive=1, pause_timeout=1, buffer=Buffer(messages=1)
            ) as stalled,
            trio_mqtt.open_client(
                broker.url, keep_alive=1, pause_timeout=1, buffer=Buffer(messages=1)
            ) as stalled_at_most_once,
        ):
            await idle.subscribe(topic, qos=1)
            await stalled.subscribe(topic, qos=1)
            await stalled_at_most_once.subscribe(topic, qos=0)
            began = trio.current_time()
            for payload in payloads:
                await publisher.publish(topic, payload, qos=1)
            for client in [idle, stalled, stalled_at_most_once]:
                assert (await client.messages.receive()).payload == payloads[0]

            await trio.sleep_until(began + IDLE)

            for client in [idle, stalled, stalled_at_most_once]:
                for payload in payloads[1:]:
                    assert (await client.messages.receive()).payload == payload
                statistics = client.statistics()
                assert statistics.connects == 1
                assert statistics.repeated == statistics.given_up == 0
                assert await client.ping() < 1


async def test_a_connection_that_is_dead_is_noticed(broker: Broker, topic: str) -> None:
    """Nothing comes, and nothing says so: TCP would take minutes."""
    keep_alive, pause_timeout = 1, 0.5
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            open_client(
                broker.url_at(relay.port),
                client_id=topic,
                keep_alive=keep_alive,
                pause_timeout=pause_timeout,
            ) as client,
        ):
            await client.subscribe(topic, qos=1)
            relay.swallow()
            began = trio.current_time()
            with trio.fail_after(keep_alive + pause_timeout):
                await client.wait_offline()
            assert trio.current_time() - began > pause_timeout
            await client.wait_online()
            await client.publish(topic, "alive", qos=1)
            assert (await client.messages.receive()).payload == b"alive"
            assert client.statistics().connects == 2
            await client.disconnect(discard=True)


async def test_a_publish_into_a_dead_connection_is_confirmed_over_the_next(
    broker: Broker, topic: str
) -> None:
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            trio_mqtt.open_client(broker.url) as subscriber,
            open_client(
                broker.url_at(relay.port), client_id=topic, keep_alive=1, pause_timeout=0.5
            ) as client,
        ):
            await subscriber.subscribe(topic, qos=1)
            relay.swallow()
            exchange = await client.enqueue(topic, "alive", qos=1)
            interruptions = [interruption async for interruption in exchange]
            assert [type(interruption) for interruption in interruptions] == [
                trio_mqtt.ResponseLost
            ]
            assert (await subscriber.messages.receive()).payload == b"alive"
            await client.disconnect(discard=True)


@pytest.mark.conformance("MQTT-3.1.4-2")
async def test_two_clients_with_one_identifier_do_not_fight_in_a_tight_loop(
    broker: Broker, topic: str
) -> None:
    """Each is evicted by the other as soon as it is accepted, and so has to wait ever longer."""

    with trio.fail_after(20):
        async with (
            trio_mqtt.open_client(
                broker.url, client_id=topic, reconnect_wait_min=0.1, reconnect_wait_max=30
            ) as one,
            trio_mqtt.open_client(
                broker.url, client_id=topic, reconnect_wait_min=0.1, reconnect_wait_max=30
            ) as other,
        ):
            await trio.sleep(3)
            # Waits of up to 0.1, 0.2, 0.4 s and so on: 6 of each fill the time on average.
            assert 2 <= connects(one) + connects(other) <= 24


def connects(client: Client) -> int:
    return client.statistics().connects
