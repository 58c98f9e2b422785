"""That the cost of a message does not grow with what else there is, counted in operations.

What is measured here is what `benchmarks.growth` measures, without a clock: the calls that the
package's own code makes and gets, per message, at a number of something and at many times that.
What the interpreter does without a call, such as copying a list, does not count: that shows in
`benchmarks.growth` alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

import trio_mqtt
from benchmarks.loopback import Loopback
from benchmarks.operations import Calls
from trio_mqtt import Client, Exchange, MessageChannel, QoS

from .disturbed import repeatable
from .memory_persistence import MemoryPersistence

MORE = 1.03
"""How much more a message may cost at the larger number. Most cost less, as what comes once for a
whole read or write is shared by more of them."""
MOST = 16_384
WINDOW = 100
"""Of a client that was told nothing else."""
SETTLED = 2.0
"""Seconds, of a virtual clock, in which the client has done all that it can."""


class Links:
    """Dials one loopback after the other."""

    def __init__(self) -> None:
        self.keep = 0
        """What the next one does."""
        self.latest = Loopback()

    async def __call__(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.latest = Loopback(keeps=self.keep)
        return self.latest


# Receiving


async def take(
    links: Links, messages: MessageChannel, topics: Iterable[str], qos: QoS, count: int = 1_000
) -> float:
    """So many messages on these topics in turn. Returns the operations for each."""
    links.latest.deliver(count, qos, list(topics))
    counted = Calls()
    with counted:
        for _ in range(count):
            await messages.receive()
    return counted.count / count


async def scopes(number: int, *, qos: QoS) -> float:
    links = Links()
    async with trio_mqtt.open_client(links) as client, trio.open_nursery() as nursery:
        for other in range(number - 1):
            nursery.start_soon(wait_in_scope, client, f"other/{other}/+")
        async with client.open_subscription("topic") as messages:
            await trio.sleep(SETTLED)
            result = await take(links, messages, ["topic"], qos)
        nursery.cancel_scope.cancel()
    return result


async def wait_in_scope(client: Client, topic_filter: str) -> None:
    async with client.open_subscription(topic_filter):
        await trio.sleep_forever()


async def filters(number: int, *, qos: QoS, in_scope: bool) -> float:
    links = Links()
    topic_filters = [f"topic/{one}/+" for one in range(number)]
    topics = [f"topic/{one % number}/{one}" for one in range(1_000)]
    async with trio_mqtt.open_client(links) as client:
        if in_scope:
            async with client.open_subscription(*topic_filters) as messages:
                return await take(links, messages, topics, qos)
        await client.subscribe(*topic_filters)
        return await take(links, client.messages, topics, qos)


async def levels(number: int, *, qos: QoS) -> float:
    """Per level."""
    links = Links()
    topic = "/".join("x" * number)
    async with trio_mqtt.open_client(links) as client, client.open_subscription(topic) as messages:
        return await take(links, messages, [topic], qos, 100) / number


# Publishing


def enqueue(client: Client, number: int, qos: Iterable[Literal[1, 2]] = (1,)) -> list[Exchange]:
    """So many messages, at each QoS in turn."""
    in_turn = list(qos)
    return [
        client.enqueue_nowait("topic", bytes(64), qos=in_turn[one % len(in_turn)])
        for one in range(number)
    ]


async def in_flight(number: int, *, qos: Literal[1, 2]) -> float:
    counted, links, count = Calls(), Links(), 4_000
    links.keep = number // 2
    async with trio_mqtt.open_client(
        links,
        at_least_once_max=number,
        at_least_once_window=number,
        exactly_once_max=number,
        exactly_once_window=number,
    ) as client:
        enqueue(client, number, [qos])
        await trio.sleep(SETTLED)
        with counted:
            for _ in range(count):
                await client.enqueue("topic", bytes(64), qos=qos)
        await client.aclose()
    return counted.count / count


async def queued(number: int, *, qos: Literal[1, 2]) -> float:
    counted, online, links = Calls(), trio.Event(), Links()

    async def dial() -> trio.abc.Stream:
        await online.wait()
        return await links()

    async with trio_mqtt.open_client(dial, client_id="a", wait_online=False) as client:
        with counted:
            exchanges = enqueue(client, number, [qos])
            online.set()
            await exchanges[-1].wait()
    return counted.count / number


async def resends(number: int, *, qos: tuple[Literal[1, 2], ...], durable: bool) -> float:
    """Those at QoS 2 are sent again after PUBREC."""
    links, counted, persistence = Links(), Calls(), MemoryPersistence()
    session = trio_mqtt.volatile_session("a")
    if durable:
        session = await trio_mqtt.init_session("a", persistence)
    open_client = partial(
        trio_mqtt.open_client, links, at_least_once_window=MOST, exactly_once_window=MOST
    )
    links.keep = MOST
    async with open_client(session=session) as client:
        exchanges = enqueue(client, number, qos)
        await trio.sleep(SETTLED)
        links.keep = 0
        if not durable:
            links.latest.cut()
            await client.wait_offline()
            with counted:
                await wait_last(exchanges, len(qos))
        await client.aclose()
    if durable:
        with counted:
            session = await trio_mqtt.adopt_session(persistence)
            async with open_client(session=session):
                await wait_last(list(session.pending), len(qos))
    return counted.count / number


async def wait_last(exchanges: list[Exchange] | list[trio_mqtt.AdoptedExchange], n: int) -> None:
    for exchange in exchanges[-n:]:
        await exchange.wait()


# Ends


async def leaving(number: int) -> float:
    counted = Calls()
    async with trio_mqtt.open_client(Links()) as client:
        enqueue(client, number)
        with counted:
            await client.disconnect()
    return counted.count / number


async def flushing(number: int) -> float:
    """It does not wait for the confirmations of the last window."""
    counted = Calls()
    async with trio_mqtt.open_client(Links()) as client:
        enqueue(client, number)
        with counted:
            await client.flush()
    return counted.count / (number - WINDOW)


async def ended_scopes(number: int) -> float:
    """Per scope: so many messages, which are none of theirs, wait in `Client.messages`."""
    links, counted, count = Links(), Calls(), 100
    async with trio_mqtt.open_client(links) as client:
        await client.subscribe("topic")
        links.latest.deliver(number, 1)
        with ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                for one in range(count):
                    nursery.start_soon(wait_in_scope, client, f"other/{one}/+")
                await trio.sleep(SETTLED)
                stack.enter_context(counted)
                nursery.cancel_scope.cancel()
        await client.aclose()
    return counted.count / count


Growth = Callable[[int], Awaitable[float]]

GROWTHS: dict[str, tuple[Growth, int, int]] = {
    "scopes_0": (partial(scopes, qos=0), 10, 1_000),
    "scopes_1": (partial(scopes, qos=1), 10, 1_000),
    "scopes_2": (partial(scopes, qos=2), 10, 1_000),
    "filters_0": (partial(filters, qos=0, in_scope=False), 10, 1_000),
    "filters_1": (partial(filters, qos=1, in_scope=False), 10, 1_000),
    "filters_of_scope": (partial(filters, qos=1, in_scope=True), 10, 1_000),
    "levels": (partial(levels, qos=1), 200, 1_000),
    "in_flight_1": (partial(in_flight, qos=1), 100, 2_000),
    "in_flight_2": (partial(in_flight, qos=2), 100, 2_000),
    "queued_1": (partial(queued, qos=1), 500, 4_000),
    "queued_2": (partial(queued, qos=2), 500, 4_000),
    "resends_1": (partial(resends, qos=(1,), durable=False), 2_000, 16_000),
    "resends_2": (partial(resends, qos=(2,), durable=False), 2_000, 16_000),
    "resends_mixed": (partial(resends, qos=(1, 2), durable=False), 2_000, 16_000),
    # No more than is encoded in the loop: a virtual clock does not wait for a thread.
    "resends_durable_1": (partial(resends, qos=(1,), durable=True), 2_000, 8_000),
    "resends_durable_2": (partial(resends, qos=(2,), durable=True), 2_000, 8_000),
    "resends_durable_mixed": (partial(resends, qos=(1, 2), durable=True), 2_000, 8_000),
    "leaving": (leaving, 2_000, 16_000),
    "flushing": (flushing, 500, 4_000),
    "ended_scopes": (ended_scopes, 100, 900),
}
"""Each with the number of reference and a larger one."""


@pytest.mark.parametrize("name", GROWTHS)
def test_a_message_costs_no_more_operations_where_there_is_more_of_something(name: str) -> None:
    growth, *numbers = GROWTHS[name]
    with repeatable():
        few, many = (
            trio.run(growth, number, clock=MockClock(autojump_threshold=0)) for number in numbers
        )
    assert many <= MORE * few
