"""The task that carries one session over a succession of connections.

It has a connection made, attaches the session, and lets the tasks of the connection run until one
of them ends. Then it detaches, waits a while, and starts again. Of a durable session another task
stores the records all the while.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn, cast

import trio

from . import _packets as p
from ._answers import Answers, client_closed
from ._backoff import Backoff
from ._connection import Bells, Connection
from ._connector import Connector
from ._errors import (
    CertificateError,
    ConnectionLost,
    ConnectionRefused,
    Down,
    MQTTError,
)
from ._packet_ids import MAX_PACKET_ID
from ._reception import Reception
from ._router import Router
from ._session import SessionState
from ._settings import Settings
from ._stored_session import Session
from ._storer import Storer

logger = logging.getLogger("trio_mqtt")

NOT_TAKEN = "closed, as the application did not take its messages"


class Supervisor:
    """One session, its connection of the moment, and who waits for what."""

    def __init__(self, settings: Settings, codec: p.Codec, session: Session) -> None:
        self.settings = settings
        self.session = SessionState(codec, settings.limits, session.stored)
        self.connector = Connector(settings, codec)
        self._discard_due = settings.discard_first
        self._is_adopted = session.stored is not None and not session.discard_due
        self.demand = session.demand
        self.bells = Bells(reader=self.demand.reader)
        self.router = Router(
            self.session,
            settings.buffer,
            settings.unclaimed_wait,
            self.demand,
            self.bells,
            keeps_session=settings.keep_session,
        )
        self.answers = Answers(self.session, self.demand, self.bells, session.exchanges)
        self.reception = Reception(self.session, self.router, self.answers, self.demand, self.bells)
        self.storer: Storer | None = None
        """What commits the records of a durable session."""
        if session.persistence is not None:
            self.storer = Storer(self.session, session.persistence, self.answers, self.bells)
        self._random = random.Random()  # noqa: S311, not for secrets

        self.connection: Connection | None = None
        self._down: MQTTError | None = None
        """Why the latest attempt failed; None while one is under way or has succeeded."""
        self.is_ending = False
        """Whether the client was told to end."""
        self.closed = False
        self._changed = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope(shield=True)
        """Only `close` ends the task: `open_client` calls it on every way out."""
        self._disconnecting = False
        self._overflow_ended = False
        """Whether the connection is being ended for the broker to send messages again."""
        self.session_present = False
        self.connects = 0
        self._bytes_read = 0
        self._bytes_written = 0

    # The task

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Carries the session until the client is closed.

        Raises:
            ConnectionRefused: the brokers' answer, before any ever accepted.
            Down: the first attempt failed, and was to succeed; or its certificate was at fault.
            Exception: a dialer, a credential or a persistence of the application failed in its own
                way.
        """
        with self._scope:
            tasks: list[Callable[[], Awaitable[None]]] = [self.router.unclaimed.expire]
            if self.storer is None:
                tasks.append(self._run)
            else:
                tasks += (partial(self._run_hurrying, self.storer), self.storer.run)
            await _until_one_ends(tasks)

    async def _run_hurrying(self, storer: Storer) -> None:
        try:
            await self._run()
        finally:
            storer.hurry()

    async def _run(self) -> None:
        settings = self.settings
        backoff = Backoff(settings.reconnect_wait_min, settings.reconnect_wait_max, self._random)
        while True:
            taken = self.router.totals().taken
            try:
                if self._discard_due:
                    await self._discard()
                async with self.connector.connect() as (connection, present):
                    await self._serve(connection, present=present, backoff=backoff)
                return
            except (ConnectionRefused, CertificateError) as refusal:
                if not self.connects:
                    raise
                self._set_down(refusal)
                delay = settings.reconnect_wait_max
            except Down as error:
                if not self.connects and settings.wait_online:
                    raise
                self._set_down(error)
                delay = backoff.next()
            except ConnectionLost:  # which `_serve` has told
                gets_on = self.router.has_overflowed and self.router.totals().taken > taken
                delay = backoff.again() if gets_on else backoff.next()
            if self._disconnecting:
                return
            await trio.sleep(delay)
            self._down = None

    async def _discard(self) -> None:
        """Has the broker forget the session before its first use, once.

        Raises:
            Down, ConnectionRefused: as `Connector.discard`.
        """
        await self.connector.discard()
        self.session.discarded()
        if not await self._stored(lambda: not self.session.is_identifying):
            # A crash would have it done again, later, to a session that is in use.
            raise Down("cannot store that the broker was made to forget the session")
        self._discard_due = False

    async def _serve(self, connection: Connection, *, present: bool, backoff: Backoff) -> None:
        """Lets the connection's tasks run. Returns when DISCONNECT was sent.

        Raises:
            ConnectionLost: it ended in another way.
        """
        settings, session = self.settings, self.session
        began = trio.current_time()
        outbox = session.attach(
            clean=not settings.keep_session,
            present=present,
            restart_at=self._random.randrange(1, MAX_PACKET_ID + 1),
            in_doubt=self.connector.in_doubt,
        )
        if (self.connects or self._is_adopted) and (not present or self.connector.in_doubt):
            self.router.session_lost()
        self.connector.in_doubt = False
        connection.attach(session, outbox, self.bells)
        self._go_online(connection, present=present)
        tasks: list[Callable[[], Awaitable[None]]] = [
            partial(self.reception.read, connection),
            connection.write,
            connection.watch,
            self._end_overflow,
        ]
        if settings.keep_alive:
            tasks.append(partial(connection.keep_alive, settings.keep_alive))
        cause: ConnectionLost | None = None
        self.router.begin()
        self._overflow_ended = False
        try:
            self.reception.hand_on()  # attaching may settle requests
            if not await self._stored(lambda: not self.session.is_clearing):
                # What the broker sends now must not be taken for what it sent before, also not
                # after a crash.
                raise ConnectionLost("cannot store that the broker lost the session")
            await _until_one_ends(tasks)
            await connection.linger()
            if not self._disconnecting:
                raise ConnectionLost(NOT_TAKEN)
        except ConnectionLost as error:
            cause = ConnectionLost(NOT_TAKEN) if self._overflow_ended else error
            raise
        finally:
            stable = backoff.lasted(trio.current_time() - began)
            self.connector.lasted(stable=stable)
            self._bytes_written += outbox.written
            self._go_offline(connection, cause)

    async def _end_overflow(self) -> NoReturn:
        """Ends a connection on which messages were given back, when it is time, by DISCONNECT.

        For the broker to send them again on the next one, and to publish no Will.
        """
        await self.reception.wait_overflow_over()
        self._overflow_ended = True
        self.connection = None  # what is asked from now on is for the next one
        await self.reception.wait_answered()
        if not self._disconnecting:
            self.session.disconnect()
            self.bells.writer.set()
        await trio.sleep_forever()

    async def _stored(self, is_stored: Callable[[], bool]) -> bool:
        """Waits until it is stored; False if it is not in time."""
        self.bells.storer.set()
        with trio.move_on_after(self.settings.pause_timeout):
            while not is_stored():
                await self.bells.stored.park()
            return True
        return False

    # States

    def _go_online(self, connection: Connection, *, present: bool) -> None:
        self.connection = connection
        self.session_present = present
        self.connects += 1
        self.bells.writer.set()
        logger.info("connected to %s, session present: %s", self.connector.broker.name, present)
        self.bells.space.serve(lambda: connection.has_space)
        self._changed.unpark_all()

    def _go_offline(self, connection: Connection, cause: ConnectionLost | None) -> None:
        self.connection = None
        self._bytes_read += connection.bytes_read
        # Without a cause it was ended here, by what ends the client.
        reason = "the client was closed" if cause is None else str(cause)
        ending = cause is None or self.is_ending
        self.answers.lose(self.session.detach(reason), cause, ending=ending)
        self.router.end_connection(reason)
        self.bells.progress.unpark_all()
        if not ending:
            logger.warning("connection to %s lost: %s", self.connector.broker.name, reason)
        self._changed.unpark_all()

    def _set_down(self, error: MQTTError) -> None:
        self._down = error
        self.bells.space.fail(lambda: down_because_of(error))
        logger.warning("%s", error)
        self._changed.unpark_all()

    def end(self) -> None:
        """What follows `run`: nobody waits any longer."""
        if self.closed:
            return
        self.closed = self.is_ending = True
        if self.session.unconfirmed and self.storer is None:
            logger.warning("closed with %d unconfirmed messages", self.session.unconfirmed)
        self._accept_no_more()
        self.answers.end()
        self.router.end()
        self.bells.stored.unpark_all()
        self.bells.progress.unpark_all()
        self._changed.unpark_all()

    def close(self) -> None:
        """Ends the connection at once, and with it the client, after a last commit."""
        self.is_ending = True
        self._scope.cancel()
        self._accept_no_more()
        if self.storer is not None:
            self.storer.hurry()

    def disconnect(self) -> None:
        """Ends the connection by DISCONNECT, behind all that is queued, and with it the client."""
        self._disconnecting = self.is_ending = True
        self._accept_no_more()
        if self.storer is not None:
            self.storer.hurry()
        if self.session.outbox is None:
            self._scope.cancel()
        else:
            self.session.disconnect()
            self.bells.writer.set()

    def _accept_no_more(self) -> None:
        self.answers.accept_no_more()
        self.bells.space.fail(client_closed)

    # For the client

    async def ready(self) -> Connection:
        """The connection, if need be after the attempt that is under way.

        Raises:
            Down: that attempt failed, or the latest one did and the next is not due.
            ClientClosed: the client was closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.connection is None:
            self.check_open()
            self._check_up()
            await self._changed.park()
        self.check_open()
        return self.connection

    def _check_up(self) -> None:
        if self._down is not None:
            raise down_because_of(self._down)

    async def wait_until(self, *, online: bool) -> None:
        """Waits for the one state or the other.

        Raises:
            ClientClosed: the client was closed, and is offline for good.
        """
        await trio.lowlevel.checkpoint()
        while (self.connection is not None) is not online:
            if online:
                self.check_open()
            await self._changed.park()

    def check_open(self) -> None:
        """Raises `ClientClosed` from the beginning of the end on."""
        if self.is_ending:
            raise client_closed()

    async def wait_closed(self) -> None:
        """Waits for the end of `run`."""
        while not self.closed:
            await self._changed.park()

    async def wait_progress(self) -> None:
        """Waits until something is answered or written, or the client is closed."""
        if not self.closed:
            await self.demand.park(self.bells.progress)

    @property
    def has_space(self) -> bool:
        """Whether there is a connection with space for a message at QoS 0, and nobody waits."""
        connection = self.connection
        return connection is not None and not self.bells.space.waiting and connection.has_space

    async def wait_for_space(self, publish: Callable[[], None]) -> None:
        """Waits for that, in the order of the calls, and publishes then.

        Raises:
            Down: there is no connection after a failed attempt.
            ClientClosed: the client was closed.
        """
        if self.connection is None:
            self._check_up()
        self.demand.begin()
        try:
            await self.bells.space.wait(publish)
        finally:
            self.demand.end()

    async def wait_changed(self) -> None:
        """Waits until the connection comes or goes, or the client is closed."""
        await self._changed.park()

    @property
    def bytes_read(self) -> int:
        """Over all connections."""
        return self._bytes_read + (self.connection.bytes_read if self.connection else 0)

    @property
    def bytes_written(self) -> int:
        """Over all connections."""
        outbox = self.session.outbox
        return self._bytes_written + (outbox.written if outbox is not None else 0)


def down_because_of(error: MQTTError) -> Down:
    """What a request raises when the attempt to connect failed that it waited for."""
    down = Down(f"offline: {error}")
    down.__cause__ = error
    return down


def without_cancelled(error: BaseException) -> BaseException | None:
    """What it says besides cancellation, which may come in groups; None when that is nothing."""
    if isinstance(error, trio.Cancelled):
        return None
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)[1]
    return error


async def _until_one_ends(tasks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Runs the tasks until one of them ends, and ends as it did, the first of them if several."""
    errors: list[BaseException] = []

    @trio.lowlevel.enable_ki_protection
    async def run(task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except BaseException as error:  # noqa: ASYNC103
            if without_cancelled(error) is None:
                raise
            errors.append(error)  # raised again below, without the nursery around it
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(run, task)
    defects = [error for error in errors if not isinstance(error, ConnectionLost)]
    try:
        if errors:
            raise (defects or errors)[0]
    finally:
        errors.clear()  # a frame that holds its own exception is a cycle
        defects.clear()
