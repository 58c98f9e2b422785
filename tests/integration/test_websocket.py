"""WebSocket on real brokers."""

from __future__ import annotations

import random

import pytest
import trio

import trio_mqtt
from trio_mqtt import Down, QoS, tcp_dialer, websocket_dialer

from .brokers import HOST, Broker, Mosquitto
from .clients import open_client

SIZES = [0, 1, 127, 64 * 1024]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_payloads_of_all_sizes_come_back(broker: Broker, topic: str, qos: QoS) -> None:
    source = random.Random(1)
    with trio.fail_after(20):
        async with open_client(broker.websocket_url) as client:
            await client.subscribe(topic, qos=qos)
            for size in SIZES:
                payload = source.randbytes(size)
                await client.publish(topic, payload, qos=qos)
                assert (await client.messages.receive()).payload == payload


async def test_many_small_messages(broker: Broker, topic: str) -> None:
    with trio.fail_after(30):
        async with open_client(broker.websocket_url) as client:
            await client.subscribe(topic, qos=1)
            async with trio.open_nursery() as nursery:
                for number in range(1_000):
                    nursery.start_soon(client.enqueue, topic, f"{number}")
                got = {int((await client.messages.receive()).payload) for _ in range(1_000)}
            assert got == set(range(1_000))


async def test_a_session_goes_on(broker: Broker, topic: str) -> None:
    with trio.fail_after(30):
        for _ in range(3):
            async with open_client(broker.websocket_url, client_id=topic) as client:
                await client.subscribe(topic, qos=1)
                await client.publish(topic, "x", qos=1)
                assert (await client.messages.receive()).payload == b"x"
        async with open_client(broker.websocket_url, client_id=topic) as client:
            assert client.session_present
            await client.disconnect(discard=True)


@pytest.mark.rabbitmq
async def test_a_large_payload_is_streamed(rabbitmq: Broker, topic: str) -> None:
    """Mosquitto 2.0.11 sends large messages over WebSocket at 40 KB/s, a piece at each tick."""
    with trio.fail_after(30):
        async with open_client(rabbitmq.websocket_url, stream_over=1000) as client:
            await client.subscribe(topic, qos=1)
            await client.publish(topic, bytes(20_000_000), qos=1)
            message = await client.messages.receive()
            assert isinstance(message, trio_mqtt.BigMessage)
            size = 0
            async for piece in message:
                size += len(piece)
            assert size == 20_000_000


async def test_a_port_without_websocket(mosquitto: Mosquitto) -> None:
    with pytest.raises(Down, match="WebSocket"):
        async with trio_mqtt.open_client(f"ws://{HOST}:{mosquitto.port}", pause_timeout=5):
            pytest.fail("it was entered")


async def test_mqtt_to_a_port_of_websocket(broker: Broker) -> None:
    url = broker.url_at(broker.websocket_port)
    with pytest.raises(Down, match="did not accept the connection"):
        async with trio_mqtt.open_client(url, pause_timeout=2):
            pytest.fail("it was entered")


@pytest.mark.rabbitmq
async def test_another_path(rabbitmq: Broker) -> None:
    dialer = websocket_dialer(
        tcp_dialer(HOST, rabbitmq.websocket_port), host=HOST, target="/nothing/there"
    )
    with pytest.raises(Down, match="answered the WebSocket handshake with 404 Not Found"):
        async with trio_mqtt.open_client(dialer):
            pytest.fail("it was entered")
