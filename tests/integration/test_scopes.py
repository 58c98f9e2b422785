"""Subscriptions as scopes: who gets which message, and what the broker is left with."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

import trio_mqtt
from trio_mqtt import MessageChannel, MessagesMissed, SQLite, adopt_session, init_session

from .brokers import Broker, Mosquitto
from .clients import open_client
from .counting import next_number, next_numbers, publish_numbers
from .relay import open_relay


class Stumble(Exception):
    """What a consumer fails with."""


async def stumble_over(messages: MessageChannel, number: int) -> None:
    """Receives numbers, and fails in the middle of that one."""
    while await next_number(messages) != number:
        pass
    raise Stumble


# Entering and leaving


async def test_after_a_scope_is_left_the_broker_sends_nothing_more(
    broker: Broker, topic: str
) -> None:
    left, fence = f"{topic}/left", f"{topic}/fence"
    with trio.fail_after(10):
        async with (
            trio_mqtt.open_client(broker.url) as other,
            trio_mqtt.open_client(broker.url) as client,
            client.open_subscription(fence, qos=1) as behind,
        ):
            async with client.open_subscription(left, qos=1) as messages:
                await other.publish(left, "1", qos=1)
                assert await next_number(messages) == 1
            await other.publish(left, "2", qos=1)
            await other.publish(fence, "3", qos=1)
            assert await next_number(behind) == 3
            assert client.statistics().received == 2
            assert client.statistics().given_up == 0


async def test_a_filter_that_another_scope_holds_stays_subscribed(
    broker: Broker, topic: str
) -> None:
    with trio.fail_after(10):
        async with (
            trio_mqtt.open_client(broker.url) as client,
            client.open_subscription(topic, qos=1) as outer,
        ):
            async with client.open_subscription(topic, qos=1) as inner:
                await client.publish(topic, "1", qos=1)
                assert await next_number(inner) == await next_number(outer) == 1
            await client.publish(topic, "2", qos=1)
            assert await next_number(outer) == 2


# Who gets what


async def test_overlapping_scopes_each_get_every_message(broker: Broker, topic: str) -> None:
    numbers = list(range(30))
    with trio.fail_after(10):
        async with (
            trio_mqtt.open_client(broker.url) as other,
            trio_mqtt.open_client(broker.url) as client,
            client.open_subscription(f"{topic}/+", qos=1) as one,
            client.open_subscription(f"{topic}/#", f"{topic}/room", qos=1) as another,
        ):
            # In batches of less than the broker's window, as it waits for both to be done.
            for batch in (numbers[:5], numbers[5:10], numbers[10:]):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish_numbers, other, f"{topic}/room", batch)
                    for number in batch:
                        assert await next_number(one) == number
                        assert await next_number(another) == number
            for messages in (one, another):
                messages.acknowledge()
                assert messages.statistics().received == len(numbers)
            await client.ping()
            assert client.statistics().buffered_messages == 0


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]])
@pytest.mark.conformance("MQTT-4.6.0-2")
async def test_what_workers_are_done_with_never_comes_again(
    broker: Broker, topic: str, order: list[int]
) -> None:
    """In whatever order they finish."""
    done: list[int] = []

    async def work(messages: MessageChannel, may_finish: trio.Event) -> None:
        with messages:
            number = await next_number(messages)
            holding.append(number)
            if len(holding) == len(order):
                all_hold.set()
            await may_finish.wait()
        done.append(number)

    with trio.fail_after(10):
        async with trio_mqtt.open_client(broker.url) as other:
            async with (
                trio_mqtt.open_client(broker.url, client_id=topic) as client,
                client.open_subscription(topic, qos=1, keep=True) as messages,
            ):
                for _ in range(3):
                    holding: list[int] = []
                    all_hold = trio.Event()
                    events = [trio.Event() for _ in order]
                    await publish_numbers(other, topic, range(len(done), len(done) + len(order)))
                    async with trio.open_nursery() as nursery:
                        for event in events:
                            nursery.start_soon(work, messages.clone(), event)
                        await all_hold.wait()
                        for index in order:
                            events[index].set()
                            await trio.testing.wait_all_tasks_blocked()
            assert sorted(done) == list(range(9))
            async with trio_mqtt.open_client(broker.url, client_id=topic) as again:
                assert again.session_present
                async with again.open_subscription(topic, qos=1) as messages:
                    await other.publish(topic, "9", qos=1)
                    assert await next_number(messages) == 9
                assert again.statistics().received == 1
                await again.disconnect(discard=True)


@pytest.mark.mosquitto
async def test_clients_of_a_shared_subscription_get_each_message_once(
    mosquitto: Mosquitto,
) -> None:
    numbers: list[int] = []

    async def work(messages: MessageChannel) -> None:
        async for message in messages:
            numbers.append(int(message.payload))
            if len(numbers) == 200:
                nursery.cancel_scope.cancel()

    shared = "$share/workers/jobs/+"
    with trio.fail_after(10):
        async with (
            trio_mqtt.open_client(mosquitto.url) as other,
            trio_mqtt.open_client(mosquitto.url) as one,
            trio_mqtt.open_client(mosquitto.url) as another,
            one.open_subscription(shared, qos=1) as its,
            another.open_subscription(shared, qos=1) as others,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, its)
                nursery.start_soon(work, others)
                await publish_numbers(other, "jobs/today", range(200))
                await trio.sleep_forever()
            await one.ping()
            await another.ping()
            assert sorted(numbers) == list(range(200))
            parts = [client.statistics().received for client in (one, another)]
            assert sum(parts) == 200
            assert min(parts) > 0


# Consumers that fail


@pytest.mark.parametrize("named", [True, False], ids=["named", "generated"])
async def test_a_consumer_that_comes_back_finds_the_message_it_failed_in_first(
    broker: Broker, topic: str, *, named: bool
) -> None:
    # Without a session the broker is told to stop, and what it has not sent yet is lost.
    count = 50 if named else 8
    with trio.fail_after(10):
        async with (
            trio_mqtt.open_client(broker.url) as other,
            trio_mqtt.open_client(broker.url, client_id=topic if named else None) as client,
        ):
            with pytest.raises(Stumble):
                async with client.open_subscription(topic, qos=1) as messages:
                    await publish_numbers(other, topic, range(count))
                    await client.ping()  # behind as many as the broker sends at once
                    await stumble_over(messages, 3)
            async with client.open_subscription(topic, qos=1) as messages:
                assert await next_numbers(messages, count - 3) == list(range(3, count))
                await other.publish(topic, str(count), qos=1)
                assert await next_number(messages) == count
            statistics = client.statistics()
            assert statistics.connects == 1
            assert statistics.repeated == statistics.given_up == 0
            await client.disconnect(discard=named)


async def test_a_consumer_that_failed_finds_its_messages_in_the_next_run(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    numbers = list(range(1, 11))
    path = tmp_path / "session"
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as other:
            session = await init_session(topic, SQLite(path))
            with pytest.raises(Stumble):
                async with (
                    trio_mqtt.open_client(broker.url, session=session) as client,
                    client.open_subscription(topic, qos=1) as messages,
                ):
                    await publish_numbers(other, topic, numbers)
                    for number in numbers[:4]:
                        assert await next_number(messages) == number
                    message = await messages.receive()
                    assert message.payload == b"5"
                    await client.ping()  # behind the acknowledgement of the fourth
                    raise Stumble
            session = await adopt_session(SQLite(path))
            assert not session.warnings
            async with trio_mqtt.open_client(broker.url, session=session) as client:
                async with client.open_subscription(topic, qos=1) as messages:
                    message = await messages.receive()
                    assert message.payload == b"5"
                    assert message.dup
                    assert await next_numbers(messages, 5) == numbers[5:]
                    await other.publish(topic, "11", qos=1)
                    assert await next_number(messages) == 11
                assert client.statistics().received == 7
                await client.disconnect(discard=True)


# Sessions that are lost, or half forgotten


@pytest.mark.mosquitto
@pytest.mark.parametrize("client_id", [None, "chosen"])
async def test_scopes_go_on_when_the_broker_lost_the_session(
    mosquitto: Mosquitto, client_id: str | None
) -> None:
    rooms = [f"room{number}/+" for number in range(20)]  # more than go into one packet
    with trio.fail_after(20):
        async with (
            open_client(mosquitto.url, client_id=client_id) as client,
            client.open_subscription(*rooms, qos=1) as messages,
            client.open_subscription("room7/+", qos=0, strict=True) as strict,
        ):
            await client.publish("room7/temperature", "1", qos=1)
            assert await next_number(messages) == await next_number(strict) == 1
            for restart in range(2):
                mosquitto.stop()
                await client.wait_offline()
                mosquitto.start()  # without persistence: it remembers nothing
                await client.wait_online()
                assert not client.session_present
                with pytest.raises(MessagesMissed) as missed:
                    await strict.receive()
                assert missed.value.session_lost
                for number in range(3):
                    await client.publish("room7/temperature", str(number), qos=1)
                    assert await next_number(messages) == await next_number(strict) == number
                await client.publish("room19/temperature", "19", qos=1)
                assert await next_number(messages) == 19
                assert client.statistics().connects == 2 + restart


async def test_a_scope_at_qos_0_goes_on_over_a_resumed_session(broker: Broker, topic: str) -> None:
    """RabbitMQ forgets its subscription, so that the client has to remind it."""
    kept, forgotten = f"{topic}/kept", f"{topic}/forgotten"
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            trio_mqtt.open_client(broker.url) as other,
            open_client(broker.url_at(relay.port), client_id=topic) as client,
        ):
            async with (
                # Without one at QoS 1 RabbitMQ would not keep the session at all.
                client.open_subscription(kept, qos=1) as at_least_once,
                client.open_subscription(forgotten, qos=0) as at_most_once,
            ):
                for number in range(3):
                    await other.publish(forgotten, str(number))
                    assert await next_number(at_most_once) == number
                    await other.publish(kept, str(number), qos=1)
                    assert await next_number(at_least_once) == number
                    at_least_once.acknowledge()
                    await client.ping()  # behind that
                    relay.cut()
                    await client.wait_offline()
                    await client.wait_online()
                    assert client.session_present
                    await client.ping()  # behind the SUBSCRIBE that goes first
            await client.disconnect(discard=True)


@pytest.mark.mosquitto
async def test_what_an_earlier_run_subscribed_to_does_not_hold_up_a_scope(
    mosquitto: Mosquitto,
) -> None:
    """The broker's window is full of messages that nobody wants, for `unclaimed_wait`."""
    unclaimed_wait = 2
    with trio.fail_after(20):
        async with trio_mqtt.open_client(mosquitto.url) as other:
            async with trio_mqtt.open_client(mosquitto.url, client_id="chosen") as earlier:
                await earlier.subscribe("stale", qos=1)
            await publish_numbers(other, "stale", range(100))
            began = trio.current_time()
            async with (
                trio_mqtt.open_client(
                    mosquitto.url, client_id="chosen", unclaimed_wait=unclaimed_wait
                ) as client,
                client.open_subscription("fresh", qos=1) as messages,
            ):
                await publish_numbers(other, "fresh", range(50))
                with trio.fail_after(unclaimed_wait + 0.5):
                    assert await next_numbers(messages, 50) == list(range(50))
                assert trio.current_time() - began >= unclaimed_wait
                assert client.statistics().unclaimed == 100
                await publish_numbers(other, "stale", range(100))
                await publish_numbers(other, "fresh", range(50, 100))
                with trio.fail_after(1):  # from now on they are given up at once
                    assert await next_numbers(messages, 50) == list(range(50, 100))
                assert client.statistics().unclaimed == 200
                assert client.statistics().connects == 1
