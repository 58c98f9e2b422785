"""Messages to and from mosquitto's own clients."""

from __future__ import annotations

import pytest
import trio

import trio_mqtt
from trio_mqtt import QoS

from .brokers import HOST, Broker
from .processes import start_process


def arguments(broker: Broker, topic: str, qos: int) -> list[str]:
    user = [] if broker.username is None else ["-u", broker.username, "-P", broker.password or ""]
    return ["-h", HOST, "-p", str(broker.port), "-t", topic, "-q", str(qos), *user]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_from_mosquitto_pub(broker: Broker, topic: str, qos: QoS, mosquitto_pub: str) -> None:
    # It takes RabbitMQ's PUBACK for an error, when the message has been delivered.
    downgraded = qos > broker.best_qos
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as client, trio.open_nursery() as nursery:
            await client.subscribe(topic, qos=qos)
            command = [mosquitto_pub, *arguments(broker, topic, qos), "-m", "20.8℃"]
            process = await start_process(nursery, command)
            assert (await process.wait() != 0) is downgraded
            message = await client.messages.receive()
            assert message.topic == topic
            assert message.payload == "20.8℃".encode()
            assert message.qos == min(qos, broker.best_qos)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_to_mosquitto_sub(broker: Broker, topic: str, qos: QoS, mosquitto_sub: str) -> None:
    granted = min(qos, broker.best_qos)
    with trio.fail_after(20):
        async with trio_mqtt.open_client(broker.url) as client, trio.open_nursery() as nursery:
            # What is retained says that it is subscribed.
            await client.publish(topic, "ready", qos=1, retain=True)
            # It ends by itself after two of them: it may hang if it is told to by a signal.
            options = ["-C", "2", "-F", "%t %q %r %p"]
            command = [mosquitto_sub, *arguments(broker, topic, qos), *options]
            process = await start_process(nursery, command)
            output = process.stdout
            assert output is not None
            line = f"{topic} {min(granted, 1)} 1 ready\n"
            assert await output.receive_some() == line.encode()
            await client.publish(topic, "20.8℃", qos=qos)
            line = f"{topic} {granted} 0 20.8℃\n"
            assert await output.receive_some() == line.encode()
            assert await process.wait() == 0
            await client.clear_retained(topic)
