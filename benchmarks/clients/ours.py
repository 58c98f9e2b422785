"""trio_mqtt, with each of its persistences and with none."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

import trio

import trio_mqtt
from benchmarks.job import SETTLE, TOPIC, Job, Meter, Sample
from benchmarks.resident import Growth, allow_files
from benchmarks.trips import Trips

STREAM_OVER = 1_000_000
"""Bytes of payload, as docs/receiving.md has it."""
QOS: tuple[trio_mqtt.QoS, ...] = (0, 1, 2)


async def main(job: Job) -> None:
    """What the job says."""
    if job.work in WORKS:
        (await WORKS[job.work](job)).leave()
    async with open_client(job) as client:
        (await CLIENT_WORKS[job.work](client, job)).leave()


@asynccontextmanager
async def open_client(job: Job, name: str = "bench") -> AsyncGenerator[trio_mqtt.Client, None]:
    """With windows as wide as the job's."""
    async with trio_mqtt.open_client(
        f"mqtt://127.0.0.1:{job.port}",
        session=await open_session(job, name),
        stream_over=STREAM_OVER if job.store == "stream" else None,
        at_least_once_window=job.tasks or 1,
        exactly_once_window=job.tasks or 1,
    ) as client:
        yield client


async def publish(client: trio_mqtt.Client, job: Job) -> Sample:
    """Tasks, each one message after the other."""
    payload, meter = job.payload, Meter()
    qos = QOS[job.qos]

    async def run() -> None:
        while True:
            await client.publish(TOPIC, payload, qos=qos)
            meter.messages += 1

    async with trio.open_nursery() as nursery:
        for _ in range(job.tasks):
            nursery.start_soon(run)
        await trio.sleep(job.warm_up)
        meter.start()
        await trio.sleep(job.seconds)
        nursery.cancel_scope.cancel()
    if not qos:
        await client.publish(TOPIC, payload, qos=1)
    return meter.stop(versions())


async def receive(client: trio_mqtt.Client, job: Job) -> Sample:
    """One loop that counts."""
    meter = Meter()

    async def run() -> None:
        async for _ in client.messages:
            meter.messages += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await client.subscribe(job.topic_filter, qos=QOS[job.qos])
        await trio.sleep(job.warm_up)
        meter.start()
        await trio.sleep(job.seconds)
        sample = meter.stop(versions())
        nursery.cancel_scope.cancel()
    return sample


async def connect(job: Job) -> Sample:
    """One connection after the other."""
    meter = Meter()

    async def run(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            async with open_client(job):
                meter.messages += 1

    await run(job.warm_up)
    meter.start()
    await run(job.seconds)
    return meter.stop(versions())


async def latency(client: trio_mqtt.Client, job: Job) -> Sample:
    """One task publishes, another receives: a trip ends when that one has the message."""
    payload, trips, qos = job.payload, Trips(), QOS[job.qos]
    send, back = trio.open_memory_channel[None](1)

    async def receive() -> None:
        async for _ in client.messages:
            trips.end()
            send.send_nowait(None)

    async def run(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            trips.begin()
            await client.publish(TOPIC, payload, qos=qos)
            await back.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await client.subscribe(TOPIC, qos=qos)
        await run(job.warm_up)
        trips.start()
        await run(job.seconds)
        nursery.cancel_scope.cancel()
    return trips.stop(versions())


async def idle(job: Job) -> Sample:
    """As many clients as there are tasks, each in a task of its own."""
    allow_files()
    growth = Growth()

    async def run(name: str, task_status: trio.TaskStatus[None]) -> None:
        async with open_client(job, name):
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for number in range(job.tasks):
            await nursery.start(run, f"bench{number}")
        await trio.sleep(SETTLE)
        growth.now(job.tasks, versions()).leave()


async def receive_one(client: trio_mqtt.Client, job: Job) -> Sample:
    """One message, which is held, or read in pieces."""
    growth = Growth()
    await client.subscribe(job.once, qos=QOS[job.qos])
    message = await client.messages.receive()
    if isinstance(message, trio_mqtt.BigMessage):
        async for _ in message:
            pass
    return growth.peak(job.payload_size, versions())


async def publish_one(client: trio_mqtt.Client, job: Job) -> Sample:
    """One message, until it is confirmed."""
    payload = job.payload
    growth = Growth()
    await client.publish(TOPIC, payload, qos=QOS[job.qos])
    return growth.peak(job.payload_size, versions())


WORKS = {"connect": connect, "idle": idle}
CLIENT_WORKS = {
    "receive": receive,
    "publish": publish,
    "durable": publish,
    "latency": latency,
    "receive_one": receive_one,
    "publish_one": publish_one,
}


async def open_session(job: Job, name: str) -> trio_mqtt.Session:
    """A new one, where the job wants it."""
    match job.store:
        case "memory" | "stream":
            return trio_mqtt.volatile_session(name)
        case "sqlite":
            persistence: trio_mqtt.Persistence = trio_mqtt.SQLite(job.directory / "session.db")
        case "files":
            persistence = trio_mqtt.FileSystem(job.directory / "session")
        case _:
            raise ValueError(f"trio_mqtt has no store {job.store!r}")
    return await trio_mqtt.init_session(name, persistence)


def versions() -> dict[str, str]:
    """Of what is measured."""
    return {
        "trio_mqtt": version("trio-mqtt"),
        "trio": version("trio"),
        "SQLite": sqlite3.sqlite_version,
    }


if __name__ == "__main__":
    trio.run(main, Job.from_command_line())
