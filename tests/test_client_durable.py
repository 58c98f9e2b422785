"""A client of a durable session: what the application sees of the storage, also when that fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import (
    Client,
    ClosedInDoubt,
    Exchange,
    PendingLimit,
    PersistenceError,
    ResponseLost,
    adopt_session,
    init_session,
    open_client,
)
from trio_mqtt import _packets as p
from trio_mqtt._records import Kind
from trio_mqtt._storer import LAST, LAZY, RETRY
from trio_mqtt.testing import ScriptedBroker, ScriptedLink, open_broker

from .memory_persistence import MemoryPersistence
from .session_driver import delivery


class Stage:
    """A client of an adopted session, the broker's end of its connection, and its persistence."""

    def __init__(self, client: Client, link: ScriptedLink, persistence: MemoryPersistence) -> None:
        self.client = client
        self.link = link
        self.persistence = persistence

    def kinds(self) -> list[tuple[int, str]]:
        """What is stored, but for the session itself."""
        records = self.persistence.records()
        return [(k, r.kind.name) for k, r in records.items() if r.kind is not Kind.SESSION]


@asynccontextmanager
async def staged(
    scripted: ScriptedBroker, persistence: MemoryPersistence | None = None, **settings: int
) -> AsyncGenerator[Stage]:
    """One that is past its first connect."""
    if persistence is None:
        persistence = MemoryPersistence()
        session = await init_session("me", persistence)
        async with open_client(scripted.dialer, session=session) as client:
            await (await scripted.accepted()).expect(p.Disconnect)
            await scripted.accepted()
            await client.aclose()
    session = await adopt_session(persistence)
    persistence.commits.clear()
    async with open_client(
        scripted.dialer, session=session, at_least_once_max=settings.get("most", 100)
    ) as client:
        yield Stage(client, await scripted.accepted(), persistence)


# Accepting


