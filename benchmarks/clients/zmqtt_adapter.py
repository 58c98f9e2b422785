"""zmqtt, as its documentation shows it."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

from zmqtt import MQTTClientV311, QoS, create_client

from benchmarks.job import TOPIC, Job

from .asynchronous import Adapter


class Zmqtt(Adapter[MQTTClientV311]):
    """A context manager, and one for each subscription."""

    versions = {"zmqtt": version("zmqtt")}  # noqa: RUF012
    yields = False

    def open(self, job: Job, name: str = "bench") -> AbstractAsyncContextManager[MQTTClientV311]:
        """It has no window that could be chosen."""
        client: AbstractAsyncContextManager[MQTTClientV311] = create_client(
            "127.0.0.1", port=job.port, client_id=name
        )
        return client

    async def send(self, client: MQTTClientV311, payload: bytes, qos: int) -> None:
        """Which waits for PUBACK or PUBCOMP by itself."""
        await client.publish(TOPIC, payload, qos=QoS(qos))

    async def subscribe(self, client: MQTTClientV311, topic: str, qos: int) -> AsyncIterable[Any]:
        """Not ended, as unsubscribing takes long in the middle of a load."""
        messages: Any = client.subscribe(topic, qos=QoS(qos))
        await messages.start()
        return messages  # type: ignore[no-any-return]  # where types are checked it has none


if __name__ == "__main__":
    Zmqtt().run(Job.from_command_line())
