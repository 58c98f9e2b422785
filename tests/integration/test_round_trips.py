from __future__ import annotations

import random

import pytest
import trio

import trio_mqtt
from trio_mqtt import QoS

from .brokers import Broker

SIZES = [0, 1, 127, 128, 64 * 1024, 1024 * 1024]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_payloads_of_all_sizes_come_back(broker: Broker, topic: str, qos: QoS) -> None:
    source = random.Random(1)
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as client:
            assert await client.subscribe(topic, qos=qos) == (min(qos, broker.best_qos),)
            for size in SIZES:
                payload = source.randbytes(size)
                await client.publish(topic, payload, qos=qos)
                message = await client.messages.receive()
                assert message.topic == topic
                assert message.payload == payload
                assert message.qos == min(qos, broker.best_qos)
                assert not message.retain


async def test_a_full_window_at_qos_2_loses_no_message_at_qos_1(broker: Broker, topic: str) -> None:
    """Mosquitto acknowledges and discards it when 20 at QoS 2 are not released."""
    rounds = 20
    with trio.fail_after(60):
        async with (
            trio_mqtt.open_client(broker.url, client_id=f"{topic}-to") as subscriber,
            trio_mqtt.open_client(broker.url, client_id=f"{topic}-from") as publisher,
        ):
            await subscriber.subscribe(topic, qos=1)
            for number in range(rounds):
                exchanges = [publisher.enqueue_nowait("nobody", b"x", qos=2) for _ in range(40)]
                exchanges.append(publisher.enqueue_nowait(topic, b"%d" % number, qos=1))
                for exchange in exchanges:
                    await exchange.wait()
            for number in range(rounds):
                assert (await subscriber.messages.receive()).payload == b"%d" % number
            assert publisher.statistics().connects == 1
