"""Subscription scopes: clones, the order of acknowledgements, and consumers that fail in place."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_mqtt import MessageChannel, adopt_session, init_session, open_client
from trio_mqtt import _packets as p
from trio_mqtt.testing import ScriptedBroker, open_broker

from .memory_persistence import MemoryPersistence
from .scope_peer import PRESENT, Failed, at_once, drain, lossy, peered


def exactly_once(number: int) -> p.Delivery:
    return p.Delivery(p.Message("t", str(number).encode(), 2), number)


# Clones


@pytest.mark.conformance("MQTT-4.6.0-2", "MQTT-4.6.0-3")
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("qos", [1, 2])
async def test_workers_that_finish_in_any_order_acknowledge_in_that_of_the_wire(
    scripted: ScriptedBroker, autojump_clock: MockClock, order: Sequence[int], qos: int
) -> None:
    make, kind = (at_once, p.PubAck) if qos == 1 else (exactly_once, p.PubRec)
    async with peered(scripted) as (client, peer), client.open_subscription("t") as messages:
        workers = [messages.clone() for _ in range(3)]
        await peer.send(*(make(number) for number in (30, 10, 20)))
        for worker in workers:
            await worker.receive()
        finished: set[int] = set()
        expected = [30, 10, 20]
        for index in order:
            workers[index].acknowledge()
            finished.add(index)
            due = next((i for i in range(3) if i not in finished), 3)
            sent = 3 - len(expected)
            assert await peer.taken(kind) == [kind(i) for i in (30, 10, 20)[sent:due]]
            expected = [30, 10, 20][due:]


async def test_the_message_of_a_worker_that_fails_goes_to_the_others_in_its_place(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer), client.open_subscription("t") as messages:
        await peer.send(*map(at_once, range(1, 5)))
        assert (await messages.receive()).payload == b"1"
        with pytest.raises(Failed), messages.clone() as worker:
            await worker.receive()
            raise Failed
        with pytest.raises(trio.ClosedResourceError):
            worker.receive_nowait()
        assert drain(messages) == ["2", "3", "4"]
        assert await peer.acks() == [1, 2, 3, 4]


async def test_a_worker_that_waits_gets_the_message_of_one_that_fails(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("t") as messages,
        trio.open_nursery() as nursery,
    ):
        got: list[bytes] = []

        async def wait() -> None:
            got.append((await messages.receive()).payload)

        with pytest.raises(Failed), messages.clone() as worker:
            await peer.send(at_once(1))
            await worker.receive()
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            raise Failed
        await trio.testing.wait_all_tasks_blocked()
        assert got == [b"1"]


async def test_the_last_worker_to_fail_leaves_its_message_to_the_next_scope(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """With the scope's own channel closed there is nobody else in it to take it."""
    async with (
        peered(scripted, client_id="c") as (client, peer),
        client.open_subscription("t") as messages,
    ):
        worker = messages.clone()
        messages.close()
        await peer.send(at_once(1), at_once(2))
        with pytest.raises(Failed), worker:
            await worker.receive()
            raise Failed
        assert drain(client.messages) == ["1", "2"]


async def test_each_channel_is_for_one_task_at_a_time(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("t") as messages,
        trio.open_nursery() as nursery,
    ):
        other = messages.clone()
        nursery.start_soon(messages.receive)
        nursery.start_soon(other.receive)
        await trio.testing.wait_all_tasks_blocked()
        for channel in (messages, other):
            with pytest.raises(trio.BusyResourceError):
                channel.receive_nowait()
        await peer.send(lossy(1), lossy(2))


