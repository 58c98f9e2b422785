"""A persistence in memory, which tests may slow down, fail, and look into."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import trio

from trio_mqtt import Persistence
from trio_mqtt._records import Record, decode_record


class MemoryPersistence(Persistence):
    """Keeps its values for as long as the object lives, whatever becomes of its client."""

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}
        self.commits: list[tuple[dict[int, bytes], list[int]]] = []
        """What each commit stored and deleted, those that failed included."""
        self.failure: BaseException | None = None
        """What a commit raises, instead of storing anything."""
        self.commit_seconds = 0.0
        self.is_open = False

    def __repr__(self) -> str:
        return "MemoryPersistence()"

    async def load(self, key: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.values.get(key)

    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        assert not set(saves) & set(deletes)
        self.commits.append((dict(saves), list(deletes)))
        await trio.sleep(self.commit_seconds)
        if self.failure is not None:
            raise self.failure
        self.values.update(saves)
        for key in deletes:
            self.values.pop(key, None)

    async def keys(self) -> Collection[int]:
        await trio.lowlevel.checkpoint()
        return list(self.values)

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()
        self.is_open = True

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.is_open = False

    def records(self) -> dict[int, Record]:
        """What is stored."""
        return {key: decode_record(key, value) for key, value in sorted(self.values.items())}
