"""Receiving: how many microseconds a message takes."""

from __future__ import annotations

import gc
import time
from contextlib import AbstractAsyncContextManager

import trio

import trio_mqtt

COUNT = 30_000
"""Messages of each measurement,"""
MOST_BYTES = 192 * 1024 * 1024
"""if they are no more than this, but a few in any case."""
FEWEST = 6
WINDOW = 1_000
"""Messages that the peer sends at once: the client's buffer has room for as many."""
SHORTEST = "load/99/64"
"""The shortest topic on which the peer sends messages of 64 bytes."""


async def by_scopes(port: int, number: int, *, qos: trio_mqtt.QoS) -> float:
    """One scope gets the messages; the others have filters of their own and wait."""
    entered, done = trio.Semaphore(0), trio.Event()

    async def wait_in_scope(topic_filter: str) -> None:
        async with client.open_subscription(topic_filter):
            entered.release()
            await done.wait()

    async with open_client(port) as client, trio.open_nursery() as nursery:
        for other in range(number - 1):
            nursery.start_soon(wait_in_scope, f"other/{other}/+")
        for _ in range(number - 1):
            await entered.acquire()
        result = await _from_load(client, f"load/{WINDOW}/64", qos, COUNT)
        client.messages.close()  # else what is left waits there, and ending a scope takes longer
        done.set()
    return result


async def by_ended_scopes(port: int, number: int) -> float:
    """So many scopes are cancelled, of which none got a message; the time is that of a scope."""
    entered = trio.Semaphore(0)

    async def wait_in_scope(topic_filter: str) -> None:
        async with client.open_subscription(topic_filter):
            entered.release()
            await trio.sleep_forever()

    async with open_client(port) as client:
        async with trio.open_nursery() as nursery:
            for other in range(number):
                nursery.start_soon(wait_in_scope, f"other/{other}/+")
            for _ in range(number):
                await entered.acquire()
            began = time.perf_counter()
            nursery.cancel_scope.cancel()
        seconds = time.perf_counter() - began
        await client.aclose()
    return seconds / number * 1e6


async def by_filters(
    port: int, number: int, *, qos: trio_mqtt.QoS, topics: int, in_scope: bool = False
) -> float:
    """The topics take turns, and each filter matches some of them."""
    topic_filters = [f"topic/{one:05}/+" for one in range(number)]
    load = f"rotate/{WINDOW}/64/{topics}/{number}"
    async with open_client(port) as client:
        if in_scope:
            async with client.open_subscription(*topic_filters, qos=qos) as messages:
                await client.subscribe(load, qos=qos)
                return await _take(client, messages, COUNT)
        await client.subscribe(*topic_filters, qos=qos)
        await client.subscribe(load, qos=qos)
        return await _take(client, client.messages, COUNT)


async def by_payload(port: int, number: int, *, qos: trio_mqtt.QoS) -> float:
    """The number is that of the payload's bytes."""
    window = min(WINDOW, max(2, MOST_BYTES // 4 // number))
    async with open_client(port) as client:
        return await _from_load(client, f"load/{window}/{number}", qos, messages_of(number))


async def by_topic(port: int, number: int, *, qos: trio_mqtt.QoS) -> float:
    """The number is that of the topic's characters."""
    topic = f"{SHORTEST}/".ljust(number, "x")[:number]
    async with open_client(port) as client:
        return await _from_load(client, topic, qos, messages_of(number))


async def by_levels(port: int, number: int, *, qos: trio_mqtt.QoS) -> float:
    """The number is that of the topic's levels."""
    levels = [*SHORTEST.split("/"), *["x"] * number][:number]
    async with open_client(port) as client:
        return await _from_load(client, "/".join(levels), qos, messages_of(16 * number))


def open_client(port: int) -> AbstractAsyncContextManager[trio_mqtt.Client]:
    """On the peer."""
    return trio_mqtt.open_client(f"mqtt://127.0.0.1:{port}")


def messages_of(size: int) -> int:
    """How many of so many bytes are measured."""
    return min(COUNT, max(FEWEST, MOST_BYTES // 8 // size + FEWEST))


async def _from_load(client: trio_mqtt.Client, load: str, qos: trio_mqtt.QoS, count: int) -> float:
    async with client.open_subscription(load, qos=qos) as messages:
        return await _take(client, messages, count)


async def _take(client: trio_mqtt.Client, messages: trio_mqtt.MessageChannel, count: int) -> float:
    """Takes so many, behind a first one, and closes the client."""
    await messages.receive()
    gc.collect()  # what was made before is not measured
    began = time.perf_counter()
    for _ in range(count):
        await messages.receive()
    seconds = time.perf_counter() - began
    await client.aclose()
    return seconds / count * 1e6
