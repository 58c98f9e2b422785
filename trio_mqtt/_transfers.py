"""Our messages at QoS 1 and 2, from acceptance to confirmation.

A transfer waits, is published, and at QoS 2 released::

                 window has room             PUBACK
    publish ──▶ WAITING ──▶ PUBLISHED ──────────────────▶ CONFIRMED
                                │ PUBREC          PUBCOMP   ▲
                                └───────▶ RELEASED ─────────┘

What is published and released survives the connection, and its order too: a new connection begins
with all of it again, before anything new [MQTT-4.4.0-1] [MQTT-4.6.0-1].

On a durable session there is a journal, and two steps wait for it: a message is accepted, and may
be sent, once it is stored; PUBREL may be sent once it is stored that PUBREC came. A transition that
needs a record queues it there, and `stored` goes on from where it stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from . import _packets as p
from ._errors import InDoubt, ProtocolViolation
from ._journal import Batch, Journal
from ._outbox import APART, Outbox
from ._packet_ids import PacketIds, impossible
from ._requests import Stage, Transfer

MAX_PENDING = 16_384
"""Exchanges per QoS, and SUBSCRIBE and UNSUBSCRIBE together. Thrice this leaves identifiers."""

AT_LEAST_ONCE_WINDOW = 100
EXACTLY_ONCE_WINDOW = 19
"""Mosquitto 2.0.11 with 20 messages at QoS 2 that are not released takes one more at QoS 1,
acknowledges it, discards it, and closes the connection. MQTT 3.1.1 has no Receive Maximum by which
it could say so."""


@attrs.frozen
class Limits:
    """How many exchanges are accepted, and how many of those are on the wire at once."""

    at_least_once_max: int = MAX_PENDING
    exactly_once_max: int = MAX_PENDING
    at_least_once_window: int = AT_LEAST_ONCE_WINDOW
    exactly_once_window: int = EXACTLY_ONCE_WINDOW


@attrs.define
class Counters:
    """What a session counts."""

    confirmed: int = 0
    published_at_most_once: int = 0
    downgrades: int = 0
    """Messages at QoS 2 that the broker confirmed as if they were at QoS 1."""
    unmatched_answers: int = 0
    """Answers to nothing that was asked."""


class Transfers:
    """Those of one session."""

    def __init__(
        self,
        codec: p.Codec,
        limits: Limits,
        ids: PacketIds,
        journal: Journal | None,
        counters: Counters,
    ) -> None:
        self._codec = codec
        self._ids = ids
        self._journal = journal
        self._counters = counters
        self._levels = {
            1: _Level(limits.at_least_once_max, limits.at_least_once_window),
            2: _Level(limits.exactly_once_max, limits.exactly_once_window),
        }
        self._published: dict[int, Transfer] = {}  # in the order of the PUBLISH packets
        self._released: dict[int, Transfer] = {}  # in the order of the PUBREC packets
        self._storing: dict[int, Transfer] = {}  # accepted once they are stored

    def adopt(self, transfers: Iterable[Transfer]) -> None:
        """Goes on with those of an earlier life, in order."""
        for transfer in transfers:
            level = self._levels[transfer.qos]
            level.accepted += 1
            self._ids.outstanding[transfer.packet_id] = transfer
            if transfer.is_waiting:
                level.waiting.append(transfer)
            else:
                level.on_wire += 1
                self._released[transfer.packet_id] = transfer

    # What there is

    def room(self, qos: Literal[1, 2]) -> int:
        """How many messages `publish` will accept."""
        level = self._levels[qos]
        return level.most - level.accepted

    def waiting(self) -> list[Transfer]:
        """The messages that were accepted, or are being stored, and are not on the wire yet."""
        return [*self._levels[1].waiting, *self._levels[2].waiting, *self._storing.values()]

    def storing(self) -> list[Transfer]:
        """The messages that are accepted once they are stored."""
        return list(self._storing.values())

    def unconfirmed(self) -> list[Transfer]:
        """The messages that were accepted, or are being stored, and are not confirmed."""
        return [*self._released.values(), *self._published.values(), *self.waiting()]

    @property
    def count(self) -> int:
        """How many those are."""
        return self._levels[1].accepted + self._levels[2].accepted

    # The application

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: Literal[1, 2],
        *,
        retain: bool,
        outbox: Outbox | None,
    ) -> Transfer:
        """Accepts a message, where there is `room`; with a journal, once it is stored.

        Raises:
            Denied: it is too large.
        """
        level = self._levels[qos]
        assert level.accepted < level.most
        packet_id = self._ids.take()
        size = len(payload)
        header = self._codec.encode_publish_header(topic, size, qos, packet_id, retain=retain)
        if size < APART:
            transfer = Transfer(packet_id, qos, header + payload)
        else:
            transfer = Transfer(packet_id, qos, header, payload=payload)
        self._ids.outstanding[packet_id] = transfer
        level.accepted += 1
        if self._journal is None:
            self._send_or_wait(level, transfer, outbox)
        else:
            transfer.stored = False
            self._storing[packet_id] = transfer
            self._journal.publish(transfer)
        return transfer

    def _send_or_wait(self, level: _Level, transfer: Transfer, outbox: Outbox | None) -> None:
        if outbox is None or level.waiting or level.on_wire >= level.window:
            level.waiting.append(transfer)
        else:
            self._put_on_wire(outbox, level, transfer)

    def _put_on_wire(self, outbox: Outbox, level: _Level, transfer: Transfer) -> None:
        transfer.stage = Stage.PUBLISHED
        self._published[transfer.packet_id] = transfer
        level.on_wire += 1
        # An adopted one may have been attempted in an earlier life.
        self._send_publish(transfer, outbox, duplicate=transfer.attempted)

    def _send_publish(self, transfer: Transfer, outbox: Outbox, *, duplicate: bool) -> None:
        packet = transfer.packet
        if duplicate:
            packet = self._codec.as_duplicate(packet)
        transfer.sent_as(packet, outbox, transfer.payload)

    def _fill_window(self, qos: Literal[1, 2], outbox: Outbox) -> None:
        """Puts on the wire what there is room for."""
        level = self._levels[qos]
        while level.waiting and level.on_wire < level.window:
            self._put_on_wire(outbox, level, level.waiting.popleft())

    # Connections

    def renumber(self, start: int) -> None:
        """Gives new identifiers to all, from `start` on, before any of them was sent."""
        waiting = list(self._ids.outstanding.values())
        self._ids.outstanding.clear()
        self._ids.restart(start)
        for transfer in waiting:  # nothing else is accepted before the first connection
            assert isinstance(transfer, Transfer)
            transfer.packet_id = packet_id = self._ids.take()
            transfer.packet = self._codec.with_packet_id(transfer.packet, packet_id)
            self._ids.outstanding[packet_id] = transfer

    def resume(self, outbox: Outbox, *, clean: bool) -> Sequence[Transfer]:
        """Sends again what the last connection left open. Returns what is confirmed thereby."""
        if not clean:
            for transfer in self._released.values():  # [MQTT-4.6.0-4]
                if transfer.stored:
                    self._send_pubrel(transfer, outbox)
        for transfer in self._published.values():  # [MQTT-4.6.0-1]
            duplicate = transfer.attempted and not clean  # [MQTT-3.3.1-1]
            self._send_publish(transfer, outbox, duplicate=duplicate)
        # The broker had those that are released, and a clean session keeps nothing to release.
        confirmed = list(self._released.values()) if clean else []
        for transfer in confirmed:
            self._settle(transfer, outbox)
        self._fill_windows(outbox)
        return confirmed

    def _fill_windows(self, outbox: Outbox) -> None:
        """Puts on the wire what there is room for, in the order of acceptance over both levels.

        Of an adopted session that is the order of the PUBLISH packets [MQTT-4.6.0-1].
        """
        for transfer in list(self._ids.outstanding.values()):
            if isinstance(transfer, Transfer) and transfer.is_waiting and transfer.stored:
                level = self._levels[transfer.qos]
                if level.on_wire < level.window:
                    level.waiting.popleft()  # which is this one
                    self._put_on_wire(outbox, level, transfer)

    def interrupt(self, outbox: Outbox, reason: str) -> list[tuple[Transfer, InDoubt]]:
        """The connection ended. Returns those that it carried, in part at least."""
        interrupted: list[tuple[Transfer, InDoubt]] = []
        for transfer in (*self._released.values(), *self._published.values()):
            what = transfer.lost(outbox, reason)
            if isinstance(what, InDoubt):
                transfer.attempted = True
                interrupted.append((transfer, what))
        return interrupted

    # The journal

    def stored(self, batch: Batch, outbox: Outbox | None) -> list[Transfer]:
        """The batch is safe. Returns the messages that are accepted thereby."""
        accepted: list[Transfer] = []
        for transfer in batch.transfers:
            transfer.stored = True
            if transfer.is_waiting:
                del self._storing[transfer.packet_id]
                accepted.append(transfer)
                self._send_or_wait(self._levels[transfer.qos], transfer, outbox)
            elif transfer.stage is Stage.RELEASED and outbox is not None:
                self._send_pubrel(transfer, outbox)
        return accepted

    def not_stored(self, refused: Iterable[Transfer]) -> None:
        """These could not be stored, and are not accepted."""
        for transfer in refused:
            transfer.stage = Stage.REFUSED
            del self._storing[transfer.packet_id]
            del self._ids.outstanding[transfer.packet_id]
            self._levels[transfer.qos].accepted -= 1

    # Answers

    def on_puback(self, answer: p.PubAck, outbox: Outbox) -> Transfer | None:
        """Returns the transfer that is confirmed thereby."""
        transfer = self._published.get(answer.packet_id) or self._nothing(answer)
        if transfer is not None:
            if transfer.qos == 2:
                self._counters.downgrades += 1  # RabbitMQ's habit
            self._settle(transfer, outbox)
        return transfer

    def on_pubrec(self, answer: p.PubRec, outbox: Outbox) -> None:
        """The broker has the message, which therefore must not be sent again."""
        packet_id = answer.packet_id
        transfer = (
            self._published.get(packet_id)
            or self._released.get(packet_id)
            or self._found_adopted(packet_id)
            or self._nothing(answer)
        )
        if transfer is None:  # lets the broker's side of it end
            outbox.append(self._codec.encode_ack(p.PubRel, packet_id))
            return
        if transfer.qos == 1:
            raise ProtocolViolation(f"PUBREC {answer.packet_id} answers a PUBLISH at QoS 1")
        if transfer.stage is Stage.PUBLISHED:
            self._release(transfer)
        if transfer.stored:
            self._send_pubrel(transfer, outbox)

    def _found_adopted(self, packet_id: int) -> Transfer | None:
        """A message that waits to be sent again may be known to have arrived in an earlier life."""
        transfer = self._ids.outstanding.get(packet_id)
        if isinstance(transfer, Transfer) and transfer.is_waiting and transfer.attempted:
            level = self._levels[transfer.qos]
            level.waiting.remove(transfer)
            level.on_wire += 1
            transfer.stage = Stage.PUBLISHED
            self._published[packet_id] = transfer
            return transfer
        return None

    def on_pubcomp(self, answer: p.PubComp, outbox: Outbox) -> Transfer | None:
        """Returns the transfer that is confirmed thereby."""
        transfer = self._released.get(answer.packet_id) or self._nothing(answer)
        if transfer is not None:
            self._settle(transfer, outbox)
        return transfer

    def _nothing(self, answer: p.Ack) -> Transfer | None:
        """What `answer` belongs to if it is to nothing that is due: counts it.

        Raises:
            ProtocolViolation: it answers what is to be answered in another way.
        """
        match self._ids.outstanding.get(answer.packet_id):
            case None | Transfer(stage=Stage.WAITING):
                self._counters.unmatched_answers += 1
                return None
            case other:
                raise impossible(answer, other)

    def _release(self, transfer: Transfer) -> None:
        del self._published[transfer.packet_id]
        self._released[transfer.packet_id] = transfer
        transfer.stage = Stage.RELEASED
        transfer.packet = transfer.payload = b""
        if self._journal is not None:
            transfer.stored = False
            self._journal.release(transfer)

    def _send_pubrel(self, transfer: Transfer, outbox: Outbox) -> None:
        transfer.sent_as(self._codec.encode_ack(p.PubRel, transfer.packet_id), outbox)

    def _settle(self, transfer: Transfer, outbox: Outbox) -> None:
        level = self._levels[transfer.qos]
        del self._ids.outstanding[transfer.packet_id]
        container = self._published if transfer.stage is Stage.PUBLISHED else self._released
        del container[transfer.packet_id]
        transfer.stage = Stage.CONFIRMED
        level.accepted -= 1
        level.on_wire -= 1
        self._counters.confirmed += 1
        if self._journal is not None:
            self._journal.settle(transfer.packet_id)
        if level.waiting:
            self._fill_window(transfer.qos, outbox)


@attrs.define
class _Level:
    """What is accepted at one QoS."""

    most: int
    window: int
    accepted: int = 0
    on_wire: int = 0
    waiting: deque[Transfer] = attrs.Factory(deque[Transfer])
