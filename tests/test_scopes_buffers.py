"""Subscription scopes: bounded buffers, what happens when they are full, and no deadlock in any."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_mqtt import (
    Buffer,
    Client,
    InDoubt,
    MessageChannel,
    MessagesMissed,
    NotSent,
    Overflow,
    open_client,
)
from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, ScriptedBroker, open_broker

from .scope_peer import ABSENT, PRESENT, Failed, at_once, drain, lossy, peered

# The reader


async def test_a_full_scope_stops_the_reader_for_the_others_too(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("full", buffer=Buffer(messages=3)) as full,
        client.open_subscription("t") as messages,
    ):
        await peer.send(*(lossy(i, "full") for i in range(5)), lossy("behind"))
        await peer.send(lossy("later"))
        await trio.sleep(100)
        assert full.statistics().buffered_messages == 3
        assert messages.statistics().buffered_messages == 0
        got = [(await full.receive()).payload for _ in range(5)]
        assert got == [b"0", b"1", b"2", b"3", b"4"]
        await trio.testing.wait_all_tasks_blocked()
        assert drain(messages) == ["behind", "later"]
        assert client.statistics().given_up == 0
        assert full.statistics().most_buffered_messages == 3


async def test_a_task_that_waits_on_an_empty_channel_has_the_reader_go_on(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("full", buffer=Buffer(messages=3)) as full,
        client.open_subscription("t") as messages,
    ):
        await peer.send(*(lossy(i, "full") for i in range(10)), lossy("reply"))
        with trio.fail_after(1):
            assert (await messages.receive()).payload == b"reply"
        assert drain(full) == ["0", "1", "2", "3", "4", "5"]  # up to the hard bound
        assert full.statistics().given_up == 4


@pytest.mark.parametrize("what", ["publish", "ping", "subscribe", "open_subscription", "leave"])
async def test_a_request_that_awaits_its_answer_has_the_reader_go_on(
    scripted: ScriptedBroker, autojump_clock: MockClock, what: str
) -> None:
    async with peered(scripted) as (client, peer):
        other = client.open_subscription("other")
        await other.__aenter__()
        async with client.open_subscription("full", buffer=Buffer(messages=2)):
            await peer.send(*(at_once(i, topic="full") for i in range(1, 4)))
            with trio.fail_after(1):
                match what:
                    case "publish":
                        await client.publish("x", b"", qos=2)
                    case "ping":
                        await client.ping()
                    case "subscribe":
                        await client.subscribe("x")
                    case "open_subscription":
                        async with client.open_subscription("x"):
                            pass
                    case _:
                        await other.__aexit__(None, None, None)
        if what != "leave":
            await other.__aexit__(None, None, None)
        assert client.statistics().connects == 1


async def test_the_bytes_of_a_scope_are_bounded_too(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("t", buffer=Buffer(bytes=1000)) as messages,
    ):
        await peer.send(*(p.Message("t", bytes(400)) for _ in range(10)))
        assert messages.statistics().buffered_bytes == 1200
        assert len([await messages.receive() for _ in range(10)]) == 10
        assert messages.statistics().most_buffered_bytes == 1200


async def test_hundreds_of_tasks_that_always_publish_do_not_exceed_the_hard_bound(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        async with (
            open_client(broker.dialer, client_id="c") as client,
            client.open_subscription("t", buffer=Buffer(messages=10)) as messages,
        ):
            await flooded(client, broker, messages)
        assert broker.violations == []


async def flooded(client: Client, broker: Broker, messages: MessageChannel) -> None:
    async def publish() -> None:
        while True:
            await client.publish("x", b"", qos=1)

    async def flood() -> None:
        for number in range(300):
            broker.publish("t", str(number), qos=p.QOS_LEVELS[number % 3])
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(publish)
        nursery.start_soon(flood)
        got: list[int] = []
        while not {number for number in range(300) if number % 3} <= set(got):
            got.append(int((await messages.receive()).payload))
            for _ in range(20):  # time stands still, as somebody is always busy
                await trio.lowlevel.checkpoint()
        assert messages.statistics().most_buffered_messages <= 20
        nursery.cancel_scope.cancel()


# A reply inside the loop


@pytest.mark.parametrize("window", [1, 2, 20])
@pytest.mark.parametrize(("flood_qos", "reply_qos"), [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2)])
@pytest.mark.parametrize("ask_qos", [0, 1])
@pytest.mark.parametrize("size", [1, 3])
async def test_the_reply_on_another_scope_is_awaited_inside_the_loop_of_a_full_one(
    autojump_clock: MockClock,
    window: int,
    flood_qos: p.QoS,
    reply_qos: p.QoS,
    ask_qos: p.QoS,
    size: int,
) -> None:
    """At QoS 0 no more than the client's own hurry to reconnect could lose the one or the other."""
    async with open_broker(max_in_flight=window) as broker:

        async def answer() -> None:
            async with (
                open_client(broker.dialer) as server,
                server.open_subscription("ask") as asked,
            ):
                task_status.set()
                async for question in asked:
                    await server.publish("reply", question.payload, qos=reply_qos)

        async with (
            trio.open_nursery() as nursery,
            open_client(broker.dialer, client_id="c", reconnect_wait_max=1) as client,
            client.open_subscription("t", buffer=Buffer(messages=size)) as messages,
            client.open_subscription("reply", qos=reply_qos) as replies,
        ):
            task_status = trio.Event()
            nursery.start_soon(answer)
            await task_status.wait()
            for number in range(30):
                broker.publish("t", str(number), qos=flood_qos)
            seen: list[bytes] = []
            with trio.fail_after(600):
                while len(set(seen)) < (30 if flood_qos else size):
                    seen.append((await messages.receive()).payload)
                    await client.publish("ask", seen[-1], qos=ask_qos)
                    assert (await replies.receive()).payload == seen[-1]
            if flood_qos:  # at QoS 1 those released while offline come again
                once = list(dict.fromkeys(seen)) if flood_qos == 1 else seen
                assert once == [str(number).encode() for number in range(30)]
            nursery.cancel_scope.cancel()
        assert broker.violations == []