async def test_enqueue_returns_once_it_is_stored(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 3
        began = trio.current_time()
        exchange = await on.client.enqueue("t", b"x")
        assert trio.current_time() - began == pytest.approx(3)
        assert exchange.accepted
        assert not exchange.confirmed
        assert on.kinds() == [(1, "PUBLISH")]
        await on.link.expect(p.Delivery)
        await on.link.send(p.PubAck(1))
        await exchange.wait()
        await exchange.wait_accepted()
    assert on.kinds() == []


async def test_nothing_is_sent_before_it_is_stored(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 3
        exchange = on.client.enqueue_nowait("t", b"x")
        assert not exchange.accepted
        await on.client.publish("t", b"at most once")
        assert isinstance(await on.link.next(), p.Message), "which depends on no record"
        with trio.move_on_after(2) as scope:
            await on.link.next()
        assert scope.cancelled_caught
        await exchange.wait_accepted()
        await on.link.expect(p.Delivery)
        await on.client.aclose()


async def test_publish_returns_on_the_confirmation(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on, trio.open_nursery() as nursery:

        async def answer() -> None:
            await on.link.expect(p.Delivery)
            assert on.kinds() == [(1, "PUBLISH")]
            await on.link.send(p.PubRec(1))
            await on.link.expect(p.PubRel)
            assert on.kinds() == [(1, "RELEASED")]
            await on.link.send(p.PubComp(1))

        nursery.start_soon(answer)
        await on.client.publish("t", b"x", qos=2)
    assert on.kinds() == []


async def test_cancelled_during_the_commit_the_message_is_still_delivered(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """PITFALLS G8: the wait can be cancelled."""
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 3
        with trio.move_on_after(1) as scope:
            await on.client.enqueue("t", b"x")
        assert scope.cancelled_caught
        await on.link.expect(p.Delivery)
        assert on.kinds() == [(1, "PUBLISH")]
        await on.client.aclose()


async def test_what_is_queued_during_a_commit_goes_into_the_next(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 1
        on.client.enqueue_nowait("t", b"0")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(50):
            exchange = on.client.enqueue_nowait("t", b"x")
        await exchange.wait_accepted()
        assert [len(saves) for saves, _ in on.persistence.commits] == [1, 50]
        assert on.client.statistics().commits == 2
        await on.client.aclose()


async def test_deletions_wait_a_moment_for_company(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        for number in (1, 2):
            exchange = await on.client.enqueue("t", b"x")
            await on.link.expect(p.Delivery)
            await on.link.send(p.PubAck(number))
            await exchange.wait()
        assert [(list(s), d) for s, d in on.persistence.commits] == [([1], []), ([2], [1])]
        await trio.sleep(LAZY * 0.9)
        assert len(on.persistence.commits) == 2
        await trio.sleep(LAZY)
        assert [(list(s), d) for s, d in on.persistence.commits[2:]] == [([], [2])]


async def test_messages_are_stored_while_offline(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        scripted.unreachable = True
        await on.link.close()
        await on.client.wait_offline()
        await on.client.enqueue("t", b"x", qos=2)
        assert on.kinds() == [(1, "PUBLISH")]
        scripted.unreachable = False
        link = await scripted.accepted()
        assert not (await link.expect(p.Delivery)).message.dup
        await on.client.aclose()


async def test_flush_waits_for_the_storage_too(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 3
        on.client.enqueue_nowait("t", b"x")
        began = trio.current_time()
        await on.client.flush()
        assert trio.current_time() - began == pytest.approx(3)
        await on.client.aclose()


# What cannot be stored


async def test_whoever_cannot_be_stored_is_told_and_may_try_again(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted, most=1) as on:
        on.persistence.failure = OSError("disk full")
        for qos in (1, 2):
            with pytest.raises(PersistenceError, match="not stored: disk full") as caught:
                await on.client.publish("t", b"x", qos=1 if qos == 1 else 2)
            assert caught.value.__cause__ is on.persistence.failure
        with pytest.raises(PersistenceError):
            await on.client.enqueue("t", b"x")
        exchange = on.client.enqueue_nowait("t", b"x")
        with pytest.raises(PersistenceError):
            await exchange.wait_accepted()
        with pytest.raises(PersistenceError):
            await exchange.wait()
        with pytest.raises(PersistenceError):
            async for _ in exchange:
                raise AssertionError
        assert on.client.statistics().unconfirmed == 0
        on.persistence.failure = None
        await on.client.enqueue("t", b"y")
        assert (await on.link.expect(p.Delivery)).message.payload == b"y"
        await on.client.aclose()


async def test_a_message_that_was_refused_makes_room_for_one_that_waits(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted, most=1) as on, trio.open_nursery() as nursery:
        on.persistence.failure = OSError("disk full")
        on.persistence.commit_seconds = 1
        refused = on.client.enqueue_nowait("t", b"x")
        with pytest.raises(PendingLimit):
            on.client.enqueue_nowait("t", b"y")

        @nursery.start_soon
        async def _() -> None:
            await on.client.enqueue("t", b"z")

        with pytest.raises(PersistenceError):
            await refused.wait()
        on.persistence.failure = None
        assert (await on.link.expect(p.Delivery)).message.payload == b"z"
        await on.client.aclose()


async def test_a_refused_message_does_not_hold_up_a_flush(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.failure = OSError("disk full")
        on.client.enqueue_nowait("t", b"x")
        await on.client.flush()
        await on.client.aclose()


async def test_nothing_is_answered_that_is_not_stored_and_all_of_it_once_it_is(
    scripted: ScriptedBroker, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with staged(scripted) as on:
        await on.client.enqueue("t", b"x", qos=2)
        await on.link.expect(p.Delivery)
        on.persistence.failure = OSError("disk full")
        on.persistence.commits.clear()
        await on.link.send(p.PubRec(1))
        await trio.sleep(2.5 * RETRY)
        assert len(on.persistence.commits) == 3
        await on.client.publish("t", b"at most once")
        await on.link.expect(p.Message)
        on.persistence.failure = None
        await on.link.expect(p.PubRel)
        await on.client.aclose()
    logged = [record.getMessage() for record in caplog.records]
    assert logged.count("cannot store the session, trying again: disk full") == 1
    assert logged.count("the session is stored again") == 1


async def test_what_is_no_failure_of_the_storage_ends_the_client_bare(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with staged(scripted) as on:
            on.persistence.failure = ZeroDivisionError()
            with pytest.raises(trio.Cancelled):
                await on.client.enqueue("t", b"x")
            await trio.lowlevel.checkpoint()
    assert caught.value is on.persistence.failure
    assert not on.persistence.is_open


async def test_keep_alive_goes_on_while_the_storage_hangs(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 1000
        exchange = on.client.enqueue_nowait("t", b"x")
        for _ in range(10):
            await on.link.expect(p.PingReq)
            await on.link.send(p.PingResp())
        assert not exchange.accepted
        on.persistence.commit_seconds = 0
        await on.client.aclose()


# Receiving


async def test_receive_returns_once_the_message_before_is_stored(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        await on.link.send(*(delivery(number, 2) for number in (1, 2, 3)))
        await on.client.messages.receive()
        assert on.persistence.commits == []
        on.persistence.commit_seconds = 3
        began = trio.current_time()
        await on.client.messages.receive()
        assert trio.current_time() - began == pytest.approx(3)
        assert on.kinds() == [(0x10001, "RECEIVED")]
        await on.link.expect(p.PubRec)
        with pytest.raises(trio.WouldBlock):
            on.client.messages.receive_nowait()
        with trio.move_on_after(1) as scope:
            await on.client.messages.receive()
        assert scope.cancelled_caught
        await trio.sleep(5)
        on.client.messages.receive_nowait()
        await on.client.aclose()


async def test_a_task_that_waits_for_the_storage_is_one_that_receives(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on, trio.open_nursery() as nursery:
        await on.link.send(*(delivery(number, 2) for number in (1, 2)))
        await on.client.messages.receive()
        on.persistence.commit_seconds = 3
        nursery.start_soon(on.client.messages.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await on.client.messages.receive()


async def test_receiving_at_qos_1_waits_for_no_storage(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        await on.link.send(delivery(1, 1), p.Message("t", b"x"), delivery(2, 1))
        for _ in range(3):
            await on.client.messages.receive()
        assert on.persistence.commits == []


async def test_receiving_goes_on_when_the_storage_does(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        await on.link.send(delivery(1, 2), delivery(2, 2))
        await on.client.messages.receive()
        on.persistence.failure = OSError("disk full")
        with trio.move_on_after(10) as scope:
            await on.client.messages.receive()
        assert scope.cancelled_caught
        on.persistence.failure = None
        await on.client.messages.receive()
        assert (await on.link.expect(p.PubRec)).packet_id == 1
        await on.client.aclose()


async def test_a_lost_session_is_stored_before_anything_is_taken_from_the_new_one(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """Else a new message under an old identifier would be swallowed after a crash."""
    async with staged(scripted) as on:
        await on.link.send(delivery(1, 2))
        await on.client.messages.receive()
        on.client.messages.acknowledge()
        await on.link.expect(p.PubRec)
        on.persistence.failure = OSError("disk full")
        await on.link.close()
        link = await scripted.accepted()
        await link.send(delivery(1, 2, payload=b"new"))
        assert await link.next() is None, "it gives up before it reads"
        assert on.kinds() == [(0x10001, "RECEIVED")]
        assert on.client.statistics().received == 1
        on.persistence.failure = None
        link = await scripted.accepted()
        await link.send(delivery(1, 2, payload=b"new"))
        assert (await on.client.messages.receive()).payload == b"new"
        assert on.kinds() == []
        await on.client.aclose()


# The end


async def test_leaving_waits_for_the_storage_and_not_for_confirmations(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    began = 0.0
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 3
        exchange = on.client.enqueue_nowait("t", b"x")
        began = trio.current_time()
    assert trio.current_time() - began < 8
    assert exchange.accepted
    assert on.kinds() == [(1, "PUBLISH")]
    assert isinstance(await on.link.next(), p.Delivery)
    assert isinstance(await on.link.next(), p.Disconnect)
    with pytest.raises(ClosedInDoubt):
        await exchange.wait()


async def test_leaving_does_not_wait_for_a_storage_that_fails(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.failure = OSError("disk full")
        exchange = on.client.enqueue_nowait("t", b"x")
    assert isinstance(await on.link.next(), p.Disconnect)
    with pytest.raises(PersistenceError):
        await exchange.wait()


async def test_an_exception_in_the_body_still_stores_what_was_acknowledged(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with staged(scripted) as on:
            await on.link.send(delivery(1, 2))
            await on.client.messages.receive()
            on.client.messages.acknowledge()
            on.client.enqueue_nowait("t", b"x")
            raise ZeroDivisionError
    assert on.kinds() == [(1, "PUBLISH"), (0x10001, "RECEIVED")]


async def test_closing_waits_for_a_commit_that_is_running(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 3
        exchange = on.client.enqueue_nowait("t", b"x")
        await trio.testing.wait_all_tasks_blocked()
        await on.client.aclose()
    assert on.kinds() == [(1, "PUBLISH")]
    with pytest.raises(ClosedInDoubt):
        await exchange.wait()
    await exchange.wait_accepted()


@pytest.mark.parametrize("busy", [False, True])
async def test_closing_stores_what_was_queued_just_before(
    scripted: ScriptedBroker, autojump_clock: MockClock, busy: bool
) -> None:
    """With a crash in the body too: what was accepted, received and confirmed by then."""
    on: Stage
    with pytest.raises(ZeroDivisionError):
        async with staged(scripted) as on:
            await on.client.enqueue("t", b"confirmed")
            await on.link.expect(p.Delivery)
            await on.link.send(p.PubAck(1), delivery(9, 2))
            await on.client.messages.receive()
            if busy:
                await trio.sleep(1)
                on.persistence.commit_seconds = 3
                on.client.enqueue_nowait("t", b"being stored")
                await trio.testing.wait_all_tasks_blocked()
            on.client.messages.acknowledge()
            exchange = on.client.enqueue_nowait("t", b"accepted")
            raise ZeroDivisionError
    ours = [(2, "PUBLISH"), (3, "PUBLISH")] if busy else [(2, "PUBLISH")]
    assert on.kinds() == [*ours, (0x10009, "RECEIVED")]
    assert exchange.accepted


async def test_closing_waits_no_longer_than_that(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        on.persistence.commit_seconds = 1000
        exchange = on.client.enqueue_nowait("t", b"x")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await on.client.aclose()
        assert trio.current_time() - began <= 2 * LAST
    with pytest.raises((ClosedInDoubt, PersistenceError)):
        await exchange.wait()


# The next life


async def test_an_adopted_exchange_can_be_waited_for(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        await on.client.enqueue("t", b"x")
        await on.client.enqueue("u", b"y", qos=2)
        for _ in range(2):
            await on.link.expect(p.Delivery)
        await on.link.send(p.PubRec(2))
        await on.link.expect(p.PubRel)
        await on.client.aclose()
    session = await adopt_session(on.persistence)
    first, second = session.pending
    assert (first.packet_id, first.qos, first.message) == (1, 1, trio_mqtt.Message("t", b"x", 1))
    assert (second.packet_id, second.qos, second.message) == (2, 2, None)
    assert repr(second) == "<AdoptedExchange 2 at QoS 2: received by the broker>"
    assert "payload=b'x'" in repr(first)
    assert first.accepted
    async with open_client(scripted.dialer, session=session) as client:
        link = await scripted.accepted()
        assert (await link.expect(p.PubRel)).packet_id == 2
        assert (await link.expect(p.Delivery)).message.dup
        await link.send(p.PubAck(1), p.PubComp(2))
        await first.wait()
        await second.wait()
        assert client.statistics().confirmed == 2
    assert on.kinds() == []


async def test_an_adopted_exchange_tells_its_interruptions(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        await on.client.enqueue("t", b"x")
        await on.client.aclose()
    session = await adopt_session(on.persistence)
    (exchange,) = session.pending
    interruptions: list[object] = []

    async def follow(exchange: Exchange) -> None:
        interruptions.extend([type(interruption) async for interruption in exchange])

    async with open_client(scripted.dialer, session=session), trio.open_nursery() as nursery:
        nursery.start_soon(follow, exchange)
        link = await scripted.accepted()
        await link.expect(p.Delivery)
        await link.close()
        link = await scripted.accepted()
        await link.expect(p.Delivery)
        await link.send(p.PubAck(1))
    assert interruptions == [ResponseLost]


async def test_an_adopted_exchange_ends_with_its_client(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with staged(scripted) as on:
        await on.client.enqueue("t", b"x")
        await on.client.aclose()
    session = await adopt_session(on.persistence)
    (exchange,) = session.pending
    async with open_client(scripted.dialer, session=session) as client:
        await client.aclose()
    with pytest.raises(ClosedInDoubt):
        await exchange.wait()


async def test_16384_messages_accepted_while_offline_all_arrive_in_the_next_life(
    autojump_clock: MockClock,
) -> None:
    persistence = MemoryPersistence()
    async with open_broker() as broker:
        async with open_client(
            broker.dialer, session=await init_session("me", persistence)
        ) as client:
            await client.aclose()

        async def unreachable() -> trio.abc.Stream:
            raise OSError("unreachable")

        session = await adopt_session(persistence)
        async with open_client(unreachable, session=session, wait_online=False) as client:
            for number in range(16_384):
                exchange = client.enqueue_nowait("t", b"%d" % number)
            await exchange.wait_accepted()
            with pytest.raises(PendingLimit):
                client.enqueue_nowait("t", b"one more")
            await client.aclose()

        async with open_client(broker.dialer) as other:
            await other.subscribe("t")
            session = await adopt_session(persistence)
            assert len(session.pending) == 16_384
            async with open_client(broker.dialer, session=session):
                for number in range(16_384):
                    assert (await other.messages.receive()).payload == b"%d" % number
                for exchange in session.pending:
                    await exchange.wait()
        assert len(persistence.values) == 2
