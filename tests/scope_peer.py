"""What the tests of subscription scopes share: a broker that answers and keeps a log."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

import trio
import trio.testing

from trio_mqtt import Client, MessageChannel, open_client
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.testing import ScriptedBroker, ScriptedLink
from trio_mqtt.testing._nursery import open_background_nursery

_P = TypeVar("_P")

PRESENT, ABSENT = encode(p.ConnAck(True, 0)), encode(p.ConnAck(False, 0))


class Peer:
    """Accepts connections, answers SUBSCRIBE, UNSUBSCRIBE, PUBLISH and PINGREQ, and logs."""

    def __init__(self, scripted: ScriptedBroker) -> None:
        self.scripted = scripted
        self.log: list[p.Served] = []
        self.silent: tuple[type[p.Served], ...] = ()
        """What is not answered."""
        self.failing: tuple[str, ...] = ()
        """Topic filters that are answered with 0x80."""
        self.ahead: list[p.Packet] = []
        """What is sent in front of the next SUBACK or UNSUBACK, in one write."""
        self._link: ScriptedLink | None = None

    async def run(self) -> None:
        while True:
            self._link = await self.scripted.accepted()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._serve(self._link)

    async def _serve(self, link: ScriptedLink) -> None:
        while (packet := await link.next()) is not None:
            self.log.append(packet)
            if not isinstance(packet, self.silent):
                await self._answer(link, packet)

    async def _answer(self, link: ScriptedLink, packet: p.Served) -> None:
        ahead, answers = self.ahead, list[p.Packet]()
        match packet:
            case p.Subscribe(packet_id, requests):
                codes = [p.FAILED if name in self.failing else qos for name, qos in requests]
                answers, self.ahead = [*ahead, p.SubAck(packet_id, tuple(codes))], []
            case p.Unsubscribe(packet_id):
                answers, self.ahead = [*ahead, p.UnsubAck(packet_id)], []
            case p.Delivery(p.Message(qos=1), packet_id):
                answers = [p.PubAck(packet_id)]
            case p.Delivery(_, packet_id):
                answers = [p.PubRec(packet_id)]
            case p.PubRel(packet_id):
                answers = [p.PubComp(packet_id)]
            case p.PingReq():
                answers = [p.PingResp()]
            case _:
                return
        await link.send(*answers)

    async def send(self, *packets: p.Packet) -> None:
        """Sends these in one write, and waits until nothing more happens."""
        assert self._link is not None
        await self._link.send(*packets)
        await trio.testing.wait_all_tasks_blocked()

    async def send_bytes(self, data: bytes) -> None:
        """Sends these, and waits until nothing more happens."""
        assert self._link is not None
        await self._link.send_bytes(data)
        await trio.testing.wait_all_tasks_blocked()

    async def cut(self, greeting: bytes) -> None:
        """Ends the connection. On the next one the client finds `greeting`."""
        assert self._link is not None
        self.scripted.greeting = greeting
        await self._link.close()
        await trio.testing.wait_all_tasks_blocked()

    async def taken(self, kind: type[_P]) -> list[_P]:
        """What came of this kind since the last call."""
        await trio.testing.wait_all_tasks_blocked()
        found: list[_P] = [packet for packet in self.log if isinstance(packet, kind)]
        self.log = [packet for packet in self.log if not isinstance(packet, kind)]
        return found

    async def acks(self) -> list[int]:
        """The identifiers of the PUBACKs since the last call."""
        return [answer.packet_id for answer in await self.taken(p.PubAck)]

    async def filters(self) -> list[tuple[str, ...]]:
        """The topic filters of each SUBSCRIBE, and with a minus of each UNSUBSCRIBE."""
        await trio.testing.wait_all_tasks_blocked()
        found: list[tuple[str, ...]] = []
        for packet in self.log:
            match packet:
                case p.Subscribe(_, requests):
                    found.append(tuple(name for name, _ in requests))
                case p.Unsubscribe(_, names):
                    found.append(tuple("-" + name for name in names))
                case _:
                    pass
        self.log = [x for x in self.log if not isinstance(x, (p.Subscribe, p.Unsubscribe))]
        return found


@asynccontextmanager
async def peered(
    scripted: ScriptedBroker,
    greeting: bytes = ABSENT,
    **settings: Any,  # as `open_client` takes them
) -> AsyncGenerator[tuple[Client, Peer]]:
    """A client that is online, and its peer."""
    scripted.greeting = greeting
    settings.setdefault("reconnect_wait_max", 1)
    peer = Peer(scripted)
    async with open_background_nursery() as nursery:
        nursery.start_soon(peer.run)
        async with open_client(scripted.dialer, **settings) as client:
            await trio.testing.wait_all_tasks_blocked()
            yield client, peer


def at_once(number: int, payload: str = "", topic: str = "t") -> p.Delivery:
    """PUBLISH at QoS 1."""
    return p.Delivery(p.Message(topic, (payload or str(number)).encode(), 1), number)


def lossy(payload: object, topic: str = "t") -> p.Message:
    """PUBLISH at QoS 0."""
    return p.Message(topic, str(payload).encode())


def drain(channel: MessageChannel) -> list[str]:
    """What waits in it."""
    got: list[str] = []
    while True:
        try:
            got.append(channel.receive_nowait().payload.decode())
        except trio.WouldBlock:
            return got


class Failed(Exception):
    """What a consumer fails with."""


@contextmanager
def not_hanging(seconds: float = 5) -> Generator[None]:
    """Ends a loop without a checkpoint, which no clock of Trio's can."""

    def fail(_: int, __: FrameType | None) -> None:
        raise AssertionError("hangs without a checkpoint")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
