"""A persistence whose storage blocks: each call happens in a thread, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Protocol, TypeVar

import trio

from ._persistence import Persistence

_T = TypeVar("_T")


class Storage(Protocol):
    """What `Persistence` says, without Trio."""

    def open(self) -> None: ...
    def close(self) -> None: ...
    def load(self, key: int) -> bytes | None: ...
    def load_all(self) -> dict[int, bytes | None]: ...
    def keys(self) -> list[int]: ...
    def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None: ...


class ThreadedPersistence(Persistence):
    """Has a storage do everything in a thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._limiter = trio.CapacityLimiter(1)  # so that no other use of threads holds this one up

    async def load(self, key: int) -> bytes | None:
        """See `Persistence`."""
        return await self._run(partial(self._storage.load, key))

    async def load_all(self) -> Mapping[int, bytes | None]:
        """See `Persistence`."""
        return await self._run(self._storage.load_all)

    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        """See `Persistence`. Cancelling it waits for its end."""
        await self._run(partial(self._storage.commit, saves, deletes))

    async def keys(self) -> Collection[int]:
        """See `Persistence`."""
        return await self._run(self._storage.keys)

    async def open(self) -> None:
        """Opens and locks the storage, and ends what a crash left in the middle."""
        await self._run(self._storage.open)

    async def close(self) -> None:
        """Closes the storage, which unlocks it."""
        await self._run(self._storage.close)

    @trio.lowlevel.enable_ki_protection  # so that a commit ends as it is known to
    async def _run(self, function: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(function, limiter=self._limiter)
