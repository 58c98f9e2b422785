"""Drives a `Session` without a network: packets in, packets out, and what it handed on."""

from __future__ import annotations

from collections.abc import Sequence

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec
from trio_mqtt._errors import InDoubt, NotSent
from trio_mqtt._journal import Batch
from trio_mqtt._outbox import Outbox
from trio_mqtt._records import BROKERS, decode_record
from trio_mqtt._requests import Pending
from trio_mqtt._session import SessionState, Stored
from trio_mqtt._transfers import Limits
from trio_mqtt.testing._server311 import server_decoder


class Driver:
    """A session, and a broker's view of it."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        attach: bool = True,
        stored: Stored | None = None,
        present: bool = False,
    ) -> None:
        limits = Limits() if limits is None else limits
        self.session = SessionState(Codec(), limits, stored)
        self.values: dict[int, bytes] = {}
        """What a durable session has stored, by key."""
        self._decoder = server_decoder()
        if attach:
            self.attach(present=present)

    def attach(
        self, *, clean: bool = False, present: bool = False, restart_at: int = 1
    ) -> list[p.Served]:
        """Connects, and returns what is sent at once."""
        self._decoder = server_decoder()
        self.session.attach(clean=clean, present=present, restart_at=restart_at)
        return self.sent()

    def lose(self, reason: str = "cut") -> list[tuple[Pending, NotSent | InDoubt]]:
        return self.session.detach(reason)

    def sent(self) -> list[p.Served]:
        """What has been queued since the last look, now written."""
        outbox = self.session.outbox
        assert outbox is not None
        return self._decoder.feed(write(outbox))

    def receive(self, *packets: p.Inbound) -> list[p.Served]:
        """Takes packets in, and returns what is sent in answer."""
        self.session.receive(packets)
        self.session.subscriptions.forget_left()
        return self.sent()

    def take(self) -> Batch:
        """What is queued to be stored."""
        assert self.session.journal is not None
        return self.session.journal.take()

    def store(self, batch: Batch | None = None) -> list[p.Served]:
        """Stores what is queued, or was taken, and returns what is sent then."""
        batch = self.take() if batch is None else batch
        self.values.update(batch.saves())
        for key in batch.deletes():
            self.values.pop(key, None)
        self.session.stored(batch)
        return [] if self.session.outbox is None else self.sent()

    def records(self) -> list[tuple[int, str]]:
        """The keys and kinds of what is stored, but for the session itself."""
        return [
            (key, decode_record(key, value).kind.name)
            for key, value in sorted(self.values.items())
            if key % BROKERS
        ]

    def arrived(self) -> list[p.Message | p.Delivery]:
        arrived, self.session.arrived = self.session.arrived, []
        return arrived

    def delivered(self) -> list[p.Delivery]:
        """What arrived at QoS 1 and 2."""
        return [packet for packet in self.arrived() if isinstance(packet, p.Delivery)]

    def settled(self) -> list[Pending]:
        settled, self.session.settled = self.session.settled, []
        return settled

    def release(self, *deliveries: p.Delivery) -> list[p.Served]:
        for delivery in deliveries:
            self.session.release(delivery)
        return self.sent()


def write(outbox: Outbox) -> bytes:
    """What is in the outbox, which then counts as written."""
    data = b"".join(outbox.take())
    outbox.begun = outbox.written = outbox.queued
    return data


def delivery(
    packet_id: int, qos: p.QoS = 1, topic: str = "t", payload: bytes = b"x", *, dup: bool = False
) -> p.Delivery:
    return p.Delivery(p.Message(topic, payload, qos, False, dup), packet_id)


def ids(packets: Sequence[p.Served]) -> list[tuple[str, int]]:
    """Packets at a glance: their kind, with a ! where DUP is set, and their identifier."""
    seen: list[tuple[str, int]] = []
    for packet in packets:
        match packet:
            case p.Delivery():
                seen.append(("PUBLISH" + "!" * packet.message.dup, packet.packet_id))
            case p.Message():
                seen.append(("PUBLISH", 0))
            case p.PubAck() | p.PubRec() | p.PubRel() | p.PubComp() | p.Subscribe():
                seen.append((type(packet).__name__.upper(), packet.packet_id))
            case p.Unsubscribe():
                seen.append(("UNSUBSCRIBE", packet.packet_id))
            case _:
                seen.append((type(packet).__name__.upper(), 0))
    return seen
