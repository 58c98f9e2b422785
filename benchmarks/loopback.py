"""A connection that costs next to nothing, in memory, to a broker that answers at once."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from trio_mqtt import QoS

from . import packets, peer


class Loopback(trio.abc.Stream):
    """A connection to a broker that answers at once, and does nothing else.

    Arguments:
        keeps: how many of its latest answers to PUBLISH at QoS 1 and to PUBREL it keeps back.
    """

    def __init__(self, *, keeps: int = 0) -> None:
        self._keeps = keeps
        self._kept = b""
        self._inbound = bytearray()
        self._delivered = 0
        self._ended = False
        self._arrived = trio.lowlevel.ParkingLot()

    def deliver(
        self, count: int, qos: QoS, topics: Sequence[str] = ("topic",), payload_size: int = 64
    ) -> None:
        """As many messages, on these topics in turn, all of them at once."""
        templates = [packets.publish_template(qos, it.encode(), payload_size) for it in topics]
        for number in range(count):
            template = templates[number % len(templates)]
            if qos:
                self._delivered += 1
                template = packets.publish_run(template, self._delivered.to_bytes(2, "big"))
            self._inbound += template
        self._arrived.unpark_all()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Takes it, and has the answers ready."""
        await trio.lowlevel.checkpoint()
        for run in packets.split(bytes(data)):
            self._inbound += self._answer(run)
            self._ended |= run.data == packets.DISCONNECT
        self._arrived.unpark_all()

    def _answer(self, run: packets.Run) -> bytes:
        match run.first_byte:
            case packets.SUBSCRIBE:
                requests = packets.requests(run.data)
                return packets.suback(run.data, bytes(qos for _, qos in requests))
            case packets.PUBACK | packets.PUBCOMP:
                return b""
            case packets.PUBLISH_1 | packets.PUBREL:
                kept = self._kept + peer.answer(run)
                due = max(0, len(kept) - self._keeps * packets.ANSWER_SIZE)
                self._kept = kept[due:]
                return kept[:due]
            case _:
                return b"" if run.data == packets.DISCONNECT else peer.answer(run)

    def cut(self) -> None:
        """Ends it, as a broker does that closes the connection."""
        self._ended = True
        self._arrived.unpark_all()

    async def wait_send_all_might_not_block(self) -> None:
        """Never has to."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What is there, or will be next."""
        await trio.lowlevel.checkpoint()
        while not (self._inbound or self._ended):
            await self._arrived.park()
        data = bytes(self._inbound[:max_bytes])
        del self._inbound[: len(data)]
        return data

    async def aclose(self) -> None:
        """Has nothing to close."""
        await trio.lowlevel.checkpoint()
