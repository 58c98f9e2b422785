"""Sessions as an application hands them to `open_client`: volatile, begun, or adopted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from ._codec311 import Codec
from ._connection import Wakeup
from ._errors import ClosedInDoubt, Denied, PersistenceError
from ._exchange import AdoptedExchange, Demand
from ._foreign import unprotected
from ._persistence import Persistence
from ._recovery import DamagedRecord, Recovery, new_session, recover
from ._requests import Transfer
from ._session import Stored
from ._settings import check_client_id

CLOSE_MOST = 10.0
"""Seconds that a persistence may take to close, which cannot be cancelled."""


class Session:
    """What a client carries: see `volatile_session`, `init_session` and `adopt_session`.

    It serves one client, and its persistence is its own until that client ends.
    """

    def __init__(
        self,
        client_id: str,
        persistence: Persistence | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        self._client_id = client_id
        self.persistence = persistence
        self.stored: Stored | None = None
        self.demand = Demand(Wakeup())
        self.exchanges: dict[Transfer, AdoptedExchange] = {}
        self._warnings: tuple[DamagedRecord, ...] = ()
        self._used = False
        if recovery is not None:
            self.stored = recovery.stored
            self._warnings = tuple(recovery.warnings)
            for transfer in recovery.stored.transfers:
                message = recovery.messages.get(transfer.packet_id)
                self.exchanges[transfer] = AdoptedExchange(
                    self.demand, transfer.packet_id, transfer.qos, message
                )

    def __repr__(self) -> str:
        where = "in memory" if self.persistence is None else f"in {self.persistence!r}"
        return f"<Session {self._client_id!r} {where}>"

    @property
    def client_id(self) -> str:
        """The identifier by which the broker knows it."""
        return self._client_id

    @property
    def warnings(self) -> tuple[DamagedRecord, ...]:
        """What was damaged when the session was adopted, and what it may mean."""
        return self._warnings

    @property
    def pending(self) -> tuple[AdoptedExchange, ...]:
        """The exchanges of messages of ours that an adopted session goes on with, in order.

        They may be waited for, once a client is open.
        """
        return tuple(self.exchanges.values())

    @property
    def discard_due(self) -> bool:
        """Whether the broker is to forget what it has, before the first use."""
        return self.stored is not None and self.stored.identity.discard_due

    def use(self) -> None:
        """A client is opened with it. For `open_client` alone to call.

        Raises:
            Denied: it served one already.
        """
        if self._used:
            raise Denied(f"{self!r} served a client already: adopt_session continues a stored one")
        self._used = True

    async def aclose(self) -> None:
        """Lets go of the persistence of a session that no client is to be opened with.

        Does nothing once a client was: its end does that by itself. It takes at most 10 seconds,
        which cannot be cancelled, and what the storage says to that is of no consequence.

        Raises:
            Exception: a persistence of yours failed otherwise than by `OSError`.
        """
        if not self._used:
            self._used = True
            await self.end()
            error = ClosedInDoubt("the session was closed before the broker answered")
            for exchange in self.exchanges.values():
                exchange.settle(error)
        await trio.lowlevel.checkpoint()

    async def end(self) -> None:
        """Lets go of the persistence, for `open_client` alone to call.

        Raises:
            Exception: a persistence of the application failed in its own way.
        """
        persistence, self.persistence = self.persistence, None
        if persistence is not None:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_MOST, shield=True):
                await _release(persistence)


def volatile_session(client_id: str) -> Session:
    """A session in memory: its guarantees hold over lost connections, for the life of the process.

    Raises:
        Denied: the client identifier is empty, or cannot travel.
        TypeError: it is no `str`.
    """
    return Session(check_client_id(client_id))


async def init_session(client_id: str, persistence: Persistence) -> Session:
    """Begins a session in an empty persistence.

    On the first connect the broker is made to forget what it has under `client_id`, once, so that
    packet identifiers of an earlier life cannot swallow new messages. From then on, also after this
    process has ended in any way, the session is continued by `adopt_session`.

    Cancelled, the session may have begun, and then is to be adopted.

    Raises:
        Denied: the persistence has a session already, or the client identifier is illegal.
        PersistenceError: another client uses the persistence, or nothing can be stored there.
        TypeError: an argument has another type.
    """
    check_client_id(client_id)
    async with _opening(persistence):
        if await unprotected(persistence.keys):
            raise Denied(f"{persistence!r} has a session: adopt_session continues it")
        recovery = new_session(client_id)
        await unprotected(partial(persistence.commit, recovery.saves, ()))
    return Session(client_id, persistence, recovery)


async def adopt_session(persistence: Persistence) -> Session:
    """Continues the session of a persistence, after the end of the process that had it before.

    What was accepted then and is not confirmed is in `Session.pending`, and is sent again. What was
    received at QoS 2 is not received twice. Records that are damaged are in
    `Session.warnings`, and are deleted. Subscriptions are the broker's part of the session: if it
    loses that, the application has to subscribe again.

    Cancelled, it changes nothing.

    Raises:
        Denied: the persistence is empty.
        PersistenceError: another client uses the persistence, it cannot be read, or what it has
            is no session, or one of a later version of this library.
        TypeError: it is no `Persistence`.
    """
    async with _opening(persistence):
        values = await unprotected(persistence.load_all)
        if not values:
            raise Denied(f"{persistence!r} is empty: init_session begins a session there")
        recovery = recover(values, Codec())
        if recovery.saves or recovery.deletes:
            await unprotected(partial(persistence.commit, recovery.saves, recovery.deletes))
    return Session(recovery.stored.identity.client_id, persistence, recovery)


@asynccontextmanager
async def _opening(persistence: Persistence) -> AsyncGenerator[None, None]:
    """Takes hold of a persistence, and lets go of it again if the body fails."""
    if not isinstance(persistence, Persistence):
        raise TypeError(f"a persistence is a Persistence, not {type(persistence).__name__}")
    await unprotected(persistence.acquire)
    try:
        yield
    except BaseException as error:
        deadline = trio.current_time() + CLOSE_MOST
        # The first error is the one to tell, whatever the application's persistence says now.
        with suppress(Exception), trio.CancelScope(deadline=deadline, shield=True):
            await _release(persistence)
        if isinstance(error, OSError):  # which no Cancelled is
            raise PersistenceError(f"{persistence!r}: {error}") from error  # noqa: ASYNC104
        raise


async def _release(persistence: Persistence) -> None:
    # Everything is stored, or an error of more consequence is under way.
    with suppress(OSError, PersistenceError):
        await unprotected(persistence.release)
