"""Plays an exchange of packets with a broker, and records its answers so that brokers compare.

A `Stage` has connections by name. What is said on one of them is followed by a PINGREQ there, and
then by one on each of the others: when the PINGRESPs are there, so is all that the broker had to
say. What came in such a step is put in order: answers keep theirs among themselves, and so do the
messages of one topic and QoS [MQTT-4.6.0-6], but the ones may overtake the others. The packet
identifiers that a broker chose become `#1`, `#2` in the order in which that client met them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import attrs
import trio

from trio_mqtt import ProtocolViolation
from trio_mqtt import _packets as p
from trio_mqtt.testing._raw_client import RawClient

Dial: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]

_SHOWN = 30
"""Characters of a topic or a payload that the record shows whole."""


@attrs.define(eq=False)
class Peer:
    """One connection, and what came on it."""

    name: str
    client_id: str
    client: RawClient
    is_accepted: bool = False
    is_closed: bool = False
    arrived: list[p.Inbound | str] = attrs.field(init=False, factory=list[p.Inbound | str])
    """What came since the last step. What is not a packet is in words."""
    owed: list[p.Ack] = attrs.field(init=False, factory=list[p.Ack])
    """What the client has to answer, and did not."""

    async def send(self, *packets: p.Packet | bytes) -> None:
        with suppress(trio.BrokenResourceError):  # which the end of what arrives says, too
            await self.client.send(*packets)

    async def receive(self) -> p.Inbound | None:
        """The next packet. None when the broker closed the connection, or says what is no MQTT."""
        if self.is_closed:
            return None
        try:
            packet = await self.client.receive()
        except (trio.EndOfChannel, ProtocolViolation) as end:
            is_end = isinstance(end, trio.EndOfChannel)
            self.arrived.append("closed" if is_end else f"unreadable: {end}")
            self.is_closed = True
            return None
        self._note(packet)
        return packet

    def _note(self, packet: p.Inbound) -> None:
        match packet:
            case p.ConnAck(return_code=0):
                self.is_accepted = True
            case p.Delivery(message, packet_id):
                answer = p.PubAck if message.qos == 1 else p.PubRec
                self.owed.append(answer(packet_id))
            case p.PubRel(packet_id):
                self.owed.append(p.PubComp(packet_id))
            case _:
                pass

    async def catch_up(self, pings: int = 0) -> None:
        """Receives all that the broker has to say by now.

        Arguments:
            pings: how many PINGREQs were sent before, for which the record has a PINGRESP.
        """
        await self.send(p.PingReq())
        while (packet := await self.receive()) is not None:
            if packet != p.PingResp():
                self.arrived.append(packet)
            elif not pings:
                return
            else:
                pings -= 1
                self.arrived.append(packet)


class Stage:
    """The connections of one exchange, and the record of it."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._peers: dict[str, Peer] = {}
        self._streams: list[trio.abc.Stream] = []
        self._identifiers: dict[tuple[str, int], int] = {}
        self._named = 0
        self._step = 0
        self.client_ids: set[str] = set()
        self.record: list[str] = []

    # What an exchange consists of. Each is a step.

    async def connect(
        self,
        name: str,
        client_id: str | None = None,
        *,
        clean: bool = True,
        keep_alive: int = 0,
        will: p.Will | None = None,
        user: tuple[str | None, bytes | None] = (None, None),
    ) -> None:
        """A new connection, and CONNECT on it. Its name is the client's identifier, if no other."""
        client_id = name if client_id is None else client_id
        await self.dial(name, client_id)
        await self.say(name, p.Connect(client_id, clean, keep_alive, will, *user))

    async def dial(self, name: str, client_id: str | None = None) -> None:
        """A new connection, without CONNECT; it takes the place of an earlier one of the name."""
        client_id = name if client_id is None else client_id
        self.client_ids.add(client_id)
        stream = await self._dial()
        self._streams.append(stream)
        self._peers[name] = Peer(name, client_id, RawClient(stream))

    async def send(self, name: str, data: bytes) -> None:
        """Sends this, which is a part of something; nothing is received. A part of a step."""
        await self._peers[name].send(data)

    async def begin(self, name: str, *packets: p.Packet | bytes) -> None:
        """As `say`, but the step goes on: only what this connection is told is waited for."""
        peer = self._peers[name]
        await peer.send(*packets)
        await peer.catch_up(packets.count(p.PingReq()))

    async def say(self, name: str, *packets: p.Packet | bytes) -> None:
        """Sends this in one piece, and receives what all connections are told because of it."""
        await self.begin(name, *packets)
        await self._end_step(self._peers[name])

    async def subscribe(self, name: str, *requests: tuple[str, p.QoS]) -> None:
        await self.say(name, p.Subscribe(1, requests))

    async def publish(
        self, name: str, payload: str, topic: str = "t", *, qos: p.QoS = 0, retain: bool = False
    ) -> None:
        """Publishes, and goes through the whole of the exchange, as far as the broker does."""
        message = p.Message(topic, payload.encode(), qos, retain)
        if qos == 2:  # the message may be passed on because of the one or of the other
            await self.begin(name, p.Delivery(message, 1))
            await self.say(name, p.PubRel(1))
        else:
            await self.say(name, p.Delivery(message, 1) if qos else message)

    async def answer(self, name: str, count: int | None = None) -> None:
        """Has the client answer what it received, or only the first `count`, by the next step."""
        peer = self._peers[name]
        answers, peer.owed = peer.owed[:count], peer.owed[len(peer.owed[:count]) :]
        await self.say(name, *answers)

    def owed(self, name: str) -> list[int]:
        """The identifiers that the client has to answer."""
        return [answer.packet_id for answer in self._peers[name].owed]

    async def part(self, name: str, *behind: p.Packet | bytes) -> None:
        """DISCONNECT and this behind it, until the broker closes."""
        await self._peers[name].send(p.Disconnect(), *behind)
        await self.wait_closed(name)

    async def cut(self, name: str) -> None:
        """Ends the connection as if the network failed. The broker sees it some time later."""
        peer = self._peers.pop(name)
        await trio.aclose_forcefully(peer.client.stream)

    async def wait_closed(self, name: str) -> None:
        """Receives until the broker closes."""
        peer = self._peers[name]
        while (packet := await peer.receive()) is not None:
            peer.arrived.append(packet)
        await self._end_step(peer)

    async def wait_for(self, name: str, payload: str) -> None:
        """Receives until a message with this payload is there."""
        peer = self._peers[name]
        while (packet := await peer.receive()) is not None:
            peer.arrived.append(packet)
            if (
                isinstance(packet, (p.Message, p.Delivery))
                and p.message_of(packet).payload == payload.encode()
            ):
                break
        await self._end_step(peer)

    async def aclose(self) -> None:
        """Ends all connections."""
        for stream in self._streams:
            await trio.aclose_forcefully(stream)

    # The record

    async def _end_step(self, first: Peer) -> None:
        self._step += 1
        for peer in self._peers.values():
            if peer is not first and peer.is_accepted and not peer.is_closed:
                await peer.catch_up()
        for peer in sorted(self._peers.values(), key=lambda peer: peer.name):
            arrived, peer.arrived = sorted(peer.arrived, key=_flow), []
            lines = (self._line(peer.client_id, packet) for packet in arrived)
            self.record += (f"{self._step} {peer.name}: {line}" for line in lines)

    def _line(self, client_id: str, packet: p.Inbound | str) -> str:
        match packet:
            case str():
                line = packet
            case p.ConnAck(session_present, return_code):
                line = f"CONNACK {return_code}{' session present' if session_present else ''}"
            case p.Message():
                line = f"PUBLISH {_told(packet)}"
            case p.Delivery(message, packet_id):
                line = f"PUBLISH {self._identifier(client_id, packet_id, message)} {_told(message)}"
            case p.PubRel(packet_id):
                line = f"PUBREL {self._identifier(client_id, packet_id)}"
            case p.SubAck(packet_id, return_codes):
                line = f"SUBACK {packet_id} {' '.join(map(str, return_codes))}"
            case p.PingResp():
                line = "PINGRESP"
            case _:
                line = f"{type(packet).__name__.upper()} {packet.packet_id}"
        return line

    def _identifier(self, client_id: str, packet_id: int, message: p.Message | None = None) -> str:
        """What the broker's identifier is called. That of a new message has a new name."""
        place = client_id, packet_id
        if message is not None and not message.dup:
            self._named += 1
            self._identifiers[place] = self._named
        return f"#{self._identifiers.get(place, 'unknown')}"


def _flow(packet: p.Inbound | str) -> tuple[int, str, int]:
    """What keeps its order among itself."""
    match packet:
        case p.Message() | p.Delivery():
            message = p.message_of(packet)
            # What is resent keeps its order whatever its QoS [MQTT-4.6.0-1].
            return (1, "", 0) if message.dup else (2, message.topic, message.qos)
        case p.PubRel():
            return 3, "", 0
        case str():
            return 4, "", 0
        case _:
            return 0, "", 0


def _told(message: p.Message) -> str:
    payload = _short(message.payload.decode(errors="backslashreplace")) or "''"
    flags = f"{' retain' if message.retain else ''}{' dup' if message.dup else ''}"
    return f"{_short(message.topic)} {payload} qos={message.qos}{flags}"


def _short(text: str) -> str:
    text = text if text.isprintable() else text.encode("unicode_escape").decode()
    return text if len(text) <= _SHOWN else f"{text[:10]}…({len(text)})"
