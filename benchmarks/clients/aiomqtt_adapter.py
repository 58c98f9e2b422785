"""aiomqtt, as its documentation shows it."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
from importlib.metadata import version

from aiomqtt import Client

from benchmarks.job import TOPIC, Job, Meter, Sample

from .asynchronous import publishing, receiving

VERSIONS = {"aiomqtt": version("aiomqtt")}


async def main(job: Job) -> None:
    """Publishes, each task one message after the other; or receives."""
    window = {"max_inflight_messages": job.tasks} if job.tasks else {}
    async with Client("127.0.0.1", job.port, identifier="bench", **window) as client:
        sample = await (receive if job.work == "receive" else publish)(client, job)
        sample.leave()


async def publish(client: Client, job: Job) -> Sample:
    """The work itself."""
    payload = job.payload

    async def one(qos: int) -> None:
        await client.publish(TOPIC, payload, qos=qos)
        await asyncio.sleep(0)  # its own turn, which QoS 0 gives it not

    return await publishing(job, one, VERSIONS)


async def receive(client: Client, job: Job) -> Sample:
    """The work itself."""
    meter = Meter()

    async def count() -> None:
        async for _ in client.messages:
            meter.messages += 1

    task = asyncio.create_task(count())
    await client.subscribe(job.topic_filter, qos=job.qos)
    sample = await receiving(job, meter, VERSIONS)
    task.cancel()
    return sample


if __name__ == "__main__":
    asyncio.run(main(Job.from_command_line()))