@pytest.mark.parametrize("size", [1, 2, 5, 30, 100])
@pytest.mark.parametrize("seed", range(4))
async def test_requests_inside_the_loop_and_cancellations_never_deadlock(
    autojump_clock: MockClock, size: int, seed: int
) -> None:
    """Nor does it go round in circles: 200 messages in 10 minutes are few."""
    chance = random.Random(seed)
    qos: p.QoS = p.QOS_LEVELS[1 + seed % 2]

    async def request(client: Client) -> None:
        match chance.randrange(4):
            case 0:
                await client.publish("x", b"", qos=p.QOS_LEVELS[chance.randrange(3)])
            case 1:
                await client.subscribe("z")  # which nobody publishes
            case 2:
                async with client.open_subscription(f"y/{chance.randrange(3)}"):
                    await trio.lowlevel.checkpoint()
            case _:
                await client.unsubscribe("z")

    async with open_broker(max_in_flight=chance.choice([1, 5, 20, 100])) as broker:
        async with open_client(
            broker.dialer, client_id="c", buffer=Buffer(messages=size), reconnect_wait_max=1
        ) as client:
            got: list[int] = []
            with trio.fail_after(600):
                async with client.open_subscription("t") as messages:
                    for number in range(200):
                        broker.publish("t", str(number), qos=qos)
                    while len(set(got)) < 200:
                        with trio.move_on_after(chance.choice([0, 0.001, 5, 100])):
                            got.append(int((await messages.receive()).payload))
                            with trio.CancelScope() as scope, suppress(NotSent, InDoubt):
                                if chance.random() < 0.3:
                                    scope.cancel()
                                await request(client)
                        await trio.lowlevel.checkpoint()
            assert list(dict.fromkeys(got)) == list(range(200))
            assert qos == 1 or len(got) == 200
        assert broker.violations == []


