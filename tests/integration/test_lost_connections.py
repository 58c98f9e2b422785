"""Thousands of messages over connections that are cut at any byte, and over a broker's restarts."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import pytest
import trio

from trio_mqtt import Client

from .brokers import Broker, Mosquitto
from .clients import open_client
from .relay import open_relay

COUNT = 1_000
END = b"end"


async def enqueue_numbers(client: Client, topic: str, qos: Literal[1, 2]) -> None:
    """Publishes the numbers up to `COUNT`, each of them confirmed in the end."""
    exchanges = [await client.enqueue(topic, str(number), qos=qos) for number in range(COUNT)]
    for exchange in exchanges:
        await exchange.wait()


async def collect_numbers(
    client: Client, on_number: Callable[[int], None] = lambda _: None
) -> list[int]:
    """What arrives before the end."""
    numbers: list[int] = []
    async for message in client.messages:
        if message.payload == END:
            break
        numbers.append(int(message.payload))
        on_number(numbers[-1])
    return numbers


def first_occurrences(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.conformance(
    "MQTT-2.3.1-3", "MQTT-4.3.2-1", "MQTT-4.3.3-1", "MQTT-4.4.0-1", "MQTT-4.6.0-1", "MQTT-4.6.0-4"
)
async def test_nothing_is_lost_over_cut_connections(
    broker: Broker, topic: str, qos: Literal[1, 2]
) -> None:
    source = random.Random(qos)
    numbers: list[int] = []
    with trio.fail_after(60):
        async with (
            open_relay(broker.port) as before,
            open_relay(broker.port) as behind,
            open_client(broker.url_at(behind.port), client_id=f"{topic}-to") as subscriber,
            open_client(
                broker.url_at(before.port),
                client_id=f"{topic}-from",
                at_least_once_window=20,  # so that more than a resend fits between two cuts
            ) as publisher,
        ):
            await subscriber.subscribe(topic, qos=qos)
            before.cut_at_random(source, least=50, most=1_500)
            behind.cut_at_random(source, least=50, most=1_500)

            async def receive() -> None:
                numbers.extend(await collect_numbers(subscriber))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await enqueue_numbers(publisher, topic, qos)
                before.spare()
                behind.spare()
                await publisher.publish(topic, END, qos=qos)
            print(before.cuts, behind.cuts, len(numbers), publisher.statistics(), subscriber.statistics(), publisher.session_present)
            await subscriber.disconnect(discard=True)
            await publisher.disconnect(discard=True)
    assert before.cuts >= 12
    assert behind.cuts >= 12
    assert first_occurrences(numbers) == list(range(COUNT))
    if min(qos, broker.best_qos) == 2:
        assert len(numbers) == COUNT


@pytest.mark.mosquitto
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.conformance("MQTT-4.4.0-1")
async def test_nothing_is_lost_over_the_brokers_restarts(
    persistent_mosquitto: Mosquitto, qos: Literal[1, 2]
) -> None:
    broker = persistent_mosquitto
    restarts = [COUNT // 5, COUNT // 2, COUNT - 10]
    numbers: list[int] = []

    def restart_at_times(number: int) -> None:
        if restarts and number >= restarts[0]:
            del restarts[0]
            broker.stop()
            broker.start()

    with trio.fail_after(30):
        async with (
            open_client(broker.url, client_id="to") as subscriber,
            open_client(broker.url, client_id="from") as publisher,
        ):
            await subscriber.subscribe("numbers", qos=qos)

            async def receive() -> None:
                numbers.extend(await collect_numbers(subscriber, restart_at_times))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await enqueue_numbers(publisher, "numbers", qos)
                await publisher.publish("numbers", END, qos=qos)
            assert subscriber.statistics().connects > 3
            assert publisher.statistics().connects > 2
    assert not restarts
    assert first_occurrences(numbers) == list(range(COUNT))
    if qos == 2:
        assert len(numbers) == COUNT
