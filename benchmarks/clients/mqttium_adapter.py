"""mqttium, with its store in memory and with the one in SQLite, as its documentation shows it.

Its `publish` returns a receipt once the message is admitted, which for the SQLite store is when its
transaction has ended; `receipt.wait` returns on PUBACK or PUBCOMP.
"""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from mqttium.api import AsyncClient
from mqttium.persistence import MemoryInflightStore, SqliteInflightStore

from benchmarks.job import TOPIC, Job
from benchmarks.works import MIB

from .asynchronous import Adapter

BOUND = 64 * MIB
"""Of the bytes that wait to be iterated over, by default."""


class Mqttium(Adapter[AsyncClient]):
    """A client, and an iterator of messages."""

    versions = {"mqttium": version("mqttium")}  # noqa: RUF012
    yields = False

    @asynccontextmanager
    async def open(self, job: Job, name: str = "bench") -> AsyncGenerator[AsyncClient, None]:
        """With a window as wide as the job's."""
        async with AsyncClient(
            name,
            clean_start=False,
            max_outbound_inflight=job.tasks or None,
            store=open_store(job),
            **({"max_iterator_bytes": None} if job.payload_size >= BOUND else {}),
        ) as client:
            await client.connect("127.0.0.1", job.port)
            yield client

    async def send(self, client: AsyncClient, payload: bytes, qos: int) -> None:
        """And waits for the receipt, which QoS 0 has none of."""
        receipt = await client.publish(TOPIC, payload, qos=qos)
        if qos:
            await receipt.wait()

    async def subscribe(self, client: AsyncClient, topic: str, qos: int) -> AsyncIterable[Any]:
        """All messages come to one iterator."""
        await client.subscribe(topic, qos=qos)
        messages: AsyncIterable[Any] = client.messages()
        return messages


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
    Mqttium().run(Job.from_command_line())