@pytest.mark.parametrize("seed", range(6))
async def test_scopes_that_fail_and_come_back_lose_nothing_and_keep_the_order(
    autojump_clock: MockClock, seed: int
) -> None:
    """Over connections that are cut, too. At QoS 2 nothing comes twice that was finished."""
    chance = random.Random(seed)
    async with open_broker(max_in_flight=chance.choice([1, 3, 20])) as broker:
        async with open_client(
            broker.dialer,
            client_id="c",
            buffer=Buffer(messages=chance.choice([1, 4, 50])),
            reconnect_wait_max=1,
        ) as client:
            finished: list[int] = []

            async def consume() -> None:
                async with client.open_subscription("t") as messages:
                    async for message in messages:
                        await trio.sleep(chance.choice([0, 0, 0.3]))
                        if chance.random() < 0.2:
                            raise Failed
                        finished.append(int(message.payload))
                        if chance.random() < 0.1:
                            messages.acknowledge()
                            broker.disconnect_all()

            broker_session = client.open_subscription("t", keep=True)
            async with broker_session:
                pass
            for number in range(60):
                broker.publish("t", str(number), qos=2)
            with trio.fail_after(2000):
                while len(finished) < 60:
                    with trio.move_on_after(20):
                        try:
                            await consume()
                        except Failed:
                            await trio.sleep(chance.choice([0, 0, 1]))
            assert finished == list(range(60))
        assert broker.violations == []


# Overflow


@pytest.mark.parametrize(
    ("overflow", "left"), [("drop_oldest", ["7", "8", "9"]), ("drop_newest", ["0", "1", "2"])]
)
async def test_what_a_full_buffer_drops_of_qos_0(
    scripted: ScriptedBroker, autojump_clock: MockClock, overflow: Overflow, left: list[str]
) -> None:
    async with peered(scripted) as (client, peer), dropping(client, overflow) as messages:
        await peer.send(*map(lossy, range(10)))
        assert drain(messages) == left
        assert messages.statistics().given_up == 7
        await peer.send(lossy("next"))
        assert drain(messages) == ["next"]


@asynccontextmanager
async def dropping(
    client: Client, overflow: Overflow, *, strict: bool = False
) -> AsyncGenerator[MessageChannel]:
    async with client.open_subscription(
        "t", buffer=Buffer(messages=3), overflow=overflow, strict=strict
    ) as messages:
        yield messages


@pytest.mark.parametrize(
    ("overflow", "left"),
    [
        ("drop_oldest", ["1", "3", "5", "6", "7"]),  # the reader stopped behind 5
        ("drop_newest", ["0", "1", "2", "3", "5", "6", "7"]),
    ],
)
async def test_qos_1_is_never_dropped(
    scripted: ScriptedBroker, autojump_clock: MockClock, overflow: Overflow, left: list[str]
) -> None:
    async with peered(scripted) as (client, peer), dropping(client, overflow) as messages:
        for number in range(8):
            await peer.send(at_once(number) if number % 2 else lossy(number))
        got = drain(messages)
        await trio.testing.wait_all_tasks_blocked()
        assert got + drain(messages) == left


