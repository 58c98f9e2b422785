"""What tests on connections share."""

from __future__ import annotations

from typing import Protocol

import trio
import trio.testing

import trio_mqtt
from trio_mqtt import _packets as p
from trio_mqtt.testing import ScriptedLink


async def subscribe(client: trio_mqtt.Client, link: ScriptedLink, topic_filter: str = "#") -> None:
    """Has the client subscribe, so that what comes is the application's and stays."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.subscribe, topic_filter)
        request = await link.expect(p.Subscribe)
        await link.send(p.SubAck(request.packet_id, (2,)))


class SlowStream(trio.abc.Stream):
    """The client's end of a connection on which each write takes a while; `link` is the other."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._stream, theirs = trio.testing.memory_stream_pair()
        self.link = ScriptedLink(theirs)
        self.written: list[int] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(self._seconds)
        await self._stream.send_all(data)
        self.written.append(len(data))

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Opener(Protocol):
    """Whoever opens streams, and counts those that are not closed."""

    open_streams: int


class Counted(trio.abc.Stream):
    """A stream that its opener counts, until it is closed."""

    def __init__(self, stream: trio.abc.Stream, opener: Opener) -> None:
        self._stream = stream
        self._opener: Opener | None = opener

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        if self._opener is not None:
            self._opener.open_streams -= 1
            self._opener = None
        await self._stream.aclose()
