"""`publish`, `enqueue`, `Exchange`, `flush`."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Any, Literal

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import _packets as p
from trio_mqtt import open_client
from trio_mqtt.testing import ScriptedBroker


async def test_at_most_once(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await client.publish("t", "20.8℃")
        client.publish_nowait("t", bytearray(b"b"), retain=True)
        assert await link.next() == p.Message("t", "20.8℃".encode())
        assert await link.next() == p.Message("t", b"b", retain=True)
        assert client.statistics().published_at_most_once == 2


@pytest.mark.parametrize("qos", [1, 2])
async def test_publish_returns_when_it_is_confirmed(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()
        done = trio.Event()

        async def publish() -> None:
            await client.publish("t", memoryview(b"x"), qos=qos, retain=True)
            done.set()

        nursery.start_soon(publish)
        delivery = await link.expect(p.Delivery)
        assert delivery.message == p.Message("t", b"x", qos, retain=True)
        if qos == 2:
            await link.send(p.PubRec(delivery.packet_id))
            assert await link.next() == p.PubRel(delivery.packet_id)
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        await link.send((p.PubAck if qos == 1 else p.PubComp)(delivery.packet_id))
        await done.wait()


@pytest.mark.conformance("MQTT-3.3.2-2", "MQTT-4.7.3-1", "MQTT-4.7.3-2", "MQTT-3.3.2-1")
@pytest.mark.parametrize("topic", ["", "a/#", "+", "a\0", "\ud800", "x" * 65_536])
async def test_an_illegal_topic_is_denied_before_a_byte_is_sent(
    scripted: ScriptedBroker, autojump_clock: MockClock, topic: str
) -> None:
    """PITFALLS G5."""
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with pytest.raises(trio_mqtt.Denied):
            await client.publish(topic, b"")
        with pytest.raises(trio_mqtt.Denied):
            client.publish_nowait(topic, b"")
        with pytest.raises(trio_mqtt.Denied):
            await client.enqueue(topic, b"")
        with pytest.raises(trio_mqtt.Denied):
            client.enqueue_nowait(topic, b"")
        with pytest.raises(trio_mqtt.Denied):
            await client.clear_retained(topic)
    assert await link.next() == p.Disconnect()


@pytest.mark.parametrize(
    ("topic", "payload", "qos", "error"),
    [
        (b"t", b"", 0, TypeError),
        ("t", 7, 0, TypeError),
        ("t", "\ud800", 0, trio_mqtt.Denied),
        ("t", b"", 3, trio_mqtt.Denied),
        ("t", b"", -1, trio_mqtt.Denied),
        ("t", b"", "1", TypeError),
        ("t", b"", True, TypeError),
        ("t", b"", False, TypeError),
        ("t", b"", 0.0, TypeError),
    ],
)
async def test_an_illegal_argument_is_denied_before_a_byte_is_sent(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    topic: Any,
    payload: Any,
    qos: Any,
    error: type[Exception],
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with pytest.raises(error):
            await client.publish(topic, payload, qos=qos)
        with pytest.raises((error, trio_mqtt.Denied)):
            await client.enqueue(topic, payload, qos=qos)
        with pytest.raises((error, trio_mqtt.Denied)):
            client.enqueue_nowait(topic, payload, qos=qos)
    assert await link.next() == p.Disconnect()


async def test_qos_0_has_nothing_to_enqueue(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        zero: Any = 0
        with pytest.raises(trio_mqtt.Denied, match="QoS 0"):
            await client.enqueue("t", b"", qos=zero)


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_maximum_of_0_disables_a_qos(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with open_client(scripted.dialer, at_least_once_max=0, exactly_once_max=0) as client:
        with pytest.raises(trio_mqtt.Denied, match=f"QoS {qos} was disabled"):
            await client.publish("t", b"", qos=qos)
        await client.publish("t", b"")


async def test_a_payload_that_its_owner_changes_later_travels_as_it_was(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        payload = bytearray(b"before")
        client.publish_nowait("t", payload)
        payload[:] = b"after!"
        assert await link.next() == p.Message("t", b"before")


# Offline


async def test_at_most_once_waits_for_the_attempt_under_way_and_then_is_down(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
) -> None:
    scripted.unreachable = True
    scripted.dial_seconds = 5
    async with open_client(scripted.dialer, wait_online=False) as client:
        began = trio.current_time()
        with pytest.raises(trio_mqtt.Down, match="unreachable, says the test"):
            await client.publish("t", b"")
        assert trio.current_time() - began == 5
        with pytest.raises(trio_mqtt.Down):  # now at once
            await client.publish("t", b"")
        assert trio.current_time() - began == 5
        with pytest.raises(trio_mqtt.Down):
            client.publish_nowait("t", b"")
        scripted.unreachable = False
        await client.wait_online()
        await client.publish("t", b"")


@pytest.mark.conformance("MQTT-3.3.1-1")
async def test_what_is_accepted_offline_goes_out_first_of_all_without_dup(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
) -> None:
    scripted.unreachable = True
    async with open_client(scripted.dialer, wait_online=False) as client:
        await client.enqueue("t", b"1", qos=1)
        client.enqueue_nowait("t", b"2", qos=2)
        scripted.unreachable = False
        link = await scripted.accepted()
        first, second = await link.expect(p.Delivery), await link.expect(p.Delivery)
        assert [first.message, second.message] == [
            p.Message("t", b"1", 1),
            p.Message("t", b"2", 2),
        ]
        await link.send(p.PubAck(first.packet_id), p.PubAck(second.packet_id))


# Room


async def test_enqueue_waits_for_room_in_order_and_enqueue_nowait_does_not(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
) -> None:
    order: list[int] = []

    async def enqueue(number: int) -> None:
        await client.enqueue("t", str(number))
        order.append(number)

    async with open_client(scripted.dialer, at_least_once_max=2) as client:
        link = await scripted.accepted()
        await client.enqueue("t", b"a")
        await client.enqueue("t", b"b")
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(enqueue, number)
                await trio.testing.wait_all_tasks_blocked()
            assert order == []
            with pytest.raises(trio_mqtt.PendingLimit):
                client.enqueue_nowait("t", b"")
            for _ in range(6):
                await link.send(p.PubAck((await link.expect(p.Delivery)).packet_id))
    assert order == [0, 1, 2, 3]


async def test_who_was_promised_room_is_not_overtaken(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, at_least_once_max=1) as client:
        link = await scripted.accepted()
        exchange = await client.enqueue("t", b"first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.enqueue, "t", b"second")
            await trio.testing.wait_all_tasks_blocked()
            await link.send(p.PubAck((await link.expect(p.Delivery)).packet_id))
            await exchange.wait()
            with pytest.raises(trio_mqtt.PendingLimit):
                client.enqueue_nowait("t", b"overtaking")
        second = await link.expect(p.Delivery)
        assert second.message.payload == b"second"
        await link.send(p.PubAck(second.packet_id))


async def test_cancelled_publishes_take_no_room(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """PITFALLS: ten cancelled publishes took ten slots for ever."""
    async with open_client(scripted.dialer, at_least_once_max=1) as client:
        link = await scripted.accepted()
        exchange = await client.enqueue("t", b"only")
        for _ in range(10):
            with trio.move_on_after(1):
                await client.publish("t", b"never", qos=1)
        assert client.statistics().unconfirmed == 1
        await link.send(p.PubAck((await link.expect(p.Delivery)).packet_id))
        await exchange.wait()
        assert client.statistics().unconfirmed == 0
    assert await link.next() == p.Disconnect()


async def test_at_most_once_waits_for_space_in_the_connections_buffer(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
) -> None:
    """The stream takes nothing, and the buffer is bounded."""
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def dialer() -> trio.abc.Stream:
        return ours

    async with trio.open_nursery() as nursery:

        async def greet() -> None:
            await theirs.receive_some(1000)
            await theirs.send_all(b"\x20\x02\0\0")

        nursery.start_soon(greet)
        async with open_client(dialer, pause_timeout=math.inf, keep_alive=0) as client:
            published = 0
            with trio.move_on_after(1):
                while True:
                    await client.publish("t", bytes(60_000))
                    published += 1
            assert 1_000_000 < published * 60_000 < 1_300_000
            with pytest.raises(trio_mqtt.PendingLimit):
                client.publish_nowait("t", b"")
            publisher = trio.Event()

            async def publish() -> None:
                await client.publish("t", b"last")
                publisher.set()

            nursery.start_soon(publish)
            await trio.testing.wait_all_tasks_blocked()
            assert not publisher.is_set()
            while not publisher.is_set():
                await theirs.receive_some(100_000)
            await client.aclose()


@pytest.mark.parametrize("qos", [1, 2])
async def test_who_waits_for_room_is_served_in_the_order_of_the_calls_also_if_much_comes_free(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: Literal[1, 2]
) -> None:
    size = 30
    async with open_client(
        scripted.dialer, at_least_once_max=size, exactly_once_max=size, exactly_once_window=size
    ) as client:
        link = await scripted.accepted()
        for number in range(size):
            await client.enqueue("t", str(number), qos=qos)
        async with trio.open_nursery() as nursery:
            for number in range(size, 2 * size):

                async def enqueue(number: int = number) -> None:
                    await client.enqueue("t", str(number), qos=qos)

                nursery.start_soon(enqueue)
                await trio.testing.wait_all_tasks_blocked()
            seen = [await link.expect(p.Delivery) for _ in range(size)]
            if qos == 2:
                await link.send(*(p.PubRec(one.packet_id) for one in seen))
                released = [await link.expect(p.PubRel) for _ in range(size)]
                await link.send(*(p.PubComp(one.packet_id) for one in released))
            else:
                await link.send(*(p.PubAck(one.packet_id) for one in seen))  # in one read
        seen += [await link.expect(p.Delivery) for _ in range(size)]
        assert [int(one.message.payload) for one in seen] == list(range(2 * size))
        await client.aclose()


async def test_at_most_once_they_are_too_and_nobody_overtakes_them(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    received = bytearray()

    async def dialer() -> trio.abc.Stream:
        return ours

    async with trio.open_nursery() as nursery:

        async def greet() -> None:
            await theirs.receive_some(1000)
            await theirs.send_all(b"\x20\x02\0\0")

        nursery.start_soon(greet)
        async with open_client(dialer, pause_timeout=math.inf, keep_alive=0) as client:
            client.publish_nowait("t", bytes(2_000_000))
            cancelled = trio.CancelScope()

            async def never() -> None:
                with cancelled:
                    await client.publish("t", "never")

            for number in range(30):
                nursery.start_soon(client.publish, "t", f"<{number}>")
                if number == 15:
                    nursery.start_soon(never)
                await trio.testing.wait_all_tasks_blocked()
            cancelled.cancel()
            while b"<29>" not in received:
                received += await theirs.receive_some(500_000)
                with suppress(trio_mqtt.PendingLimit):
                    client.publish_nowait("t", "<overtaking>")
            order = re.findall(rb"<([^>]*)>", bytes(received))
            assert order[:30] == [str(number).encode() for number in range(30)]
            assert b"never" not in received
            await client.aclose()


async def test_what_is_too_large_is_denied_before_it_waits_for_room(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, at_least_once_max=1) as client:
        link = await scripted.accepted()
        await client.enqueue("t", b"")
        with pytest.raises(trio_mqtt.Denied, match="of 268435455 at most"):
            await client.publish("t", Huge(b""), qos=1)
        with pytest.raises(trio_mqtt.Denied, match="of 268435455 at most"):
            client.publish_nowait("t" * 65_535, Huge(b""))
        await link.send(p.PubAck((await link.expect(p.Delivery)).packet_id))


class Huge(bytes):
    """As large as nothing may be, without the memory."""

    def __len__(self) -> int:
        return 268_435_455 - 4


@pytest.mark.parametrize("retain", [2, 1, "yes", None])
async def test_retain_is_a_bool(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    retain: Any,
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with pytest.raises(TypeError, match="retain is a bool"):
            await client.publish("t", b"", retain=retain)
        with pytest.raises(TypeError, match="retain is a bool"):
            client.publish_nowait("t", b"", retain=retain)
        with pytest.raises(TypeError, match="retain is a bool"):
            await client.enqueue("t", b"", retain=retain)
        with pytest.raises(TypeError, match="retain is a bool"):
            client.enqueue_nowait("t", b"", retain=retain)
        with pytest.raises(TypeError, match="retain is a bool"):
            trio_mqtt.Will("t", b"", retain=retain)
    assert await link.next() == p.Disconnect()


async def test_closed_before_the_writer_had_its_turn_is_no_doubt(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    for turns in range(6):
        async with open_client(scripted.dialer) as client:
            link = await scripted.accepted()
            errors: list[type[Exception]] = []

            async def ping(client: trio_mqtt.Client = client) -> None:
                with pytest.raises((trio_mqtt.ClientClosed, trio_mqtt.ClosedInDoubt)) as caught:
                    await client.ping()
                errors.append(caught.type)  # noqa: B023, within the turn

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ping)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                await client.aclose()
            # A transport that is cancelled does not say whether it began, which is a doubt.
            if turns == 0:
                assert errors == [trio_mqtt.ClientClosed]
            elif await link.next() is not None:
                assert errors == [trio_mqtt.ClosedInDoubt]


# Exchanges


async def test_an_exchange_tells_its_interruptions_until_it_is_confirmed(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
) -> None:
    async with open_client(scripted.dialer, client_id="c") as client:
        link = await scripted.accepted()
        exchange = await client.enqueue("t", b"x", qos=2)
        await exchange.wait_accepted()
        await link.expect(p.Delivery)
        interruptions: list[trio_mqtt.InDoubt] = []

        async def follow() -> None:
            interruptions.extend([interruption async for interruption in exchange])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await link.close()
            link = await scripted.accepted()
            delivery = await link.expect(p.Delivery)
            assert delivery.message.dup
            await link.send(p.PubRec(delivery.packet_id))
            await link.expect(p.PubRel)
            await link.close()
            link = await scripted.accepted()
            await link.expect(p.PubRel)
            assert not exchange.confirmed
            await link.send(p.PubComp(delivery.packet_id))
        assert [type(interruption) for interruption in interruptions] == [
            trio_mqtt.ResponseLost,
            trio_mqtt.ResponseLost,
        ]
        assert exchange.confirmed
        await exchange.wait()
        assert [interruption async for interruption in exchange] == []


async def test_an_exchange_that_nobody_follows_keeps_the_latest_interruptions(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
) -> None:
    async with open_client(
        scripted.dialer, client_id="c", reconnect_wait_min=0.1, reconnect_wait_max=0.1
    ) as client:
        exchange = await client.enqueue("t", b"x")
        for _ in range(120):
            link = await scripted.accepted()
            await link.expect(p.Delivery)
            await link.close()
        link = await scripted.accepted()
        await link.send(p.PubAck((await link.expect(p.Delivery)).packet_id))
        await exchange.wait()
        assert len([interruption async for interruption in exchange]) == 100


async def test_a_cancelled_wait_abandons_the_wait_alone(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with trio.move_on_after(1) as scope:
            await client.publish("t", b"x", qos=1)
        assert scope.cancelled_caught
        delivery = await link.expect(p.Delivery)
        assert client.statistics().unconfirmed == 1
        await link.send(p.PubAck(delivery.packet_id))


async def test_cancelled_before_submission_nothing_happens(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        for qos in p.QOS_LEVELS:
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.publish("t", b"x", qos=qos)
            assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.enqueue("t", b"x")
        assert scope.cancelled_caught
        assert client.statistics().unconfirmed == 0
    assert await link.next() == p.Disconnect()


async def test_an_endless_loop_of_publishing_yields_to_others(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(count)
        for _ in range(6400):
            await client.publish("t", b"")
        assert turns >= 50
        turns = 0
        for _ in range(6400):
            await client.enqueue("t", b"")
        assert turns >= 50
        await client.aclose()
        nursery.cancel_scope.cancel()


# flush


async def test_flush_waits_for_what_waits_for_the_window(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, at_least_once_window=1) as client:
        link = await scripted.accepted()
        await client.enqueue("t", b"1")
        await client.enqueue("t", b"2")
        flushed = trio.Event()

        async def flush() -> None:
            await client.flush()
            flushed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            first = await link.expect(p.Delivery)
            await trio.testing.wait_all_tasks_blocked()
            assert not flushed.is_set()
            await client.publish("t", b"does not deadlock")
            await link.send(p.PubAck(first.packet_id))
            await flushed.wait()
            await link.expect(p.Message)
            await link.send(p.PubAck((await link.expect(p.Delivery)).packet_id))


async def test_flush_waits_for_a_connection(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.unreachable = True
    async with open_client(scripted.dialer, wait_online=False) as client:
        await client.enqueue("t", b"1")
        with trio.move_on_after(100) as scope:
            await client.flush()
        assert scope.cancelled_caught
        scripted.unreachable = False
        await client.flush()
        link = await scripted.accepted()
        await link.send(p.PubAck((await link.expect(p.Delivery)).packet_id))


async def test_clear_retained(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()
        nursery.start_soon(client.clear_retained, "t")
        delivery = await link.expect(p.Delivery)
        assert delivery.message == p.Message("t", b"", 1, retain=True)
        await link.send(p.PubAck(delivery.packet_id))
