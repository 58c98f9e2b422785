"""Session state (section 4.1 of the specification) as a pure state machine.

Every transition is one plain method call: it changes state, appends to queues, and returns. The
queues are `outbox`, the bytes for the current connection; `journal`, the records that a durable
session has to store; `settled`, the requests of ours that are answered; `accepted`, the messages of
ours that are stored; and `arrived`, the messages for the application. Whoever called takes what is
in them.

The packet identifiers of ours are one space (`_packet_ids.py`). The broker's are other spaces, in
other containers, so that its packet 1 never meets our packet 1. Our messages at QoS 1 and 2 are the
business of `_transfers.py`, the broker's that of `_deliveries.py`, topic filters that of
`_subscriptions.py`; here is what joins them: the connection that comes and goes, and which packet
is whose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal, assert_never

import attrs

from . import _packets as p
from ._deliveries import Deliveries
from ._errors import InDoubt, NotSent, PendingLimit, ProtocolViolation
from ._journal import Batch, Journal
from ._outbox import APART, Outbox
from ._packet_ids import PacketIds
from ._records import SESSION_KEY, Identity
from ._requests import Holding, Pending, Ping, SubscribeRequest, Transfer, UnsubscribeRequest
from ._subscriptions import Subscriptions
from ._transfers import MAX_PENDING, Counters, Limits, Transfers


@attrs.frozen
class Stored:
    """What a durable session has in its persistence, from an earlier life or to begin with."""

    identity: Identity
    next_sequence: int
    transfers: tuple[Transfer, ...] = ()
    """In order. Those that are WAITING were attempted before, for all that is known."""
    received: frozenset[int] = frozenset()


class SessionState:
    """One session, on a succession of connections, attached to one at a time or to none.

    Arguments:
        codec: of the protocol's version.
        limits: on messages of ours.
        stored: what a durable session has in its persistence; None for a volatile one.
    """

    def __init__(self, codec: p.Codec, limits: Limits, stored: Stored | None = None) -> None:
        self._codec = codec
        self.outbox: Outbox | None = None
        """None while detached: nothing is queued to be sent then."""
        self.journal = None if stored is None else Journal(stored.next_sequence)
        """None on a volatile session."""
        self.settled: list[Pending] = []
        self.accepted: list[Transfer] = []
        self.arrived: list[p.Message | p.Delivery] = []
        self.counters = Counters()

        self._attached_before = stored is not None  # else what the broker has may be another's
        self._ids = PacketIds()
        self._transfers = Transfers(codec, limits, self._ids, self.journal, self.counters)
        self.room = self._transfers.room
        """How many messages `publish` will accept at a QoS."""
        self._deliveries = Deliveries(codec, self.journal)
        self.release = self._deliveries.release
        """The application is done with a delivery: it is acknowledged as soon as order allows."""
        self._pings: deque[Ping] = deque()
        self._requests = 0
        self.subscriptions = Subscriptions(codec, self._ids, self.counters)
        self._identity = None if stored is None else stored.identity
        if stored is not None:
            self._ids.reserved = stored.identity.reserved
            self._transfers.adopt(stored.transfers)
            self._deliveries.adopt(stored.received)

    # Connections

    @property
    def _attached(self) -> Outbox:
        assert self.outbox is not None
        return self.outbox

    def attach(
        self, *, clean: bool, present: bool, restart_at: int, in_doubt: bool = False
    ) -> Outbox:
        """Goes on over a new connection, and queues there what the last one left open.

        Arguments:
            clean: the CleanSession flag of CONNECT.
            present: the session present flag of CONNACK.
            restart_at: where to number from if the broker has a session that this one knows
                nothing of, whose identifiers it must not meet.
            in_doubt: whether a CONNECT since the last connection got no answer. The broker may have
                lost the session then, and what is present is the one that it began.
        """
        assert self.outbox is None
        if not self._attached_before and present:
            self._transfers.renumber(restart_at)
        self._attached_before = True
        self.outbox = outbox = Outbox(self._deliveries.answers)
        if not present:
            self._deliveries.session_lost()
            self._free_reserved()
        elif in_doubt:
            self._deliveries.session_in_doubt()
        self.subscriptions.attach(outbox, present=present, in_doubt=in_doubt)
        self.settled += self._transfers.resume(outbox, clean=clean)
        return outbox

    def detach(self, reason: str) -> list[tuple[Pending, NotSent | InDoubt]]:
        """The connection ended. Returns what that means for each request that it carried.

        Transfers among them are merely interrupted. The others are over.
        """
        outbox = self._attached
        self.outbox = None
        self._deliveries.detach()
        lost: list[tuple[Pending, NotSent | InDoubt]] = []
        lost += self._transfers.interrupt(outbox, reason)
        lost += self.subscriptions.detach(outbox, reason)
        lost += ((ping, ping.lost(outbox, reason)) for ping in self._pings)
        self._pings.clear()
        return lost

    def disconnect(self) -> None:
        """Sends DISCONNECT, and nothing behind it."""
        self._attached.close(self._codec.encode(p.Disconnect()))

    def discarded(self) -> None:
        """The broker has forgotten what it had under this identifier, as it was to do first."""
        if self._identity is not None:
            self._identify(attrs.evolve(self._identity, discard_due=False))

    def _free_reserved(self) -> None:
        if self._identity is not None and self._ids.reserved:
            self._ids.reserved = frozenset()
            self._identify(attrs.evolve(self._identity, reserved=frozenset()))

    def _identify(self, identity: Identity) -> None:
        assert self.journal is not None
        self._identity = identity
        self.journal.identify(identity)

    # Requests

    def publish_at_most_once(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Sends a message at QoS 0, while attached.

        Raises:
            Denied: it is too large.
        """
        outbox = self.outbox
        assert outbox is not None
        header = self._codec.encode_publish_header(topic, len(payload), 0, 0, retain=retain)
        if len(payload) < APART:
            outbox.append(header + payload)
        else:
            outbox.append(header)
            outbox.append(payload)
        self.counters.published_at_most_once += 1

    def publish(self, topic: str, payload: bytes, qos: Literal[1, 2], *, retain: bool) -> Transfer:
        """Accepts a message, where there is `room`. It is on its way until it is settled.

        On a durable session that is once it is stored, if it can be.

        Raises:
            Denied: it is too large.
        """
        return self._transfers.publish(topic, payload, qos, retain=retain, outbox=self.outbox)

    def waiting(self) -> list[Transfer]:
        """The messages that were accepted, or are being stored, and are not on the wire yet."""
        return self._transfers.waiting()

    def storing(self) -> list[Transfer]:
        """The messages that are accepted once they are stored."""
        return self._transfers.storing()

    def unconfirmed_transfers(self) -> list[Transfer]:
        """The messages that were accepted, or are being stored, and are not confirmed."""
        return self._transfers.unconfirmed()

    @property
    def unconfirmed(self) -> int:
        """How many those are."""
        return self._transfers.count

    @property
    def repeated(self) -> int:
        """How many PUBLISH packets the application had already."""
        return self._deliveries.repeated

    @property
    def awaits_answers(self) -> bool:
        """Whether a request is not answered that ends with the connection."""
        return self.subscriptions.room < MAX_PENDING or bool(self._pings)

    @property
    def request_room(self) -> int:
        """How many more of SUBSCRIBE and UNSUBSCRIBE may await their answer."""
        return self.subscriptions.room

    def require_request_room(self, topic_filters: Sequence[str]) -> None:
        """Raises `PendingLimit` unless a request about these may await its answer too."""
        if len(topic_filters) > self.request_room * p.MAX_TOPIC_FILTERS:
            raise PendingLimit("too many requests await their answer")

    def subscribe(self, requests: Sequence[tuple[str, p.QoS]]) -> SubscribeRequest:
        """Sends SUBSCRIBE for the application, while attached."""
        return self.subscriptions.subscribe(requests, self._attached)

    def unsubscribe(self, topic_filters: Sequence[str]) -> list[UnsubscribeRequest]:
        """Sends UNSUBSCRIBE for what no scope holds, while attached."""
        return self.subscriptions.unsubscribe(topic_filters, self._attached)

    def hold(self, holding: Holding) -> None:
        """A scope begins to hold its topic filters. It is settled once the broker answered."""
        self.subscriptions.hold(holding, self.outbox)

    def let_go(self, holding: Holding, *, unsubscribe: bool) -> list[UnsubscribeRequest]:
        """A scope ends. Returns what is sent at once, where nobody else holds its filters."""
        return self.subscriptions.release(holding, self.outbox, unsubscribe=unsubscribe)

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

    @property
    def has_output(self) -> bool:
        """Whether there is something to send."""
        outbox = self.outbox
        return outbox is not None and (len(outbox) > 0 or self._deliveries.owes_answers)

    @property
    def queued_packets(self) -> int:
        """How many packets wait for the writer."""
        return len(self.outbox or ()) + self._deliveries.completed

    # The journal

    @property
    def has_records(self) -> bool:
        """Whether something is not stored yet that has to be."""
        return bool(self.journal)

    @property
    def is_identifying(self) -> bool:
        """Whether it is not stored yet what the session itself is."""
        return self.journal is not None and self.journal.is_pending(SESSION_KEY)

    @property
    def is_clearing(self) -> bool:
        """Whether it is not stored yet that the broker lost the session."""
        return self.journal is not None and self.journal.clearing

    def stored(self, batch: Batch) -> None:
        """The batch that was taken from the journal is safe: goes on with what waited for it."""
        assert self.journal is not None
        self.journal.stored()
        self.accepted += self._transfers.stored(batch, self.outbox)
        self._deliveries.stored(batch, self.outbox)

    def not_stored(self) -> list[Transfer]:
        """The batch could not be stored. Returns the messages that are therefore not accepted."""
        assert self.journal is not None
        refused = self.journal.not_stored()
        self._transfers.not_stored(refused)
        return refused

    # What the broker sends

    def receive(self, packets: Iterable[p.Decoded]) -> None:
        """Takes in packets.

        Raises:
            ProtocolViolation: one of them must not come, or not now. Those before it are taken in.
        """
        arrived, outbox = self.arrived, self._attached
        on_publish = self._deliveries.on_publish
        for packet in packets:
            # What comes once a message or more often, by `type`: a `match` costs twice as much.
            if type(packet) is p.Delivery:
                if on_publish(packet):
                    arrived.append(packet)
            elif type(packet) is p.Message:
                arrived.append(packet)
            elif type(packet) is p.PubAck:
                self._settle(self._transfers.on_puback(packet, outbox))
            elif type(packet) is p.PubRec:
                self._transfers.on_pubrec(packet, outbox)
            elif type(packet) is p.PubComp:
                self._settle(self._transfers.on_pubcomp(packet, outbox))
            elif type(packet) is p.PubRel:
                self._deliveries.on_pubrel(packet.packet_id, outbox)
            else:
                self._on_rare(packet)

    def _on_rare(
        self, packet: p.Message | p.Grown | p.SubAck | p.UnsubAck | p.PingResp | p.ConnAck
    ) -> None:
        match packet:
            case p.Message():
                self.arrived.append(packet)  # which is streamed
            case p.Grown():
                self._deliveries.on_grown(packet.packet)
            case p.SubAck():
                self.subscriptions.on_suback(packet, self._attached)
                self._take_settled()
            case p.UnsubAck():
                self.subscriptions.on_unsuback(packet, self._attached)
                self._take_settled()
            case p.PingResp():
                self._on_pingresp()
            case p.ConnAck():
                raise ProtocolViolation("CONNACK on a connection that is established")
            case _:
                assert_never(packet)

    def holds(self, delivery: p.Delivery) -> bool:
        """Whether the broker will send it again if it is not acknowledged."""
        return self._deliveries.holds(delivery)

    def give_back(self, delivery: p.Delivery) -> None:
        """The application will not get the message: the broker's redelivery arrives as new."""
        self._deliveries.give_back(delivery)

    def _settle(self, transfer: Transfer | None) -> None:
        if transfer is not None:
            self.settled.append(transfer)

    def _take_settled(self) -> None:
        self.settled += self.subscriptions.settled
        self.subscriptions.settled.clear()

    def _on_pingresp(self) -> None:
        if self._pings:
            self.settled.append(self._pings.popleft())
        else:
            self.counters.unmatched_answers += 1
