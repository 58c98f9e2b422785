"""trio_mqtt, with each of its persistences and with none."""

from __future__ import annotations

import sqlite3
from importlib.metadata import version

import trio

import trio_mqtt
from benchmarks.job import TOPIC, Job, Meter, Sample

QOS: tuple[trio_mqtt.QoS, ...] = (0, 1, 2)


async def main(job: Job) -> None:
    """Publishes, each task one message after the other; or receives."""
    async with trio_mqtt.open_client(
        f"mqtt://127.0.0.1:{job.port}",
        session=await open_session(job),
        at_least_once_window=job.tasks or 1,
        exactly_once_window=job.tasks or 1,
    ) as client:
        sample = await (receive if job.work == "receive" else publish)(client, job)
        sample.leave()


async def publish(client: trio_mqtt.Client, job: Job) -> Sample:
    """The work itself."""
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
    """The work itself."""
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


async def open_session(job: Job) -> trio_mqtt.Session:
    """A new one, where the job wants it."""
    match job.store:
        case "memory":
            return trio_mqtt.volatile_session("bench")
        case "sqlite":
            persistence: trio_mqtt.Persistence = trio_mqtt.SQLite(job.directory / "session.db")
        case "files":
            persistence = trio_mqtt.FileSystem(job.directory / "session")
        case _:
            raise ValueError(f"trio_mqtt has no store {job.store!r}")
    return await trio_mqtt.init_session("bench", persistence)


def versions() -> dict[str, str]:
    """Of what is measured."""
    return {
        "trio_mqtt": version("trio-mqtt"),
        "trio": version("trio"),
        "SQLite": sqlite3.sqlite_version,
    }


if __name__ == "__main__":
    trio.run(main, Job.from_command_line())
