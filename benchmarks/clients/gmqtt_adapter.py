"""gmqtt, as its README shows it. A message that is published cannot be awaited there."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
from importlib.metadata import version

from gmqtt import Client
from gmqtt.mqtt.constants import MQTTv311

from benchmarks.job import TOPIC, Job, Meter, Sample

from .asynchronous import receiving

VERSIONS = {"gmqtt": version("gmqtt")}


async def main(job: Job) -> None:
    """Publishes, or receives."""
    client = Client("bench")
    await client.connect("127.0.0.1", job.port, version=MQTTv311)
    sample = await (receive if job.work == "receive" else publish)(client, job)
    sample.leave()


async def publish(client: Client, job: Job) -> Sample:
    """Bursts, as many as there are tasks; at QoS 0 of a hundred.

    Where the number of tasks bounds them at QoS 0 too, the last of a burst is at QoS 1: only that
    tells when they have left.
    """
    payload, meter = job.payload, Meter()
    bounded = job.qos or job.tasks > 1
    last = job.qos or (1 if bounded else 0)
    levels = [job.qos] * ((job.tasks if bounded else 100) - 1) + [last]

    async def run(seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            for qos in levels:
                client.publish(TOPIC, payload, qos=qos)
                meter.messages += 1
            await asyncio.sleep(0)
            if bounded:
                await client._persistent_storage.wait_empty()  # noqa: SLF001, there is no other way

    await run(job.warm_up)
    meter.start()
    await run(job.seconds)
    client.publish(TOPIC, payload, qos=1)
    await client._persistent_storage.wait_empty()  # noqa: SLF001
    return meter.stop(VERSIONS)


async def receive(client: Client, job: Job) -> Sample:
    """The work itself."""
    meter = Meter()

    def on_message(*_: object) -> int:
        meter.messages += 1
        return 0

    client.on_message = on_message
    client.subscribe(job.topic_filter, qos=job.qos)
    return await receiving(job, meter, VERSIONS)


if __name__ == "__main__":
    asyncio.run(main(Job.from_command_line()))