async def test_a_second_task_does_not_slip_in_where_the_first_gives_others_their_turn(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """Every 64th time: what the one took would be overwritten and never acknowledged."""
    async with peered(scripted) as (client, peer), client.open_subscription("t") as messages:
        await peer.send(*map(at_once, range(1, 131)))

        async def receive() -> None:
            for _ in range(65):
                try:
                    await messages.receive()
                except trio.BusyResourceError:
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(receive)
        drain(messages)
        assert await peer.acks() == list(range(1, 131))


async def test_closed_channels_and_those_of_a_scope_that_ended_raise(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, _peer):
        async with client.open_subscription("t") as messages:
            worker, other = messages.clone(), messages.clone()
            worker.close()
            with pytest.raises(trio.ClosedResourceError):
                worker.clone()
            with pytest.raises(trio.ClosedResourceError):
                await worker.receive()
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await other.receive()

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                other.close()
            survivor = messages.clone()
        for channel in (messages, other, survivor):
            with pytest.raises(trio.ClosedResourceError):
                await channel.receive()
            with pytest.raises(trio.ClosedResourceError):
                channel.clone()
            channel.close()


async def test_the_end_of_the_client_ends_every_channel(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted) as (client, _peer),
        client.open_subscription("t") as messages,
        trio.open_nursery() as nursery,
    ):

        async def iterate(channel: MessageChannel) -> None:
            async for _ in channel:
                raise AssertionError

        clone = messages.clone()
        nursery.start_soon(iterate, messages)
        nursery.start_soon(iterate, clone)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()


async def test_the_last_channel_to_close_acknowledges_and_discards(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer), client.open_subscription("t") as messages:
        worker = messages.clone()
        await peer.send(at_once(1), at_once(2))
        messages.close()
        assert await peer.acks() == []
        await worker.receive()
        worker.close()
        assert await peer.acks() == [1, 2]
        await peer.send(at_once(3))
        assert await peer.acks() == [3]
        assert client.statistics().given_up == 2


async def test_a_receive_that_is_cancelled_at_any_point_loses_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    got: list[str] = []
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("t") as messages,
        trio.open_nursery() as sending,
    ):
        workers = [messages, messages.clone(), messages.clone()]

        async def receive(channel: MessageChannel) -> None:
            got.append((await channel.receive()).payload.decode())

        for number in range(1, 201):
            sending.start_soon(peer.send, at_once(number))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, workers[number % 3])
                nursery.start_soon(receive, workers[(number + 1) % 3])
                for _ in range(number % 13):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        got += drain(messages)
        for worker in workers:
            worker.acknowledge()
        assert sorted(map(int, got)) == list(range(1, 201))
        assert sorted(await peer.acks()) == list(range(1, 201))


# The end of a scope, and its workers


async def test_a_worker_that_still_runs_keeps_its_message_when_the_scope_ends(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer), trio.open_nursery() as nursery:
        go_on = trio.Event()

        async def work(channel: MessageChannel) -> None:
            with channel:
                await channel.receive()
                await go_on.wait()

        async with client.open_subscription("t") as messages:
            await peer.send(at_once(1), at_once(2))
            nursery.start_soon(work, messages.clone())
            await trio.testing.wait_all_tasks_blocked()
        assert await peer.acks() == []
        go_on.set()
        assert await peer.acks() == [1, 2]


async def test_a_worker_that_asks_for_more_after_the_scope_ended_is_done_with_its_message(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer), trio.open_nursery() as nursery:
        go_on = trio.Event()

        async def work(channel: MessageChannel) -> None:
            with pytest.raises(trio.ClosedResourceError), channel:
                async for _ in channel:
                    await go_on.wait()

        async with client.open_subscription("t") as messages:
            await peer.send(at_once(1))
            nursery.start_soon(work, messages.clone())
            await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert await peer.acks() == [1]
        assert drain(client.messages) == []


async def test_a_worker_that_fails_after_the_scope_ended_leaves_its_message(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted) as (client, peer), trio.open_nursery() as nursery:
        go_on = trio.Event()

        async def work(channel: MessageChannel) -> None:
            with pytest.raises(Failed), channel:
                await channel.receive()
                await go_on.wait()
                raise Failed

        async with client.open_subscription("t") as messages:
            await peer.send(at_once(1))
            nursery.start_soon(work, messages.clone())
            await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert await peer.acks() == []
        async with client.open_subscription("t") as messages:
            assert drain(messages) == ["1"]


