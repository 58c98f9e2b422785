"""gmqtt, as its README shows it. A message that is published cannot be awaited there."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from gmqtt import Client
from gmqtt.mqtt.constants import MQTTv311

from benchmarks.job import TOPIC, Job, Meter, Sample
from benchmarks.trips import Trips
from benchmarks.works import MIB

from .asynchronous import Adapter, receiving

LARGE = 64 * MIB
"""A payload that takes it a minute to receive; half of it, a quarter of that."""


class Gmqtt(Adapter[Client]):
    """A client with callbacks."""

    versions = {"gmqtt": version("gmqtt")}  # noqa: RUF012

    @asynccontextmanager
    async def open(self, job: Job, name: str = "bench") -> AsyncGenerator[Client, None]:
        """It has no window that could be chosen."""
        client = Client(name)
        await client.connect("127.0.0.1", job.port, version=MQTTv311)
        yield client
        await client.disconnect()

    async def send(self, client: Client, payload: bytes, qos: int) -> None:
        """And waits until its storage is empty: there is no other way."""
        client.publish(TOPIC, payload, qos=qos)
        await client._persistent_storage.wait_empty()  # noqa: SLF001

    async def subscribe(self, client: Client, topic: str, qos: int) -> AsyncIterable[Any]:
        """From a callback, through a queue."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()

        def on_message(_: object, __: object, payload: bytes, *___: object) -> int:
            queue.put_nowait(payload)
            return 0

        client.on_message = on_message
        client.subscribe(topic, qos=qos)
        return drain(queue)

    async def publish(self, job: Job) -> Sample:
        """Bursts, as many as there are tasks; at QoS 0 of a hundred.

        Where the number of tasks bounds them at QoS 0 too, the last of a burst is at QoS 1: only
        that tells when they have left.
        """
        payload, meter = job.payload, Meter()
        bounded = job.qos or job.tasks > 1
        last = job.qos or (1 if bounded else 0)
        levels = [job.qos] * ((job.tasks if bounded else 100) - 1) + [last]

        async def run(client: Client, seconds: float) -> None:
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                for qos in levels:
                    client.publish(TOPIC, payload, qos=qos)
                    meter.messages += 1
                await asyncio.sleep(0)
                if bounded:
                    await client._persistent_storage.wait_empty()  # noqa: SLF001

        async with self.open(job) as client:
            await run(client, job.warm_up)
            meter.start()
            await run(client, job.seconds)
            await self.send(client, payload, 1)
            meter.stop(self.versions).leave()

    async def receive(self, job: Job) -> Sample:
        """A callback that counts."""
        meter = Meter()

        def on_message(*_: object) -> int:
            meter.messages += 1
            return 0

        async with self.open(job) as client:
            client.on_message = on_message
            client.subscribe(job.topic_filter, qos=job.qos)
            (await receiving(job, meter, self.versions)).leave()

    async def latency(self, job: Job) -> Sample:
        """A callback that publishes the next one."""
        payload, trips = job.payload, Trips()

        async with self.open(job) as client:

            def publish() -> None:
                trips.begin()
                client.publish(TOPIC, payload, qos=job.qos)

            def on_message(*_: object) -> int:
                trips.end()
                publish()
                return 0

            client.on_message = on_message
            client.subscribe(TOPIC, qos=job.qos)
            publish()
            await asyncio.sleep(job.warm_up)
            trips.start()
            await asyncio.sleep(job.seconds)
            trips.stop(self.versions).leave()

    async def receive_one(self, job: Job) -> Sample:
        """Nothing for a message that would take a minute, as all that is there is copied often."""
        return (
            Sample({}, self.versions)
            if job.payload_size >= LARGE
            else await super().receive_one(job)
        )


async def drain(queue: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    """What comes, for ever."""
    while True:
        yield await queue.get()


if __name__ == "__main__":
    Gmqtt().run(Job.from_command_line())
