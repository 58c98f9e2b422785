"""A broker that does what a test says, packet by packet, over memory streams."""

from __future__ import annotations

from typing import TypeVar

import trio
import trio.testing

import trio_mqtt
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.testing._server311 import server_decoder

_P = TypeVar("_P")


class Link:
    """The broker's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._decoder = server_decoder()
        self._packets: list[p.Served] = []

    async def next(self) -> p.Served | None:
        """The next packet of the client; None when it closed the connection."""
        while not self._packets:
            try:
                data = await self._stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._packets += self._decoder.feed(bytes(data))
        return self._packets.pop(0)

    async def expect(self, kind: type[_P]) -> _P:
        """The next packet, which has to be of this kind."""
        packet = await self.next()
        assert isinstance(packet, kind), packet
        return packet

    async def send(self, *packets: p.Packet) -> None:
        await self.send_bytes(b"".join(map(encode, packets)))

    async def send_bytes(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)


class ScriptedBroker:
    """Its `dialer` is for `open_client`; `next_link` is the broker's end of what that dialled."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Link](1000)
        self.dials = 0
        self.dialled_at: list[float] = []
        self.unreachable = False
        self.dial_seconds = 0.0
        self.greeting = encode(p.ConnAck(False, 0))
        """What a client finds, once it has sent CONNECT."""

    async def dialer(self) -> trio.abc.Stream:
        self.dials += 1
        self.dialled_at.append(trio.current_time())
        await trio.sleep(self.dial_seconds)
        if self.unreachable:
            raise OSError("unreachable, says the test")
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(self.greeting)
        self._send.send_nowait(Link(theirs))
        return ours

    async def next_link(self) -> Link:
        """The broker's end of the next connection, CONNECT unread."""
        return await self._receive.receive()

    async def accepted(self) -> Link:
        """The broker's end of the next connection, CONNECT read."""
        link = await self.next_link()
        await link.expect(p.Connect)
        return link


async def subscribe(client: trio_mqtt.Client, link: Link, topic_filter: str = "#") -> None:
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
        self.link = Link(theirs)
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
