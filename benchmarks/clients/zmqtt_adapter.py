"""zmqtt, as its documentation shows it."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
from importlib.metadata import version

from zmqtt import MQTTClientV311, QoS, create_client

from benchmarks.job import TOPIC, Job, Meter, Sample

from .asynchronous import publishing, receiving

VERSIONS = {"zmqtt": version("zmqtt")}


async def main(job: Job) -> None:
    """Publishes, each task one message after the other; or receives."""
    async with create_client("127.0.0.1", port=job.port, client_id="bench") as client:
        sample = await (receive if job.work == "receive" else publish)(client, job)
        sample.leave()


async def publish(client: MQTTClientV311, job: Job) -> Sample:
    """The work itself."""
    payload = job.payload

    async def one(qos: int) -> None:
        await client.publish(TOPIC, payload, qos=QoS(qos))

    return await publishing(job, one, VERSIONS, yields=False)


async def receive(client: MQTTClientV311, job: Job) -> Sample:
    """The work itself."""
    meter = Meter()
    async with client.subscribe(job.topic_filter, qos=QoS(job.qos)) as messages:

        async def count() -> None:
            async for _ in messages:
                meter.messages += 1

        task = asyncio.create_task(count())
        sample = await receiving(job, meter, VERSIONS)
        task.cancel()
        sample.leave()  # here, as unsubscribing takes long


if __name__ == "__main__":
    asyncio.run(main(Job.from_command_line()))
