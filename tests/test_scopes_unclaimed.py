"""Subscription scopes: which messages are whose, and what becomes of those that nobody wants."""

from __future__ import annotations

import logging
import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_mqtt import Buffer, Client, MessageChannel
from trio_mqtt import _packets as p
from trio_mqtt.testing import ScriptedBroker

from .scope_peer import ABSENT, PRESENT, Failed, at_once, drain, lossy, not_hanging, peered

# Routing


@pytest.mark.parametrize("qos", [1, 2])
async def test_overlapping_scopes_each_get_it_once_and_both_release_it(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("t/#", "+/a") as one,
        client.open_subscription("t/a") as other,
    ):
        await peer.send(p.Delivery(p.Message("t/a", b"1", qos), 1))
        kind = p.PubAck if qos == 1 else p.PubRec
        assert [(await channel.receive()).payload for channel in (one, other)] == [b"1"] * 2
        assert drain(one) == []
        assert await peer.taken(kind) == []
        assert drain(other) == drain(client.messages) == []
        assert await peer.taken(kind) == [kind(1)]


@pytest.mark.parametrize("qos", [0, 1])
async def test_two_scopes_that_fail_at_once_each_get_theirs_again(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async def fail() -> None:
        async with client.open_subscription("#"), client.open_subscription("t"):
            await peer.send(*(at_once(n) if qos else lossy(n) for n in (1, 2)))
            raise Failed

    async with peered(scripted, client_id="c") as (client, peer):
        with pytest.raises(Failed):
            await fail()
        assert client.statistics().buffered_messages == 2
        async with client.open_subscription("#") as one, client.open_subscription("t") as other:
            assert drain(one) == ["1", "2"]
            assert await peer.acks() == []
            assert drain(other) == ["1", "2"]
            assert await peer.acks() == ([1, 2] if qos else [])


async def test_what_two_failed_scopes_left_comes_to_the_clients_channel_once(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        with pytest.raises(Failed):
            async with client.open_subscription("#"), client.open_subscription("t"):
                await peer.send(at_once(1), at_once(2))
                raise Failed
        assert drain(client.messages) == ["1", "2"]
        client.messages.acknowledge()
        assert await peer.acks() == [1, 2]


async def test_what_comes_before_suback_goes_to_the_scope(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer):
        peer.ahead = [p.Message("t", b"1", 0, True), at_once(2)]
        async with client.open_subscription("t") as messages:
            assert drain(messages) == ["1", "2"]


async def test_what_came_on_a_resumed_session_before_is_claimed_in_order(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, PRESENT, client_id="c") as (client, peer):
        await peer.send(at_once(1, topic="a"), lossy(2, "b"), at_once(3, topic="a"), lossy(4, "a"))
        async with client.open_subscription("a") as messages:
            await peer.send(at_once(5, topic="a"))
            assert drain(messages) == ["1", "3", "4", "5"]
        assert await peer.acks() == [1, 3, 5]
        assert drain(client.messages) == ["2"]


async def test_shared_subscriptions_get_the_messages_of_their_inner_filter(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, PRESENT, client_id="c") as (client, peer):
        await peer.send(at_once(1, topic="a/b"))
        async with client.open_subscription("$share/g/a/+") as messages:
            assert await peer.filters() == [("$share/g/a/+",)]
            await peer.send(at_once(2, topic="a/c"), at_once(3, topic="a"))
            assert drain(messages) == ["1", "2"]
        assert await peer.filters() == [("-$share/g/a/+",)]


async def test_dollar_topics_are_not_those_of_wildcards(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("#", "+/x") as wild,
        client.open_subscription("$SYS/#") as system,
    ):
        await peer.send(lossy(1, "$SYS/x"), lossy(2, "a/x"))
        assert (drain(wild), drain(system)) == (["2"], ["1"])


# Unclaimed


def strays(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The topics that were warned of."""
    warnings = [r for r in caplog.records if "nobody took" in r.getMessage()]
    return [str(record.args[0]) for record in warnings if isinstance(record.args, tuple)]


async def test_strays_are_given_up_after_a_while_with_a_warning_for_each_topic(
    scripted: ScriptedBroker, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with peered(scripted, PRESENT, client_id="c", unclaimed_wait=20) as (client, peer):
        await peer.send(at_once(1), at_once(2), at_once(3, topic="u"), lossy(4))
        await trio.sleep(19)
        await peer.send(at_once(5))
        assert await peer.acks() == []
        await trio.sleep(2)
        assert await peer.acks() == [1, 2, 3, 5]
        assert strays(caplog) == ["t", "u"]
        await peer.send(at_once(6))
        assert await peer.acks() == [6]  # at once
        assert client.statistics().unclaimed == client.statistics().given_up == 6
        assert strays(caplog) == ["t", "u"]
        await peer.cut(PRESENT)
        await client.wait_online()
        await peer.send(at_once(7))
        assert await peer.acks() == []  # after another CONNACK it is kept back again
        await trio.sleep(21)
        assert await peer.acks() == [7]


@pytest.mark.parametrize("wait", [0, math.inf])
async def test_unclaimed_wait_may_be_nothing_or_endless(
    scripted: ScriptedBroker, autojump_clock: MockClock, wait: float
) -> None:
    settings = {"client_id": "c", "unclaimed_wait": wait, "keep_alive": 0}
    async with peered(scripted, PRESENT, **settings) as (client, peer):
        await peer.send(at_once(1))
        assert await peer.acks() == ([] if wait else [1])
        await trio.sleep(10_000)
        assert await peer.acks() == []
        assert drain(client.messages) == (["1"] if wait else [])


async def test_what_subscribe_asked_for_stays(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, PRESENT, client_id="c", unclaimed_wait=5) as (client, peer):
        await peer.send(at_once(1), lossy(2), at_once(3, topic="u"))
        await client.subscribe("t")
        await peer.send(lossy(4))
        await trio.sleep(100)
        assert await peer.acks() == []  # behind 1
        assert client.statistics().unclaimed == 1
        assert drain(client.messages) == ["1", "2", "4"]


async def test_who_receives_from_the_clients_channel_goes_on_to_get_strays(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    got: list[str] = []

    async def consume(client: Client) -> None:
        while True:
            got.append((await client.messages.receive()).payload.decode())

    async with (
        peered(scripted, PRESENT, client_id="c", unclaimed_wait=5) as (client, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(consume, client)
        for number in range(1, 20):
            await peer.send(at_once(number))
            await trio.sleep(7)
        nursery.cancel_scope.cancel()
    assert got == [str(number) for number in range(1, 20)]


async def test_who_receives_slowly_goes_on_to_get_strays_while_others_come(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """A look at whether the channel is in use must not hide it from the next look."""
    async with peered(scripted, PRESENT, client_id="c", unclaimed_wait=10) as (client, peer):
        await peer.send(*map(at_once, range(1, 31)))
        await trio.sleep(0.4)
        for number in range(1, 31):
            assert (await client.messages.receive()).payload.decode() == str(number)
            await trio.sleep(0.5)
            await peer.send(at_once(100 + number))
            await trio.sleep(0.5)
        assert client.statistics().unclaimed == 0


async def test_strays_at_qos_0_give_way_and_never_stop_the_reader(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted, PRESENT, client_id="c", buffer=Buffer(messages=3)) as (
            client,
            peer,
        ),
        client.open_subscription("s") as messages,
    ):
        await peer.send(*map(lossy, range(10)), lossy("s", "s"))
        assert drain(messages) == ["s"]
        await peer.send(at_once(1, "first"))
        assert drain(client.messages) == ["8", "9", "first"]


async def test_what_a_consumer_left_at_qos_0_gives_way_too(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """It must not stop the reader until `unclaimed_wait` is over."""
    async with (
        peered(scripted, client_id="c", buffer=Buffer(messages=3)) as (client, peer),
        client.open_subscription("s") as messages,
    ):
        with pytest.raises(Failed):
            async with client.open_subscription("t"):
                await peer.send(*map(lossy, range(3)))
                raise Failed
        await peer.send(lossy(1, "s"))
        await peer.send(lossy(2, "s"))
        assert drain(messages) == ["1", "2"]


async def test_what_a_consumer_left_waits_for_it_long_after_the_connect(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c", unclaimed_wait=5) as (client, peer):
        await trio.sleep(100)
        with pytest.raises(Failed):
            async with client.open_subscription("t"):
                await peer.send(at_once(1))
                raise Failed
        await trio.sleep(3)
        await peer.send(at_once(2))
        async with client.open_subscription("t") as messages:
            assert drain(messages) == ["1", "2"]
            messages.acknowledge()
        with pytest.raises(Failed):
            async with client.open_subscription("t"):
                await peer.send(at_once(3))
                raise Failed
        await trio.sleep(6)
        await peer.send(at_once(4))
        assert await peer.acks() == [1, 2, 3, 4]


async def test_a_claim_whose_entry_is_cancelled_goes_back_in_its_place(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, PRESENT, client_id="c") as (client, peer):
        await peer.send(at_once(1), at_once(2, topic="u"), at_once(3))
        peer.silent = (p.Subscribe,)
        with trio.move_on_after(1):
            async with client.open_subscription("t"):
                raise AssertionError
        assert drain(client.messages) == ["1", "2", "3"]
        client.messages.acknowledge()
        assert await peer.acks() == [1, 2, 3]


async def test_a_channel_with_no_use_for_strays_may_be_closed(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, PRESENT, client_id="c") as (client, peer):
        await peer.send(at_once(1))
        client.messages.close()
        await peer.send(at_once(2))
        with pytest.raises(Failed):
            async with client.open_subscription("t"):
                await peer.send(at_once(3))
                raise Failed
        assert await peer.acks() == [1, 2, 3]


async def test_a_closed_scope_is_no_heir(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """What it would inherit, nobody could take, and the reader would stop for it."""
    async with (
        peered(scripted, client_id="c", buffer=Buffer(messages=1)) as (client, peer),
        trio.open_nursery() as nursery,
    ):
        fail = trio.Event()

        async def consume() -> None:
            with pytest.raises(Failed):
                async with client.open_subscription("t"):
                    await fail.wait()
                    raise Failed

        nursery.start_soon(consume)
        await peer.filters()
        await peer.send(at_once(1))
        async with client.open_subscription("#") as later:
            later.close()
            fail.set()
            await trio.testing.wait_all_tasks_blocked()
            assert drain(client.messages) == ["1"] or await peer.acks() == [1]
            await peer.send(at_once(2, topic="other"))
            client.messages.acknowledge()
            assert 2 in await peer.acks()


async def test_no_wait_and_more_tasks_than_messages_do_not_hang(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def receive(channel: MessageChannel) -> None:
        with channel:
            await channel.receive()

    async def fail_in_a_scope(number: int) -> None:
        async with client.open_subscription("t"):
            await peer.send(at_once(number))
            raise Failed

    async with peered(scripted, client_id="c", unclaimed_wait=0) as (client, peer):
        for number in range(1, 21):  # the order of tasks is random
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(receive, client.messages.clone())
                with not_hanging(2):
                    with pytest.raises(Failed):
                        await fail_in_a_scope(number)
                    await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()


async def test_a_lost_session_gives_up_what_it_left_as_it_does_a_kept_one(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, PRESENT, client_id="c", unclaimed_wait=20) as (client, peer):
        await peer.send(at_once(1))
        await peer.cut(ABSENT)
        await client.wait_online()
        await peer.send(at_once(1, "another"))
        await trio.sleep(30)
        assert await peer.acks() == [1]
        assert client.statistics().unclaimed == 2
