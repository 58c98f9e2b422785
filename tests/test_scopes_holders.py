"""Subscription scopes: who holds a topic filter, and until when the broker is to collect for it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_mqtt import SubscribeError
from trio_mqtt import _packets as p
from trio_mqtt.testing import ScriptedBroker

from .scope_peer import ABSENT, PRESENT, at_once, drain, peered


async def test_a_filter_is_left_when_nobody_holds_it_any_more(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer):
        await client.subscribe("t")
        async with client.open_subscription("t"):
            async with client.open_subscription("t"):
                pass
            await client.unsubscribe("t")
            assert await peer.filters() == [("t",)] * 3
        assert await peer.filters() == [("-t",)]


async def test_the_application_goes_on_to_hold_what_a_scope_leaves(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer):
        await client.subscribe("t")
        async with client.open_subscription("t") as messages:
            await peer.send(at_once(1), at_once(2), at_once(3))
            await messages.receive()
        assert await peer.filters() == [("t",)] * 2
        assert drain(client.messages) == ["2", "3"]
        await client.unsubscribe("t")
        assert await peer.filters() == [("-t",)]


async def test_keep_leaves_the_filter_to_the_application(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c", unclaimed_wait=1) as (client, peer):
        async with client.open_subscription("t", keep=True):
            pass
        await trio.sleep(10)
        await peer.send(at_once(1))
        await trio.sleep(10)
        assert await peer.filters() == [("t",)]
        await peer.cut(ABSENT)
        await client.wait_online()
        assert await peer.filters() == [("t",)]
        assert drain(client.messages) == ["1"]
    assert await peer.filters() == []


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_highest_qos_of_all_holders_is_asked_for(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("t", qos=1),
        client.open_subscription("t", qos=qos),
    ):
        asked = [request.requests for request in await peer.taken(p.Subscribe)]
        assert asked == [(("t", 1),), (("t", max(1, qos)),)]


async def test_a_client_that_disconnects_inside_leaves_the_filter_to_the_broker(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        async with client.open_subscription("t") as messages:
            await peer.send(at_once(1), at_once(2))
            await messages.receive()
            await client.disconnect()
            with pytest.raises(trio.EndOfChannel):
                await messages.receive()
        assert await peer.filters() == [("t",)]
        assert await peer.acks() == [1]


async def test_filters_are_restored_when_the_broker_lost_the_session(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        async with (
            client.open_subscription("a", qos=0),
            client.open_subscription("b") as messages,
        ):
            await peer.filters()
            await peer.cut(PRESENT)
            await client.wait_online()
            assert await peer.filters() == [("a",)]  # which RabbitMQ forgets
            peer.failing = ("b",)
            await peer.cut(ABSENT)
            await client.wait_online()
            assert await peer.filters() == [("a", "b")]
            with pytest.raises(SubscribeError, match="b"):
                await messages.receive()
        assert await peer.filters() == [("-a",)]


async def test_a_scope_that_opens_while_the_broker_unsubscribes_is_subscribed_in_the_end(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    for greeting in (PRESENT, ABSENT):
        async with peered(scripted, client_id="c", pause_timeout=1) as (client, peer):
            peer.silent = (p.Unsubscribe,)
            async with client.open_subscription("t"):
                pass
            async with client.open_subscription("t") as messages:
                await peer.filters()
                await peer.cut(greeting)
                await client.wait_online()
                assert await peer.filters() in ([], [("t",)])
                await peer.send(at_once(1))
                assert drain(messages) == ["1"]
                peer.silent = ()
            assert await peer.filters() == [("-t",)]
