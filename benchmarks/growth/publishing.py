"""Publishing: how many microseconds a message takes, until all are confirmed."""

from __future__ import annotations

import time
from typing import Literal

import trio

import trio_mqtt

from .receiving import COUNT, messages_of, open_client

PAYLOAD = bytes(64)
TOPIC = "a/b/c"
IN_LINE_FOR = 100
"""Messages that there is room for, where tasks wait for it."""
LEVELS: tuple[Literal[1, 2], ...] = (1, 2)


async def by_in_flight(port: int, number: int, *, qos: Literal[1, 2]) -> float:
    """One task enqueues, and the peer keeps half of as many confirmations back."""
    count = min(COUNT, 1_000 + 100 * number)
    async with trio_mqtt.open_client(
        f"mqtt://127.0.0.1:{port}",
        at_least_once_max=number,
        at_least_once_window=number,
        exactly_once_max=number,
        exactly_once_window=number,
    ) as client:
        await client.publish(f"keep/{number // 2}", b"")
        for _ in range(number):
            client.enqueue_nowait(TOPIC, PAYLOAD, qos=qos)
        began = time.perf_counter()
        for _ in range(count):
            await client.enqueue(TOPIC, PAYLOAD, qos=qos)
        seconds = time.perf_counter() - began
        await client.aclose()
    return seconds / count * 1e6


async def by_payload(port: int, number: int, *, qos: trio_mqtt.QoS) -> float:
    """The number is that of the payload's bytes."""
    return await _publish(port, TOPIC, bytes(number), qos, messages_of(number))


async def by_topic(port: int, number: int, *, qos: trio_mqtt.QoS) -> float:
    """The number is that of the topic's characters."""
    return await _publish(port, "x" * number, PAYLOAD, qos, messages_of(number))


async def by_levels(port: int, number: int, *, qos: trio_mqtt.QoS) -> float:
    """The number is that of the topic's levels."""
    return await _publish(port, "/".join("x" * number), PAYLOAD, qos, messages_of(16 * number))


async def _publish(port: int, topic: str, payload: bytes, qos: trio_mqtt.QoS, count: int) -> float:
    """One behind the other; above QoS 0 several are under way, as `enqueue` does not wait."""
    async with open_client(port) as client:
        began = time.perf_counter()
        for _ in range(count - 1):
            if qos:
                await client.enqueue(topic, payload, qos=qos)
            else:
                await client.publish(topic, payload)
        await client.publish(topic, payload, qos=1)  # behind all others
        seconds = time.perf_counter() - began
        await client.aclose()
    return seconds / count * 1e6


async def by_queued(port: int, number: int, *, qos: Literal[1, 2]) -> float:
    """So many are enqueued while there is no connection; then there is one."""
    online = trio.Event()
    dial = trio_mqtt.tcp_dialer("127.0.0.1", port)

    async def dial_later() -> trio.abc.Stream:
        await online.wait()
        return await dial()

    async with trio_mqtt.open_client(dial_later, client_id="bench", wait_online=False) as client:
        began = time.perf_counter()
        for _ in range(number):
            exchange = await client.enqueue(TOPIC, PAYLOAD, qos=qos)
        online.set()
        await exchange.wait()
        seconds = time.perf_counter() - began
        await client.aclose()
    return seconds / number * 1e6


async def by_left_open(port: int, number: int, *, flush: bool = False) -> float:
    """So many are enqueued, and the client waits for them as it ends, or for their writing."""
    async with open_client(port) as client:
        for _ in range(number):
            client.enqueue_nowait(TOPIC, PAYLOAD)
        began = time.perf_counter()
        if flush:
            await client.flush()
        else:
            await client.disconnect()
        seconds = time.perf_counter() - began
        await client.aclose()
    return seconds / number * 1e6


async def by_tasks(port: int, number: int) -> float:
    """So many tasks wait for room for their messages, and each begins again behind the others."""
    left = COUNT + 2 * number

    async def publish() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await client.enqueue(TOPIC, PAYLOAD)

    url = f"mqtt://127.0.0.1:{port}"
    async with trio_mqtt.open_client(url, at_least_once_max=IN_LINE_FOR) as client:
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(publish)
        seconds = time.perf_counter() - began
        await client.aclose()
    return seconds / (COUNT + 2 * number) * 1e6
