"""The client and the in-process broker together: the guarantees, over connections that are cut."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import Client, Will, open_client
from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, open_broker


async def test_round_trips(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, open_client(broker.dialer) as client:
        assert await client.subscribe("a/#", "b", qos=1) == (1, 1)
        for qos in p.QOS_LEVELS:
            await client.publish("a/b", f"at {qos}", qos=qos)
        assert [await client.messages.receive() for _ in p.QOS_LEVELS] == [
            p.Message("a/b", b"at 0", 0),
            p.Message("a/b", b"at 1", 1),
            p.Message("a/b", b"at 2", 1),
        ]
        await client.unsubscribe("a/#")
        await client.publish("a/b", b"nobody's", qos=1)
        await client.publish("b", b"ours", qos=2)
        assert (await client.messages.receive()).payload == b"ours"
        assert await client.ping() >= 0
    assert broker.violations == []


async def test_retained_messages_are_kept_and_cleared(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, open_client(broker.dialer) as client:
        await client.publish("a", b"kept", qos=1, retain=True)
        await client.subscribe("a")
        assert await client.messages.receive() == p.Message("a", b"kept", 1, retain=True)
        await client.clear_retained("a")
        assert await client.messages.receive() == p.Message("a", b"", 1)
        assert broker.retained == {}


@pytest.mark.conformance("MQTT-3.1.3-10", "MQTT-3.1.2-9")
async def test_the_will_is_published_unless_the_client_leaves_cleanly(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker, open_client(broker.dialer) as client:
        await client.subscribe("will/#")
        async with open_client(broker.dialer, will=Will("will/clean", b"")):
            pass
        async with open_client(broker.dialer, will=Will("will/closed", b"", qos=2)) as other:
            await other.aclose()
        with pytest.raises(KeyError):
            async with open_client(broker.dialer, will=Will("will/crash", "gone", retain=True)):
                raise KeyError
        assert await client.messages.receive() == p.Message("will/closed", b"", 2)
        assert await client.messages.receive() == p.Message("will/crash", b"gone")


async def test_subscriptions_survive_a_broker_that_forgot_everything(
    autojump_clock: MockClock,
) -> None:
    """PITFALLS: nobody subscribes again, and the iterator starves in silence."""
    async with open_broker() as broker, open_client(broker.dialer, client_id="c") as client:
        await client.subscribe("a", "b")
        for _ in range(3):
            broker.crash(keep_sessions=False)
            await broker.wait_subscribed("c", "b")
            broker.publish("b", b"still", qos=2)
            assert (await client.messages.receive()).payload == b"still"
            assert not client.session_present


async def test_a_session_collects_while_the_connection_is_away(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, open_client(broker.dialer, client_id="c") as client:
        await client.subscribe("a")
        broker.disconnect_all()
        for number in range(10):
            broker.publish("a", str(number), qos=1)
        got = [(await client.messages.receive()).payload for _ in range(10)]
        assert got == [str(number).encode() for number in range(10)]
        assert client.session_present


async def test_rabbitmqs_habits(autojump_clock: MockClock) -> None:
    async with (
        open_broker(rabbitmq=True) as broker,
        open_client(broker.dialer, client_id="c") as client,
    ):
        assert await client.subscribe("one", "two", qos=2) == (1, 1)
        assert await client.subscribe("zero", qos=0) == (0,)
        await client.publish("one", b"", qos=2)
        assert client.statistics().downgrades == 1
        assert (await client.messages.receive()).qos == 1
        broker.disconnect_all()
        await broker.wait_disconnected("c")
        await client.wait_offline()
        await client.wait_online()
        assert client.session_present
        await broker.wait_subscribed("c", "zero")
        broker.publish("zero", b"still")
        assert (await client.messages.receive()).payload == b"still"


async def test_a_paused_broker_is_half_open_and_left(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        open_client(broker.dialer, client_id="c", keep_alive=10, pause_timeout=5) as client,
    ):
        broker.pause()
        began = trio.current_time()
        await client.wait_offline()
        assert trio.current_time() - began <= 15
        exchange = await client.enqueue("a", b"")
        broker.resume()
        await exchange.wait()


async def test_two_clients_with_one_identifier_make_no_tight_loop(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        open_client(broker.dialer, client_id="c") as one,
        open_client(broker.dialer, client_id="c") as other,
    ):
        await trio.sleep(3600)
        assert one.statistics().connects + other.statistics().connects < 400


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("qos", [1, 2])
async def test_nothing_is_lost_over_connections_that_are_cut_at_random(
    autojump_clock: MockClock, qos: p.QoS, seed: int
) -> None:
    cutter = Cutter(seed)
    got: list[int] = []
    async with (
        open_broker(answer=cutter) as broker,
        open_client(broker.dialer, client_id="subscriber") as subscriber,
        open_client(
            broker.dialer, client_id="publisher", at_least_once_window=3, exactly_once_window=3
        ) as publisher,
    ):
        await subscriber.subscribe("a")
        cutter.broker = broker
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_publish, publisher, qos)
            while len(set(got)) < MANY:
                got.append(int((await subscriber.messages.receive()).payload))
            nursery.cancel_scope.cancel()
        with trio.move_on_after(100):
            while True:
                got.append(int((await subscriber.messages.receive()).payload))
        assert publisher.statistics().connects > 2
        assert subscriber.statistics().connects > 2
    assert list(dict.fromkeys(got)) == list(range(MANY))
    assert qos == 1 or max(Counter(got).values()) == 1
    assert broker.violations == []


MANY = 300


async def _publish(publisher: Client, qos: p.QoS) -> None:
    for number in range(MANY):
        exchange = await publisher.enqueue("a", str(number), qos=1 if qos == 1 else 2)
        if number % 10 == 0:
            await exchange.wait()


class Cutter:
    """Cuts connections at random packets of the broker."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._left = 100
        self.broker: Broker | None = None

    def __call__(self, client_id: str, packet: p.Packet) -> None:
        self._left -= 1
        if self.broker is not None and self._left <= 0:
            self._left = self._random.randrange(3, 80)
            for name, session in self.broker.sessions.items():
                if session.connected and self._random.random() < 0.6:
                    self.broker.disconnect(name)


async def test_both_directions_use_the_same_identifiers_at_once(
    autojump_clock: MockClock,
) -> None:
    """PITFALLS: the broker's packet 1 collides with ours (mqttproto)."""
    async with open_broker() as broker, open_client(broker.dialer, client_id="c") as client:
        await client.subscribe("a")
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(trio_mqtt.Client.publish, client, "b", str(number))
                broker.publish("a", str(number), qos=2)
                await client.publish("b", b"", qos=2)
                assert (await client.messages.receive()).payload == str(number).encode()
    assert broker.violations == []
