"""A connection that costs next to nothing, and the count of what the package does on it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import trio

import trio_mqtt
from benchmarks import packets, peer
from trio_mqtt import QoS

PACKAGE = str(Path(trio_mqtt.__file__).parent)


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
        for number in range(count):
            topic = topics[number % len(topics)].encode()
            template = packets.publish_template(qos, topic, payload_size)
            packet = bytearray(template)
            if qos:
                self._delivered += 1
                at = packets.identifier_offset(template)
                packet[at : at + 2] = self._delivered.to_bytes(2, "big")
            self._inbound += packet
        self._arrived.unpark_all()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
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
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._inbound or self._ended):
            await self._arrived.park()
        data = bytes(self._inbound[:max_bytes])
        del self._inbound[: len(data)]
        return data

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Operations:
    """Counts the calls into the package, and those that it makes, while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        caller = frame if event == "c_call" else frame.f_back
        ours = caller is not None and caller.f_code.co_filename.startswith(PACKAGE)
        if event in ("call", "c_call"):
            self.count += ours or frame.f_code.co_filename.startswith(PACKAGE)
