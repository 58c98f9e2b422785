"""A session of which records are damaged: found, told, deleted, and gone on without."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from trio_mqtt import FileSystem, Persistence, PersistenceError, Session, SQLite, adopt_session
from trio_mqtt._codec311 import Codec
from trio_mqtt._records import BROKERS, Kind, Record, encode_record
from trio_mqtt._recovery import recover
from trio_mqtt._requests import Transfer
from trio_mqtt._session import SessionState
from trio_mqtt._transfers import Limits

from .memory_persistence import MemoryPersistence
from .persistences import (
    OURS_AT_LEAST_ONCE,
    OURS_EXACTLY_ONCE,
    OURS_RELEASED,
    SESSION_KEYS,
    THE_BROKERS,
    NewPersistence,
    both,
    small_session,
    store,
    stored,
)

VALUES = small_session()
OURS = {OURS_AT_LEAST_ONCE, OURS_EXACTLY_ONCE, OURS_RELEASED}
SINGLE_BITS = [1 << bit for bit in range(8)]
MASKS = [*SINGLE_BITS, 0xFF, 0xF0, 0x55, 0xAA, 0x20 ^ 0x41]

each_key = pytest.mark.parametrize("key", VALUES, ids=hex)


def flipped(value: bytes, masks: Iterable[int]) -> Iterator[bytes]:
    """With one byte changed, each in turn."""
    for position, byte in enumerate(value):
        for mask in masks:
            yield value[:position] + bytes([byte ^ mask]) + value[position + 1 :]


def with_bit_flipped(value: bytes, bit: int) -> bytes:
    number = int.from_bytes(value, "little") ^ 1 << bit
    return number.to_bytes(len(value), "little")


def cut(value: bytes) -> Iterator[bytes]:
    """All that is shorter, and some that is longer."""
    yield from (value[:length] for length in range(len(value)))
    yield from (value + b"\0", value + value, bytes(len(value)))


def packet_ids(transfers: Iterable[Transfer]) -> set[int]:
    return {transfer.packet_id for transfer in transfers}


def ours_without(key: int) -> set[int]:
    return OURS - {key}


def check_recovery(key: int, value: bytes) -> None:
    """Finds the damage of one record, and mends it."""
    damaged: dict[int, bytes | None] = {**VALUES, key: value}
    recovery = recover(damaged, Codec())
    assert [warning.key for warning in recovery.warnings] == [key]
    assert recovery.deletes == ([] if key in SESSION_KEYS else [key])
    assert set(recovery.saves) == ({*SESSION_KEYS} if key in {*SESSION_KEYS, *OURS} else set())
    mended = {k: v for k, v in damaged.items() if k not in recovery.deletes} | recovery.saves
    again = recover(mended, Codec())
    assert not again.warnings
    assert not again.saves
    assert not again.deletes
    for found in (recovery.stored, again.stored):
        assert found.identity.client_id == "client"
        assert found.identity.reserved == OURS & {key}
        assert packet_ids(found.transfers) == ours_without(key)
        assert found.received == ({9} if key != THE_BROKERS else frozenset())


@each_key
def test_each_change_of_a_byte_is_found(key: int) -> None:
    for value in flipped(VALUES[key], MASKS):
        check_recovery(key, value)


@each_key
def test_each_record_cut_short_or_continued_is_found(key: int) -> None:
    for value in cut(VALUES[key]):
        check_recovery(key, value)


@each_key
def test_records_that_changed_places_are_found(key: int) -> None:
    for other, value in VALUES.items():
        if other != key:
            check_recovery(key, value)


# In the storage


def damage_file(path: Path, key: int, value: bytes) -> None:
    (path / f"{key:05x}").write_bytes(value)


def damage_row(path: Path, key: int, value: bytes) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE records SET value = ? WHERE key = ?", (value, key))
    connection.close()


DAMAGE = {FileSystem: damage_file, SQLite: damage_row}
Damage = Callable[[Path, int, bytes], None]
both_damaged = pytest.mark.parametrize(("new", "damage"), DAMAGE.items())


def check_session(session: Session, key: int) -> None:
    (warning,) = session.warnings
    assert warning.key == key
    assert warning.is_ours == (key in OURS)
    assert warning.packet_id == (None if key in SESSION_KEYS else key % BROKERS)
    assert session.client_id == "client"
    assert {exchange.packet_id for exchange in session.pending} == ours_without(key)


async def check_adoption(new: NewPersistence, path: Path, key: int) -> None:
    """Starts, with a warning; and without one the next time."""
    session = await adopt_session(new(path))
    check_session(session, key)
    await session.aclose()
    found = await stored(new(path))
    kept = VALUES.keys() if key in SESSION_KEYS else VALUES.keys() - {key}
    assert found.keys() == kept
    unchanged = kept - {*SESSION_KEYS}
    assert {k: found[k] for k in unchanged} == {k: VALUES[k] for k in unchanged}
    session = await adopt_session(new(path))
    assert not session.warnings
    assert session.stored is not None
    assert session.stored.identity.reserved == OURS & {key}
    assert {exchange.packet_id for exchange in session.pending} == ours_without(key)
    await session.aclose()


@both_damaged
@each_key
async def test_the_client_starts_with_a_warning(
    key: int, new: NewPersistence, damage: Damage, tmp_path: Path
) -> None:
    for position, value in enumerate((b"", VALUES[key][:5], VALUES[key][:-1], bytes(50))):
        path = tmp_path / str(position)
        await store(new(path), VALUES)
        damage(path, key, value)
        await check_adoption(new, path, key)


@both_damaged
@each_key
async def test_and_does_whichever_byte_is_not_as_it_was(
    key: int, new: NewPersistence, damage: Damage, tmp_path: Path
) -> None:
    path = tmp_path / "session"
    await store(new(path), VALUES)
    for position in range(len(VALUES[key])):
        damage(path, key, with_bit_flipped(VALUES[key], 8 * position + position % 8))
        session = await adopt_session(Unmended(new(path)))
        check_session(session, key)
        await session.aclose()


class Unmended(MemoryPersistence):
    """Reads another one and stores nothing there, so that a session can be damaged in many ways."""

    def __init__(self, inner: Persistence) -> None:
        super().__init__()
        self._inner = inner

    async def open(self) -> None:
        self.values = await stored(self._inner)


@both_damaged
async def test_without_both_records_of_the_session_nothing_goes_on(
    new: NewPersistence, damage: Damage, tmp_path: Path
) -> None:
    path = tmp_path / "session"
    await store(new(path), VALUES)
    for key in SESSION_KEYS:
        damage(path, key, b"")
    before = await stored(new(path))
    with pytest.raises(PersistenceError, match="the client identifier is not among the records"):
        await adopt_session(new(path))
    assert await stored(new(path)) == before


@both
@each_key
async def test_a_record_of_a_later_version_is_left_alone(
    key: int, new: NewPersistence, tmp_path: Path
) -> None:
    values = {**VALUES, key: of_a_later_format(key)}
    other = next(iter(VALUES.keys() - {key, *SESSION_KEYS}))
    values[other] = b"damaged"
    await store(new(tmp_path / "session"), values)
    with pytest.raises(PersistenceError, match="of a later version of trio_mqtt: format 2"):
        await adopt_session(new(tmp_path / "session"))
    assert await stored(new(tmp_path / "session")) == values


def of_a_later_format(key: int) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trio_mqtt._records.FORMAT", 2)
        return encode_record(key, Record(Kind.RELEASED, 7, b"something new"))


# The identifiers of messages that were lost


def next_packet_id(session: SessionState) -> int:
    return session.publish("t", b"x", 1, retain=False).packet_id


def adopt_again(values: Mapping[int, bytes | None]) -> tuple[SessionState, dict[int, bytes | None]]:
    """As `adopt_session` does. Returns what is stored then as well."""
    recovery = recover(values, Codec())
    mended = {key: value for key, value in values.items() if key not in recovery.deletes}
    return SessionState(Codec(), Limits(), recovery.stored), {**mended, **recovery.saves}


@pytest.mark.parametrize("key", sorted(OURS))
def test_the_identifier_of_a_lost_message_is_not_used_while_the_broker_may_know_it(
    key: int,
) -> None:
    values: dict[int, bytes | None] = {**VALUES, key: b""}
    for _ in range(3):
        session, values = adopt_again(values)
        session.attach(clean=False, present=True, restart_at=1)
        assert next_packet_id(session) == 4
        session.detach("cut")
        session.attach(clean=False, present=True, restart_at=1)
        assert next_packet_id(session) == 5


@pytest.mark.parametrize("key", sorted(OURS))
def test_it_is_free_when_the_broker_has_lost_the_session(key: int) -> None:
    session, values = adopt_again({**VALUES, key: b""})
    session.attach(clean=False, present=False, restart_at=1)
    assert next_packet_id(session) == key
    assert session.journal is not None
    freed = session.journal.take().saves()
    assert freed.keys() >= {*SESSION_KEYS}
    assert recover({**values, **freed}, Codec()).stored.identity.reserved == frozenset()


def test_what_is_reserved_is_in_both_records_of_the_session() -> None:
    _, values = adopt_again({**VALUES, OURS_AT_LEAST_ONCE: b""})
    for key in SESSION_KEYS:
        recovery = recover({**values, key: b""}, Codec())
        assert [warning.key for warning in recovery.warnings] == [key]
        assert recovery.stored.identity.reserved == {OURS_AT_LEAST_ONCE}


def test_of_two_records_of_the_session_the_later_one_counts() -> None:
    later = small_session(frozenset([77]))
    for key in SESSION_KEYS:
        recovery = recover({**VALUES, key: later[key]}, Codec())
        newest = max(SESSION_KEYS) == key
        assert recovery.stored.identity.reserved == (frozenset([77]) if newest else frozenset())
