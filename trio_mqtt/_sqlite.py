"""`SQLite`: a persistence in a database of one table."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TypeVar

import trio

from ._errors import PersistenceError
from ._threaded import ThreadedPersistence

APPLICATION_ID = 0x4D515454  # "MQTT"
SCHEMA_VERSION = 1
BUSY_TIMEOUT = 1.0
"""Seconds for another process, a backup say, to finish with the database while it is opened."""

_T = TypeVar("_T")


class SQLite(ThreadedPersistence):
    """Keeps a session in an SQLite database.

    The file is created if need be, and belongs to the session. While a client uses it no other one
    can, of this process or of another: the connection holds SQLite's exclusive lock.

    A message that was accepted survives the loss of power: the database is in WAL mode
    with ``synchronous=FULL``, of which SQLite's documentation says that a transaction is durable
    when its COMMIT returns, as the log is synced in each one, and that recovery finds either all of
    a transaction or none. (With ``NORMAL`` the log is synced at checkpoints only, and a loss
    of power may take the transactions since.) On macOS ``fullfsync`` asks for more than its fsync,
    which stops at the drive's cache. So each commit costs one sync, whatever it holds,
    and what the client queues while one runs goes into the next.

    Reading and writing happen in a thread, one at a time.

    Arguments:
        path: of the database. Beside it there is a file with ``-wal`` behind its name while it is
            open and after a crash, of which it is a part.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        super().__init__(Database(self._path))

    def __repr__(self) -> str:
        return f"SQLite({str(self._path)!r})"

    @trio.lowlevel.enable_ki_protection
    async def _run(self, function: Callable[[], _T]) -> _T:
        try:
            return await super()._run(function)
        except sqlite3.Error as error:
            raise PersistenceError(f"{self._path}: {error}") from error


class Database:
    """The same without Trio, raising `sqlite3.Error`, `OSError` and `PersistenceError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._status: os.stat_result | None = None

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def open(self) -> None:
        """Opens and locks it."""
        if not self.path.exists():
            self.path.touch(mode=0o600)  # messages are nobody else's business
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
            self._status = self.path.stat()
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise PersistenceError(f"{self.path} is in use by another client") from error
            raise
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        execute = connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # taken by the first access, and kept
        execute("BEGIN EXCLUSIVE")
        (application,) = execute("PRAGMA application_id").fetchone()
        (tables,) = execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        if not application and not tables:
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            execute("CREATE TABLE records (key INTEGER PRIMARY KEY, value BLOB NOT NULL)")
        elif application != APPLICATION_ID:
            raise PersistenceError(f"{self.path} is a database of something else")
        elif version != SCHEMA_VERSION:
            raise PersistenceError(f"{self.path} is of a later version of trio_mqtt")
        execute("COMMIT")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA fullfsync = ON")
        execute("PRAGMA checkpoint_fullfsync = ON")

    def close(self) -> None:
        """Closes it, which unlocks it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def load(self, key: int) -> bytes | None:
        """The value of a key."""
        row = self._open.execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def keys(self) -> list[int]:
        """Those that have a value."""
        return [key for (key,) in self._open.execute("SELECT key FROM records")]

    def load_all(self) -> dict[int, bytes | None]:
        """All values."""
        return {
            key: bytes(value) for key, value in self._open.execute("SELECT key, value FROM records")
        }

    def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        """Stores and deletes, in one transaction."""
        self._check()
        connection = self._open
        connection.execute("BEGIN IMMEDIATE")
        try:
            for some in _portions([*saves.items()]):
                rows = ",".join(["(?,?)"] * len(some))
                connection.execute(f"{_SAVE} VALUES {rows}", [*chain.from_iterable(some)])
            for keys in _portions([*deletes]):
                some_keys = ",".join("?" * len(keys))
                connection.execute(f"{_DELETE} WHERE key IN ({some_keys})", keys)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # some failures have rolled back already
                connection.execute("ROLLBACK")
            raise

    def _check(self) -> None:
        """SQLite goes on in a file that was deleted, on most systems, and would lose everything."""
        assert self._status is not None
        if not os.path.samestat(self._status, self.path.stat()):
            raise FileNotFoundError(f"{self.path} is not the database that was opened")


_SAVE = "INSERT OR REPLACE INTO records (key, value)"
_DELETE = "DELETE FROM records"
_PORTION = 400
"""Rows for one statement: SQLite takes 999 parameters at least. As few statements as may be, since
each gives up Python's lock, and beside a thread that computes waits up to 5 ms for it."""


def _portions(items: list[_T]) -> Iterator[list[_T]]:
    return (items[start : start + _PORTION] for start in range(0, len(items), _PORTION))
