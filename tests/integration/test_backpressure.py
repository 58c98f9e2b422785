"""Scopes whose consumers are slow, or wait for something else, with their buffers full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import trio

import trio_mqtt
from trio_mqtt import Buffer, Client, MessageChannel, Overflow, QoS

from . import brokers
from .brokers import Broker, Mosquitto, or_skip
from .clients import open_client
from .counting import (
    first_occurrences,
    has_all,
    next_number,
    next_numbers,
    numbers_of,
    publish_for_ever,
    publish_numbers,
)
from .relay import open_relay

pytestmark = pytest.mark.alone

STALL = 12.0
"""Seconds, six times the keep-alive."""
MEBIBYTE = 1024 * 1024


def assert_got_on(client: Client, numbers: list[int]) -> None:
    """What was given back came again, and little of what was acknowledged."""
    count = len(set(numbers))
    assert len(numbers) < 1.5 * count
    assert client.statistics().connects < count


# Slow


@pytest.mark.mosquitto
async def test_a_consumer_that_stalls_is_not_disconnected(mosquitto: Mosquitto) -> None:
    with trio.fail_after(STALL + 15):
        async with (
            trio_mqtt.open_client(mosquitto.url) as publisher,
            trio_mqtt.open_client(mosquitto.url, keep_alive=2, pause_timeout=2) as stalled,
            stalled.open_subscription("numbers", qos=1, buffer=Buffer(messages=10)) as messages,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_numbers, publisher, "numbers", range(20_000))
                assert await next_number(messages) == 0
                await trio.sleep(STALL)
            assert await next_numbers(messages, 19_999) == list(range(1, 20_000))
            statistics = stalled.statistics()
            assert statistics.connects == 1
            assert statistics.repeated == statistics.given_up == 0
            assert statistics.most_buffered_messages >= 10


@pytest.mark.mosquitto
async def test_a_large_message_over_a_slow_link_arrives(mosquitto: Mosquitto) -> None:
    """Behind it the answers to PINGREQ are late, and yet the link is alive."""
    payload = bytes(range(256)) * (24 * MEBIBYTE // 256)
    with trio.fail_after(30):
        async with (
            open_relay(mosquitto.port) as relay,
            trio_mqtt.open_client(mosquitto.url) as publisher,
        ):
            relay.bandwidth = 2 * MEBIBYTE
            async with (
                trio_mqtt.open_client(
                    mosquitto.url_at(relay.port), keep_alive=3, pause_timeout=3
                ) as client,
                client.open_subscription("large", qos=1) as messages,
            ):
                began = trio.current_time()
                await publisher.publish("large", payload, qos=1)
                assert (await messages.receive()).payload == payload
                assert trio.current_time() - began > 8
                assert client.statistics().connects == 1


# Bursts at QoS 0


@pytest.mark.parametrize("overflow", ["wait", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("pinging", [False, True], ids=["idle", "pinging"])
async def test_of_a_burst_everything_arrives_or_is_counted(
    broker: Broker, topic: str, overflow: Overflow, *, pinging: bool
) -> None:
    # So small that the broker's socket holds them all: else mosquitto would give up some by itself.
    count, bound = 10_000, 100
    with trio.fail_after(15):
        async with (
            trio_mqtt.open_client(broker.url) as publisher,
            trio_mqtt.open_client(broker.url) as client,
            client.open_subscription(
                topic, qos=1, buffer=Buffer(messages=bound), overflow=overflow
            ) as messages,
        ):
            await publish_numbers(publisher, topic, range(count), qos=0)
            if pinging:
                await client.ping()
            numbers = await numbers_of(messages, count)
            statistics = messages.statistics()
            assert len(numbers) + statistics.given_up == count
            assert numbers == sorted(set(numbers))
            assert client.statistics().received == count
            if overflow == "wait":
                assert numbers[: 2 * bound] == list(range(2 * bound))
                assert pinging or len(numbers) == count
            elif pinging and broker.name == "mosquitto":  # RabbitMQ's answer overtakes them
                oldest, newest = range(bound), range(count - bound, count)
                assert numbers == list(oldest if overflow == "drop_newest" else newest)
            assert statistics.most_buffered_messages <= 2 * bound
            assert client.statistics().connects == 1


@pytest.mark.mosquitto
@pytest.mark.parametrize(
    ("qos", "bound", "count"), [(0, 50, 10_000), (1, 5, 200)], ids=["qos0", "qos1"]
)
async def test_tasks_that_always_wait_do_not_unbound_a_full_buffer(
    mosquitto: Mosquitto, qos: QoS, bound: int, count: int
) -> None:
    with trio.fail_after(20):
        async with (
            trio_mqtt.open_client(mosquitto.url) as publisher,
            open_client(mosquitto.url, client_id="busy") as client,
            client.open_subscription("numbers", qos=1, buffer=Buffer(messages=bound)) as messages,
            trio.open_nursery() as nursery,
        ):
            for _ in range(300):
                nursery.start_soon(publish_for_ever, client, "elsewhere")
            await publish_numbers(publisher, "numbers", range(count), qos=qos)
            await client.ping()
            assert client.statistics().most_buffered_messages <= 2 * bound
            numbers = await numbers_of(messages, count)
            nursery.cancel_scope.cancel()
            statistics = client.statistics()
            assert statistics.most_buffered_messages <= 2 * bound
            if qos == 0:
                assert len(numbers) + statistics.given_up == count
                assert numbers == sorted(set(numbers))
            else:
                assert first_occurrences(numbers) == list(range(count))
                assert_got_on(client, numbers)


# Requests inside the loop


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("qos", [0, 1])
async def test_requests_inside_the_loop_are_answered_with_the_buffer_full(
    broker: Broker, topic: str, size: int, qos: QoS
) -> None:
    count = 60 if qos else 1_000
    numbers: list[int] = []
    with trio.fail_after(20):
        async with (
            trio_mqtt.open_client(broker.url) as other,
            open_client(broker.url, client_id=topic) as client,
        ):
            async with client.open_subscription(
                topic, qos=1, buffer=Buffer(messages=size)
            ) as messages:
                await publish_numbers(other, topic, range(count), qos=qos)
                while not has_all(messages, numbers, count):
                    numbers.append(await next_number(messages))
                    if len(numbers) % 3:
                        await client.publish(f"{topic}/elsewhere", b"", qos=1)
                    else:
                        await client.subscribe(f"{topic}/{len(numbers) % 9}", qos=1)
            if qos:
                assert first_occurrences(numbers) == list(range(count))
                if broker.name == "mosquitto":  # RabbitMQ sends them again by other identifiers
                    assert_got_on(client, numbers)
            else:
                assert numbers == sorted(set(numbers))
                assert len(numbers) + client.statistics().given_up == count
            await client.disconnect(discard=True)


@pytest.fixture(params=[1, 2, 20])
def narrow_mosquitto(request: pytest.FixtureRequest) -> Iterator[Mosquitto]:
    """One that has so many messages unacknowledged at once.

    Or more, as 2.0.11 takes a message at QoS 0 that it sent for one that was acknowledged.
    """
    with or_skip(), brokers.mosquitto(max_inflight_messages=request.param) as broker:
        yield broker


async def serve_echo(server: Client, qos: Literal[0, 1], ready: trio.Event) -> None:
    """Replies to requests with the same."""
    async with server.open_subscription("requests", qos=1) as requests:
        ready.set()
        async for request in requests:
            await server.publish("replies", request.payload, qos=qos)


async def ask(client: Client, replies: MessageChannel, number: int) -> None:
    """Sends a request, and waits for the reply; a request at QoS 1 may be answered twice."""
    await client.publish("requests", str(number), qos=1)
    while await next_number(replies) != number:
        pass


@pytest.mark.mosquitto
@pytest.mark.parametrize("reply_qos", [0, 1])
async def test_a_reply_on_another_scope_arrives_with_the_buffer_full(
    narrow_mosquitto: Mosquitto, reply_qos: Literal[0, 1]
) -> None:
    """The flood is at the other QoS: at QoS 1 both, it is the broker that would wait."""
    url = narrow_mosquitto.url
    count = 1_000 if reply_qos else 30
    numbers: list[int] = []
    with trio.fail_after(20):
        async with (
            trio_mqtt.open_client(url) as other,
            trio_mqtt.open_client(url) as server,
            open_client(url, client_id="asking") as client,
            client.open_subscription("replies", qos=1) as replies,
            client.open_subscription("flood", qos=1, buffer=Buffer(messages=2)) as flood,
            trio.open_nursery() as nursery,
        ):
            ready = trio.Event()
            nursery.start_soon(serve_echo, server, reply_qos, ready)
            await ready.wait()
            await publish_numbers(other, "flood", range(count), qos=0 if reply_qos else 1)
            while not has_all(flood, numbers, count):
                numbers.append(await next_number(flood))
                await ask(client, replies, numbers[-1])
            nursery.cancel_scope.cancel()
            if reply_qos:
                assert numbers == sorted(set(numbers))
            else:
                assert first_occurrences(numbers) == list(range(count))
                assert_got_on(client, numbers)


# Beyond the second bound at QoS 1


@pytest.mark.mosquitto
async def test_the_broker_publishes_no_will_when_messages_are_given_back(
    mosquitto: Mosquitto,
) -> None:
    """The client is well: it is only its application that is slow."""
    with trio.fail_after(10):
        async with (
            trio_mqtt.open_client(mosquitto.url) as other,
            other.open_subscription("wills", qos=1) as wills,
            open_client(
                mosquitto.url, client_id="slow", will=trio_mqtt.Will("wills", "gone", qos=1)
            ) as client,
            client.open_subscription("numbers", qos=1, buffer=Buffer(messages=2)) as messages,
        ):
            await publish_numbers(other, "numbers", range(50))
            while await next_number(messages) < 49:
                await client.publish("elsewhere", b"", qos=1)
            assert client.statistics().connects > 1
            await other.publish("wills", "fence", qos=1)
            assert (await wills.receive()).payload == b"fence"


@pytest.mark.mosquitto
async def test_without_a_session_a_strict_scope_tells_that_messages_were_given_up(
    mosquitto: Mosquitto,
) -> None:
    with trio.fail_after(10):
        async with (
            trio_mqtt.open_client(mosquitto.url) as other,
            open_client(mosquitto.url) as client,
            client.open_subscription(
                "numbers", qos=1, buffer=Buffer(messages=2), strict=True
            ) as messages,
        ):
            await publish_numbers(other, "numbers", range(10))
            while not client.statistics().given_up:  # one PUBACK may come in one read with them
                await client.publish("elsewhere", b"", qos=1)
            numbers: list[int] = []
            given_up, lost = 0, list[bool]()
            while len(numbers) + given_up < 10:
                try:
                    numbers.append(await next_number(messages))
                except trio_mqtt.MessagesMissed as missed:
                    given_up += missed.given_up
                    lost.append(missed.session_lost)
            assert not any(lost)
            assert given_up
            assert numbers == sorted(set(numbers))
            assert client.statistics().connects == 1
            await client.publish("numbers", "10", qos=1)
            assert await next_number(messages) == 10
