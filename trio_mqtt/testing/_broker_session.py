"""One client's session as the broker stores it (section 4.1)."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import attrs

from trio_mqtt import _packets as p
from trio_mqtt._errors import ProtocolViolation
from trio_mqtt._topics import matches

_MAX_PACKET_ID = 65_535


@attrs.frozen
class Raw:
    """What a test injects: no session knows of it, and no hook sees it."""

    packet: p.Packet | bytes


Outgoing: TypeAlias = p.Packet | Raw
"""What a network connection has to write."""

Pending: TypeAlias = p.Delivery | p.PubRel
"""What the client has to answer; of an exchange at QoS 2 first the one, then the other."""


@attrs.define(eq=False)
class Session:
    """Subscriptions, and the messages on their way to and from one client.

    What it has to say goes to the `outbound` queue of the connection that it is attached to.
    """

    client_id: str
    clean: bool
    """Whether it ends with its network connection [MQTT-3.1.2-6]."""
    max_in_flight: int
    subscriptions: dict[str, p.QoS] = attrs.field(init=False, factory=dict[str, p.QoS])
    in_flight: dict[int, Pending] = attrs.field(init=False, factory=dict[int, Pending])
    """What was sent and is unacknowledged, in the order in which it is sent again."""
    queue: deque[p.Message] = attrs.field(init=False, factory=deque[p.Message])
    """What waits for the client to come back, or to acknowledge."""
    unreleased: dict[int, p.Message] = attrs.field(init=False, factory=dict[int, p.Message])
    """The client's messages at QoS 2, from PUBLISH to PUBREL."""
    _outbound: deque[Outgoing] | None = attrs.field(init=False, default=None)
    _latest_packet_id: int = attrs.field(init=False, default=0)

    @property
    def connected(self) -> bool:
        """Whether a network connection serves it."""
        return self._outbound is not None

    def attach(self, outbound: deque[Outgoing]) -> None:
        """Sends what is unacknowledged again, then what has been waiting, and goes on."""
        self._outbound = outbound
        for pending in self.in_flight.values():  # [MQTT-4.4.0-1]
            if isinstance(pending, p.Delivery):
                message = attrs.evolve(pending.message, dup=True)  # [MQTT-3.3.1-1]
                outbound.append(p.Delivery(message, pending.packet_id))
            else:
                outbound.append(pending)
        self._send_queued()

    def detach(self) -> None:
        """The connection ended. What it never got to write was never sent, so waits anew."""
        assert self._outbound is not None
        unsent = [
            outgoing
            for outgoing in self._outbound
            if isinstance(outgoing, p.Delivery)
            and self.in_flight.get(outgoing.packet_id) is outgoing
        ]
        for delivery in reversed(unsent):
            self._outbound.remove(delivery)
            del self.in_flight[delivery.packet_id]
            self.queue.appendleft(delivery.message)
        self._outbound = None

    def granted(self, topic: str) -> p.QoS | None:
        """The highest QoS granted to a subscription that covers `topic` [MQTT-3.3.5-1]."""
        highest: p.QoS | None = None
        for topic_filter, qos in self.subscriptions.items():
            if (highest is None or qos > highest) and matches(topic_filter, topic):
                highest = qos
        return highest

    def deliver(self, message: p.Message) -> None:
        """Sends `message`, now or when there is room; at QoS 0 only to who is there."""
        if message.qos:
            self.queue.append(message)  # [MQTT-3.1.2-5] [MQTT-4.5.0-1]
            self._send_queued()
        elif self._outbound is not None:
            self._outbound.append(message)

    def _send_queued(self) -> None:
        while self._outbound is not None and self.queue:
            if len(self.in_flight) >= self.max_in_flight:
                return
            delivery = p.Delivery(self.queue.popleft(), self._unused_packet_id())
            self.in_flight[delivery.packet_id] = delivery
            self._outbound.append(delivery)

    def _unused_packet_id(self) -> int:  # [MQTT-2.3.1-4]
        while True:
            self._latest_packet_id = self._latest_packet_id % _MAX_PACKET_ID + 1
            if self._latest_packet_id not in self.in_flight:
                return self._latest_packet_id

    def acknowledged(self, answer: p.PubAck | p.PubRec | p.PubComp) -> None:
        """The client answered a message. What answers nothing is late, or was never asked for.

        Raises:
            ProtocolViolation: the exchange is at another step.
        """
        pending = self.in_flight.get(answer.packet_id)
        if pending is not None:
            if not isinstance(answer, _ANSWERS[_step(pending)]):  # [MQTT-3.3.4-1] [MQTT-4.3.3-1]
                name = type(answer).__name__.upper()
                raise ProtocolViolation(f"{name} {answer.packet_id} answers {_step(pending)}")
            del self.in_flight[answer.packet_id]
        if isinstance(answer, p.PubRec):
            self._release(answer.packet_id, is_owed=pending is not None)
        self._send_queued()

    def _release(self, packet_id: int, *, is_owed: bool) -> None:
        """Sends PUBREL, as to every PUBREC [MQTT-4.3.3-1]: without it, a client that still knows of
        an exchange which has ended here could never end it."""
        release = p.PubRel(packet_id)
        if is_owed:
            # Behind the others, as PUBRELs keep the order of the PUBRECs [MQTT-4.6.0-4].
            self.in_flight[packet_id] = release
        assert self._outbound is not None
        self._outbound.append(release)

    def accept(self, delivery: p.Delivery, limit: int) -> bool:
        """Whether a PUBLISH at QoS 2 is new, and not one that came before [MQTT-4.3.3-2].

        Raises:
            ProtocolViolation: its identifier belongs to another message, or it is one too many.
        """
        message, packet_id = delivery.message, delivery.packet_id
        earlier = self.unreleased.get(packet_id)
        if earlier is None:
            if len(self.unreleased) >= limit:
                raise ProtocolViolation(f"PUBLISH {packet_id}, with {limit} others unreleased")
            self.unreleased[packet_id] = message
            return True
        if not message.dup:  # [MQTT-2.3.1-2] [MQTT-3.3.1-1]
            raise ProtocolViolation(f"PUBLISH {packet_id} without DUP, before its PUBREL")
        if attrs.evolve(message, dup=earlier.dup) != earlier:  # [MQTT-2.3.1-3]
            raise ProtocolViolation(f"PUBLISH {packet_id} is resent as another message")
        return False


def _step(pending: Pending) -> str:
    if isinstance(pending, p.PubRel):
        return "PUBREL"
    return f"PUBLISH at QoS {pending.message.qos}"


_ANSWERS: dict[str, tuple[type[p.Ack], ...]] = {
    "PUBLISH at QoS 1": (p.PubAck,),
    "PUBLISH at QoS 2": (p.PubRec,),
    "PUBREL": (p.PubComp, p.PubRec),  # PUBREC again, of a PUBLISH that was sent twice
}
"""What may answer what was sent last in an exchange."""
