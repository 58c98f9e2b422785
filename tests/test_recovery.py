"""From the records of a session to what it was, in spite of those that are damaged."""

from __future__ import annotations

import zlib

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec
from trio_mqtt._errors import PersistenceError
from trio_mqtt._records import (
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
from trio_mqtt._recovery import DamagedRecord, Recovery, new_session, recover
from trio_mqtt._requests import Stage

from .session_driver import Driver
from .wire import encode_publish

CODEC = Codec()


def packet(packet_id: int, qos: p.QoS = 1, topic: str = "t") -> bytes:
    return encode_publish(CODEC, topic, b"x", qos, packet_id, retain=False)


def a_session() -> dict[int, bytes]:
    """The records of one, with each kind among them."""
    values = new_session("me").saves
    records = {
        9: Record(Kind.PUBLISH, 3, packet(9)),
        8: Record(Kind.PUBLISH, 4, packet(8, 2)),
        7: Record(Kind.RELEASED, 5),
        0x10009: Record(Kind.RECEIVED, 6),
    }
    return values | {key: encode_record(key, record) for key, record in records.items()}


def with_record(key: int, record: Record) -> dict[int, bytes]:
    return a_session() | {key: encode_record(key, record)}


def damaged(key: int) -> Recovery:
    """A session with a byte of this record flipped."""
    values = a_session()
    values[key] = values[key][:-1] + bytes([values[key][-1] ^ 1])
    return recover(values, CODEC)


def test_a_session_is_recovered() -> None:
    recovery = recover(a_session(), CODEC)
    stored = recovery.stored
    assert stored.identity == Identity("me", discard_due=True)
    assert [
        (transfer.packet_id, transfer.qos, transfer.stage) for transfer in stored.transfers
    ] == [
        (9, 1, Stage.WAITING),
        (8, 2, Stage.WAITING),
        (7, 2, Stage.RELEASED),
    ]
    assert all(transfer.attempted and transfer.stored for transfer in stored.transfers)
    assert stored.received == {9}
    assert stored.next_sequence == 7
    assert recovery.messages == {9: p.Message("t", b"x", 1), 8: p.Message("t", b"x", 2)}
    assert (recovery.warnings, recovery.saves, recovery.deletes) == ([], {}, [])


def test_a_record_is_what_the_module_documents() -> None:
    value = encode_record(0x10009, Record(Kind.RECEIVED, 6))
    assert value == bytes.fromhex("2c2d01c0 01 04 0000000000000006")
    assert zlib.crc32(bytes.fromhex("00010009 01 04 0000000000000006")) == 0x2C2D01C0
    identity = Identity("mé", True, frozenset({258, 3}))
    assert identity.encode() == bytes.fromhex("01 0002 0003 0102") + "mé".encode()
    assert Identity.decode(identity.encode()) == identity


def test_the_numbering_goes_on_from_the_highest() -> None:
    """PITFALLS G1. 64 bits, of which a life uses few."""
    values = with_record(0x10001, Record(Kind.RECEIVED, 2**63))
    assert recover(values, CODEC).stored.next_sequence == 2**63 + 1


@pytest.mark.parametrize("key", [7, 8, 9])
def test_a_damaged_message_of_ours_is_dropped_and_its_identifier_reserved(key: int) -> None:
    recovery = damaged(key)
    assert recovery.warnings == [DamagedRecord(key, "the checksum differs")]
    assert recovery.deletes == [key]
    assert key not in [transfer.packet_id for transfer in recovery.stored.transfers]
    assert recovery.stored.identity.reserved == {key}
    again = recover({k: v for k, v in a_session().items() if k != key} | recovery.saves, CODEC)
    assert again.stored.identity.reserved == {key}, "in the next life too"
    assert (again.warnings, again.saves) == ([], {})
    assert again.stored.next_sequence == recovery.stored.next_sequence


def test_a_reserved_identifier_is_free_when_the_broker_begins_a_new_session() -> None:
    values = with_record(1, Record(Kind.PUBLISH, 7, b"no packet"))
    driver = Driver(stored=recover(values, CODEC).stored, attach=False)
    driver.attach(present=True)
    assert driver.session.publish("t", b"", 1, retain=False).packet_id == 2
    driver.lose()
    driver.attach(present=False)
    driver.values.update(values)
    driver.store()
    assert recover({**driver.values, 1: driver.values[2]}, CODEC).stored.identity.reserved == {1}
    del driver.values[1]
    assert recover(driver.values, CODEC).stored.identity.reserved == frozenset()


def test_a_damaged_message_of_the_brokers_is_dropped() -> None:
    recovery = damaged(0x10009)
    (warning,) = recovery.warnings
    assert (warning.packet_id, warning.is_ours) == (9, False)
    assert (
        str(warning)
        == "the record of message 9 that the broker sent is damaged: the checksum differs"
    )
    assert recovery.deletes == [0x10009]
    assert recovery.saves == {}
    assert recovery.stored.received == frozenset()
    assert recovery.stored.identity.reserved == frozenset()


@pytest.mark.parametrize("key", [SESSION_KEY, SESSION_COPY_KEY])
def test_the_session_is_restored_from_the_one_of_its_records_that_is_good(key: int) -> None:
    recovery = damaged(key)
    (warning,) = recovery.warnings
    assert (warning.packet_id, warning.is_ours) == (None, False)
    assert str(warning) == "one of the two records of the session is damaged: the checksum differs"
    assert recovery.stored.identity.client_id == "me"
    assert recovery.deletes == []
    restored = recover(a_session() | recovery.saves, CODEC)
    assert restored.warnings == []
    assert restored.stored.next_sequence == recovery.stored.next_sequence


def test_the_later_record_of_the_session_counts() -> None:
    body = Identity("me", discard_due=False).encode()
    values = with_record(SESSION_KEY, Record(Kind.SESSION, 7, body))
    assert not recover(values, CODEC).stored.identity.discard_due


def test_a_session_without_its_own_record_is_none() -> None:
    values = a_session()
    del values[SESSION_KEY], values[SESSION_COPY_KEY]
    with pytest.raises(PersistenceError, match="client identifier"):
        recover(values, CODEC)


def test_a_message_of_ours_is_named_as_such() -> None:
    assert (
        str(DamagedRecord(9, "gone"))
        == "the record of message 9 that we published is damaged: gone"
    )
    assert DamagedRecord(9, "gone").is_ours


@pytest.mark.parametrize(
    ("key", "record", "reason"),
    [
        (1, Record(Kind.RECEIVED, 7), "a record of kind RECEIVED has no place there"),
        (1, Record(Kind.SESSION, 7), "a record of kind SESSION has no place there"),
        (0x10001, Record(Kind.RELEASED, 7), "a record of kind RELEASED has no place there"),
        (SESSION_KEY, Record(Kind.PUBLISH, 7), "a record of kind PUBLISH has no place there"),
        (1, Record(Kind.PUBLISH, 7, packet(2)), "it holds another packet"),
        (1, Record(Kind.PUBLISH, 7, packet(1, 0)), "it holds another packet"),
        (1, Record(Kind.PUBLISH, 7, packet(1)[:-1]), "it holds another packet"),
        (1, Record(Kind.PUBLISH, 7, packet(1) * 2), "it holds another packet"),
        (1, Record(Kind.PUBLISH, 7), "it holds another packet"),
        (1, Record(Kind.PUBLISH, 7, b"\0\0"), "its packet is malformed: "),
        (1, Record(Kind.RELEASED, 2**63 + 1), "no session comes to 9223372036854775809 records"),
        (SESSION_KEY, Record(Kind.SESSION, 7, b"\0\0"), "it says nothing of a session: "),
        (SESSION_KEY, Record(Kind.SESSION, 7, b"\0\0\2\0\0\0"), "it says nothing of a session: "),
        (SESSION_KEY, Record(Kind.SESSION, 7, b"\0\0\0\xff"), "it says nothing of a session: "),
    ],
)
def test_a_record_that_says_what_it_cannot_is_damaged(
    key: int, record: Record, reason: str
) -> None:
    (warning,) = recover(with_record(key, record), CODEC).warnings
    assert warning.key == key
    assert warning.reason.startswith(reason)


def test_a_value_that_is_not_there_is_damaged() -> None:
    recovery = recover({**a_session(), 9: None}, CODEC)
    assert recovery.warnings == [DamagedRecord(9, "it is not there")]


@pytest.mark.parametrize("size", [0, 1, 13])
def test_a_value_that_is_too_short_is_damaged(size: int) -> None:
    with pytest.raises(Damaged, match=f"{size} bytes are no record"):
        decode_record(9, a_session()[9][:size])


def sealed(rest: bytes, key: int = 9) -> bytes:
    """A value with these bytes behind a checksum that is right."""
    return zlib.crc32(key.to_bytes(4, "big") + rest).to_bytes(4, "big") + rest


def test_a_kind_that_is_unknown_in_this_format_is_damage() -> None:
    with pytest.raises(Damaged, match="no record is of kind 99"):
        decode_record(9, sealed(bytes([1, 99]) + bytes(8)))


def test_a_record_of_a_later_version_is_left_alone() -> None:
    value = sealed(bytes([2, 99]) + bytes(8))
    with pytest.raises(LaterFormat, match="format 2"):
        decode_record(9, value)
    with pytest.raises(PersistenceError, match="a later version of trio_mqtt"):
        recover({**a_session(), 9: value}, CODEC)


@pytest.mark.parametrize("key", [-1, 0x20000])
def test_a_key_that_is_none_is_no_session_of_ours(key: int) -> None:
    with pytest.raises(PersistenceError, match="17 bits"):
        recover({**a_session(), key: b""}, CODEC)


def test_identifiers_are_left_however_many_records_are_damaged() -> None:
    values = a_session() | dict.fromkeys(range(1, 16384), b"")
    recovery = recover(values, CODEC)
    assert len(recovery.stored.identity.reserved) == 16_383
    with pytest.raises(PersistenceError, match="16384 records are damaged"):
        recover(values | {16_384: b""}, CODEC)
