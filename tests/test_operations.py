"""How many operations a message costs: calls, which no other load of the machine changes.

Counted are the calls that the package's own code makes and gets, per message of 64 bytes, with as
many in flight as the benchmarks have. A bound that is exceeded is no defect, but somebody is to
know of it: run ``python3 -m nox -s bench``, and raise the bound if it was worth it. One that is no
longer near is to be lowered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

import trio_mqtt
from trio_mqtt import Client, QoS

from .disturbed import repeatable
from .loopback import Loopback, Operations

MESSAGES = 400
"""And twice as many, which one read takes in: so what is counted does not depend on turns."""
TASKS = 100


async def receive(client: Client, loopback: Loopback, qos: QoS, count: int) -> None:
    loopback.deliver(count, qos)
    for _ in range(count):
        await client.messages.receive()


async def publish(client: Client, _: Loopback, qos: QoS, count: int) -> None:
    for __ in range(count):
        await client.publish("topic", bytes(64), qos=qos)


async def publish_in_tasks(client: Client, loopback: Loopback, qos: QoS, count: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(publish, client, loopback, qos, count // TASKS)


Act = Callable[[Client, Loopback, QoS, int], Awaitable[None]]


async def operations(act: Act, qos: QoS, count: int) -> int:
    loopback, counted = Loopback(), Operations()

    async def dial() -> trio.abc.Stream:
        return loopback

    async with trio_mqtt.open_client(dial, client_id="a", exactly_once_window=TASKS) as client:
        await client.subscribe("topic")
        await act(client, loopback, qos, count)
        with counted:
            await act(client, loopback, qos, count)
    return counted.count


BOUNDS: dict[tuple[Act, QoS], int] = {
    (receive, 0): 22,
    (receive, 1): 37,
    (receive, 2): 52,
    (publish, 0): 17,
    (publish, 1): 134,
    (publish, 2): 235,
    (publish_in_tasks, 1): 54,
    (publish_in_tasks, 2): 70,
}
"""Per message: what it is today, the same from Python 3.11 to 3.13, and some 3 % more."""


@pytest.mark.parametrize(("act", "qos"), BOUNDS, ids=lambda it: getattr(it, "__name__", it))
def test_a_message_costs_no_more_operations_than_it_did(act: Act, qos: QoS) -> None:
    with repeatable():
        few, many = (trio.run(operations, act, qos, count) for count in (MESSAGES, 2 * MESSAGES))
    found = (many - few) / MESSAGES
    assert 0.9 * BOUNDS[act, qos] < found <= BOUNDS[act, qos]