async def test_what_a_scope_claimed_gives_way_to_what_is_newer(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """With drop_oldest QoS 0 never stops the reader, whenever it came."""
    async with peered(scripted, PRESENT, client_id="c") as (client, peer):
        await peer.send(*map(lossy, range(5)))
        async with (
            dropping(client, "drop_oldest") as messages,
            client.open_subscription("u") as other,
        ):
            await peer.send(lossy("new"), lossy("else", "u"))
            await peer.send(lossy("newer"))
            assert other.statistics().buffered_messages == 1
            assert drain(messages)[-2:] == ["new", "newer"]


# Strict


async def taken(channel: MessageChannel) -> list[str]:
    """What waits in it, errors as (count, whether the session was lost)."""
    got: list[str] = []
    while True:
        try:
            got.append(channel.receive_nowait().payload.decode())
        except MessagesMissed as missed:
            got.append(f"{missed.given_up} {missed.session_lost}")
        except trio.WouldBlock:
            return got


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("overflow", "left"),
    [
        ("drop_oldest", ["7 False", "7", "8", "9"]),
        ("drop_newest", ["0", "1", "2", "7 False"]),
        ("wait", ["0", "1", "2", "3", "4", "5", "4 False"]),
    ],
)
async def test_a_strict_channel_says_what_was_given_up_at_its_place(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    strict: bool,
    overflow: Overflow,
    left: Sequence[str],
) -> None:
    async with (
        peered(scripted) as (client, peer),
        dropping(client, overflow, strict=strict) as messages,
    ):
        await peer.send(*map(lossy, range(10)))
        await client.ping()
        expected = [item for item in left if strict or " " not in item]
        assert await taken(messages) == expected
        await peer.send(lossy("next"))
        assert await taken(messages) == ["next"]
        assert client.statistics().given_up == 10 - sum(" " not in item for item in left)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("client_id", [None, "c"])
async def test_a_strict_channel_says_that_the_session_was_lost_before_anything_new(
    scripted: ScriptedBroker, autojump_clock: MockClock, strict: bool, client_id: str | None
) -> None:
    async with (
        peered(scripted, client_id=client_id) as (client, peer),
        client.open_subscription("t", strict=strict) as messages,
    ):
        await peer.send(lossy("before"))
        for _ in range(2):
            await peer.cut(ABSENT)
            await client.wait_online()
        await peer.send(lossy("after"))
        missed = ["0 True"] if strict else []
        assert await taken(messages) == ["before", *missed, "after"]
        if client_id is not None:
            await peer.cut(PRESENT)
            await client.wait_online()
            await peer.send(lossy("more"))
            assert await taken(messages) == ["more"]


async def test_a_task_that_waits_on_a_strict_channel_is_told(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted, client_id="c") as (client, peer),
        client.open_subscription("t", strict=True) as messages,
        trio.open_nursery() as nursery,
    ):

        async def wait() -> None:
            with pytest.raises(MessagesMissed):
                await messages.receive()
            assert (await messages.receive()).payload == b"new"

        nursery.start_soon(wait)
        await peer.cut(ABSENT)
        await client.wait_online()
        await peer.send(lossy("new"))


async def test_what_a_worker_leaves_stands_before_the_loss_of_the_session_that_came_later(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted, client_id="c") as (client, peer),
        client.open_subscription("t", strict=True) as messages,
    ):
        await peer.send(at_once(1))
        with pytest.raises(Failed), messages.clone() as worker:
            await worker.receive()
            await peer.cut(ABSENT)
            await client.wait_online()
            raise Failed
        assert await taken(messages) == ["1", "0 True"]


