"""trio_mqtt, with each of its persistences and with none."""

from __future__ import annotations

import sqlite3
from importlib.metadata import version
from typing import Literal

import trio

import trio_mqtt
from benchmarks.job import TOPIC, Job, Meter, Sample


async def main(job: Job) -> Sample:
    """Publishes, each task one message after the other."""
    qos: Literal[1, 2] = 1 if job.qos == 1 else 2
    payload = job.payload
    meter = Meter()

    async def publish() -> None:
        while True:
            await client.publish(TOPIC, payload, qos=qos)
            meter.messages += 1

    async with (
        trio_mqtt.open_client(
            f"mqtt://127.0.0.1:{job.port}",
            session=await open_session(job),
            at_least_once_window=job.tasks,
            exactly_once_window=job.tasks,
        ) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(job.tasks):
            nursery.start_soon(publish)
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
    trio.run(main, Job.from_command_line()).print()
