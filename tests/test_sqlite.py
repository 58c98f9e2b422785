"""`SQLite`: how its database is set up, what it finds in a file, and what a crash leaves of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trio_mqtt import PersistenceError, SQLite, adopt_session, init_session
from trio_mqtt._records import MAX_KEY
from trio_mqtt._sqlite import APPLICATION_ID, Database

from .persistences import Attempt, both_attempts, small_session, store, stored
from .persistences import contents as contents_of

A, B, C = b"a" * 12, b"b" * 13, b"c" * 5000


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a database that is locked."""
    monkeypatch.setattr("trio_mqtt._sqlite.BUSY_TIMEOUT", 0.0)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Those that are opened."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:  # they are passed on
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", recorded)
    return opened


def pragma(connection: sqlite3.Connection, name: str) -> object:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return value


def contents(database: Database) -> dict[int, bytes | None]:
    return {key: database.load(key) for key in sorted(database.keys())}


# How it is set up


async def test_each_commit_is_synced(tmp_path: Path, connections: list[sqlite3.Connection]) -> None:
    for _ in range(2):  # when it is created, and when it is there
        persistence = SQLite(tmp_path / "session")
        await persistence.open()
        connection = connections.pop()
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 2  # FULL
        assert pragma(connection, "fullfsync") == 1
        assert pragma(connection, "checkpoint_fullfsync") == 1
        assert pragma(connection, "locking_mode") == "exclusive"
        assert not connection.in_transaction
        await persistence.commit({1: A}, ())
        assert not connection.in_transaction
        await persistence.close()


async def test_it_is_one_file_once_it_is_closed(tmp_path: Path) -> None:
    await store(SQLite(tmp_path / "session"), {1: A, 2: B})
    assert os.listdir(tmp_path) == ["session"]
    connection = sqlite3.connect(tmp_path / "session")
    assert pragma(connection, "application_id") == APPLICATION_ID
    assert connection.execute("SELECT key, value FROM records").fetchall() == [(1, A), (2, B)]
    connection.close()


def test_all_keys_have_a_row(tmp_path: Path) -> None:
    values = {key: b"%012d" % key for key in range(MAX_KEY + 1)}
    assert len(values) == 2**17
    database = Database(tmp_path / "session")
    database.open()
    database.commit(values, ())
    assert contents(database) == values
    database.commit({}, values)
    assert contents(database) == {}
    database.close()


# What it finds


def something_else(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE records (key INTEGER PRIMARY KEY, value BLOB NOT NULL)")
    connection.close()


def of_another_application(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 7")
    connection.close()


def of_a_later_version(path: Path) -> None:
    database = Database(path)
    database.open()
    database.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"dear diary" * 500)


@both_attempts
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (something_else, "is a database of something else"),
        (of_another_application, "is a database of something else"),
        (of_a_later_version, "is of a later version of trio_mqtt"),
        (no_database, "file is not a database"),
    ],
)
async def test_a_file_of_something_else_is_left_alone(
    attempt: Attempt, make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "session"
    make(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(PersistenceError, match=message):
            await attempt(SQLite(path))
    assert path.read_bytes() == before


async def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / "session").touch()
    await (await init_session("client", SQLite(tmp_path / "session"))).aclose()


@both_attempts
@pytest.mark.parametrize("lock", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
async def test_a_locked_database_is_in_use(attempt: Attempt, lock: str, tmp_path: Path) -> None:
    path = tmp_path / "session"
    await store(SQLite(path), small_session())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(lock)
    persistence = SQLite(path)
    with pytest.raises(PersistenceError, match="is in use by another client") as caught:
        await attempt(persistence)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    connection.close()
    await (await adopt_session(persistence)).aclose()


async def test_nobody_reads_it_meanwhile(tmp_path: Path) -> None:
    session = await init_session("client", SQLite(tmp_path / "session"))
    connection = sqlite3.connect(tmp_path / "session", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        connection.execute("SELECT * FROM records")
    await session.aclose()
    assert len(connection.execute("SELECT * FROM records").fetchall()) == 2
    connection.close()


class Vanishing(Database):
    """Whose file is renamed while it is opened."""

    def _prepare(self, connection: sqlite3.Connection) -> None:
        super()._prepare(connection)
        self.path.rename(self.path.with_name("elsewhere"))


def test_what_cannot_be_opened_is_closed(
    tmp_path: Path, connections: list[sqlite3.Connection]
) -> None:
    database = Vanishing(tmp_path / "session")
    with pytest.raises(FileNotFoundError):
        database.open()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        pragma(connections[0], "user_version")


# What becomes of it


async def test_a_full_database_takes_all_or_nothing(
    tmp_path: Path, connections: list[sqlite3.Connection]
) -> None:
    persistence = SQLite(tmp_path / "session")
    await persistence.open()
    await persistence.commit({1: A}, ())
    pages = pragma(connections[0], "page_count")
    assert isinstance(pages, int)
    connections[0].execute(f"PRAGMA max_page_count = {pages + 1}")
    for saves in ({1: C * 10}, {2: B, 3: C * 10}, {3: C * 10, 2: B}):
        with pytest.raises(PersistenceError, match="full") as caught:
            await persistence.commit(saves, ())
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert not connections[0].in_transaction
        assert await persistence.keys() == [1]
    await persistence.commit({2: B}, ())
    connections[0].execute("PRAGMA max_page_count = 1000000")
    await persistence.commit({3: C * 10}, [1])
    await persistence.close()
    assert await stored(persistence) == {2: B, 3: C * 10}


class Unreadable(list[int]):
    """Fails when the values have been stored."""

    def __iter__(self) -> Iterator[int]:
        raise OSError("it cannot be read")


async def test_what_fails_in_the_middle_is_undone(tmp_path: Path) -> None:
    persistence = SQLite(tmp_path / "session")
    await persistence.open()
    await persistence.commit({1: A}, ())
    with pytest.raises(OSError, match="it cannot be read"):
        await persistence.commit({1: B, 2: B}, Unreadable())
    assert await contents_of(persistence) == {1: A}
    await persistence.commit({3: C}, ())
    await persistence.close()
    assert await stored(persistence) == {1: A, 3: C}


COMMITS: list[tuple[dict[int, bytes], list[int]]] = [
    ({1: A}, []),
    ({1: B, 2: B, 3: C}, []),
    ({2: A, 4: C}, [1]),
    ({}, [2, 3]),
    ({5: C * 3}, [4]),
]


def test_a_log_that_a_crash_cut_short_is_read_up_to_some_commit(tmp_path: Path) -> None:
    """The file and its log as they are while it is open, the log cut short everywhere."""
    path, log = tmp_path / "session", tmp_path / "session-wal"
    database = Database(path)
    database.open()
    states: list[dict[int, bytes]] = [{}]
    lengths = [0]
    for saves, deletes in COMMITS:
        database.commit(saves, deletes)
        kept = {key: value for key, value in states[-1].items() if key not in deletes}
        states.append({**kept, **saves})
        lengths.append(log.stat().st_size)
    for length in [*range(0, lengths[-1], 1000), *lengths]:
        image = tmp_path / f"at {length}"
        shutil.copy(path, image)
        Path(f"{image}-wal").write_bytes(log.read_bytes()[:length])
        assert recovered(image) == states[sum(end <= length for end in lengths) - 1]
    database.close()


def recovered(path: Path) -> dict[int, bytes | None]:
    database = Database(path)
    database.open()
    found = contents(database)
    database.close()
    return found
