"""The broker's messages at QoS 1 and 2, from their arrival to the end of their exchange.

A delivery is held while the application has it or may still take it. Then it is
released, and PUBACK or PUBREC go out in the order of the PUBLISH packets [MQTT-4.6.0-2]
[MQTT-4.6.0-3], whatever the order of the releases: `_owed` is the queue of those that wait for the
ones before. What a connection still owes dies with it, since the broker will send it again. At
QoS 2 an identifier stays among `_received` until PUBREL, so that the message cannot come twice.
On a durable session a release at QoS 2, and a PUBREL, count once the journal has stored them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from . import _packets as p
from ._errors import ProtocolViolation
from ._journal import Batch, Journal
from ._outbox import Outbox

_MAX_OWED = 2 * 65_535
"""A broker has 65,535 identifiers, so that more than twice as many unanswered PUBLISH packets on
one connection are repetitions without end."""


@attrs.define
class _Level:
    """What arrived at one QoS, is not released, or is not answered."""

    answer: type[p.PubAck | p.PubRec]
    held: dict[int, p.Delivery] = attrs.Factory(dict[int, p.Delivery])
    """By packet identifier, not released."""
    owed: deque[p.Delivery] = attrs.Factory(deque[p.Delivery])
    """In the order of the PUBLISH packets on this connection, not answered. One that was sent
    twice stands here twice."""


class Deliveries:
    """The broker's exchanges with us."""

    def __init__(self, codec: p.Codec, journal: Journal | None) -> None:
        self._codec = codec
        self._journal = journal
        self._at_least_once = _Level(p.PubAck)
        self._exactly_once = _Level(p.PubRec)
        self._received: set[int] = set()
        self._doubtful: set[int] = set()
        """At QoS 2, what another message may have by now. A redelivery has DUP [MQTT-3.3.1-1]."""
        self._cut_short: p.Delivery | None = None
        """At QoS 2, whose payload ended with the connection, until it comes again as a new one."""
        self.repeated = 0
        """PUBLISH packets that the application has or had already, and does not get again."""

    def adopt(self, received: Iterable[int]) -> None:
        """Identifiers of messages at QoS 2 that the application had in an earlier life."""
        self._received.update(received)

    def detach(self) -> None:
        """The connection ended, and what it still owed with it.

        So did a message in the middle of its payload, unless the application was done with it: the
        broker's redelivery is a new one.
        """
        for level in (self._at_least_once, self._exactly_once):
            last = level.owed[-1] if level.owed else None
            if last is not None and not last.complete:
                if last.claims:
                    self.give_back(last)
                    self._cut_short = last if level is self._exactly_once else self._cut_short
                last.complete = True  # nothing more of it is to come
            level.owed.clear()

    def session_lost(self) -> None:
        """What the broker sends now is new, whatever its identifier."""
        if self._journal is not None:
            known = self._journal.pending_of_broker()
            known.update(self._received, self._exactly_once.held)
            if known:
                self._journal.clear(known)
        self._at_least_once.held.clear()
        self._exactly_once.held.clear()
        self._received.clear()
        self._cut_short = None
        self._doubtful.clear()

    def session_in_doubt(self) -> None:
        """The broker may have lost the session, and may have begun another without our knowing."""
        self._doubtful.update(self._received, self._exactly_once.held)
        self._cut_short = None

    def on_publish(self, delivery: p.Delivery, outbox: Outbox) -> bool:
        """Takes in PUBLISH; true if it is for the application.

        Raises:
            ProtocolViolation: the broker repeats itself without end.
        """
        packet_id = delivery.packet_id
        exactly_once = delivery.message.qos == 2
        level = self._exactly_once if exactly_once else self._at_least_once
        if len(level.owed) >= _MAX_OWED:
            raise ProtocolViolation("PUBLISH repeated without end")
        if self._doubtful and exactly_once:
            self._resolve(delivery)
        if exactly_once and packet_id in self._received:
            # The application had it: PUBREC alone [MQTT-4.3.3-2], behind those that are owed.
            delivery.released = True
            _skip(delivery)
            level.owed.append(delivery)
            self.repeated += 1
            self._answer(level, outbox)
            return False
        held = level.held.get(packet_id)
        if held is not None and (exactly_once or _same(held.message, delivery.message)):
            # The application has it, or will: both packets are answered when it is released.
            _skip(delivery)
            delivery.repeats = held
            level.owed.append(delivery)
            self.repeated += 1
            return False
        cut_short = self._cut_short
        if cut_short is not None and exactly_once and cut_short.packet_id == packet_id:
            self._cut_short = None
        level.held[packet_id] = delivery
        level.owed.append(delivery)
        return True

    def on_grown(self, packet: p.Message | p.Delivery, outbox: Outbox) -> None:
        """More of a payload arrived: answers for its message, if that was all."""
        if isinstance(packet, p.Delivery) and packet.complete:
            exactly_once = packet.message.qos == 2
            self._answer(self._exactly_once if exactly_once else self._at_least_once, outbox)

    def _resolve(self, delivery: p.Delivery) -> None:
        packet_id = delivery.packet_id
        if packet_id in self._doubtful:
            self._doubtful.discard(packet_id)
            if not delivery.message.dup:
                self._received.discard(packet_id)
                self._exactly_once.held.pop(packet_id, None)
                if self._journal is not None:
                    self._journal.clear([packet_id])

    def release(self, delivery: p.Delivery, outbox: Outbox | None) -> None:
        """The application is done with it: answers, as far as order allows, or has it stored."""
        if delivery.message.qos == 2:
            if self._cut_short is delivery:  # so that the application does not want the rest
                self._cut_short = None
                self._exactly_once.held[delivery.packet_id] = delivery
            if self._journal is None:
                self._receive(delivery)
            elif self._exactly_once.held.get(delivery.packet_id) is delivery:
                self._journal.receive(delivery)
                return
            level = self._exactly_once
        else:
            level = self._at_least_once
            if level.held.get(delivery.packet_id) is delivery:
                del level.held[delivery.packet_id]
        delivery.released = True
        if outbox is not None:
            self._answer(level, outbox)

    def stored(self, batch: Batch, outbox: Outbox | None) -> None:
        """The records of these releases are safe, and of the PUBREL packets."""
        for delivery in batch.deliveries:
            self._receive(delivery)
            delivery.released = True
        if outbox is None:
            return
        self._answer(self._exactly_once, outbox)
        for packet_id, asked_on in batch.completions.items():
            if asked_on is outbox:  # else the broker asks again
                outbox.append(self._codec.encode_ack(p.PubComp, packet_id))

    def _receive(self, delivery: p.Delivery) -> None:
        held = self._exactly_once.held
        if held.get(delivery.packet_id) is delivery:
            del held[delivery.packet_id]
            self._received.add(delivery.packet_id)

    def holds(self, delivery: p.Delivery) -> bool:
        """Whether the broker will send it again, as nothing has answered it."""
        level = self._exactly_once if delivery.message.qos == 2 else self._at_least_once
        return level.held.get(delivery.packet_id) is delivery

    def give_back(self, delivery: p.Delivery) -> None:
        """The application will not get it: the broker's redelivery is new."""
        level = self._exactly_once if delivery.message.qos == 2 else self._at_least_once
        if level.held.get(delivery.packet_id) is delivery:
            del level.held[delivery.packet_id]

    def on_pubrel(self, packet_id: int, outbox: Outbox) -> None:
        """Ends an exchange at QoS 2, also one that is not known [MQTT-4.3.3-2]."""
        self._received.discard(packet_id)
        self._doubtful.discard(packet_id)
        level = self._exactly_once
        held = level.held.pop(packet_id, None)
        if held is not None:  # before our PUBREC: nothing is owed for it any more
            level.owed = deque(other for other in level.owed if held not in (other, other.repeats))
            self._answer(level, outbox)
        if self._journal is None:
            outbox.append(self._codec.encode_ack(p.PubComp, packet_id))
        else:
            # Once the broker knows, it may use the identifier again, and that must not be taken for
            # this message after a crash.
            self._journal.complete(packet_id, outbox)

    def _answer(self, level: _Level, outbox: Outbox) -> None:
        owed = level.owed
        while owed:
            first = owed[0]
            if not ((first.repeats or first).released and first.complete):
                return
            owed.popleft()
            outbox.append(self._codec.encode_ack(level.answer, first.packet_id))


def _skip(delivery: p.Delivery) -> None:
    """Nobody is to have its payload, should that still be arriving."""
    if isinstance(delivery.message, p.Streamed):
        delivery.message.body.discard()


def _same(held: p.Message, again: p.Message) -> bool:
    """Whether it is the same message; of one that is streamed that cannot be known."""
    if isinstance(held, p.Streamed) or isinstance(again, p.Streamed):
        return False
    return held.topic == again.topic and held.payload == again.payload
