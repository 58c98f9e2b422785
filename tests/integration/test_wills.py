"""The Will: published when the client leaves by an exception, discarded when it leaves cleanly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

import trio_mqtt
from trio_mqtt import Client, QoS, Will

from .brokers import Broker
from .clients import open_client
from .relay import open_relay


class BodyFailed(Exception):
    pass


async def fail(_: Client) -> None:
    await trio.lowlevel.checkpoint()
    raise BodyFailed


async def aclose(client: Client) -> None:
    await client.aclose()


async def disconnect(client: Client) -> None:
    await client.disconnect()


async def do_nothing(_: Client) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("leave", [fail, aclose])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.conformance("MQTT-3.1.2-9")
async def test_leaving_abruptly_publishes_the_will(
    broker: Broker, topic: str, qos: QoS, leave: Callable[[Client], Awaitable[None]]
) -> None:
    will = Will(topic, "gone", qos=qos)
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as watcher:
            await watcher.subscribe(topic)
            with suppress(BodyFailed):
                async with trio_mqtt.open_client(broker.url, will=will) as client:
                    await leave(client)
            message = await watcher.messages.receive()
            assert message.payload == b"gone"
            assert message.qos == min(qos, broker.best_qos)


async def test_leaving_by_cancellation_publishes_the_will(broker: Broker, topic: str) -> None:
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as watcher:
            await watcher.subscribe(topic)
            with trio.CancelScope() as scope:
                async with trio_mqtt.open_client(broker.url, will=Will(topic, "gone")):
                    scope.cancel()
                    await trio.sleep_forever()
            assert (await watcher.messages.receive()).payload == b"gone"


@pytest.mark.parametrize("leave", [do_nothing, disconnect])
@pytest.mark.conformance("MQTT-3.14.4-1")
async def test_leaving_cleanly_does_not(
    broker: Broker, topic: str, leave: Callable[[Client], Awaitable[None]]
) -> None:
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as watcher:
            await watcher.subscribe(topic)
            async with trio_mqtt.open_client(broker.url, will=Will(topic, "gone")) as client:
                await client.publish(topic, "farewell", qos=1)
                await leave(client)
            await watcher.publish(topic, "later", qos=1)
            arrived = [(await watcher.messages.receive()).payload for _ in range(2)]
            assert arrived == [b"farewell", b"later"]


async def test_a_lost_connection_publishes_the_will_each_time(broker: Broker, topic: str) -> None:
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            trio_mqtt.open_client(broker.url) as watcher,
            open_client(broker.url_at(relay.port), will=Will(topic, "gone", qos=1)) as client,
        ):
            await watcher.subscribe(topic)
            for reset in [True, False]:
                relay.cut(reset=reset)
                await client.wait_offline()
                assert (await watcher.messages.receive()).payload == b"gone"
                await client.wait_online()


@pytest.mark.conformance("MQTT-3.1.2-9")
async def test_a_will_may_be_retained(broker: Broker, topic: str) -> None:
    will = Will(topic, "gone", qos=1, retain=True)
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as watcher:
            await watcher.subscribe(topic)
            with suppress(BodyFailed):
                async with trio_mqtt.open_client(broker.url, will=will):
                    raise BodyFailed
            assert not (await watcher.messages.receive()).retain
            async with trio_mqtt.open_client(broker.url) as newcomer:
                await newcomer.subscribe(topic)
                message = await newcomer.messages.receive()
                assert message.payload == b"gone"
                assert message.retain
            await watcher.clear_retained(topic)
