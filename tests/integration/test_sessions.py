"""A session that outlives its connection, and one that the broker lost."""

from __future__ import annotations

import pytest
import trio

import trio_mqtt
from trio_mqtt import Client

from .brokers import Broker, Mosquitto
from .clients import open_client
from .relay import Relay, open_relay


async def is_cut(client: Client, relay: Relay) -> None:
    relay.cut()
    await client.wait_offline()


@pytest.mark.conformance("MQTT-3.1.2-4", "MQTT-3.2.2-2")
async def test_a_resumed_session_has_what_was_published_meanwhile(
    broker: Broker, topic: str
) -> None:
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            trio_mqtt.open_client(broker.url) as other,
            open_client(broker.url_at(relay.port), client_id=topic, clean_session=True) as client,
        ):
            assert not client.session_present
            await client.subscribe(topic, qos=1)
            with relay.refusing():
                await is_cut(client, relay)
                await other.publish(topic, "meanwhile", qos=1)
            message = await client.messages.receive()
            assert message.payload == b"meanwhile"
            assert message.qos == 1
            assert client.session_present
            assert client.statistics().connects == 2
            await client.disconnect(discard=True)


@pytest.mark.conformance("MQTT-4.4.0-1")
async def test_what_is_accepted_offline_is_delivered(broker: Broker, topic: str) -> None:
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            trio_mqtt.open_client(broker.url) as other,
            open_client(broker.url_at(relay.port), client_id=topic) as client,
        ):
            await other.subscribe(topic)
            with relay.refusing():
                await is_cut(client, relay)
                exchanges = [
                    client.enqueue_nowait(topic, "at least once", qos=1),
                    client.enqueue_nowait(topic, "exactly once", qos=2),
                ]
            for exchange in exchanges:
                await exchange.wait()
            arrived = {(await other.messages.receive()).payload for _ in exchanges}
            assert arrived == {b"at least once", b"exactly once"}
            await client.disconnect(discard=True)


async def test_a_resumed_session_has_the_subscriptions_at_qos_0_too(
    broker: Broker, topic: str
) -> None:
    """RabbitMQ forgets them, so that the client has to remind it."""
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            trio_mqtt.open_client(broker.url) as other,
            open_client(broker.url_at(relay.port), client_id=topic) as client,
        ):
            # Without one at QoS 1 it would not keep the session at all.
            assert await client.subscribe(f"{topic}/kept", qos=1) == (1,)
            assert await client.subscribe(f"{topic}/forgotten", qos=0) == (0,)
            await is_cut(client, relay)
            await client.wait_online()
            assert client.session_present
            await client.ping()  # behind the SUBSCRIBE that goes first
            await other.publish(f"{topic}/forgotten", "0")
            assert (await client.messages.receive()).payload == b"0"
            await other.publish(f"{topic}/kept", "1", qos=1)
            assert (await client.messages.receive()).payload == b"1"
            await client.disconnect(discard=True)


@pytest.mark.mosquitto
@pytest.mark.parametrize("client_id", [None, "chosen"])
async def test_a_lost_session_gets_its_subscriptions_back(
    mosquitto: Mosquitto, client_id: str | None
) -> None:
    filters = [f"room{number}/+" for number in range(20)]  # more than go into one packet
    with trio.fail_after(20):
        async with open_client(mosquitto.url, client_id=client_id) as client:
            await client.subscribe(*filters, qos=1)
            await client.unsubscribe(filters.pop())
            mosquitto.stop()
            await client.wait_offline()
            mosquitto.start()  # without persistence: it remembers nothing
            await client.wait_online()
            assert not client.session_present
            await client.ping()
            for number in [0, 8, 18]:
                await client.publish(f"room{number}/temperature", str(number), qos=1)
                message = await client.messages.receive()
                assert message.topic == f"room{number}/temperature"
            await client.publish("room19/temperature", "unsubscribed", qos=1)
            await client.publish("room0/temperature", "last", qos=1)
            assert (await client.messages.receive()).payload == b"last"


@pytest.mark.mosquitto
async def test_a_restart_with_persistence_resumes_the_session(
    persistent_mosquitto: Mosquitto,
) -> None:
    with trio.fail_after(20):
        async with open_client(persistent_mosquitto.url, client_id="chosen") as client:
            await client.subscribe("room/+", qos=2)
            persistent_mosquitto.stop()
            await client.wait_offline()
            exchange = client.enqueue_nowait("room/temperature", "20.8℃", qos=2)
            persistent_mosquitto.start()
            await exchange.wait()
            assert client.session_present
            assert (await client.messages.receive()).payload == "20.8℃".encode()


@pytest.mark.conformance("MQTT-3.1.2-6")
async def test_a_generated_identifier_leaves_no_session(broker: Broker, topic: str) -> None:
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            open_client(broker.url_at(relay.port)) as client,
        ):
            await client.subscribe(topic, qos=1)
            await is_cut(client, relay)
            await client.wait_online()
            assert not client.session_present
            await client.ping()
            await client.publish(topic, "subscribed again", qos=1)
            assert (await client.messages.receive()).payload == b"subscribed again"


@pytest.mark.conformance("MQTT-3.1.2-6")
async def test_clean_session_forgets_what_an_earlier_client_left(
    broker: Broker, topic: str
) -> None:
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url, client_id=topic) as earlier:
            await earlier.subscribe(topic, qos=1)
        async with trio_mqtt.open_client(broker.url) as other:
            await other.publish(topic, "left behind", qos=1)
        async with trio_mqtt.open_client(broker.url, client_id=topic, clean_session=True) as client:
            assert not client.session_present
            await client.subscribe(topic, qos=1)
            await client.publish(topic, "fresh", qos=1)
            assert (await client.messages.receive()).payload == b"fresh"
        async with trio_mqtt.open_client(broker.url, client_id=topic) as later:
            assert later.session_present
            await later.disconnect(discard=True)
        async with trio_mqtt.open_client(broker.url, client_id=topic) as last:
            assert not last.session_present
            await last.disconnect(discard=True)
