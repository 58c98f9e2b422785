"""What a durable session has to store, in batches, and what may go on once it is stored.

The session queues records here as it changes. One task takes all of them at one instant, has them
committed, and hands the batch back: `SessionState.stored` lets its messages go out, its PUBREL, its
PUBREC and its PUBCOMP. So what depends on a record is queued for the network after the record is
safe, and what depends on none never waits. What is queued during a commit goes into the next.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from ._outbox import Outbox
from ._packets import Delivery
from ._records import (
    BROKERS,
    SESSION_COPY_KEY,
    SESSION_KEY,
    Identity,
    Kind,
    Record,
    encode_record,
)
from ._requests import Transfer


@attrs.define
class Batch:
    """Records to be stored together, all or none."""

    records: dict[int, Record | None] = attrs.Factory(dict[int, Record | None])
    """By key; None deletes."""
    transfers: list[Transfer] = attrs.Factory(list[Transfer])
    """Messages of ours that were accepted or released, in order."""
    deliveries: list[Delivery] = attrs.Factory(list[Delivery])
    """Messages at QoS 2 that the application is done with."""
    completions: dict[int, Outbox] = attrs.Factory(dict[int, Outbox])
    """Packet identifiers of the broker's that PUBCOMP frees, and where that belongs."""
    clears: bool = False
    """Whether it forgets what the broker's lost session had sent."""

    @property
    def payload_bytes(self) -> int:
        """Of the records, without their headers."""
        return sum(len(record.body) for record in self.records.values() if record is not None)

    def saves(self) -> dict[int, bytes]:
        """The values to be stored, by key."""
        return {
            key: encode_record(key, record)
            for key, record in self.records.items()
            if record is not None
        }

    def deletes(self) -> list[int]:
        """The keys to be deleted."""
        return [key for key, record in self.records.items() if record is None]


class Journal:
    """The queue of what is to be stored."""

    def __init__(self, next_sequence: int = 1) -> None:
        self._next_sequence = next_sequence
        self._queue = Batch()
        self._taken: Batch | None = None
        self.urgent = False
        """Whether something waits for what is queued. Deletions alone may wait for company."""
        self.wanted = False
        """Whether a caller does, to be told soon if it cannot be stored."""

    def __bool__(self) -> bool:
        """Whether something is not stored yet."""
        return bool(self._queue.records) or self._taken is not None

    @property
    def has_queued(self) -> bool:
        """Whether there is something to take."""
        return bool(self._queue.records)

    @property
    def is_taken(self) -> bool:
        """Whether a batch is being stored, or it is unknown whether it was."""
        return self._taken is not None

    @property
    def clearing(self) -> bool:
        """Whether it is still stored what the broker's lost session had sent."""
        return self._queue.clears or (self._taken is not None and self._taken.clears)

    def is_pending(self, key: int) -> bool:
        """Whether something about this key is not stored yet."""
        taken = self._taken
        return key in self._queue.records or (taken is not None and key in taken.records)

    def pending_of_broker(self) -> set[int]:
        """The broker's packet identifiers about which something is not stored yet."""
        keys = set(self._queue.records)
        if self._taken is not None:
            keys.update(self._taken.records)
        return {key - BROKERS for key in keys if key > BROKERS}

    # What the session queues

    def publish(self, transfer: Transfer) -> None:
        """A message is accepted once this is stored."""
        self._save(transfer.packet_id, Kind.PUBLISH, transfer.packet + transfer.payload)
        self._queue.transfers.append(transfer)
        self.wanted = True

    def release(self, transfer: Transfer) -> None:
        """PUBREC came: never again may the message itself be sent [MQTT-4.3.3-1]."""
        self._save(transfer.packet_id, Kind.RELEASED)
        self._queue.transfers.append(transfer)

    def settle(self, packet_id: int) -> None:
        """The message is confirmed. Nothing waits for this."""
        self._queue.records[packet_id] = None

    def receive(self, delivery: Delivery) -> None:
        """The application is done with a message at QoS 2, which must not come again."""
        self._save(BROKERS | delivery.packet_id, Kind.RECEIVED)
        self._queue.deliveries.append(delivery)

    def complete(self, packet_id: int, outbox: Outbox) -> None:
        """PUBREL came: once forgotten, the identifier is the broker's to use again."""
        self._queue.records[BROKERS | packet_id] = None
        self._queue.completions[packet_id] = outbox
        self.urgent = True

    def clear(self, packet_ids: Iterable[int]) -> None:
        """The broker lost the session, and with it what these identifiers of its meant."""
        for packet_id in packet_ids:
            self._queue.records[BROKERS | packet_id] = None
        self._queue.clears = True
        self.urgent = True

    def identify(self, identity: Identity) -> None:
        """The session itself changed."""
        body = identity.encode()
        self._save(SESSION_KEY, Kind.SESSION, body)
        self._save(SESSION_COPY_KEY, Kind.SESSION, body)

    def _save(self, key: int, kind: Kind, body: bytes = b"") -> None:
        self._queue.records[key] = Record(kind, self._next_sequence, body)
        self._next_sequence += 1
        self.urgent = True

    # What the task that stores does

    def take(self) -> Batch:
        """All that is queued, for the one commit at a time."""
        assert self._taken is None
        self._taken, self._queue = self._queue, Batch()
        self.urgent = self.wanted = False
        return self._taken

    def stored(self) -> None:
        """The batch that was taken is safe."""
        self._taken = None

    def not_stored(self) -> list[Transfer]:
        """The batch is not stored. Returns the messages that were new in it, and are refused.

        Everything else is queued again. A commit that failed may have stored something all the
        same, so what was refused is to be deleted.
        """
        batch = self._taken
        assert batch is not None
        self._taken = None
        refused = [transfer for transfer in batch.transfers if transfer.is_waiting]
        for transfer in refused:
            batch.records[transfer.packet_id] = None
        queue = self._queue
        batch.records.update(queue.records)
        batch.transfers = [item for item in batch.transfers if not item.is_waiting]
        batch.transfers += queue.transfers
        batch.deliveries += queue.deliveries
        batch.completions.update(queue.completions)
        batch.clears |= queue.clears
        self._queue = batch
        return refused
