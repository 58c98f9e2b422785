"""Topic filters that mosquitto fails by SUBACK with 0x80."""

from __future__ import annotations

import pytest
import trio

from trio_mqtt import SubscribeError

from .brokers import Mosquitto, or_skip
from .clients import open_client

pytestmark = pytest.mark.mosquitto


def forbid(broker: Mosquitto, topic_filter: str) -> None:
    broker.stop()
    with or_skip():
        broker.forbid(topic_filter)
    broker.start()


@pytest.mark.conformance("MQTT-3.8.4-5")
async def test_subscribe_says_which_filters_failed(mosquitto: Mosquitto) -> None:
    forbid(mosquitto, "secret/#")
    filters = [f"secret/{number}" if number % 3 else f"open/{number}" for number in range(20)]
    with trio.fail_after(20):
        async with open_client(mosquitto.url) as client:
            with pytest.raises(SubscribeError) as caught:
                await client.subscribe(*filters, qos=1)
            assert caught.value.topic_filters == tuple(
                topic_filter for topic_filter in filters if topic_filter.startswith("secret")
            )
            await client.publish("open/18", "granted", qos=1)
            assert (await client.messages.receive()).payload == b"granted"


async def test_a_filter_that_fails_when_it_is_restored_is_raised_by_receive(
    mosquitto: Mosquitto,
) -> None:
    with trio.fail_after(20):
        async with open_client(mosquitto.url, client_id="chosen") as client:
            assert await client.subscribe("open", "secret", qos=1) == (1, 1)
            forbid(mosquitto, "secret")
            with pytest.raises(SubscribeError) as caught:
                await client.messages.receive()
            assert caught.value.topic_filters == ("secret",)
            assert client.statistics().connects == 2
            await client.publish("open", "granted", qos=1)
            assert (await client.messages.receive()).payload == b"granted"
            forbid(mosquitto, "open")
            with pytest.raises(SubscribeError) as caught:
                await client.messages.receive()
            assert caught.value.topic_filters == ("open",)  # the other was told once
