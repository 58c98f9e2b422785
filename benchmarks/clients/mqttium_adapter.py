"""mqttium, with its store in memory and with the one in SQLite, as its documentation shows it.

Its `publish` returns a receipt once the message is admitted, which for the SQLite store is when its
transaction has ended; `receipt.wait` returns on PUBACK or PUBCOMP.
"""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
from importlib.metadata import version

from mqttium.api import AsyncClient
from mqttium.persistence import MemoryInflightStore, SqliteInflightStore

from benchmarks.job import TOPIC, Job, Meter, Sample

from .asynchronous import publishing, receiving

VERSIONS = {"mqttium": version("mqttium")}


async def main(job: Job) -> None:
    """Publishes, each task one message after the other; or receives."""
    store = open_store(job)
    client = AsyncClient(
        "bench", clean_start=False, max_outbound_inflight=job.tasks or None, store=store
    )
    await client.connect("127.0.0.1", job.port)
    sample = await (receive if job.work == "receive" else publish)(client, job)
    sample.leave()


async def publish(client: AsyncClient, job: Job) -> Sample:
    """The work itself."""
    payload = job.payload

    async def one(qos: int) -> None:
        receipt = await client.publish(TOPIC, payload, qos=qos)
        if qos:
            await receipt.wait()

    return await publishing(job, one, VERSIONS, yields=False)


async def receive(client: AsyncClient, job: Job) -> Sample:
    """The work itself."""
    meter = Meter()

    async def count() -> None:
        async for _ in client.messages():
            meter.messages += 1

    task = asyncio.create_task(count())
    await client.subscribe(job.topic_filter, qos=job.qos)
    sample = await receiving(job, meter, VERSIONS)
    task.cancel()
    return sample


def open_store(job: Job) -> MemoryInflightStore | SqliteInflightStore:
    """A new one, where the job wants it."""
    match job.store:
        case "memory":
            return MemoryInflightStore()
        case "sqlite":
            return SqliteInflightStore(job.directory / "session.db")
        case _:
            raise ValueError(f"mqttium has no store {job.store!r}")


if __name__ == "__main__":
    asyncio.run(main(Job.from_command_line()))
