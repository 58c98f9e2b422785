"""`Persistence`: where a durable session keeps its records.

What is in a record, and how damage is found, is the business of `_records.py`: to a persistence
keys are numbers and values are bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from ._errors import PersistenceError


class Persistence(ABC):
    """A store of values under keys, which `init_session` and `adopt_session` build on.

    `FileSystem` and `SQLite` are two. Another one is a subclass with three methods, and with
    `open` and `close` where it has something to take hold of. Keys are integers of 17 bits,
    values 12 bytes to somewhat more than 256 MiB, as long as the longest MQTT packet.

    The library calls one method at a time. It raises `OSError` or `PersistenceError` when the
    storage fails: the client refuses the messages that could not be stored, and tries again. Any
    other exception ends the client, and leaves ``async with open_client(...)`` as it is.
    """

    _in_use = False

    @abstractmethod
    async def load(self, key: int) -> bytes | None:
        """The value of a key; None when there is none."""

    @abstractmethod
    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        """Stores these values, each in the place of an earlier one, and deletes these keys.

        All of it or nothing, also when the power fails in the middle; and when this returns, no
        loss of power undoes it. A key is in one of the two. One to be deleted may not be there.
        Where it raises, nothing is stored: the callers are told so. If that cannot be known, it
        is mended by the next commit, which deletes what was refused.

        A commit is cancelled only if the client is being closed and it does not end within 10
        seconds; whether it happened is then unknown.
        """

    @abstractmethod
    async def keys(self) -> Collection[int]:
        """All keys that have a value, in any order."""

    async def load_all(self) -> Mapping[int, bytes | None]:
        """All values by their keys, None where one is not there after all.

        A persistence may know a faster way than one by one.
        """
        return {key: await self.load(key) for key in await self.keys()}

    async def open(self) -> None:  # noqa: B027, there may be nothing to do
        """Takes hold of the storage, before any other call.

        Here belongs what keeps other processes out.

        Raises:
            PersistenceError: another process has it, or it cannot be used.
        """

    async def close(self) -> None:  # noqa: B027, there may be nothing to do
        """Lets go of the storage, after all other calls. It may be opened again."""

    async def acquire(self) -> None:
        """Opens it for one session. For `init_session` and `adopt_session` alone to call.

        Raises:
            PersistenceError: it serves another session already.
        """
        if self._in_use:
            raise PersistenceError(f"{self!r} serves another session already")
        self._in_use = True
        try:
            await self.open()
        except OSError as error:
            self._in_use = False
            raise PersistenceError(f"cannot open {self!r}: {error}") from error
        except BaseException:
            self._in_use = False
            raise

    async def release(self) -> None:
        """Closes it, after `acquire`."""
        try:
            await self.close()
        finally:
            self._in_use = False
