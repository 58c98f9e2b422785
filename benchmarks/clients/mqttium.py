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


async def main(job: Job) -> Sample:
    """Publishes, each task one message after the other."""
    store = open_store(job)
    client = AsyncClient("bench", clean_start=False, max_outbound_inflight=job.tasks, store=store)
    await client.connect("127.0.0.1", job.port)
    try:
        return await measure(client, job)
    finally:
        await client.disconnect()
        if isinstance(store, SqliteInflightStore):
            store.close()


async def measure(client: AsyncClient, job: Job) -> Sample:
    """The work itself."""
    payload = job.payload
    meter = Meter()

    async def publish() -> None:
        while True:
            receipt = await client.publish(TOPIC, payload, qos=job.qos)
            await receipt.wait()
            meter.messages += 1

    tasks = [asyncio.create_task(publish()) for _ in range(job.tasks)]
    await asyncio.sleep(job.warm_up)
    meter.start()
    await asyncio.sleep(job.seconds)
    sample = meter.stop({"mqttium": version("mqttium")})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
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
    asyncio.run(main(Job.from_command_line())).print()
