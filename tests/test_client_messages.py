"""`client.messages`: acknowledging on the next receive, and bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import Buffer, open_client
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.testing import ScriptedBroker, ScriptedLink, open_broker

from .links import subscribe

Task = Callable[[], Awaitable[None]]

PRESENT = encode(p.ConnAck(True, 0))


def publish(packet_id: int, payload: bytes = b"x", qos: p.QoS = 1) -> p.Delivery:
    return p.Delivery(p.Message("t", payload, qos), packet_id)


@pytest.mark.parametrize("qos", [1, 2])
async def test_the_next_receive_acknowledges_the_one_before(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    answer = p.PubAck if qos == 1 else p.PubRec
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await link.send(publish(1, b"a", qos), publish(2, b"b", qos), publish(3, b"c", qos))
        assert await client.messages.receive() == p.Message("t", b"a", qos)
        assert client.messages.receive_nowait() == p.Message("t", b"b", qos)
        assert await link.next() == answer(1)
        client.messages.acknowledge()
        assert await link.next() == answer(2)
        client.messages.acknowledge()  # nothing more to acknowledge
        assert (await client.messages.receive()).payload == b"c"
        with pytest.raises(trio.WouldBlock):
            client.messages.receive_nowait()
        assert await link.next() == answer(3)


async def test_leaving_cleanly_acknowledges_the_last_one(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await link.send(publish(1), publish(2))
        await client.messages.receive()
    assert await link.next() == p.PubAck(1)
    assert await link.next() == p.Disconnect()
    assert await link.next() is None


async def test_disconnecting_acknowledges_what_the_calling_task_has(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await link.send(publish(1))
        await client.messages.receive()
        await client.disconnect()
    assert await link.next() == p.PubAck(1)
    assert await link.next() == p.Disconnect()


async def test_disconnecting_does_not_acknowledge_what_another_task_has(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()
        await link.send(publish(1))

        async def consume() -> None:
            await client.messages.receive()
            await trio.sleep_forever()

        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        await client.disconnect()
        nursery.cancel_scope.cancel()
    assert await link.next() == p.Disconnect()


async def test_leaving_by_an_exception_leaves_it_unacknowledged(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    links: list[ScriptedLink] = []

    async def fail() -> None:
        async with open_client(scripted.dialer) as client:
            links.append(await scripted.accepted())
            await links[0].send(publish(1))
            await client.messages.receive()
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await links[0].next() is None


async def test_a_cancelled_receive_loses_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with trio.move_on_after(1) as scope:
            await client.messages.receive()
        assert scope.cancelled_caught
        await link.send(p.Message("t", b"1"), p.Message("t", b"2"))
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.messages.receive()
        assert scope.cancelled_caught
        assert (await client.messages.receive()).payload == b"1"
        assert (await client.messages.receive()).payload == b"2"


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_receive_that_was_cancelled_before_does_not_acknowledge(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    """Else the consumer would not know whether the message that it has counts as done."""
    async with open_client(scripted.dialer, client_id="c") as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send(p.Delivery(p.Message("t", b"1", qos), 1))
        await client.messages.receive()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.messages.receive()
        await trio.testing.wait_all_tasks_blocked()
        answered: list[p.Served | None] = []
        with trio.move_on_after(1):
            answered.append(await link.next())
        assert answered == []
        with trio.move_on_after(1):
            await client.messages.receive()  # cancelled while it waits, it does
        assert await link.next() == (p.PubAck(1) if qos == 1 else p.PubRec(1))
        await client.aclose()


async def test_a_message_and_a_cancellation_at_once_lose_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        got: list[bytes] = []
        for number in range(200):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def receive(scope: trio.CancelScope = scope) -> None:
                        got.append((await client.messages.receive()).payload)

                    nursery.start_soon(receive)
                    await link.send(p.Message("t", str(number).encode()))
                    for _ in range(number % 7):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        while len(got) < 200:
            got.append(client.messages.receive_nowait().payload)
    assert got == [str(number).encode() for number in range(200)]


async def test_a_burst_before_anybody_waits_arrives_whole(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """PITFALLS: 2 of 1,000 arrived."""
    async with open_client(scripted.dialer, buffer=Buffer(messages=10)) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send(*(p.Message("t", str(i).encode()) for i in range(1000)))
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().buffered_messages == 10
        for i in range(1000):
            assert (await client.messages.receive()).payload == str(i).encode()
        assert client.statistics().given_up == 0
        assert client.statistics().received == 1000
        assert client.statistics().most_buffered_messages == 10


async def test_a_burst_of_large_messages_is_bounded_in_bytes(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, buffer=Buffer(bytes=300_000)) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send(*(p.Message("t", bytes(100_000)) for _ in range(20)))
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().buffered_bytes == 300_000
        for _ in range(20):
            assert len((await client.messages.receive()).payload) == 100_000
        assert client.statistics().most_buffered_bytes <= 400_000


async def test_two_tasks_may_not_wait_at_once(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.messages.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.messages.receive()
        nursery.cancel_scope.cancel()


@pytest.mark.conformance("MQTT-4.5.0-2")
async def test_a_closed_channel_raises_and_what_comes_is_acknowledged(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await link.send(publish(1), publish(2), p.Message("t", b""))
        await client.messages.receive()
        with client.messages:
            pass
        assert [await link.next() for _ in range(2)] == [p.PubAck(1), p.PubAck(2)]
        with pytest.raises(trio.ClosedResourceError):
            await client.messages.receive()
        await link.send(publish(3, qos=2))
        assert await link.next() == p.PubRec(3)
        assert client.statistics().given_up == 3
        await client.messages.aclose()


async def test_closing_wakes_who_waits(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.messages.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        client.messages.close()


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_exception_in_its_with_leaves_the_message_to_whoever_asks_next(
    scripted: ScriptedBroker, autojump_clock: MockClock, is_async: bool
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await link.send(publish(1, b"1"), publish(2, b"2", qos=2), publish(3, b"3"))

        async def fail() -> None:
            if is_async:
                async with client.messages:
                    await client.messages.receive()
                    raise KeyError
            with client.messages:
                await client.messages.receive()
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        got = [(await client.messages.receive()).payload for _ in range(3)]
        assert got == [b"1", b"2", b"3"]
        assert [await link.next() for _ in range(2)] == [p.PubAck(1), p.PubRec(2)]
        assert client.statistics().given_up == 0


async def test_the_end_of_the_client_ends_the_iteration(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:

        async def consume() -> None:
            async for _ in client.messages:
                raise AssertionError
            with pytest.raises(trio.EndOfChannel):
                client.messages.receive_nowait()

        async with open_client(scripted.dialer) as client:
            nursery.start_soon(consume)
            await trio.testing.wait_all_tasks_blocked()


async def test_an_endless_consumer_yields_to_others(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, buffer=Buffer(messages=6400)) as client:
        link = await scripted.accepted()
        await link.send(*(p.Message("t", b"") for _ in range(6400)))
        await trio.testing.wait_all_tasks_blocked()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(6400):
                await client.messages.receive()
            nursery.cancel_scope.cancel()
        assert turns >= 50


# When the buffer is full


async def serve(link: ScriptedLink) -> None:
    """Confirms what the client publishes."""
    while (packet := await link.next()) is not None:
        match packet:
            case p.Delivery(message=p.Message(qos=1)):
                await link.send(p.PubAck(packet.packet_id))
            case p.Delivery():
                await link.send(p.PubRec(packet.packet_id))
            case p.PubRel():
                await link.send(p.PubComp(packet.packet_id))
            case p.Subscribe():
                await link.send(p.SubAck(packet.packet_id, (0,) * len(packet.requests)))
            case p.PingReq():
                await link.send(p.PingResp())
            case _:
                pass


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_requests_inside_the_message_loop_do_not_deadlock(
    scripted: ScriptedBroker, autojump_clock: MockClock, size: int
) -> None:
    """PITFALLS: publishing inside the message loop deadlocks (paho, rumqttc, HiveMQ)."""
    async with (
        open_client(scripted.dialer, buffer=Buffer(messages=size), at_least_once_max=1) as client,
        trio.open_nursery() as nursery,
    ):
        link = await scripted.accepted()
        nursery.start_soon(serve, link)
        many = size * 2
        for batch in range(5):
            await link.send(*(publish(1 + batch * many + i) for i in range(many)))
            for _ in range(many // 2):
                await client.messages.receive()
                await client.publish("a", b"", qos=1)
                await client.publish("a", b"", qos=2)
                await client.subscribe("a")
                await client.ping()
            while client.statistics().received < many * (batch + 1):
                await client.messages.receive()
            with trio.move_on_after(1):
                while True:
                    await client.messages.receive()
        assert client.statistics().connects == 1
        assert client.statistics().given_up == 0
        nursery.cancel_scope.cancel()


async def test_beyond_the_second_bound_at_most_once_is_given_up_and_counted(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        open_client(scripted.dialer, buffer=Buffer(messages=2)) as client,
        trio.open_nursery() as nursery,
    ):
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send(*(p.Message("t", str(i).encode()) for i in range(10)))
        nursery.start_soon(serve, link)
        await client.publish("a", b"", qos=1)
        assert client.statistics().given_up == 6
        assert client.statistics().connects == 1
        got = [(await client.messages.receive()).payload for _ in range(4)]
        assert got == [b"0", b"1", b"2", b"3"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("qos", [1, 2])
async def test_beyond_the_second_bound_the_broker_is_given_the_messages_back(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with open_client(scripted.dialer, client_id="c", buffer=Buffer(messages=2)) as client:
        link = await scripted.accepted()
        await link.send(*(publish(i, str(i).encode(), qos) for i in range(1, 11)))
        exchange = await client.enqueue("a", b"")
        got: list[bytes] = []

        async def consume() -> None:
            await client.wait_offline()
            while True:
                got.append((await client.messages.receive()).payload)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            nursery.start_soon(exchange.wait)
            await client.wait_offline()
            scripted.greeting = PRESENT
            link = await scripted.accepted()
            await link.send(*(publish(i, str(i).encode(), qos) for i in range(1, 11)))
            delivery = await link.expect(p.Delivery)
            await link.send(p.PubAck(delivery.packet_id))
            answers = [await link.next() for _ in range(9)]
            nursery.cancel_scope.cancel()
        answer = p.PubAck if qos == 1 else p.PubRec
        assert answers == [answer(i) for i in range(1, 10)]
        # At QoS 1 those released while offline come again.
        assert list(dict.fromkeys(got)) == [str(i).encode() for i in range(1, 11)]
        assert qos == 1 or len(got) == 10
        assert client.statistics().given_up == 0


async def test_a_full_buffer_does_not_stop_keep_alive(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """PITFALLS: a consumer that stalls longer than 1.5 × keep-alive gets disconnected."""
    async with open_client(
        scripted.dialer, keep_alive=10, buffer=Buffer(messages=1), pause_timeout=3
    ) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send(*(p.Message("t", str(i).encode()) for i in range(5)))
        last = trio.current_time()
        for _ in range(20):
            await link.expect(p.PingReq)
            assert trio.current_time() - last <= 10
            last = trio.current_time()
            await link.send(p.PingResp())
        assert client.online
        for i in range(5):
            assert (await client.messages.receive()).payload == str(i).encode()
        assert client.statistics().connects == 1


def a_broker_that_reads_when_it_has_written() -> tuple[trio_mqtt.Dialer, Task]:
    """It sends six messages first. Nothing is buffered between it and the client."""
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def dialer() -> trio.abc.Stream:
        return ours

    async def broker() -> None:
        await theirs.receive_some(1000)
        await theirs.send_all(encode(p.ConnAck(False, 0)))
        for number in range(1, 7):
            await theirs.send_all(encode(publish(number)))
        while await theirs.receive_some(100_000):
            pass

    return dialer, broker


async def test_a_broker_that_reads_only_what_is_read_is_not_waited_for(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """A write is blocked until we read, so the reader goes on though the buffer is full."""
    dialer, broker = a_broker_that_reads_when_it_has_written()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker)
        async with open_client(dialer, buffer=Buffer(messages=4), keep_alive=0) as client:
            await trio.testing.wait_all_tasks_blocked()
            assert client.statistics().received == 4
            await client.publish("t", b"blocked")
            await client.flush()
            assert client.statistics().received > 4
            await client.aclose()


async def test_a_write_that_blocks_after_the_reader_stopped_makes_it_go_on(
    autojump_clock: MockClock,
) -> None:
    dialer, broker = a_broker_that_reads_when_it_has_written()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker)
        async with open_client(dialer, buffer=Buffer(messages=4), keep_alive=0) as client:
            await trio.sleep(2)
            assert client.statistics().received == 4
            client.publish_nowait("t", b"blocked")
            await trio.sleep(30)
            assert client.statistics().connects == 1
            assert client.statistics().received == 6


@pytest.mark.parametrize("qos", [0, 1])
async def test_one_read_that_exceeds_the_bounds_loses_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    """Nobody needs the reader to go on, so it stops in the middle of what it read."""
    async with open_client(scripted.dialer, buffer=Buffer(bytes=1000)) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        packets = [
            p.Message("t", bytes(size)) if qos == 0 else publish(number + 1, bytes(size))
            for number, size in enumerate([5000, 1, 1000, 1000, 1000, 999, 1, 1, 3000])
        ]
        await link.send(*packets)
        sizes = [len((await client.messages.receive()).payload) for _ in packets]
        assert sizes == [5000, 1, 1000, 1000, 1000, 999, 1, 1, 3000]
        assert client.statistics().given_up == 0
        assert client.statistics().connects == 1


async def test_a_broker_with_more_in_flight_than_the_second_bound_does_not_starve_a_publish(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """PITFALLS: publishing inside the message loop deadlocks. Here all at once is redelivered."""
    got: list[bytes] = []
    async with open_broker(max_in_flight=50) as broker:
        async with open_client(broker.dialer, client_id="c", buffer=Buffer(messages=2)) as client:
            await client.subscribe("a")
            for number in range(100):
                broker.publish("a", str(number), qos=2)
            began = trio.current_time()
            for _ in range(100):
                got.append((await client.messages.receive()).payload)
                await client.publish("b", b"", qos=1)
            assert trio.current_time() - began < 200  # it backs off without doubling
        assert broker.violations == []
    assert got == [str(number).encode() for number in range(100)]


async def test_a_refused_filter_at_the_end_of_the_buffer_does_not_stop_the_reader(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, client_id="c", buffer=Buffer(messages=1)) as client:
        async with trio.open_nursery() as nursery:
            link = await scripted.accepted()
            nursery.start_soon(client.subscribe, "a")
            await link.send(p.SubAck((await link.expect(p.Subscribe)).packet_id, (0,)))
        await link.close()
        link = await scripted.accepted()
        restored = await link.expect(p.Subscribe)
        await link.send(p.SubAck(restored.packet_id, (p.FAILED,)), p.Message("t", b"behind"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio_mqtt.SubscribeError):
            client.messages.receive_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert client.messages.receive_nowait().payload == b"behind"


def test_a_bound_is_an_int() -> None:
    wrong: Any = 1.5
    with pytest.raises(TypeError, match="a bound is an int"):
        Buffer(messages=wrong)


@pytest.mark.parametrize(
    ("missed", "text"),
    [
        (
            trio_mqtt.MessagesMissed(2, session_lost=False),
            "2 were given up",
        ),
        (
            trio_mqtt.MessagesMissed(1, session_lost=True),
            "the broker lost the session, 1 were given up",
        ),
        (trio_mqtt.MessagesMissed(0, session_lost=True), "the broker lost the session"),
    ],
)
def test_what_was_missed_is_said(missed: trio_mqtt.MessagesMissed, text: str) -> None:
    assert str(missed) == f"messages may be missing: {text}"


def test_a_buffer_has_room() -> None:
    with pytest.raises(trio_mqtt.Denied):
        Buffer(messages=0)
    with pytest.raises(trio_mqtt.Denied):
        Buffer(bytes=0)
