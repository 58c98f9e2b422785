"""Who waits for an answer needs the reader to go on, until it has had its turn with the answer."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_mqtt import InDoubt, ResponseLost
from trio_mqtt._connection import Wakeup
from trio_mqtt._exchange import Demand, Exchange


async def wait(exchange: Exchange) -> None:
    await exchange.wait()


async def next_interruption(exchange: Exchange) -> InDoubt:
    return await anext(exchange)


@pytest.mark.parametrize("settles", [True, False])
@pytest.mark.parametrize("tasks", [1, 3])
async def test_demand_ends_in_the_turn_of_who_waited(tasks: int, *, settles: bool) -> None:
    """Else a connection would be ended while somebody is about to wait for a reply on it."""
    demand = Demand(Wakeup())
    exchange = Exchange(demand)
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(wait if settles else next_interruption, exchange)
        await wait_all_tasks_blocked()
        assert len(demand) == tasks
        if settles:
            exchange.settle(None)
        else:
            for _ in range(tasks):
                exchange.interrupt(ResponseLost("cut"))
        assert len(demand) == tasks
    assert len(demand) == 0


async def test_demand_ends_with_a_wait_that_is_cancelled() -> None:
    demand = Demand(Wakeup())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Exchange(demand).wait)
        await wait_all_tasks_blocked()
        assert len(demand) == 1
        nursery.cancel_scope.cancel()
    assert len(demand) == 0
