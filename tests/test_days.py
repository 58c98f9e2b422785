"""A day passes in the test: all waiting is by Trio's clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt.testing import open_broker

DAY = 24 * 3600


async def test_a_day_without_a_broker(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="trio_mqtt")
    attempts: list[float] = []

    async def nobody() -> trio.abc.Stream:
        attempts.append(trio.current_time())
        raise OSError("unreachable, says the test")

    async with trio_mqtt.open_client(nobody, wait_online=False, client_id="a") as client:
        exchange = await client.enqueue("a", "")
        await trio.sleep(DAY)
        assert not exchange.confirmed
        await client.aclose()
    # At random within the bound of a minute, so that it is half of that on average.
    assert DAY / 60 < len(attempts) < 3 * DAY / 60


async def test_a_day_with_an_outage_every_hour(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="trio_mqtt")
    got: list[bytes] = []
    async with open_broker() as broker, trio.open_nursery() as nursery:

        async def receive() -> None:
            async with (
                trio_mqtt.open_client(broker.dialer, client_id="to") as client,
                client.open_subscription("a") as messages,
            ):
                async for message in messages:
                    got.append(message.payload)  # noqa: PERF401, it never ends

        nursery.start_soon(receive)
        await broker.wait_subscribed("to", "a")
        async with trio_mqtt.open_client(broker.dialer, client_id="from") as client:
            for hour in range(24):
                await trio.sleep(3600 - 60)
                broker.disconnect_all()
                broker.refuse(3)
                exchange = await client.enqueue("a", f"{hour}", qos=2)
                await trio.sleep(60)
                broker.refuse(None)
                await exchange.wait()
            assert client.statistics().connects == 25
        await broker.wait_connected("to")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert got == [b"%d" % hour for hour in range(24)]
