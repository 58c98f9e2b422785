"""A broker that does what a test says, packet by packet, over memory streams."""

from __future__ import annotations

from typing import TypeVar

import trio

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode

from ._server311 import server_decoder

_P = TypeVar("_P")


class ScriptedLink:
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
        """The next packet.

        Raises:
            AssertionError: it is not of this kind, or the client closed the connection.
        """
        packet = await self.next()
        if not isinstance(packet, kind):
            raise AssertionError(f"{packet} came in the place of {kind.__name__}")
        return packet

    async def send(self, *packets: p.Packet) -> None:
        """Sends these, at once."""
        await self.send_bytes(b"".join(map(encode, packets)))

    async def send_bytes(self, data: bytes) -> None:
        """Sends these bytes, whatever they mean."""
        await self._stream.send_all(data)

    async def close(self) -> None:
        """Closes the connection."""
        await trio.aclose_forcefully(self._stream)


class ScriptedBroker:
    """Does nothing by itself, but for its `greeting`: the test reads, and answers.

    ::

        broker = ScriptedBroker()
        async with trio_mqtt.open_client(broker.dialer) as client, trio.open_nursery() as nursery:
            link = await broker.accepted()
            nursery.start_soon(client.subscribe, "a")
            request = await link.expect(packets.Subscribe)
            await link.send(packets.SubAck(request.packet_id, (0x80,)))

    For what a real broker would not do, or not when the test wants it to; `open_broker` is for all
    the rest.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[ScriptedLink](1000)
        self.dials = 0
        """How often a connection was asked for."""
        self.dialled_at: list[float] = []
        """When, in Trio's time."""
        self.unreachable = False
        """Whether dialling fails."""
        self.dial_seconds = 0.0
        """How long it takes."""
        self.greeting = encode(p.ConnAck(session_present=False, return_code=0))
        """What a client finds, once it has sent CONNECT."""

    async def dialer(self) -> trio.abc.Stream:
        """A new connection, for `trio_mqtt.open_client`."""
        from trio.testing import memory_stream_pair  # noqa: PLC0415  # imports pytest if it can

        self.dials += 1
        self.dialled_at.append(trio.current_time())
        await trio.sleep(self.dial_seconds)
        if self.unreachable:
            raise OSError("unreachable, says the test")
        ours, theirs = memory_stream_pair()
        await theirs.send_all(self.greeting)
        self._send.send_nowait(ScriptedLink(theirs))
        return ours

    async def next_link(self) -> ScriptedLink:
        """The broker's end of the next connection, CONNECT unread."""
        return await self._receive.receive()

    async def accepted(self) -> ScriptedLink:
        """The broker's end of the next connection, CONNECT read."""
        link = await self.next_link()
        await link.expect(p.Connect)
        return link
