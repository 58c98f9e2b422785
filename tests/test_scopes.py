"""Subscription scopes: entering and leaving, and who holds a topic filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import Buffer, Client, ClosedInDoubt, Denied, SubscribeError, open_client
from trio_mqtt import _packets as p
from trio_mqtt.testing import ScriptedBroker

from .scope_peer import ABSENT, PRESENT, Failed, at_once, drain, lossy, peered

# Entering


async def test_entering_subscribes_and_leaving_unsubscribes(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer):
        async with client.open_subscription("a", "b/#", "a") as messages:
            assert await peer.filters() == [("a", "b/#")]
            await peer.send(lossy("1", "b/c"), lossy("2", "a"))
            assert drain(messages) == ["1", "2"]
            assert drain(client.messages) == []
        assert await peer.filters() == [("-a", "-b/#")]


async def test_entering_asks_for_8_filters_at_a_time(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    names = [str(number) for number in range(17)]
    async with peered(scripted) as (client, peer):
        async with client.open_subscription(*names):
            assert list(map(len, await peer.filters())) == [8, 8, 1]
        assert list(map(len, await peer.filters())) == [8, 8, 1]


async def test_entry_that_was_cancelled_before_sends_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with client.open_subscription("a"):
                raise AssertionError
        assert await peer.filters() == []


@pytest.mark.parametrize("client_id", [None, "c"])
async def test_entry_that_is_cancelled_unsubscribes_and_leaves_nothing_behind(
    scripted: ScriptedBroker, autojump_clock: MockClock, client_id: str | None
) -> None:
    async with peered(scripted, client_id=client_id) as (client, peer):
        peer.silent = (p.Subscribe,)
        with trio.move_on_after(1):
            async with client.open_subscription("a"):
                raise AssertionError
        assert await peer.filters() == [("a",), ("-a",)]
        await peer.send(p.SubAck(1, (2,)), lossy("stray", "a"))
        assert client.statistics().unmatched_answers == 0
        await peer.cut(PRESENT if client_id else ABSENT)
        await client.wait_online()
        assert await peer.filters() == []


async def test_entry_at_any_number_of_checkpoints_cancelled_leaves_nothing_behind(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        for checkpoints in range(12):
            async with trio.open_nursery() as nursery:

                async def enter() -> None:
                    async with client.open_subscription("a"):
                        await trio.sleep_forever()

                nursery.start_soon(enter)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        with trio.move_on_after(1):
            async with client.open_subscription("a"):
                pass
        assert (await peer.filters())[-1] == ("-a",)
        await peer.send(at_once(1, topic="a"))
        assert drain(client.messages) == ["1"]  # kept back, as no UNSUBSCRIBE is under way


async def test_a_filter_that_fails_takes_the_others_back(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        peer.failing = ("z", "x")
        with pytest.raises(SubscribeError) as caught:
            async with client.open_subscription("z", "y", "x"):
                raise AssertionError
        assert caught.value.topic_filters == ("z", "x")
        assert await peer.filters() == [("z", "y", "x"), ("-y",)]
        await peer.cut(ABSENT)
        await client.wait_online()
        assert await peer.filters() == []


async def test_a_holder_whose_filter_fails_anothers_entry_still_unsubscribes(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """The broker refused the second SUBSCRIBE, and still has the first."""
    async with peered(scripted) as (client, peer):
        async with client.open_subscription("a"):
            peer.failing = ("a",)
            with pytest.raises(SubscribeError):
                async with client.open_subscription("a"):
                    raise AssertionError
            await peer.filters()
        assert await peer.filters() == [("-a",)]


async def test_entering_offline_waits_for_the_connection(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.unreachable = True
    async with peered(scripted, wait_online=False) as (client, peer):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def come_back() -> None:
                await trio.sleep(30)
                scripted.unreachable = False

            nursery.start_soon(come_back)
            async with client.open_subscription("a") as messages:
                assert trio.current_time() - began >= 30
                await peer.send(lossy("1", "a"))
                assert drain(messages) == ["1"]


async def test_entry_that_is_cancelled_offline_sends_nothing_later(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.unreachable = True
    async with peered(scripted, wait_online=False) as (client, peer):
        with trio.move_on_after(5):
            async with client.open_subscription("a"):
                raise AssertionError
        scripted.unreachable = False
        await client.wait_online()
        assert await peer.filters() == []


@pytest.mark.parametrize("greeting", [PRESENT, ABSENT])
async def test_a_connection_lost_while_entering_is_asked_again_on_the_next(
    scripted: ScriptedBroker, autojump_clock: MockClock, greeting: bytes
) -> None:
    async with peered(scripted, client_id="c") as (client, peer), trio.open_nursery() as nursery:
        peer.silent = (p.Subscribe,)
        entered = trio.Event()

        async def enter() -> None:
            async with client.open_subscription("a") as messages:
                entered.set()
                assert (await messages.receive()).payload == b"1"

        nursery.start_soon(enter)
        assert await peer.filters() == [("a",)]
        peer.silent = ()
        await peer.cut(greeting)
        with trio.fail_after(5):
            await entered.wait()
        assert await peer.filters() == [("a",)]
        await peer.send(lossy("1", "a"))


@pytest.mark.parametrize("greeting", [PRESENT, ABSENT])
async def test_unsubscribe_is_owed_after_an_entry_that_is_cancelled_offline(
    scripted: ScriptedBroker, autojump_clock: MockClock, greeting: bytes
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        peer.silent = (p.Subscribe,)
        async with trio.open_nursery() as nursery:

            async def enter() -> None:
                async with client.open_subscription("a"):
                    raise AssertionError

            nursery.start_soon(enter)
            assert await peer.filters() == [("a",)]
            await peer.cut(greeting)
            await client.wait_offline()
            nursery.cancel_scope.cancel()
        await client.wait_online()
        assert await peer.filters() == ([("-a",)] if greeting is PRESENT else [])


@pytest.mark.parametrize("ends", [Client.aclose, Client.disconnect])
async def test_the_end_of_the_client_ends_an_entry_in_doubt(
    scripted: ScriptedBroker, autojump_clock: MockClock, ends: Callable[[Client], Any]
) -> None:
    async with peered(scripted) as (client, peer), trio.open_nursery() as nursery:
        peer.silent = (p.Subscribe,)

        async def enter() -> None:
            with pytest.raises(ClosedInDoubt):
                async with client.open_subscription("a"):
                    raise AssertionError

        nursery.start_soon(enter)
        await trio.testing.wait_all_tasks_blocked()
        await ends(client)
        with pytest.raises(trio_mqtt.ClientClosed):
            async with client.open_subscription("a"):
                raise AssertionError


@pytest.mark.parametrize(
    ("filters", "options", "error"),
    [
        ((), {}, Denied),
        (("a", "b#"), {}, Denied),
        (("a", ""), {}, Denied),
        ((1,), {}, TypeError),
        (("a",), {"qos": 3}, Denied),
        (("a",), {"qos": True}, TypeError),
        (("a",), {"keep": 1}, TypeError),
        (("a",), {"strict": None}, TypeError),
        (("a",), {"buffer": 10}, TypeError),
        (("a",), {"overflow": "drop"}, Denied),
        (("a",), {"overflow": []}, (Denied, TypeError)),
    ],
)
async def test_wrong_arguments_are_refused_before_a_byte_is_sent(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    filters: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    async with peered(scripted) as (client, peer):
        with pytest.raises(error):
            async with client.open_subscription(*filters, **options):
                raise AssertionError
        assert peer.log == []


# Leaving


async def test_leaving_acknowledges_the_last_one_and_what_nobody_took(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer):
        async with client.open_subscription("t") as messages:
            await peer.send(at_once(1), at_once(2), at_once(3))
            await messages.receive()
            assert await peer.acks() == []
        assert await peer.acks() == [1, 2, 3]
        assert client.statistics().given_up == 2
        assert client.statistics().buffered_messages == 0
        with pytest.raises(trio.ClosedResourceError):
            messages.receive_nowait()


async def test_leaving_by_an_exception_leaves_it_bare_and_the_messages_in_place(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        with pytest.raises(Failed):
            async with client.open_subscription("t") as messages:
                await peer.send(*map(at_once, range(1, 5)))
                await messages.receive()
                await messages.receive()
                raise Failed
        assert await peer.filters() == [("t",)]
        assert await peer.acks() == [1]
        async with client.open_subscription("t") as messages:
            assert drain(messages) == ["2", "3", "4"]
        assert await peer.acks() == [2, 3, 4]


async def test_leaving_by_an_exception_unsubscribes_where_the_broker_keeps_no_session(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer):
        with pytest.raises(Failed):
            async with client.open_subscription("t"):
                raise Failed
        assert await peer.filters() == [("t",), ("-t",)]


async def test_what_a_consumer_left_goes_to_another_scope_that_opens_later(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        with pytest.raises(Failed):
            async with client.open_subscription("t/+") as messages:
                await peer.send(
                    at_once(1, topic="t/a"), at_once(2, topic="t/b"), at_once(3, topic="t/a")
                )
                await messages.receive()
                raise Failed
        async with client.open_subscription("+/a") as messages:
            assert drain(messages) == ["1", "3"]
        assert drain(client.messages) == ["2"]


async def test_what_a_consumer_left_goes_to_a_scope_that_opened_after_it_arrived(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted, client_id="c") as (client, peer),
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
        await peer.send(at_once(1), at_once(2))
        async with client.open_subscription("#") as later:
            await peer.send(at_once(3))
            fail.set()
            await trio.testing.wait_all_tasks_blocked()
            assert drain(later) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "error", [StopAsyncIteration, StopIteration, KeyboardInterrupt, trio.EndOfChannel]
)
async def test_whatever_the_body_raises_leaves_as_it_is(
    scripted: ScriptedBroker, autojump_clock: MockClock, error: type[BaseException]
) -> None:
    async with peered(scripted) as (client, _):
        raised = error()
        with pytest.raises(error) as caught:
            async with client.open_subscription("t"):
                raise raised
        assert caught.value is raised


@pytest.mark.parametrize(("pause_timeout", "takes"), [(3, 3), (60, 10)])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_leaving_waits_for_the_broker_and_not_for_long(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    pause_timeout: float,
    takes: float,
    cancelled: bool,
) -> None:
    async with peered(scripted, pause_timeout=pause_timeout, keep_alive=0) as (client, peer):
        peer.silent = (p.Unsubscribe,)
        with trio.CancelScope() as scope:
            async with client.open_subscription("t"):
                if cancelled:
                    scope.cancel()
                began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(takes)
        assert not scope.cancelled_caught
        assert await peer.filters() == [("t",), ("-t",)]


async def test_leaving_does_not_wait_for_a_connection(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        peer.silent = (p.Unsubscribe,)
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                async with client.open_subscription("t"):
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(leave)
            assert await peer.filters() == [("t",), ("-t",)]
            await peer.cut(PRESENT)
        assert not client.online
        peer.silent = ()
        await client.wait_online()
        assert await peer.filters() == [("-t",)]


@pytest.mark.parametrize("present", [True, False])
async def test_leaving_offline_owes_unsubscribe(
    scripted: ScriptedBroker, autojump_clock: MockClock, present: bool
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        async with client.open_subscription("t"):
            await peer.cut(PRESENT if present else ABSENT)
            assert await peer.filters() == [("t",)]
        assert not client.online
        await client.wait_online()
        assert await peer.filters() == ([("-t",)] if present else [])


async def test_what_comes_before_unsuback_is_acknowledged_and_discarded(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer), trio.open_nursery() as nursery:
        peer.silent = (p.Unsubscribe,)

        async def leave() -> None:
            async with client.open_subscription("t"):
                pass

        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(at_once(1), lossy(2))
        assert await peer.acks() == [1]
        unsubscribe = (await peer.taken(p.Unsubscribe))[0]
        await peer.send(p.UnsubAck(unsubscribe.packet_id))
        assert client.statistics().given_up == 2
        assert client.statistics().unclaimed == 0


async def test_what_comes_in_one_piece_with_unsuback_is_discarded_too(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        async with client.open_subscription("t"):
            peer.ahead = [at_once(1), lossy(2)]
        assert await peer.acks() == [1]
        assert drain(client.messages) == []


async def test_what_waits_behind_a_full_scope_when_unsuback_comes_is_discarded_too(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        async with client.open_subscription("full", buffer=Buffer(messages=1)) as full:
            async with client.open_subscription("t"):
                await peer.send(at_once(1, topic="full"), at_once(2))
            assert drain(client.messages) == []
            assert drain(full) == ["1"]
        assert await peer.acks() == [1, 2]


async def test_scopes_left_twice_before_unsuback_do_not_swallow_what_comes_later(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """Two UNSUBSCRIBE packets are lost together, and one makes up for both."""
    async with peered(scripted, client_id="c", pause_timeout=1) as (client, peer):
        peer.silent = (p.Unsubscribe,)
        for _ in range(2):
            async with client.open_subscription("t"):
                pass
        peer.silent = ()
        await peer.cut(PRESENT)
        await client.wait_online()
        assert (await peer.filters())[-1] == ("-t",)
        with pytest.raises(Failed):
            async with client.open_subscription("t"):
                raise Failed
        await peer.send(at_once(1))
        assert await peer.acks() == []
        async with client.open_subscription("t") as messages:
            assert drain(messages) == ["1"]


async def test_a_client_is_left_at_once_after_a_scope_that_never_got_its_answer(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with trio.move_on_after(1):
            async with client.open_subscription("t"):
                raise AssertionError
    assert isinstance(await link.next(), p.Subscribe)
    assert isinstance(await link.next(), p.Unsubscribe)
    assert await link.next() == p.Disconnect()
