"""The broker's messages at QoS 1 and 2, from their arrival to the end of their exchange.

A delivery is held while the application has it or may still take it. Then it is
released, and PUBACK or PUBREC go out in the order of the PUBLISH packets [MQTT-4.6.0-2]
[MQTT-4.6.0-3], whatever the order of the releases: `owed` is the queue of those that wait for the
ones before. What a connection still owes dies with it, since the broker will send it again. At
QoS 2 an identifier stays among `_received` until PUBREL, so that the message cannot come twice.
On a durable session a release at QoS 2, and a PUBREL, count once the journal has stored them.
Answers are made when the writer asks for them, with `answers`: many at once.
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

    held: dict[int, p.Delivery] = attrs.Factory(dict[int, p.Delivery])
    """By packet identifier, not released."""
    owed: deque[p.Delivery] = attrs.Factory(deque[p.Delivery])
    """In the order of the PUBLISH packets on this connection, not answered. One that was sent
    twice stands here twice."""

    def take_due(self) -> list[int]:
        """The packet identifiers of those that may be answered."""
        due: list[int] = []
        owed = self.owed
        while owed:
            first = owed[0]
            if not ((first.repeats or first).released and first.complete):
                break
            owed.popleft()
            due.append(first.packet_id)
        return due


class Deliveries:
    """The broker's exchanges with us."""

    def __init__(self, codec: p.Codec, journal: Journal | None) -> None:
        self._codec = codec
        self._journal = journal
        self._at_least_once = _Level()
        self._exactly_once = _Level()
        self._received: set[int] = set()
        self._doubtful: set[int] = set()
        """At QoS 2, what another message may have by now. A redelivery has DUP [MQTT-3.3.1-1]."""
        self._completed: list[int] = []
        """At QoS 2, what is to be answered with PUBCOMP."""
        self.owes_answers = False
        """Whether there may be `answers`."""
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
        self._completed.clear()

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

    def on_publish(self, delivery: p.Delivery) -> bool:
        """Takes in PUBLISH; true if it is for the application.

        Raises:
            ProtocolViolation: the broker repeats itself without end.
        """
        packet_id = delivery.packet_id
        exactly_once = delivery.message.qos == 2
        level = self._exactly_once if exactly_once else self._at_least_once
        owed, held = level.owed, level.held
        if len(owed) >= _MAX_OWED:
            raise ProtocolViolation("PUBLISH repeated without end")
        owed.append(delivery)
        if exactly_once:
            if self._doubtful:
                self._resolve(delivery)
            if packet_id in self._received:
                # The application had it: PUBREC alone [MQTT-4.3.3-2], behind those that are owed.
                delivery.released = self.owes_answers = True
                self._repeat(delivery)
                return False
            if self._cut_short is not None and self._cut_short.packet_id == packet_id:
                self._cut_short = None
        if packet_id in held and (exactly_once or _same(held[packet_id], delivery)):
            # The application has it, or will: both packets are answered when it is released.
            delivery.repeats = held[packet_id]
            self._repeat(delivery)
            return False
        held[packet_id] = delivery
        return True

    def _repeat(self, delivery: p.Delivery) -> None:
        self.repeated += 1
        if isinstance(delivery.message, p.Streamed):  # should that still be arriving
            delivery.message.body.discard()

    def on_grown(self, packet: p.Message | p.Delivery) -> None:
        """More of a payload arrived: its message may be answered, if that was all."""
        if isinstance(packet, p.Delivery) and packet.complete:
            self.owes_answers = True

    def _resolve(self, delivery: p.Delivery) -> None:
        packet_id = delivery.packet_id
        if packet_id in self._doubtful:
            self._doubtful.discard(packet_id)
            if not delivery.message.dup:
                self._received.discard(packet_id)
                self._exactly_once.held.pop(packet_id, None)
                if self._journal is not None:
                    self._journal.clear([packet_id])

    def release(self, delivery: p.Delivery) -> None:
        """The application is done with it: it is answered, as order allows, or first stored."""
        packet_id = delivery.packet_id
        if delivery.message.qos == 2:
            if self._cut_short is delivery:  # so that the application does not want the rest
                self._cut_short = None
                self._exactly_once.held[packet_id] = delivery
            if self._journal is None:
                self._receive(delivery)
            elif self._exactly_once.held.get(packet_id) is delivery:
                self._journal.receive(delivery)
                return
        else:
            held = self._at_least_once.held
            if held.get(packet_id) is delivery:
                del held[packet_id]
        delivery.released = self.owes_answers = True

    def stored(self, batch: Batch, outbox: Outbox | None) -> None:
        """The records of these releases are safe, and of the PUBREL packets."""
        for delivery in batch.deliveries:
            self._receive(delivery)
            delivery.released = True
        self._completed += (
            packet_id
            for packet_id, asked_on in batch.completions.items()
            if asked_on is outbox  # else the broker asks again
        )
        self.owes_answers = True

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
        self.owes_answers = True
        if self._journal is None:
            self._completed.append(packet_id)
        else:
            # Once the broker knows, it may use the identifier again, and that must not be taken for
            # this message after a crash.
            self._journal.complete(packet_id, outbox)

    @property
    def completed(self) -> int:
        """How many PUBCOMP are among the answers. Of the others there are not too many."""
        return len(self._completed)

    def answers(self) -> list[bytes]:
        """What the broker is to have by now, as far as order allows: PUBACK, PUBREC, PUBCOMP."""
        answers: list[bytes] = []
        if self.owes_answers:
            self.owes_answers = False
            completed, self._completed = self._completed, []
            for kind, packet_ids in (
                (p.PubAck, self._at_least_once.take_due()),
                (p.PubRec, self._exactly_once.take_due()),
                (p.PubComp, completed),
            ):
                if packet_ids:
                    answers.append(self._codec.encode_acks(kind, packet_ids))
        return answers


def _same(held: p.Delivery, again: p.Delivery) -> bool:
    """Whether it is the same message; of one that is streamed that cannot be known."""
    ours, theirs = held.message, again.message
    if isinstance(ours, p.Streamed) or isinstance(theirs, p.Streamed):
        return False
    return ours.topic == theirs.topic and ours.payload == theirs.payload
