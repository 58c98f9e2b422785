"""`volatile_session`, `init_session`, `adopt_session`, and what `open_client` makes of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import (
    ClosedInDoubt,
    Denied,
    Down,
    PersistenceError,
    adopt_session,
    init_session,
    open_client,
    volatile_session,
)
from trio_mqtt import _packets as p
from trio_mqtt._records import SESSION_COPY_KEY, SESSION_KEY, Identity, Kind
from trio_mqtt.testing import ScriptedBroker

from .memory_persistence import MemoryPersistence


async def begun(client_id: str = "me") -> MemoryPersistence:
    """A persistence with a session that was never connected."""
    persistence = MemoryPersistence()
    await (await init_session(client_id, persistence)).aclose()
    return persistence


async def test_a_session_begins_with_two_records_of_itself() -> None:
    persistence = MemoryPersistence()
    session = await init_session("mé", persistence)
    assert (session.client_id, session.pending, session.warnings) == ("mé", (), ())
    assert repr(session) == "<Session 'mé' in MemoryPersistence()>"
    records = persistence.records()
    assert list(records) == [SESSION_KEY, SESSION_COPY_KEY]
    for record in records.values():
        assert record.kind is Kind.SESSION
        assert Identity.decode(record.body) == Identity("mé", discard_due=True)


async def test_a_session_that_exists_is_to_be_adopted() -> None:
    persistence = await begun()
    before = dict(persistence.values)
    with pytest.raises(Denied, match="adopt_session continues it"):
        await init_session("other", persistence)
    assert persistence.values == before
    assert not persistence.is_open
    assert (await adopt_session(persistence)).client_id == "me"


async def test_an_empty_persistence_is_to_be_initialized() -> None:
    persistence = MemoryPersistence()
    with pytest.raises(Denied, match="init_session begins a session there"):
        await adopt_session(persistence)
    assert not persistence.is_open
    await init_session("me", persistence)


async def test_a_persistence_serves_one_session_at_a_time() -> None:
    persistence = MemoryPersistence()
    session = await init_session("me", persistence)
    for attempt in (adopt_session(persistence), init_session("other", persistence)):
        with pytest.raises(PersistenceError, match="serves another session already"):
            await attempt
    assert persistence.is_open
    await session.aclose()
    assert not persistence.is_open
    session = await adopt_session(persistence)
    await session.aclose()
    await session.aclose()
    assert not persistence.is_open


@pytest.mark.parametrize("client_id", ["", "\ud800", "a\0"])
async def test_an_illegal_client_identifier_is_denied(client_id: str) -> None:
    persistence = MemoryPersistence()
    with pytest.raises(Denied):
        await init_session(client_id, persistence)
    with pytest.raises(Denied):
        volatile_session(client_id)
    assert not persistence.values


@pytest.mark.parametrize("wrong", [None, "path", dict[str, str](), MemoryPersistence])
async def test_what_is_no_persistence_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a persistence is a Persistence"):
        await init_session("me", wrong)
    with pytest.raises(TypeError, match="a persistence is a Persistence"):
        await adopt_session(wrong)


async def test_what_the_storage_says_is_a_persistence_error() -> None:
    persistence = MemoryPersistence()
    persistence.failure = OSError("disk full")
    with pytest.raises(PersistenceError, match="disk full") as caught:
        await init_session("me", persistence)
    assert caught.value.__cause__ is persistence.failure
    assert not persistence.is_open
    persistence.failure = None
    await init_session("me", persistence)


class Locked(MemoryPersistence):
    """Cannot be opened."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error

    async def open(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (PermissionError("no"), PersistenceError),
        (PersistenceError("in use"), PersistenceError),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
async def test_a_persistence_that_cannot_be_opened(error: Exception, seen: type[Exception]) -> None:
    persistence = Locked(error)
    with pytest.raises(seen):
        await init_session("me", persistence)
    persistence.error = None
    await init_session("me", persistence)


class Unclosable(MemoryPersistence):
    """Fails to close."""

    async def close(self) -> None:
        raise OSError("never")


async def test_what_the_storage_says_to_being_closed_is_of_no_consequence() -> None:
    persistence = Unclosable()
    await (await init_session("me", persistence)).aclose()
    with pytest.raises(Denied):
        await init_session("me", persistence)
    await adopt_session(persistence)


async def test_cancelled_in_the_middle_it_lets_go(autojump_clock: MockClock) -> None:
    persistence = MemoryPersistence()
    persistence.commit_seconds = 5
    with trio.move_on_after(1) as scope:
        await init_session("me", persistence)
    assert scope.cancelled_caught
    assert not persistence.is_open
    assert not persistence.values
    await init_session("me", persistence)


async def test_damage_is_in_the_warnings_and_deleted() -> None:
    persistence = await begun()
    persistence.values[9] = b"rubbish"
    session = await adopt_session(persistence)
    assert [warning.packet_id for warning in session.warnings] == [9]
    assert list(persistence.values) == [SESSION_KEY, SESSION_COPY_KEY]
    await session.aclose()
    assert (await adopt_session(persistence)).warnings == ()


async def test_a_session_of_a_later_version_is_left_alone() -> None:
    persistence = await begun()
    del persistence.values[SESSION_KEY], persistence.values[SESSION_COPY_KEY]
    persistence.values[9] = b"rubbish"
    with pytest.raises(PersistenceError, match="client identifier"):
        await adopt_session(persistence)
    assert persistence.values == {9: b"rubbish"}
    assert not persistence.is_open


# Opening a client


async def test_a_volatile_session_is_a_client_identifier(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    session = volatile_session("me")
    assert repr(session) == "<Session 'me' in memory>"
    async with open_client(scripted.dialer, session=session) as client:
        connect = await (await scripted.next_link()).expect(p.Connect)
        assert (connect.client_id, connect.clean_session) == ("me", False)
        await client.enqueue("t", b"x")
        await client.aclose()


async def test_a_session_serves_one_client(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    for session in (volatile_session("me"), await init_session("me", MemoryPersistence())):
        with pytest.raises(Down):
            async with open_client(_unreachable, session=session):
                raise AssertionError
        with pytest.raises(Denied, match="served a client already"):
            async with open_client(scripted.dialer, session=session):
                raise AssertionError


async def _unreachable() -> trio.abc.Stream:
    raise OSError("unreachable")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"client_id": "me"}, "either a session or a client_id"),
        ({"clean_session": True}, "to be continued, not cleaned"),
    ],
)
async def test_arguments_that_contradict_the_session_are_denied(
    scripted: ScriptedBroker, autojump_clock: MockClock, arguments: dict[str, Any], error: str
) -> None:
    persistence = await begun()
    async with open_client(scripted.dialer, session=await adopt_session(persistence)) as client:
        await client.aclose()
    session = await adopt_session(persistence)
    with pytest.raises(Denied, match=error):
        async with open_client(scripted.dialer, session=session, **arguments):
            raise AssertionError
    assert persistence.is_open, "it is still to be used"
    await session.aclose()


