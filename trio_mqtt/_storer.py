"""The task that commits what a durable session has queued in its journal, batch after batch.

A batch is whatever was queued while the one before was being committed, so that the more there is
to store, the fewer commits a message costs. Deletions alone wait a moment for company: that a
message is confirmed need not be safe at once, as without it nothing happens but a duplicate.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import NoReturn

import trio

from ._answers import Answers
from ._connection import Bells
from ._errors import PersistenceError
from ._foreign import unprotected
from ._journal import Batch
from ._persistence import Persistence
from ._session import SessionState

logger = logging.getLogger("trio_mqtt")

LAZY = 0.05
"""Seconds that deletions wait for company."""
RETRY = 1.0
"""Seconds after which what could not be stored is tried again, if no caller asks for more."""
LAST = 10.0
"""Seconds that the last commits may take when the client is closed."""
LARGE = 1024 * 1024
"""Bytes of payload from which on even the checksums are made in a thread."""


class _CutOff(Exception):
    """Whether a commit happened is unknown."""


class Storer:
    """The commits of one session.

    A commit that is cut off when the client is closed may have happened. Nobody is told then: what
    was to be accepted by it is in doubt.
    """

    def __init__(
        self,
        session: SessionState,
        persistence: Persistence,
        answers: Answers,
        bells: Bells,
    ) -> None:
        assert session.journal is not None
        self._session = session
        self._journal = session.journal
        self._persistence = persistence
        self._answers = answers
        self._bells = bells
        self._lazy_until = math.inf
        self._retry_at = math.inf
        self._end_by = math.inf
        self._scope = trio.CancelScope()
        self._failure: Exception | None = None
        """Why the latest commit failed, if it did."""
        self.commits = 0

    async def run(self) -> NoReturn:
        """Commits until it is cancelled, and then once or twice more, for `LAST` seconds at most.

        Raises:
            Exception: a persistence of the application failed in its own way.
        """
        try:
            while not self._journal.is_taken:
                await self._wait_due()
                await self._commit()
            await trio.sleep_forever()  # it was cut off
        except trio.Cancelled:
            self.hurry()
            for _ in range(2):  # again to delete what the first time may have stored and refused
                if self._journal.has_queued and not self._journal.is_taken:
                    await self._commit()  # noqa: ASYNC102, it shields itself
            raise

    def hurry(self) -> None:
        """The client is being closed: commits end within `LAST` seconds from now."""
        if self._end_by == math.inf:
            self._end_by = self._scope.deadline = trio.current_time() + LAST

    async def _wait_due(self) -> None:
        """Waits until there is something to store, and it is time to."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._lazy_until = math.inf
        while (due := self._due()) > trio.current_time():
            with trio.CancelScope(deadline=due):
                await self._bells.storer.wait()

    def _due(self) -> float:
        """When to commit, in Trio's time."""
        journal = self._journal
        if not journal.has_queued:
            return math.inf
        if journal.wanted:
            return -math.inf
        if self._failure is not None:
            return self._retry_at
        if journal.urgent:
            return -math.inf
        self._lazy_until = min(self._lazy_until, trio.current_time() + LAZY)
        return self._lazy_until

    async def _commit(self) -> None:
        """Commits all that is queued, and tells those who wait for it."""
        session, bells = self._session, self._bells
        batch = self._journal.take()
        try:
            failure = await self._save(batch)
        except _CutOff:
            logger.warning("a commit did not end within %s s", LAST)
            return
        self._note(failure)
        if failure is None:
            session.stored(batch)
            accepted, session.accepted = session.accepted, []
            self._answers.accept(accepted)
        else:
            self._answers.refuse(session.not_stored(), failure)
        bells.writer.set()
        bells.stored.unpark_all()
        bells.progress.unpark_all()

    async def _save(self, batch: Batch) -> Exception | None:
        """Returns why it could not be stored.

        Raises:
            _CutOff: the client is being closed, and it did not end in time.
        """
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
            raise _CutOff
        return None

    def _note(self, failure: Exception | None) -> None:
        """Logs that commits begin to fail, and that they fail no longer."""
        if failure is None:
            self.commits += 1
            if self._failure is not None:
                logger.info("the session is stored again")
        else:
            self._retry_at = trio.current_time() + RETRY
            if self._failure is None:
                logger.warning("cannot store the session, trying again: %s", failure)
        self._failure = failure