async def test_scopes_go_on_by_themselves_with_a_broker_that_restarts_without_sessions(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        async with (
            open_client(broker.dialer, client_id="c") as client,
            client.open_subscription("a/#", strict=True) as strict,
            client.open_subscription("a/b") as messages,
        ):
            for number in range(3):
                broker.publish("a/b", str(number), qos=1)
                assert (await messages.receive()).payload.decode() == str(number)
                assert (await strict.receive()).payload.decode() == str(number)
                broker.crash(keep_sessions=False)
                await broker.wait_disconnected("c")
                await broker.wait_subscribed("c", "a/b")
                with pytest.raises(MessagesMissed) as caught:
                    await strict.receive()
                assert caught.value.session_lost
        assert broker.violations == []


# The second bound


@pytest.mark.parametrize("qos", [1, 2])
async def test_beyond_the_hard_bound_only_scopes_that_had_no_room_get_it_again(
    autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with open_broker(max_in_flight=100) as broker:
        async with (
            open_client(broker.dialer, client_id="c", reconnect_wait_max=1) as client,
            client.open_subscription("#", buffer=Buffer(messages=2)) as narrow,
            client.open_subscription("t") as wide,
        ):
            for number in range(50):
                broker.publish("t", str(number), qos=qos)
            await client.publish("x", b"", qos=1)
            seen: dict[MessageChannel, list[int]] = {narrow: [], wide: []}
            with trio.fail_after(1000):
                async with trio.open_nursery() as nursery:

                    async def collect(channel: MessageChannel) -> None:
                        async for message in channel:
                            if message.topic == "t":
                                seen[channel].append(int(message.payload))
                                await trio.sleep(0.1)
                            if all(len(set(some)) == 50 for some in seen.values()):
                                nursery.cancel_scope.cancel()

                    nursery.start_soon(collect, narrow)
                    nursery.start_soon(collect, wide)
            for channel in (narrow, wide):
                assert list(dict.fromkeys(seen[channel])) == list(range(50))
                assert qos == 1 or len(seen[channel]) == 50
        assert broker.violations == []


async def test_where_the_broker_keeps_no_session_the_message_alone_is_given_up(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """To end the connection would lose all that is on its way."""
    async with (
        peered(scripted) as (client, peer),  # with an identifier that is generated
        client.open_subscription("t", buffer=Buffer(messages=2), strict=True) as messages,
        client.open_subscription("other") as others,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(others.receive)  # which has the reader go on
        await peer.send(*(at_once(number) for number in range(1, 7)))
        await trio.sleep(100)
        assert [(await messages.receive()).payload for _ in range(4)] == [b"1", b"2", b"3", b"4"]
        with pytest.raises(MessagesMissed) as missed:
            await messages.receive()
        assert missed.value.given_up == 2
        await peer.send(at_once(7), at_once(8, topic="other"))
        assert (await messages.receive()).payload == b"7"
        messages.acknowledge()
        assert sorted(await peer.acks()) == [1, 2, 3, 4, 5, 6, 7]
        statistics = client.statistics()
        assert (statistics.connects, statistics.given_up) == (1, 2)


async def test_a_channel_that_is_closed_while_it_is_full_lets_the_reader_go_on(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted) as (client, peer),
        client.open_subscription("t", buffer=Buffer(messages=1)) as messages,
        client.open_subscription("u") as other,
    ):
        await peer.send(*map(at_once, range(1, 5)), lossy("behind", "u"))
        messages.close()
        assert await peer.acks() == [1, 2, 3, 4]
        assert drain(other) == ["behind"]


async def test_a_full_scope_that_fails_lets_the_reader_go_on(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted, client_id="c") as (client, peer),
        client.open_subscription("u") as other,
    ):
        with pytest.raises(Failed):
            async with client.open_subscription("t", buffer=Buffer(messages=1)):
                await peer.send(*map(at_once, range(1, 5)), lossy("behind", "u"))
                raise Failed
        await trio.testing.wait_all_tasks_blocked()
        assert drain(other) == ["behind"]
        async with client.open_subscription("t") as messages:
            assert drain(messages) == ["1", "2", "3", "4"]


async def test_leaving_while_a_connection_ends_for_messages_given_back_sends_disconnect_too(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """So that the broker publishes no Will, be it in this instant."""
    async with (
        peered(scripted, client_id="c") as (client, peer),
        trio.open_nursery() as nursery,
        client.open_subscription("t", buffer=Buffer(messages=1)) as messages,
    ):

        async def subscribe() -> None:
            with pytest.raises(InDoubt):
                await client.subscribe("never answered")

        peer.silent = (p.Subscribe,)
        nursery.start_soon(subscribe)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(*map(at_once, range(1, 11)))
        drain(messages)
        await trio.sleep(1.5)
        assert not client.online  # to whoever asks for something new
        await client.disconnect()
        assert client.statistics().connects == 1
        assert isinstance(peer.log[-1], p.Disconnect)