async def test_what_is_no_session_is_a_type_error(scripted: ScriptedBroker) -> None:
    wrong: Any = "me"
    with pytest.raises(TypeError, match="a session is a Session"):
        async with open_client(scripted.dialer, session=wrong):
            raise AssertionError


async def test_the_persistence_is_free_once_the_client_ended(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = await begun()
    with pytest.raises(ZeroDivisionError):
        async with open_client(scripted.dialer, session=await adopt_session(persistence)):
            raise ZeroDivisionError
    assert not persistence.is_open
    async with open_client(scripted.dialer, session=await adopt_session(persistence)) as client:
        await client.aclose()
    assert not persistence.is_open


# The first connect


async def test_the_broker_is_made_to_forget_once_before_the_first_use(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = MemoryPersistence()
    session = await init_session("me", persistence)
    will = trio_mqtt.Will("will", b"")
    async with open_client(scripted.dialer, session=session, will=will) as client:
        link = await scripted.next_link()
        connect = await link.expect(p.Connect)
        assert (connect.clean_session, connect.will) == (True, None)
        await link.expect(p.Disconnect)
        connect = await (await scripted.next_link()).expect(p.Connect)
        assert (connect.clean_session, connect.will) == (False, will)
        body = persistence.records()[SESSION_KEY].body
        assert not Identity.decode(body).discard_due, "recorded before the second CONNECT"
        await client.aclose()
    async with open_client(scripted.dialer, session=await adopt_session(persistence)) as client:
        connect = await (await scripted.next_link()).expect(p.Connect)
        assert not connect.clean_session
        await client.aclose()


async def test_a_cleaning_that_cannot_be_recorded_is_done_again(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """Else a crash would have it done later, to a session that is in use."""
    persistence = MemoryPersistence()
    session = await init_session("me", persistence)
    persistence.failure = OSError("disk full")
    async with open_client(scripted.dialer, session=session, wait_online=False) as client:
        await (await scripted.accepted()).expect(p.Disconnect)
        connect = await (await scripted.next_link()).expect(p.Connect)
        assert connect.clean_session
        assert not client.online
        persistence.failure = None
        while connect.clean_session:
            connect = await (await scripted.next_link()).expect(p.Connect)
        await client.wait_online()
        await client.aclose()


async def test_a_session_whose_first_connect_failed_is_still_cleaned_when_adopted(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = await begun()
    with pytest.raises(Down):
        async with open_client(_unreachable, session=await adopt_session(persistence)):
            raise AssertionError
    session = await adopt_session(persistence)
    async with open_client(scripted.dialer, session=session, clean_session=True) as client:
        connect = await (await scripted.next_link()).expect(p.Connect)
        assert connect.clean_session
        await client.aclose()


async def test_a_session_that_is_closed_ends_its_exchanges(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = await begun()
    async with open_client(scripted.dialer, session=await adopt_session(persistence)) as client:
        await client.enqueue("t", b"x")
        await client.aclose()
    session = await adopt_session(persistence)
    (exchange,) = session.pending
    await session.aclose()
    with pytest.raises(ClosedInDoubt):
        await exchange.wait()


async def test_closing_a_session_under_its_client_does_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = MemoryPersistence()
    session = await init_session("me", persistence)
    async with open_client(scripted.dialer, session=session) as client:
        await session.aclose()
        assert persistence.is_open
        await client.aclose()
    assert not persistence.is_open


class Impatient(MemoryPersistence):
    """Has a timeout of its own."""

    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        with trio.fail_after(5):
            await super().commit(saves, deletes)


async def test_a_timeout_of_the_persistence_ends_the_client_bare(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = Impatient()
    session = await init_session("me", persistence)
    with pytest.raises(trio.TooSlowError):
        async with open_client(scripted.dialer, session=session) as client:
            persistence.commit_seconds = 10
            await client.enqueue("t", b"x")
