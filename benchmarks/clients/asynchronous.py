"""The works by clients on asyncio, whose adapters say how theirs is used."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Generic, TypeVar

from benchmarks.job import SETTLE, TOPIC, Job, Meter, Sample
from benchmarks.resident import Growth, allow_files
from benchmarks.trips import Trips

ClientT = TypeVar("ClientT")
TURN = 100
"""Messages at QoS 0 after which the others get their turn, where the client does not see to it."""


class Adapter(ABC, Generic[ClientT]):
    """A client on asyncio. Each work is the function of its name."""

    versions: dict[str, str]
    yields = True
    """Whether `send` gives the client its turn at QoS 0."""

    @abstractmethod
    def open(self, job: Job, name: str = "bench") -> AbstractAsyncContextManager[ClientT]:
        """Has been accepted when it is entered, and says DISCONNECT when it is left."""

    @abstractmethod
    async def send(self, client: ClientT, payload: bytes, qos: int) -> None:
        """Publishes, and waits for the confirmation, if there is one."""

    @abstractmethod
    async def subscribe(self, client: ClientT, topic: str, qos: int) -> AsyncIterable[Any]:
        """Returns the messages."""

    def run(self, job: Job) -> None:
        """The process."""
        asyncio.run(self._main(job))

    async def _main(self, job: Job) -> None:
        work: Callable[[Job], Awaitable[Sample]] = getattr(self, job.work)
        (await work(job)).leave()

    async def publish(self, job: Job) -> Sample:
        """Tasks, each one message after the other."""
        payload, meter = job.payload, Meter()

        async def run(client: ClientT) -> None:
            while True:
                await self.send(client, payload, job.qos)
                meter.messages += 1
                if not self.yields and meter.messages % TURN == 0:
                    await asyncio.sleep(0)

        async with self.open(job) as client:
            tasks = [asyncio.create_task(run(client)) for _ in range(job.tasks)]
            await asyncio.sleep(job.warm_up)
            meter.start()
            await asyncio.sleep(job.seconds)
            for task in tasks:
                task.cancel()
            if not job.qos:
                await self.send(client, payload, 1)
            meter.stop(self.versions).leave()  # here, as to end in the middle of it may take long

    async def durable(self, job: Job) -> Sample:
        """The same, by a client that stores."""
        return await self.publish(job)

    async def receive(self, job: Job) -> Sample:
        """One loop that counts."""
        meter = Meter()

        async def count(messages: AsyncIterable[Any]) -> None:
            async for _ in messages:
                meter.messages += 1

        async with self.open(job) as client:
            messages = await self.subscribe(client, job.topic_filter, job.qos)
            task = asyncio.create_task(count(messages))
            sample = await receiving(job, meter, self.versions)
            task.cancel()
            sample.leave()

    async def connect(self, job: Job) -> Sample:
        """One connection after the other."""
        meter = Meter()

        async def run(seconds: float) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                async with self.open(job):
                    meter.messages += 1

        await run(job.warm_up)
        meter.start()
        await run(job.seconds)
        return meter.stop(self.versions)

    async def latency(self, job: Job) -> Sample:
        """One task publishes, another receives: a trip ends when that one has the message."""
        payload, trips, back = job.payload, Trips(), asyncio.Event()

        async def receive(messages: AsyncIterable[Any]) -> None:
            async for _ in messages:
                trips.end()
                back.set()

        async def run(client: ClientT, seconds: float) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                back.clear()
                trips.begin()
                await self.send(client, payload, job.qos)
                await back.wait()

        async with self.open(job) as client:
            messages = await self.subscribe(client, TOPIC, job.qos)
            task = asyncio.create_task(receive(messages))
            await run(client, job.warm_up)
            trips.start()
            await run(client, job.seconds)
            task.cancel()
            trips.stop(self.versions).leave()

    async def idle(self, job: Job) -> Sample:
        """As many clients as there are tasks."""
        allow_files()
        growth = Growth()
        async with AsyncExitStack() as stack:
            for number in range(job.tasks):
                await stack.enter_async_context(self.open(job, f"bench{number}"))
            await asyncio.sleep(SETTLE)
            growth.now(job.tasks, self.versions).leave()

    async def receive_one(self, job: Job) -> Sample:
        """One message, which is held."""
        async with self.open(job) as client:
            growth = Growth()
            async for _ in await self.subscribe(client, job.once, job.qos):
                growth.peak(job.payload_size, self.versions).leave()
        raise EOFError("no message came")

    async def publish_one(self, job: Job) -> Sample:
        """One message, until it is confirmed."""
        payload = job.payload
        async with self.open(job) as client:
            growth = Growth()
            await self.send(client, payload, job.qos)
            growth.peak(job.payload_size, self.versions).leave()


async def receiving(job: Job, meter: Meter, versions: dict[str, str]) -> Sample:
    """While messages arrive that something else counts."""
    await asyncio.sleep(job.warm_up)
    meter.start()
    await asyncio.sleep(job.seconds)
    return meter.stop(versions)