async def test_workers_that_fail_with_the_scope_leave_what_they_had_first_and_in_order(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def work(channel: MessageChannel, fails: bool) -> None:
        with channel:
            await channel.receive()
            await trio.sleep(1)
            if fails:
                raise Failed
            await trio.sleep_forever()

    async with peered(scripted, client_id="c") as (client, peer):
        with pytest.RaisesGroup(Failed):
            async with client.open_subscription("t") as messages, trio.open_nursery() as nursery:
                await peer.send(*map(at_once, range(1, 7)))
                for number in range(3):
                    nursery.start_soon(work, messages.clone(), number == 1)
        assert await peer.acks() == []
        async with client.open_subscription("t") as messages:
            assert drain(messages) == ["1", "2", "3", "4", "5", "6"]
        assert await peer.acks() == [1, 2, 3, 4, 5, 6]


async def test_clones_that_nobody_closed_leave_what_they_had_as_the_scope_does(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def take(channel: MessageChannel) -> None:
        await channel.receive()

    async with peered(scripted, client_id="c") as (client, peer):
        with pytest.raises(Failed):
            async with client.open_subscription("t") as messages:
                await peer.send(*map(at_once, range(1, 4)))
                async with trio.open_nursery() as nursery:  # noqa: ASYNC112, a task that ends
                    nursery.start_soon(take, messages.clone())
                raise Failed
        async with client.open_subscription("t") as messages:
            await messages.clone().receive()
            assert await peer.acks() == []
        assert await peer.acks() == [1, 2, 3]


async def test_disconnecting_acknowledges_what_the_calling_task_has_of_a_clone(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with peered(scripted, client_id="c") as (client, peer):
        async with client.open_subscription("t") as messages:
            await peer.send(at_once(1), at_once(2))
            clone = messages.clone()
            await clone.receive()
            await client.disconnect()
        assert await peer.acks() == [1]


async def test_a_redelivery_to_the_consumer_that_has_it_is_not_given_again(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted, client_id="c") as (client, peer),
        client.open_subscription("t") as messages,
        client.open_subscription("#") as other,
    ):
        await peer.send(exactly_once(1), at_once(2))
        assert [(await messages.receive()).payload for _ in range(2)] == [b"1", b"2"]
        await peer.cut(PRESENT)
        await client.wait_online()
        await peer.send(exactly_once(1), at_once(2))
        assert drain(messages) == []
        assert drain(other) == ["1", "2"]
        assert await peer.taken(p.PubRec) == [p.PubRec(1)]
        assert await peer.acks() == [2]
        assert client.statistics().repeated == 2


# Durable sessions


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_consumer_that_fails_gets_the_rest_again_in_the_next_run(
    autojump_clock: MockClock, qos: p.QoS
) -> None:
    persistence = MemoryPersistence()
    async with open_broker() as broker:
        session = await init_session("me", persistence)
        got: list[str] = []
        with pytest.raises(Failed):
            async with (
                open_client(broker.dialer, session=session) as client,
                client.open_subscription("t") as messages,
            ):
                for number in range(1, 11):
                    broker.publish("t", str(number), qos=qos)
                async for message in messages:
                    got.append(message.payload.decode())
                    await trio.sleep(0.1)
                    if got[-1] == "5":
                        raise Failed
        assert got == ["1", "2", "3", "4", "5"]
        assert list(broker.sessions["me"].subscriptions) == ["t"]
        session = await adopt_session(persistence)
        async with open_client(broker.dialer, session=session) as client:
            await trio.sleep(5)
            async with client.open_subscription("t") as messages:
                again = [await messages.receive() for _ in range(6)]
            await trio.sleep(1)
        assert [message.payload.decode() for message in again] == ["5", "6", "7", "8", "9", "10"]
        assert again[0].dup
        assert broker.sessions["me"].in_flight == broker.sessions["me"].queued == 0
        assert broker.violations == []


@pytest.mark.parametrize("workers", [1, 3])
async def test_on_a_durable_session_each_clone_waits_for_its_own_record_alone(
    autojump_clock: MockClock, workers: int
) -> None:
    persistence = MemoryPersistence()
    got: list[str] = []

    async def work(channel: MessageChannel) -> None:
        with channel:
            async for message in channel:
                got.append(message.payload.decode())
                await trio.sleep(0.1 * (int(message.payload) % 3))

    async with open_broker() as broker:
        session = await init_session("me", persistence)
        async with open_client(broker.dialer, session=session) as client:
            persistence.commit_seconds = 0.5
            async with client.open_subscription("t") as messages, trio.open_nursery() as nursery:
                for _ in range(workers):
                    nursery.start_soon(work, messages.clone())
                for number in range(30):
                    broker.publish("t", str(number), qos=2)
                await trio.sleep(300)
                nursery.cancel_scope.cancel()
            assert sorted(map(int, got)) == list(range(30))
            await trio.sleep(10)
            assert broker.sessions["me"].in_flight == 0
        assert broker.violations == []
