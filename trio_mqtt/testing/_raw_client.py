"""A client without any protocol of its own, which tests move packet by packet."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import client_decoder, encode


class RawClient:
    """Sends what it is told to, and receives what comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._decoder = client_decoder()
        self._received: deque[p.Inbound] = deque()

    @classmethod
    async def connect(
        cls,
        dialer: Callable[[], Awaitable[trio.abc.Stream]],
        client_id: str = "raw",
        *,
        clean_session: bool = True,
        keep_alive: int = 0,
        will: p.Will | None = None,
        session_present: bool = False,
    ) -> RawClient:
        """A client that is connected, and was told `session_present`."""
        client = cls(await dialer())
        await client.send(p.Connect(client_id, clean_session, keep_alive, will))
        answer = await client.receive()
        assert answer == p.ConnAck(session_present, 0), answer
        return client

    async def send(self, *packets: p.Packet | bytes) -> None:
        """Sends packets, or bytes as they are, in one piece."""
        pieces = [piece if isinstance(piece, bytes) else encode(piece) for piece in packets]
        await self.stream.send_all(b"".join(pieces))

    async def receive(self) -> p.Inbound:
        """The next packet.

        Raises:
            trio.EndOfChannel: the broker closed the connection.
        """
        await trio.lowlevel.checkpoint()
        while not self._received:
            data: bytes = b""
            with suppress(trio.BrokenResourceError):
                data = bytes(await self.stream.receive_some())
            if not data:
                raise trio.EndOfChannel
            self._received.extend(self._decoder.feed(data))
        return self._received.popleft()

    async def receive_delivery(self) -> tuple[int, p.Message]:
        """The next packet, which is a PUBLISH: its identifier, 0 at QoS 0, and its message."""
        packet = await self.receive()
        if isinstance(packet, p.Message):
            return 0, packet
        assert isinstance(packet, p.Delivery), packet
        return packet.packet_id, packet.message

    async def wait_closed(self) -> list[p.Inbound]:
        """What still comes until the broker closes the connection."""
        packets: list[p.Inbound] = []
        await trio.lowlevel.checkpoint()
        with suppress(trio.EndOfChannel):
            while True:
                packets.append(await self.receive())
        return packets

    async def settle(self, seconds: float = 0.01) -> list[p.Inbound]:
        """What comes until nothing has come for so long."""
        packets: list[p.Inbound] = []
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(seconds) as scope:
            while True:
                packets.append(await self.receive())
                scope.deadline = trio.current_time() + seconds
        return packets
