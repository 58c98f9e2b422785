"""Numbered messages, to see which of them arrive, and in which order."""

from __future__ import annotations

from collections.abc import Iterable

from trio_mqtt import Client, MessageChannel, QoS


async def publish_numbers(
    client: Client, topic: str, numbers: Iterable[int], *, qos: QoS = 1
) -> None:
    """Publishes them in order, and returns when the broker has them all."""
    if qos == 0:
        for number in numbers:
            await client.publish(topic, str(number))
        await client.ping()
    else:
        exchanges = [await client.enqueue(topic, str(number), qos=qos) for number in numbers]
        for exchange in exchanges:
            await exchange.wait()


async def next_number(messages: MessageChannel) -> int:
    return int((await messages.receive()).payload)


async def next_numbers(messages: MessageChannel, count: int) -> list[int]:
    return [await next_number(messages) for _ in range(count)]


def has_all(messages: MessageChannel, numbers: list[int], count: int) -> bool:
    """Whether so many different ones arrived, those included that were given up."""
    missing = count - messages.statistics().given_up
    return len(numbers) >= missing and len(set(numbers)) >= missing


async def numbers_of(messages: MessageChannel, count: int) -> list[int]:
    """Those that arrive, until so many arrived or were given up."""
    numbers: list[int] = []
    while not has_all(messages, numbers, count):
        numbers.append(await next_number(messages))
    return numbers


async def publish_for_ever(client: Client, topic: str) -> None:
    """So that there always is somebody who waits for the broker's answer."""
    while True:
        await client.publish(topic, b"", qos=1)


def first_occurrences(numbers: Iterable[int]) -> list[int]:
    """Without what came again, as it may at QoS 1 over several connections."""
    return list(dict.fromkeys(numbers))
