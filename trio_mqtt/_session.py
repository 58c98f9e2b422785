"""Session state (section 4.1 of the specification) as a pure state machine.

Every transition is one plain method call: it changes state, appends to queues, and returns. The
queues are `outbox`, the bytes for the current connection; `settled`, the requests of ours that are
answered; `arrived`, the messages for the application; `accepted`, those of ours that were stored;
and `refused`, the topic filters that the broker failed when they were restored. Whoever called
takes what is in them.

*Ours and theirs.* Packet identifiers of ours are one space: an entry of `_outstanding` holds its
identifier from the moment of acceptance until the final answer [MQTT-2.3.1-3]. The broker's are
other spaces, in other containers, so that its packet 1 never meets our packet 1.

*A transfer of ours* waits, is published, and at QoS 2 released::

                 window has room             PUBACK
    publish ──▶ WAITING ──▶ PUBLISHED ──────────────────▶ settled
                                │ PUBREC          PUBCOMP   ▲
                                └───────▶ RELEASED ─────────┘

What is published and released survives the connection, and its order too: attaching to a new
connection queues all of it again before anything new [MQTT-4.4.0-1] [MQTT-4.6.0-1].

On a durable session there is a journal, and two steps wait for it: a message is accepted, and may
be sent, once it is stored; PUBREL may be sent once it is stored that PUBREC came. So a transition
that needs a record queues it there, and `stored` goes on from where it stopped.

The broker's messages to us are the business of `_deliveries.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal, assert_never

import attrs

from . import _packets as p
from ._deliveries import Deliveries
from ._errors import InDoubt, NotSent, ProtocolViolation
from ._journal import Batch, Journal
from ._outbox import Outbox
from ._records import Identity
from ._requests import Pending, Ping, Request, Stage, SubscribeRequest, Transfer, UnsubscribeRequest
from ._subscriptions import Subscriptions

MAX_PACKET_ID = 65_535
MAX_PENDING = 16_384
"""Exchanges per QoS, and SUBSCRIBE and UNSUBSCRIBE together. Thrice this leaves identifiers."""


@attrs.define
class Counters:
    """What a session counts."""

    confirmed: int = 0
    published_at_most_once: int = 0
    downgrades: int = 0
    """Messages at QoS 2 that the broker confirmed as if they were at QoS 1."""
    unmatched_answers: int = 0
    """Answers to nothing that was asked."""


@attrs.frozen
class Limits:
    """How many exchanges are accepted, and how many of those are on the wire at once."""

    at_least_once_max: int = MAX_PENDING
    exactly_once_max: int = MAX_PENDING
    at_least_once_window: int = 100
    exactly_once_window: int = 20


class SessionState:
    """One session, on a succession of connections, attached to one at a time or to none.

    Arguments:
        codec: of the protocol's version.
        limits: on messages of ours.
        stored: what an adopted or new session has in its persistence; None for a volatile one.
    """

    def __init__(self, codec: p.Codec, limits: Limits, stored: Stored | None = None) -> None:
        self._codec = codec
        self.outbox: Outbox | None = None
        """None while detached: nothing is queued to be sent then."""
        self.settled: list[Pending] = []
        self.arrived: list[p.Message | p.Delivery] = []
        self.refused: list[str] = []
        self.accepted: list[Transfer] = []
        self.counters = Counters()

        self._attached_before = False
        self._next_id = 1
        self._outstanding: dict[int, Transfer | Request] = {}
        self._outbound = {
            1: _Outbound(limits.at_least_once_max, limits.at_least_once_window),
            2: _Outbound(limits.exactly_once_max, limits.exactly_once_window),
        }
        self._published: dict[int, Transfer] = {}  # in the order of the PUBLISH packets
        self._released: dict[int, Transfer] = {}  # in the order of the PUBREC packets
        self._pings: deque[Ping] = deque()
        self._requests = 0
        self._subscriptions = Subscriptions()
        self.journal = None if stored is None else Journal(stored.next_sequence)
        """What is to be stored; None on a volatile session."""
        self._storing: dict[int, Transfer] = {}  # accepted once they are stored
        self._deliveries = Deliveries(codec, self.journal)
        self._identity: Identity | None = None
        self._reserved: frozenset[int] = frozenset()
        if stored is not None:
            self._adopt(stored)

    def _adopt(self, stored: Stored) -> None:
        self._identity = stored.identity
        self._reserved = stored.identity.reserved
        self._attached_before = True  # what the broker has is ours
        self._deliveries.adopt(stored.received)
        for transfer in stored.transfers:
            outbound = self._outbound[transfer.qos]
            outbound.accepted += 1
            self._outstanding[transfer.packet_id] = transfer
            if transfer.is_waiting:
                outbound.waiting.append(transfer)
            else:
                outbound.on_wire += 1
                self._released[transfer.packet_id] = transfer

    # Connections

    @property
    def _attached(self) -> Outbox:
        assert self.outbox is not None
        return self.outbox

    def attach(self, *, clean: bool, present: bool, restart_at: int) -> Outbox:
        """Goes on over a new connection, and queues there what the last one left open.

        Arguments:
            clean: the CleanSession flag of CONNECT.
            present: the session present flag of CONNACK.
            restart_at: where to number from if the broker has a session that this one knows
                nothing of, whose identifiers it must not meet.
        """
        assert self.outbox is None
        if not self._attached_before and present:
            self._renumber(restart_at)
        self._attached_before = True
        self.outbox = outbox = Outbox()
        if not present:
            self._deliveries.session_lost()
            self._free_reserved()
        self._restore_subscriptions(present=present)
        if not clean:
            for transfer in self._released.values():  # [MQTT-4.6.0-4]
                if transfer.stored:
                    self._send_pubrel(outbox, transfer)
        for transfer in self._published.values():  # [MQTT-4.6.0-1]
            duplicate = transfer.attempted and not clean  # [MQTT-3.3.1-1]
            packet = transfer.packet
            transfer.sent_as(self._codec.as_duplicate(packet) if duplicate else packet, outbox)
        if clean:
            self._confirm_released()
        self._fill_window(1)
        self._fill_window(2)
        return outbox

    def detach(self, reason: str) -> list[tuple[Pending, NotSent | InDoubt]]:
        """The connection ended. Returns what that means for each request that it carried.

        Transfers among them are merely interrupted. The others are over.
        """
        outbox = self._attached
        self.outbox = None
        self._deliveries.detach()
        lost: list[tuple[Pending, NotSent | InDoubt]] = []
        for transfer in (*self._released.values(), *self._published.values()):
            what = transfer.lost(outbox, reason)
            if isinstance(what, InDoubt):
                transfer.attempted = True
                lost.append((transfer, what))
        for packet_id, request in list(self._outstanding.items()):
            if not isinstance(request, Transfer):
                del self._outstanding[packet_id]
                lost.append((request, request.lost(outbox, reason)))
        lost += ((ping, ping.lost(outbox, reason)) for ping in self._pings)
        self._pings.clear()
        self._requests = 0
        return lost

    def disconnect(self) -> None:
        """Sends DISCONNECT, and nothing behind it."""
        self._attached.close(self._codec.encode(p.Disconnect()))

    def discarded(self) -> None:
        """The broker has forgotten what it had under this identifier, as it was to do first."""
        if self._identity is not None:
            self._identify(attrs.evolve(self._identity, discard_due=False))

    def _free_reserved(self) -> None:
        if self._identity is not None and self._reserved:
            self._reserved = frozenset()
            self._identify(attrs.evolve(self._identity, reserved=frozenset()))

    def _identify(self, identity: Identity) -> None:
        assert self.journal is not None
        self._identity = identity
        self.journal.identify(identity)

    def _renumber(self, start: int) -> None:
        waiting = list(self._outstanding.values())
        self._outstanding.clear()
        self._next_id = start
        for transfer in waiting:  # nothing else is accepted before the first connection
            assert isinstance(transfer, Transfer)
            transfer.packet_id = packet_id = self._take_id()
            transfer.packet = self._codec.with_packet_id(transfer.packet, packet_id)
            self._outstanding[packet_id] = transfer

    def _restore_subscriptions(self, *, present: bool) -> None:
        lost = self._subscriptions.missing(present=present)
        for start in range(0, len(lost), p.MAX_TOPIC_FILTERS):
            self.subscribe(lost[start : start + p.MAX_TOPIC_FILTERS], restores=True)

    def _confirm_released(self) -> None:
        """The broker had these, and a clean session keeps nothing to release."""
        for transfer in list(self._released.values()):
            self._settle(transfer)

    # Requests

    def publish_at_most_once(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Sends a message at QoS 0, while attached.

        Raises:
            Denied: it is too large.
        """
        packet = self._codec.encode_publish(topic, payload, 0, 0, retain=retain)
        self._attached.append(packet)
        self.counters.published_at_most_once += 1

    def room(self, qos: Literal[1, 2]) -> int:
        """How many messages `publish` will accept."""
        outbound = self._outbound[qos]
        return outbound.most - outbound.accepted

    def waiting(self) -> list[Transfer]:
        """The messages that were accepted, or are being stored, and are not on the wire yet."""
        return [
            *self._outbound[1].waiting,
            *self._outbound[2].waiting,
            *self._storing.values(),
        ]

    def storing(self) -> list[Transfer]:
        """The messages that are accepted once they are stored."""
        return list(self._storing.values())

    def unconfirmed_transfers(self) -> list[Transfer]:
        """The messages that were accepted and are not confirmed."""
        return [*self._released.values(), *self._published.values(), *self.waiting()]

    @property
    def unconfirmed(self) -> int:
        """How many messages were accepted and are not confirmed."""
        return self._outbound[1].accepted + self._outbound[2].accepted

    @property
    def repeated(self) -> int:
        """How many PUBLISH packets the application had already."""
        return self._deliveries.repeated

    @property
    def request_room(self) -> int:
        """How many more of SUBSCRIBE and UNSUBSCRIBE may await their answer."""
        return MAX_PENDING - self._requests

    def publish(self, topic: str, payload: bytes, qos: Literal[1, 2], *, retain: bool) -> Transfer:
        """Accepts a message, where there is `room`. It is on its way until it is settled.

        On a durable session that is once it is stored, if it can be.

        Raises:
            Denied: it is too large.
        """
        outbound = self._outbound[qos]
        assert outbound.accepted < outbound.most
        packet_id = self._take_id()
        packet = self._codec.encode_publish(topic, payload, qos, packet_id, retain=retain)
        transfer = Transfer(packet_id, qos, packet)
        self._outstanding[packet_id] = transfer
        outbound.accepted += 1
        if self.journal is None:
            self._send_or_wait(outbound, transfer)
        else:
            transfer.stored = False
            self._storing[packet_id] = transfer
            self.journal.publish(transfer)
        return transfer

    def _send_or_wait(self, outbound: _Outbound, transfer: Transfer) -> None:
        if self.outbox is None or outbound.waiting or outbound.on_wire >= outbound.window:
            outbound.waiting.append(transfer)
        else:
            self._put_on_wire(self.outbox, outbound, transfer)

    def subscribe(
        self, requests: Sequence[tuple[str, p.QoS]], *, restores: bool = False
    ) -> SubscribeRequest:
        """Sends SUBSCRIBE, while attached."""
        packet_id = self._take_id()
        packet = p.Subscribe(packet_id, tuple(requests))
        request = SubscribeRequest(packet, restores)
        self._submit(packet_id, request)
        return request

    def unsubscribe(self, topic_filters: Sequence[str]) -> UnsubscribeRequest:
        """Sends UNSUBSCRIBE, while attached."""
        packet_id = self._take_id()
        request = UnsubscribeRequest(p.Unsubscribe(packet_id, tuple(topic_filters)))
        self._subscriptions.forget(topic_filters)
        self._submit(packet_id, request)
        return request

    def ping(self) -> Ping:
        """Sends PINGREQ, while attached."""
        ping = Ping()
        self._pings.append(ping)
        ping.sent_as(self._codec.encode(p.PingReq()), self._attached)
        return ping

    @property
    def oldest_ping(self) -> Ping | None:
        """The PINGREQ that is to be answered next."""
        return self._pings[0] if self._pings else None

    def _submit(self, packet_id: int, request: Request) -> None:
        self._outstanding[packet_id] = request
        self._requests += 1
        request.sent_as(self._codec.encode(request.packet), self._attached)

    def _take_id(self) -> int:
        """An identifier that is not in use [MQTT-2.3.1-1] [MQTT-2.3.1-2]."""
        packet_id = self._next_id
        while packet_id in self._outstanding or packet_id in self._reserved:
            packet_id = packet_id % MAX_PACKET_ID + 1
        self._next_id = packet_id % MAX_PACKET_ID + 1
        return packet_id

    def _put_on_wire(self, outbox: Outbox, outbound: _Outbound, transfer: Transfer) -> None:
        transfer.stage = Stage.PUBLISHED
        self._published[transfer.packet_id] = transfer
        outbound.on_wire += 1
        # An adopted one may have been attempted in an earlier life.
        packet = transfer.packet
        transfer.sent_as(self._codec.as_duplicate(packet) if transfer.attempted else packet, outbox)

    def _fill_window(self, qos: Literal[1, 2]) -> None:
        outbox, outbound = self._attached, self._outbound[qos]
        while outbound.waiting and outbound.on_wire < outbound.window:
            self._put_on_wire(outbox, outbound, outbound.waiting.popleft())

    # The journal

    @property
    def has_records(self) -> bool:
        """Whether something is not stored yet that has to be."""
        return bool(self.journal)

    @property
    def is_clearing(self) -> bool:
        """Whether it is not stored yet that the broker lost the session."""
        return self.journal is not None and self.journal.clearing

    def stored(self, batch: Batch) -> None:
        """The batch that was taken from the journal is safe: goes on with what waited for it."""
        assert self.journal is not None
        self.journal.stored()
        outbox = self.outbox
        for transfer in batch.transfers:
            transfer.stored = True
            if transfer.stage is Stage.RELEASED:
                if outbox is not None:
                    self._send_pubrel(outbox, transfer)
            elif transfer.is_waiting:
                del self._storing[transfer.packet_id]
                self.accepted.append(transfer)
                self._send_or_wait(self._outbound[transfer.qos], transfer)
        self._deliveries.stored(batch, outbox)

    def not_stored(self) -> list[Transfer]:
        """The batch could not be stored. Returns the messages that are therefore not accepted."""
        assert self.journal is not None
        refused = self.journal.not_stored()
        for transfer in refused:
            transfer.stage = Stage.REFUSED
            del self._storing[transfer.packet_id]
            del self._outstanding[transfer.packet_id]
            self._outbound[transfer.qos].accepted -= 1
        return refused

    # What the broker sends

    def receive(self, packets: Iterator[p.Inbound], room: int) -> bool:
        """Takes in packets until `room` messages have arrived, or all of them: then it is true.

        Raises:
            ProtocolViolation: one of them must not come, or not now. Those before it are taken in.
        """
        arrived = self.arrived
        for packet in packets:
            match packet:
                case p.Message():
                    arrived.append(packet)
                case p.Delivery():
                    if self._deliveries.on_publish(packet, self._attached):
                        arrived.append(packet)
                case p.PubAck():
                    self._on_puback(packet)
                case p.PubRec():
                    self._on_pubrec(packet)
                case p.PubRel():
                    self._deliveries.on_pubrel(packet.packet_id, self._attached)
                case p.PubComp():
                    self._on_pubcomp(packet)
                case _:
                    self._on_rare(packet)
            if len(arrived) >= room:
                return False
        return True

    def _on_rare(self, packet: p.SubAck | p.UnsubAck | p.PingResp | p.ConnAck) -> None:
        match packet:
            case p.SubAck():
                self._on_suback(packet)
            case p.UnsubAck():
                self._on_unsuback(packet)
            case p.PingResp():
                self._on_pingresp()
            case p.ConnAck():
                raise ProtocolViolation("CONNACK on a connection that is established")
            case _:
                assert_never(packet)

    def release(self, delivery: p.Delivery) -> None:
        """The application is done with the message: acknowledges it as soon as order allows."""
        self._deliveries.release(delivery, self.outbox)

    def give_back(self, delivery: p.Delivery) -> None:
        """The application will not get the message: the broker's redelivery arrives as new."""
        self._deliveries.give_back(delivery)

    def _on_puback(self, answer: p.PubAck) -> None:
        transfer = self._answered(answer, Stage.PUBLISHED)
        if transfer is not None:
            if transfer.qos == 2:
                self.counters.downgrades += 1  # RabbitMQ's habit
            self._settle(transfer)

    def _on_pubrec(self, answer: p.PubRec) -> None:
        transfer = self._answered(answer, Stage.PUBLISHED, Stage.RELEASED)
        if transfer is None:  # lets the broker's side of it end
            self._attached.append(self._codec.encode_ack(p.PubRel, answer.packet_id))
            return
        if transfer.qos == 1:
            raise ProtocolViolation(f"PUBREC {answer.packet_id} answers a PUBLISH at QoS 1")
        if transfer.stage is Stage.PUBLISHED:
            del self._published[transfer.packet_id]
            self._released[transfer.packet_id] = transfer
            transfer.stage = Stage.RELEASED
            transfer.packet = b""
            if self.journal is not None:
                transfer.stored = False
                self.journal.release(transfer)
        if transfer.stored:
            self._send_pubrel(self._attached, transfer)

    def _send_pubrel(self, outbox: Outbox, transfer: Transfer) -> None:
        transfer.sent_as(self._codec.encode_ack(p.PubRel, transfer.packet_id), outbox)

    def _on_pubcomp(self, answer: p.PubComp) -> None:
        transfer = self._answered(answer, Stage.RELEASED)
        if transfer is not None:
            self._settle(transfer)

    def _answered(self, answer: p.Ack, *stages: Stage) -> Transfer | None:
        """The transfer of ours that `answer` belongs to, None for one that matches nothing."""
        match self._outstanding.get(answer.packet_id):
            case Transfer() as transfer if transfer.stage in stages:
                return transfer
            case None | Transfer(stage=Stage.WAITING):
                self.counters.unmatched_answers += 1
                return None
            case other:
                raise _impossible(answer, other)

    def _settle(self, transfer: Transfer) -> None:
        outbound = self._outbound[transfer.qos]
        del self._outstanding[transfer.packet_id]
        container = self._published if transfer.stage is Stage.PUBLISHED else self._released
        del container[transfer.packet_id]
        transfer.stage = Stage.CONFIRMED
        outbound.accepted -= 1
        outbound.on_wire -= 1
        self.counters.confirmed += 1
        self.settled.append(transfer)
        if self.journal is not None:
            self.journal.settle(transfer.packet_id)
        if outbound.waiting:
            self._fill_window(transfer.qos)

    def _on_suback(self, answer: p.SubAck) -> None:
        match self._outstanding.get(answer.packet_id):
            case SubscribeRequest() as request:
                pass
            case None | Transfer(stage=Stage.WAITING):
                self.counters.unmatched_answers += 1
                return
            case other:
                raise _impossible(answer, other)
        asked, got = len(request.packet.requests), len(answer.return_codes)
        if asked != got:  # [MQTT-3.8.4-5]
            raise ProtocolViolation(f"SUBACK with {got} return codes for {asked} topic filters")
        request.return_codes = answer.return_codes
        failed = self._subscriptions.answered(request.packet.requests, answer.return_codes)
        if request.restores:
            self.refused += failed
        self._end_request(answer.packet_id, request)

    def _on_unsuback(self, answer: p.UnsubAck) -> None:
        match self._outstanding.get(answer.packet_id):
            case UnsubscribeRequest() as request:
                # A SUBSCRIBE before it may have been answered since.
                self._subscriptions.forget(request.packet.topic_filters)
                self._end_request(answer.packet_id, request)
            case None | Transfer(stage=Stage.WAITING):
                self.counters.unmatched_answers += 1
            case other:
                raise _impossible(answer, other)

    def _end_request(self, packet_id: int, request: Request) -> None:
        del self._outstanding[packet_id]
        self._requests -= 1
        self.settled.append(request)

    def _on_pingresp(self) -> None:
        if self._pings:
            self.settled.append(self._pings.popleft())
        else:
            self.counters.unmatched_answers += 1


@attrs.frozen
class Stored:
    """What a durable session has in its persistence, from an earlier life or to begin with."""

    identity: Identity
    next_sequence: int
    transfers: tuple[Transfer, ...] = ()
    """In order. Those that are WAITING were attempted before, for all that is known."""
    received: frozenset[int] = frozenset()


@attrs.define
class _Outbound:
    """What is accepted at one QoS."""

    most: int
    window: int
    accepted: int = 0
    on_wire: int = 0
    waiting: deque[Transfer] = attrs.Factory(deque[Transfer])


def _impossible(
    answer: p.Ack | p.SubAck | p.UnsubAck, pending: Transfer | Request
) -> ProtocolViolation:
    kind = type(answer).__name__.upper()
    asked = "PUBLISH" if isinstance(pending, Transfer) else type(pending.packet).__name__.upper()
    return ProtocolViolation(f"{kind} {answer.packet_id} does not answer {asked}, sent with it")
