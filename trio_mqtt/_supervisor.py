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
from typing import Literal

import trio

from . import _packets as p
from ._backoff import Backoff
from ._connection import Bells, Connection, Wakeup
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
    SubscribeError,
)
from ._exchange import Answer, Demand, Exchange
from ._inbox import Inbox
from ._requests import Pending, Transfer
from ._session import MAX_PACKET_ID, Session
from ._settings import Settings

logger = logging.getLogger("trio_mqtt")

MOST_QUEUED_PACKETS = 400_000
"""More than all windows and the smallest messages at QoS 0 come to, so that only answers to a
broker that sends without reading get there."""
BLOCKED_AFTER = 0.2
"""Seconds that a write may take before the reader, though stopped, goes on for its sake: a broker
may be waiting for us to read before it reads."""


class Supervisor:
    """One session, its connection of the moment, and who waits for what."""

    def __init__(self, settings: Settings, codec: p.Codec) -> None:
        self.settings = settings
        self.session = Session(codec, settings.limits)
        self.connector = Connector(settings, codec)
        lot = trio.lowlevel.ParkingLot
        self.bells = Bells(writer=Wakeup(), reader=Wakeup(), progress=lot(), space=lot())
        self.demand = Demand(self.bells.reader)
        self.inbox = Inbox(self.session, settings.buffer, self.bells)
        self._answers: dict[Pending, Answer] = {}
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
            Exception: a dialer or a credential of the application failed in its own way.
        """
        with self._scope:
            await self._run()

    async def _run(self) -> None:
        settings = self.settings
        backoff = Backoff(settings.reconnect_wait_min, settings.reconnect_wait_max, self._random)
        while True:
            taken = self.inbox.taken
            try:
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
        if self.session.unconfirmed:
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
        """Ends the connection at once, and with it the client."""
        self._scope.cancel()

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
        exchange = Exchange(self.demand)
        self._answers[transfer] = exchange
        self.bells.writer.set()
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


async def _until_one_ends(tasks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Runs the tasks until one of them ends, and ends as it did, the first of them if several."""
    errors: list[Exception] = []

    @trio.lowlevel.enable_ki_protection
    async def run(task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception as error:  # noqa: BLE001, ConnectionLost or a defect; raised again below
            errors.append(error)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(run, task)
    defects = [error for error in errors if not isinstance(error, ConnectionLost)]
    if errors:
        raise (defects or errors)[0]
