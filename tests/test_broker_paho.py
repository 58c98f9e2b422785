"""The client of paho-mqtt and the in-process broker understand each other.

That client has a thread of its own. What it calls back from there is handed to Trio's thread.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest
import trio
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from trio_mqtt import QoS
from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, open_broker

QOS_LEVELS: tuple[QoS, ...] = (0, 1, 2)
PATIENCE = 30


class Paho:
    """A client of paho-mqtt that is connected, and the messages that it received."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._send_message, self._messages = trio.open_memory_channel[MQTTMessage](100)
        self._send_published, self._published = trio.open_memory_channel[int](100)
        in_trio = trio.lowlevel.current_trio_token().run_sync_soon
        client.on_message = lambda _client, _data, message: in_trio(
            self._send_message.send_nowait, message
        )
        client.on_publish = lambda _client, _data, packet_id, _code, _properties: in_trio(
            self._send_published.send_nowait, packet_id
        )

    async def publish(self, topic: str, payload: str, qos: QoS, *, retain: bool = False) -> None:
        """Publishes, and waits until that is confirmed."""
        published = self.client.publish(topic, payload, qos, retain)
        assert await self._published.receive() == published.mid

    async def receive(self) -> p.Message:
        """The next message."""
        message = await self._messages.receive()
        qos = QOS_LEVELS[message.qos]
        payload = bytes(message.payload)
        return p.Message(message.topic, payload, qos, message.retain, message.dup)


@asynccontextmanager
async def open_paho(
    url: str,
    client_id: str,
    *,
    clean: bool = True,
    will: p.Will | None = None,
    reconnects: bool = False,
) -> AsyncGenerator[Paho]:
    """A client that is connected, with its thread, until the block is left."""
    client = Client(CallbackAPIVersion.VERSION2, client_id, clean, reconnect_on_failure=reconnects)
    client.reconnect_delay_set(min_delay=1, max_delay=1)
    if will is not None:
        client.will_set(will.topic, will.payload, will.qos, will.retain)
    paho = Paho(client)
    split = urlsplit(url)
    assert split.hostname is not None
    assert split.port is not None
    await trio.to_thread.run_sync(partial(client.connect, split.hostname, split.port))
    client.loop_start()
    try:
        yield paho
    finally:
        client.disconnect()
        with trio.CancelScope(shield=True):  # bounded: the thread looks around each second
            await trio.to_thread.run_sync(client.loop_stop)


async def subscribed(broker: Broker, paho: Paho, client_id: str, topic: str, qos: QoS) -> None:
    paho.client.subscribe(topic, qos)
    await broker.wait_subscribed(client_id, topic)


@pytest.mark.parametrize("qos", QOS_LEVELS)
async def test_publish_and_subscribe(qos: QoS) -> None:
    with trio.fail_after(PATIENCE):
        async with open_broker() as broker:
            url = await broker.listen()
            async with open_paho(url, "sub") as sub, open_paho(url, "pub") as pub:
                await subscribed(broker, sub, "sub", "a/#", qos)
                for number in range(50):  # more than one window of either side
                    await pub.publish(f"a/{number}", "20.8℃", qos)
                for number in range(50):
                    expected = p.Message(f"a/{number}", "20.8℃".encode(), qos)
                    assert await sub.receive() == expected
            assert not broker.violations


@pytest.mark.parametrize("qos", QOS_LEVELS)
async def test_many_at_once(qos: QoS) -> None:
    with trio.fail_after(PATIENCE):
        async with open_broker() as broker:
            url = await broker.listen()
            async with open_paho(url, "both") as both:
                await subscribed(broker, both, "both", "a", qos)
                for number in range(50):
                    both.client.publish("a", str(number), qos)
                received = [int((await both.receive()).payload) for _ in range(50)]
                # It holds back at most 20 of its own, and shows those at QoS 2 upon their PUBREL.
                assert received == list(range(50))
            assert not broker.violations


