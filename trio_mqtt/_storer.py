"""Commits what a durable session has queued in its journal, one batch after the other.

A batch is whatever was queued while the one before was being committed, so that the more there is
to store, the fewer commits a message costs. Deletions alone wait a moment for company: that a
message is confirmed need not be safe at once, as without it nothing happens but a duplicate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import trio

from ._connection import Wakeup
from ._errors import PersistenceError
from ._foreign import unprotected
from ._journal import Batch, Journal
from ._persistence import Persistence
from ._requests import Transfer
from ._session import SessionState

LAZY = 0.05
"""Seconds that deletions wait for company."""
RETRY = 1.0
"""Seconds after which what could not be stored is tried again, if no caller asks for more."""
LAST = 10.0
"""Seconds that the last commits may take when the client is closed."""
LARGE = 1024 * 1024
"""Bytes of payload from which on even the checksums are made in a thread."""


class Storer:
    """The commits of one session."""

    def __init__(
        self, session: SessionState, journal: Journal, persistence: Persistence, wakeup: Wakeup
    ) -> None:
        self._session = session
        self._journal = journal
        self._persistence = persistence
        self._wakeup = wakeup
        self._lazy_until = math.inf
        self._retry_at = -math.inf
        self._end_by = math.inf
        self._scope = trio.CancelScope()
        self.failure: Exception | None = None
        """Why the latest commit failed, if it did."""
        self.commits = 0

    async def wait_due(self) -> None:
        """Waits until there is something to store, and it is time to."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._lazy_until = math.inf
        while (due := self._due()) > trio.current_time():
            with trio.CancelScope(deadline=due):
                await self._wakeup.wait()

    def _due(self) -> float:
        """When to commit, in Trio's time."""
        journal = self._journal
        if not journal.has_queued:
            return math.inf
        if journal.awaited:
            return -math.inf
        if self.failure is not None:
            return self._retry_at
        if journal.urgent:
            return -math.inf
        self._lazy_until = min(self._lazy_until, trio.current_time() + LAZY)
        return self._lazy_until

    async def commit(self) -> Sequence[Transfer]:
        """Commits all that is queued. Returns the messages that could not be stored."""
        batch = self._journal.take()
        self.failure = await self._commit(batch)
        if self.failure is None:
            self.commits += 1
            self._session.stored(batch)
            return ()
        self._retry_at = trio.current_time() + RETRY
        return self._session.not_stored()

    async def _commit(self, batch: Batch) -> Exception | None:
        with trio.CancelScope(deadline=self._end_by, shield=True) as self._scope:
            try:
                if batch.payload_bytes < LARGE:
                    saves = batch.saves()
                else:
                    saves = await trio.to_thread.run_sync(batch.saves)
                await unprotected(partial(self._persistence.commit, saves, batch.deletes()))
            except (OSError, PersistenceError) as error:
                return error
        if self._scope.cancelled_caught:
            return PersistenceError(f"a commit did not end within {LAST} s")
        return None

    async def finish(self) -> Sequence[Transfer]:
        """Commits what is left, also when cancelled, for `LAST` seconds at most."""
        self.hurry()
        return await self.commit() if self._journal.has_queued else ()

    def hurry(self) -> None:
        """The client is being closed: commits end within `LAST` seconds from now."""
        if self._end_by == math.inf:
            self._end_by = self._scope.deadline = trio.current_time() + LAST
