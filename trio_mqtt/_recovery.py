"""From the records of a session to what it was, in spite of those that are damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import attrs

from . import _packets as p
from ._errors import PersistenceError, ProtocolViolation
from ._packet_ids import MAX_PACKET_ID
from ._records import (
    BROKERS,
    MAX_KEY,
    SESSION_COPY_KEY,
    SESSION_KEY,
    Damaged,
    Identity,
    Kind,
    LaterFormat,
    Record,
    decode_record,
    encode_record,
)
from ._requests import Stage, Transfer
from ._session import Stored
from ._transfers import MAX_PENDING

_MOST_RESERVED = MAX_PACKET_ID - 3 * MAX_PENDING
"""So that identifiers are left for all that may be pending."""
_SESSION_KEYS = (SESSION_KEY, SESSION_COPY_KEY)


@attrs.frozen
class DamagedRecord:
    """A record that is not as it was stored, and was therefore deleted, or restored from its copy.

    What it said is lost: a message of ours that was accepted, its `packet_id` being ours, or that a
    message of the broker's at QoS 2 was received already, which may therefore come twice.
    """

    key: int
    """Of 17 bits: the packet identifier, and above it one bit for the broker's."""
    reason: str

    @property
    def packet_id(self) -> int | None:
        """The packet identifier; None for a record of the session itself."""
        return self.key % BROKERS or None

    @property
    def is_ours(self) -> bool:
        """Whether it was about a message that we published."""
        return 0 < self.key < BROKERS

    def __str__(self) -> str:
        if self.packet_id is None:
            return f"one of the two records of the session is damaged: {self.reason}"
        whose = "we published" if self.is_ours else "the broker sent"
        return f"the record of message {self.packet_id} that {whose} is damaged: {self.reason}"


@attrs.define
class Recovery:
    """What a session was, and how to mend its records."""

    stored: Stored
    messages: dict[int, p.Message]
    """Of the transfers that are not released, by packet identifier."""
    warnings: list[DamagedRecord]
    saves: dict[int, bytes]
    deletes: list[int]


def new_session(client_id: str) -> Recovery:
    """A session that begins, with its records."""
    identity = Identity(client_id, discard_due=True)
    saves = _identity_records(identity, 1)
    return Recovery(Stored(identity, 1 + len(saves)), {}, [], saves, [])


def recover(values: Mapping[int, bytes | None], codec: p.Codec) -> Recovery:
    """What the values say, by key; None where one could not be found.

    Raises:
        PersistenceError: they are of a later version of this library, or of no session at all.
    """
    reader = _Reader(codec)
    for key in sorted(values):
        reader.read(key, values[key])
    identity = reader.identity()
    transfers = sorted(reader.transfers, key=lambda found: found[0])
    lost = {warning.key for warning in reader.warnings if warning.is_ours}
    reserved = identity.reserved | lost
    if len(reserved) > _MOST_RESERVED:
        raise PersistenceError(f"{len(reserved)} records are damaged: nothing goes on from these")
    saves: dict[int, bytes] = {}
    sequence = reader.highest + 1
    if reserved != identity.reserved or not reader.has_both:
        identity = attrs.evolve(identity, reserved=reserved)
        saves = _identity_records(identity, sequence)
        sequence += len(saves)
    stored = Stored(
        identity,
        sequence,
        tuple(transfer for _, transfer in transfers),
        frozenset(reader.received),
    )
    deletes = [item.key for item in reader.warnings if item.key not in _SESSION_KEYS]
    return Recovery(stored, reader.messages, reader.warnings, saves, deletes)


def _identity_records(identity: Identity, sequence: int) -> dict[int, bytes]:
    body = identity.encode()
    return {
        key: encode_record(key, Record(Kind.SESSION, sequence + position, body))
        for position, key in enumerate(_SESSION_KEYS)
    }


class _Reader:
    """Takes in one record after the other."""

    def __init__(self, codec: p.Codec) -> None:
        self._codec = codec
        self._sessions: list[tuple[int, Identity]] = []
        self.transfers: list[tuple[int, Transfer]] = []
        self.messages: dict[int, p.Message] = {}
        self.received: set[int] = set()
        self.warnings: list[DamagedRecord] = []
        self.highest = 0

    @property
    def has_both(self) -> bool:
        """Whether the record of the session and its copy are good."""
        return len(self._sessions) == len(_SESSION_KEYS)

    def identity(self) -> Identity:
        """What the session is, by the later of the two."""
        if not self._sessions:
            raise PersistenceError("the client identifier is not among the records, or damaged")
        return max(self._sessions, key=lambda found: found[0])[1]

    def read(self, key: int, value: bytes | None) -> None:
        """Takes in the value of a key."""
        if not 0 <= key <= MAX_KEY:
            raise PersistenceError(f"{key:#x} is no key of 17 bits")
        try:
            if value is None:
                raise Damaged("it is not there")
            record = decode_record(key, value)
            self._take_in(key, record)
        except Damaged as damage:
            self.warnings.append(DamagedRecord(key, str(damage)))
        except LaterFormat as error:
            raise PersistenceError(f"of a later version of trio_mqtt: {error}") from error
        else:
            self.highest = max(self.highest, record.sequence)

    def _take_in(self, key: int, record: Record) -> None:
        if record.kind not in _kinds_under(key):
            raise Damaged(f"a record of kind {record.kind.name} has no place there")
        packet_id = key % BROKERS
        match record.kind:
            case Kind.SESSION:
                self._sessions.append((record.sequence, Identity.decode(record.body)))
            case Kind.PUBLISH:
                transfer = self._read_publish(packet_id, record.body)
                self.transfers.append((record.sequence, transfer))
            case Kind.RELEASED:
                transfer = Transfer(packet_id, 2, b"", Stage.RELEASED, attempted=True)
                self.transfers.append((record.sequence, transfer))
            case Kind.RECEIVED:
                self.received.add(packet_id)
            case _:
                assert_never(record.kind)

    def _read_publish(self, packet_id: int, packet: bytes) -> Transfer:
        try:
            found = self._codec.new_decoder().feed(packet)
        except ProtocolViolation as violation:
            raise Damaged(f"its packet is malformed: {violation}") from violation
        match found:
            case [p.Delivery(message=message, packet_id=found_id)] if found_id == packet_id:
                self.messages[packet_id] = message
                # A QoS of 0 has no packet identifier.
                return Transfer(packet_id, 2 if message.qos == 2 else 1, packet, attempted=True)
            case _:
                raise Damaged("it holds another packet")


def _kinds_under(key: int) -> tuple[Kind, ...]:
    if key in _SESSION_KEYS:
        return (Kind.SESSION,)
    return (Kind.PUBLISH, Kind.RELEASED) if key < BROKERS else (Kind.RECEIVED,)