@pytest.mark.parametrize("qos", QOS_LEVELS)
async def test_retained(qos: QoS) -> None:
    with trio.fail_after(PATIENCE):
        async with open_broker() as broker:
            url = await broker.listen()
            async with open_paho(url, "pub") as pub:
                await pub.publish("a", "kept", qos, retain=True)
                await pub.publish("b", "cleared", qos, retain=True)
                await pub.publish("b", "", qos, retain=True)
            async with open_paho(url, "sub") as sub:
                await subscribed(broker, sub, "sub", "#", 2)
                assert await sub.receive() == p.Message("a", b"kept", qos, retain=True)
                await sub.publish("c", "live", 0, retain=True)
                assert await sub.receive() == p.Message("c", b"live")
            assert not broker.violations


@pytest.mark.conformance("MQTT-3.1.2-8", "MQTT-3.1.2-16", "MQTT-3.1.2-17")
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", QOS_LEVELS)
async def test_will_of_one_that_lost_its_socket(qos: QoS, retain: bool) -> None:
    will = p.Will("will", "gone", qos=qos, retain=retain)
    with trio.fail_after(PATIENCE):
        async with open_broker() as broker:
            url = await broker.listen()
            async with open_paho(url, "watcher") as watcher:
                await subscribed(broker, watcher, "watcher", "will", 2)
                async with open_paho(url, "dying", will=will) as dying:
                    await broker.wait_connected("dying")
                    connection = dying.client.socket()
                    assert isinstance(connection, socket.socket)
                    connection.shutdown(socket.SHUT_RDWR)
                    assert await watcher.receive() == p.Message("will", b"gone", qos)
                async with open_paho(url, "parting", will=will):
                    await broker.wait_connected("parting")
                await broker.wait_disconnected("parting")
                await watcher.publish("will", "no other", 0)
                assert await watcher.receive() == p.Message("will", b"no other")
            kept = p.Message("will", b"gone", qos, retain=True)
            assert broker.retained == ({"will": kept} if retain else {})
            assert not broker.violations


@pytest.mark.conformance("MQTT-3.1.2-4", "MQTT-3.1.2-5")
@pytest.mark.parametrize("qos", QOS_LEVELS[1:])
async def test_a_session_that_is_kept_over_a_reconnect(qos: QoS) -> None:
    with trio.fail_after(PATIENCE):
        async with open_broker() as broker:
            url = await broker.listen()
            async with open_paho(url, "sub", clean=False, reconnects=True) as sub:
                await subscribed(broker, sub, "sub", "a", qos)
                broker.disconnect("sub")
                for number in range(30):
                    broker.publish("a", str(number), qos=qos)
                assert broker.sessions["sub"].queued == 30
                received = [await sub.receive() for _ in range(30)]
                assert received == [p.Message("a", b"%d" % n, qos) for n in range(30)]
            answers = [record.packet for record in broker.log if record.direction == "out"]
            assert p.ConnAck(True, 0) in answers
            assert not broker.violations


@pytest.mark.conformance("MQTT-4.3.3-2", "MQTT-4.4.0-1")
@pytest.mark.parametrize("lost", [p.PubRec, p.PubComp])
async def test_exactly_once_over_a_reconnect(lost: type[p.Packet]) -> None:
    answer, withheld = withholding(lost)
    with trio.fail_after(PATIENCE):
        async with open_broker(answer=answer) as broker:
            url = await broker.listen()
            async with (
                open_paho(url, "sub") as sub,
                open_paho(url, "pub", clean=False, reconnects=True) as pub,
                trio.open_nursery() as nursery,
            ):
                await subscribed(broker, sub, "sub", "a", 2)
                nursery.start_soon(pub.publish, "a", "once", 2)
                await withheld.wait()
                broker.disconnect("pub")
                assert await sub.receive() == p.Message("a", b"once", 2)
                await pub.publish("a", "the next", 2)
                assert await sub.receive() == p.Message("a", b"the next", 2)
            assert not broker.violations


def withholding(
    lost: type[p.Packet],
) -> tuple[Callable[[str, p.Packet], Sequence[p.Packet] | None], trio.Event]:
    """A hook that withholds the first such packet, and what happens then."""
    withheld = trio.Event()

    def answer(client_id: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        if client_id == "pub" and isinstance(packet, lost) and not withheld.is_set():
            withheld.set()
            return []
        return None

    return answer, withheld
