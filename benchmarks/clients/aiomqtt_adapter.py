"""aiomqtt, as its documentation shows it."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterable
from importlib.metadata import version
from typing import Any

from aiomqtt import Client

from benchmarks.job import TOPIC, Job

from .asynchronous import Adapter

NO_DELAY = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
"""Without which PUBACK and the next PUBLISH take 40 ms."""


class Aiomqtt(Adapter[Client]):
    """A context manager, and an iterator of messages."""

    versions = {"aiomqtt": version("aiomqtt")}  # noqa: RUF012

    def open(self, job: Job, name: str = "bench") -> Client:
        """With a window as wide as the job's."""
        window = {"max_inflight_messages": job.tasks} if job.tasks else {}
        options: Any = {"socket_options": NO_DELAY} if job.work == "latency" else {}
        return Client("127.0.0.1", job.port, identifier=name, **window, **options)

    async def send(self, client: Client, payload: bytes, qos: int) -> None:
        """Which waits for PUBACK or PUBCOMP by itself."""
        await client.publish(TOPIC, payload, qos=qos)
        await asyncio.sleep(0)  # its own turn, which QoS 0 gives it not

    async def subscribe(self, client: Client, topic: str, qos: int) -> AsyncIterable[Any]:
        """All messages come to one iterator."""
        await client.subscribe(topic, qos=qos)
        messages: AsyncIterable[Any] = client.messages
        return messages


if __name__ == "__main__":
    Aiomqtt().run(Job.from_command_line())
