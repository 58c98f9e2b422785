"""The task that carries one session over a succession of connections.

It has a connection made, attaches the session, and lets the three tasks of the connection run until
one of them ends. Then it detaches, waits a while, and starts again. What the session queued is
handed on here: arrivals to the channel, and answers to the tasks that wait for them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Literal, cast

import trio

from . import _packets as p
from ._backoff import Backoff
from ._connection import Bells, Connection
from ._connector import Connector
from ._errors import (
    ClientClosed,
    ClosedInDoubt,
    ConnectionLost,
    ConnectionRefused,
    Down,
    InDoubt,
    MQTTError,
    NotSent,
    PersistenceError,
    SubscribeError,
)
from ._exchange import Answer, Exchange
from ._inbox import Inbox
from ._packet_ids import MAX_PACKET_ID
from ._requests import Pending, Transfer
from ._session import SessionState
from ._settings import Settings
from ._stored_session import Session
from ._storer import Storer

logger = logging.getLogger("trio_mqtt")

MOST_QUEUED_PACKETS = 400_000
"""More than all windows and the smallest messages at QoS 0 come to, so that only answers to a
broker that sends without reading get there."""
BLOCKED_AFTER = 0.2
"""Seconds that a write may take before the reader, though stopped, goes on for its sake: a broker
may be waiting for us to read before it reads."""


class Supervisor:
    """One session, its connection of the moment, and who waits for what."""

    def __init__(self, settings: Settings, codec: p.Codec, session: Session) -> None:
        self.settings = settings
        self.session = SessionState(codec, settings.limits, session.stored)
        self.connector = Connector(settings, codec)
        self._discard_due = settings.discard_first
        self.demand = session.demand
        self.bells = Bells(reader=self.demand.reader)
        self.inbox = Inbox(self.session, settings.buffer, self.bells)
        self._answers: dict[Pending, Answer] = {}
        for transfer, exchange in session.exchanges.items():
            self._answers[transfer] = exchange
        self.storer: Storer | None = None
        """What commits the records of a durable session."""
        if self.session.journal is not None and session.persistence is not None:
            self.storer = Storer(
                self.session, self.session.journal, session.persistence, self.bells.storer
            )
        self._random = random.Random()  # noqa: S311, not for secrets

        self.connection: Connection | None = None
        self._down: MQTTError | None = None
        """Why the latest attempt failed; None while one is under way or has succeeded."""
        self.closed = False
        self._changed = trio.lowlevel.ParkingLot()
        self._rooms = {1: _Room(), 2: _Room()}
        self._scope = trio.CancelScope(shield=True)
        """Only `close` ends the task: `open_client` calls it on every way out."""
        self._overflow = trio.Event()
        """Whether messages on this connection were given back to the broker."""
        self._disconnecting = False
        self._failing = False
        self.session_present = False
        self.connects = 0
        self.received = 0
        self._bytes_read = 0
        self._bytes_written = 0

    # The task

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Carries the session until the client is closed.

        Raises:
            ConnectionRefused: the broker's answer, before it ever accepted.
            Down: the first attempt failed, and was to succeed.
            Exception: a dialer, a credential or a persistence of the application failed in its own
                way.
        """
        with self._scope:
            if self.storer is None:
                await self._run()
            else:
                await _until_one_ends([self._run, partial(self._store, self.storer)])

    async def _run(self) -> None:
        settings = self.settings
        backoff = Backoff(settings.reconnect_wait_min, settings.reconnect_wait_max, self._random)
        while True:
            taken = self.inbox.taken
            try:
                if self._discard_due:
                    await self._discard()
                async with self.connector.connect() as (connection, present):
                    await self._serve(connection, present=present, backoff=backoff)
                return
            except ConnectionRefused as refusal:
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
                gets_on = self._overflow.is_set() and self.inbox.taken > taken
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
        if not await self._all_stored():  # else a crash would have it done again, later
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
        )
        connection.attach(session, outbox, self.bells)
        self._go_online(connection, present=present)
        tasks: list[Callable[[], Awaitable[None]]] = [
            partial(self._read, connection),
            connection.write,
            self._end_overflow,
        ]
        if settings.keep_alive:
            tasks.append(partial(connection.keep_alive, settings.keep_alive))
        cause: ConnectionLost | None = None
        self._overflow = trio.Event()
        try:
            self._hand_on()  # attaching may settle requests
            if self.session.is_clearing and not await self._all_stored():
                # What the broker sends now must not be taken for what it sent before, also not
                # after a crash.
                raise ConnectionLost("cannot store that the broker lost the session")
            await _until_one_ends(tasks)
            await connection.linger()
        except ConnectionLost as error:
            cause = error
            raise
        finally:
            backoff.lasted(trio.current_time() - began)
            self._bytes_written += outbox.written
            self._go_offline(connection, cause)

    # The reader

    async def _read(self, connection: Connection) -> None:
        while True:
            packets = iter(await connection.receive())
            while not await self._take_in(packets, connection):
                pass

    async def _take_in(self, packets: Iterator[p.Inbound], connection: Connection) -> bool:
        """Takes in as many packets as there is room for; true when that was all of them."""
        room = self.inbox.room(connection.batch_bytes)
        if room <= 0 and not self._overflow.is_set():
            room = await self._wait_for_room(connection)
        try:
            return self.session.receive(packets, max(room, 1))
        finally:
            self._hand_on()

    async def _wait_for_room(self, connection: Connection) -> int:
        """Waits until reading on is right. Returns for how many messages."""
        inbox = self.inbox
        inbox.awaited_low = True
        try:
            with connection.resting():
                while (room := inbox.room(connection.batch_bytes)) <= 0:
                    blocked_at = connection.writing_since + BLOCKED_AFTER
                    if self.demand or trio.current_time() >= blocked_at:
                        await trio.lowlevel.checkpoint()  # the application may have its turn
                        break
                    with trio.CancelScope(deadline=blocked_at):
                        await self.bells.reader.wait()
        finally:
            inbox.awaited_low = False
        return room

    def _hand_on(self) -> None:
        """Hands on what the session took in, and has what it answered written.

        Raises:
            ConnectionLost: the broker does not read.
        """
        session = self.session
        if session.settled:
            self._hand_on_answers()
        if session.arrived:
            arrived, session.arrived = session.arrived, []
            self.received += len(arrived)
            for message in arrived:
                self._put(message)
        if session.has_records:
            self.bells.storer.set()
        outbox = session.outbox
        if outbox:
            self.bells.writer.set()
            if len(outbox) > MOST_QUEUED_PACKETS:
                raise ConnectionLost("the broker sends and does not read")

    def _hand_on_answers(self) -> None:
        session = self.session
        settled, session.settled = session.settled, []
        for pending in settled:
            if isinstance(pending, Transfer):
                self._rooms[pending.qos].free(session.room(pending.qos))
            answer = self._answers.pop(pending, None)
            if answer is not None:
                answer.settle(None)
        self.bells.progress.unpark_all()
        if session.refused:
            refused, session.refused = tuple(session.refused), []
            self.inbox.put_error(SubscribeError(refused))

    def _put(self, message: p.Message | p.Delivery) -> None:
        """Puts it where the application finds it, or else gives it up or back."""
        if isinstance(message, p.Message):
            if not self.inbox.put(message):
                self.inbox.given_up += 1
        elif self._overflow.is_set() or not self.inbox.put(message):
            # It stays unanswered, and with it all that follow: the broker will send them again.
            self.session.give_back(message)
            self.received -= 1
            self._overflow.set()

    async def _end_overflow(self) -> None:
        """Waits until messages had to be given back to the broker, and then for an end of it.

        While somebody awaits an answer this connection is the one where it comes: a new one would
        begin with the same messages. So it ends when nobody does, or when there is room again.

        Raises:
            ConnectionLost: for the broker to send the messages again.
        """
        await self._overflow.wait()
        self.inbox.awaited_low = True
        try:
            while self.demand and not self.inbox.is_low:
                await self.bells.reader.wait()
        finally:
            self.inbox.awaited_low = False
        raise ConnectionLost("closed, as the application did not take its messages")

    # The journal

    async def _store(self, storer: Storer) -> None:
        try:
            while True:
                await storer.wait_due()
                self._hand_on_stored(storer, await storer.commit())
        except trio.Cancelled:
            self._hand_on_stored(storer, await storer.finish())  # noqa: ASYNC102, it is bounded
            raise

    def _hand_on_stored(self, storer: Storer, refused: Sequence[Transfer]) -> None:
        """Hands on what a commit decided, and has what it released written."""
        session = self.session
        self._tell_failure(storer)
        accepted, session.accepted = session.accepted, []
        for transfer in accepted:
            exchange = self._answers.get(transfer)
            if isinstance(exchange, Exchange):
                exchange.accept()
        for transfer in refused:
            self._rooms[transfer.qos].free(session.room(transfer.qos))
            answer = self._answers.pop(transfer, None)
            if answer is not None:
                error = PersistenceError(f"not stored: {storer.failure}")
                error.__cause__ = storer.failure
                answer.settle(error)
        self.bells.stored.unpark_all()
        self.bells.progress.unpark_all()
        self.bells.writer.set()
        self.inbox.wake()

    def _tell_failure(self, storer: Storer) -> None:
        """Logs that commits begin to fail, and that they fail no longer."""
        failed = storer.failure is not None
        if failed and not self._failing:
            logger.warning("cannot store the session, trying again: %s", storer.failure)
        elif self._failing and not failed:
            logger.info("the session is stored again")
        self._failing = failed

    async def _all_stored(self) -> bool:
        """Waits until nothing is left to be stored; False if that makes no end in time."""
        self.bells.storer.set()
        with trio.move_on_after(self.settings.pause_timeout):
            while self.session.has_records:
                await self.bells.stored.park()
            return True
        return False

    # States

    def _go_online(self, connection: Connection, *, present: bool) -> None:
        self.connection = connection
        self.session_present = present
        self.connects += 1
        self.bells.writer.set()
        logger.info("connected to %s, session present: %s", self.settings.broker.name, present)
        self._changed.unpark_all()

    def _go_offline(self, connection: Connection, cause: ConnectionLost | None) -> None:
        self.connection = None
        self._bytes_read += connection.bytes_read
        reason = "the client was closed" if cause is None else str(cause)
        for pending, error in self.session.detach(reason):
            error.__cause__ = cause
            if isinstance(pending, Transfer):
                exchange = self._answers.get(pending)
                if isinstance(exchange, Exchange) and isinstance(error, InDoubt):
                    exchange.interrupt(error)
            else:
                answer = self._answers.pop(pending, None)
                if answer is not None:
                    answer.settle(self._final(error) if self.is_ending else error)
        self.bells.space.unpark_all()
        self.bells.progress.unpark_all()
        if not self.is_ending:
            logger.warning("connection to %s lost: %s", self.settings.broker.name, reason)
        self._changed.unpark_all()

    @property
    def is_ending(self) -> bool:
        return self._disconnecting or self._scope.cancel_called

    @staticmethod
    def _final(error: NotSent | InDoubt) -> MQTTError:
        if isinstance(error, NotSent):
            return ClientClosed("the client was closed")
        return ClosedInDoubt("the client was closed before the broker answered")

    def _set_down(self, error: MQTTError) -> None:
        self._down = error
        logger.warning("%s", error)
        self._changed.unpark_all()

    def end(self) -> None:
        """What follows `run`: nobody waits any longer."""
        if self.closed:
            return
        self.closed = True
        if self.session.unconfirmed and self.storer is None:
            logger.warning("closed with %d unconfirmed messages", self.session.unconfirmed)
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.settle(ClosedInDoubt("the client was closed before the broker answered"))
        for room in self._rooms.values():
            room.waiting.unpark_all()
        self.inbox.end()
        self.bells.space.unpark_all()
        self.bells.progress.unpark_all()
        self._changed.unpark_all()

    def close(self) -> None:
        """Ends the connection at once, and with it the client, after a last commit."""
        self._scope.cancel()
        if self.storer is not None:
            self.storer.hurry()

    def disconnect(self) -> None:
        """Ends the connection by DISCONNECT, behind all that is queued, and with it the client."""
        self._disconnecting = True
        if self.connection is None:
            self._scope.cancel()
        else:
            self.session.disconnect()
            self.bells.writer.set()

    # For the client

    def queued(self) -> None:
        """Something may be in the outbox: has it written."""
        self.bells.writer.set()

    def expect(self, pending: Pending) -> Answer:
        """The answer to a request, which has been queued just now."""
        answer = Answer(self.demand)
        self._answers[pending] = answer
        self.bells.writer.set()
        return answer

    def forget(self, pending: Pending) -> None:
        """Nobody waits for this answer any more."""
        self._answers.pop(pending, None)

    def follow(self, transfer: Transfer) -> Exchange:
        """The exchange of a message, which has been accepted just now."""
        exchange = Exchange(self.demand, accepted=transfer.stored)
        self._answers[transfer] = exchange
        if transfer.stored:
            self.bells.writer.set()
        else:
            self.bells.storer.set()
        return exchange

    async def ready(self) -> Connection:
        """The connection, if need be after the attempt that is under way.

        Raises:
            Down: that attempt failed, or the latest one did and the next is not due.
            ClientClosed: the client was closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.connection is None:
            self.check_open()
            if self._down is not None:
                raise Down(f"offline: {self._down}") from self._down
            await self._changed.park()
        self.check_open()
        return self.connection

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
        if self.closed or self.is_ending:
            raise ClientClosed("the client was closed")

    async def wait_for_room(self, qos: Literal[1, 2]) -> None:
        """Waits for room for a message, in the order of the calls. Use it before the next await.

        Raises:
            ClientClosed: the client was closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open()
        if not self.has_room(qos):
            room = self._rooms[qos]
            await self.demand.park(room.waiting)
            self.check_open()
            room.reserved -= 1

    def has_room(self, qos: Literal[1, 2]) -> bool:
        """Whether there is room for a message that nobody waits for."""
        return self.session.room(qos) > self._rooms[qos].reserved

    async def wait_closed(self) -> None:
        """Waits for the end of `run`."""
        while not self.closed:
            await self._changed.park()

    async def wait_progress(self) -> None:
        """Waits until something is answered or written, or the client is closed."""
        if not self.closed:
            await self.demand.park(self.bells.progress)

    async def wait_space(self) -> None:
        """Waits until the connection may have space for messages at QoS 0, or is gone."""
        await self.demand.park(self.bells.space)

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


class _Room:
    """Tasks that wait for room at one QoS. Who is woken has a place reserved."""

    def __init__(self) -> None:
        self.waiting = trio.lowlevel.ParkingLot()
        self.reserved = 0

    def free(self, room: int) -> None:
        if self.waiting and room > self.reserved:
            self.reserved += 1
            self.waiting.unpark()


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
    if errors:
        raise (defects or errors)[0]
