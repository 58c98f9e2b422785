"""What the adapters on asyncio share: tasks that publish, and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.job import Job, Meter, Sample

TURN = 100
"""Messages at QoS 0 after which the others get their turn, where the client does not see to it."""


async def publishing(
    job: Job,
    publish: Callable[[int], Awaitable[object]],
    versions: dict[str, str],
    *,
    yields: bool = True,
) -> Sample:
    """Tasks that publish by `publish`, which gets the QoS, one message after the other.

    `yields` is whether `publish` gives the client its turn at QoS 0.
    """
    meter = Meter()

    async def run() -> None:
        while True:
            await publish(job.qos)
            meter.messages += 1
            if not yields and meter.messages % TURN == 0:
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(run()) for _ in range(job.tasks)]
    await asyncio.sleep(job.warm_up)
    meter.start()
    await asyncio.sleep(job.seconds)
    for task in tasks:
        task.cancel()
    if not job.qos:
        await publish(1)
    sample = meter.stop(versions)
    await asyncio.gather(*tasks, return_exceptions=True)
    return sample


async def receiving(job: Job, meter: Meter, versions: dict[str, str]) -> Sample:
    """While messages arrive that something else counts."""
    await asyncio.sleep(job.warm_up)
    meter.start()
    await asyncio.sleep(job.seconds)
    return meter.stop(versions)
