"""The reader: takes in what a connection brings, and hands it on, as far as there is room.

Arrivals go to the inbox, and answers to the tasks that wait for them. When the inbox is full the
reader rests, unless a task needs it to go on; beyond the inbox's second bound it gives the messages
back to the broker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import trio

from . import _packets as p
from ._answers import Answers
from ._connection import Bells, Connection
from ._errors import ConnectionLost, SubscribeError
from ._exchange import Demand
from ._inbox import Inbox
from ._session import SessionState

MOST_QUEUED_PACKETS = 400_000
"""More than all windows and the smallest messages at QoS 0 come to, so that only answers to a
broker that sends without reading get there."""
BLOCKED_AFTER = 0.2
"""Seconds that a write may take before the reader, though stopped, goes on for its sake: a broker
may be waiting for us to read before it reads."""


class Reception:
    """What one session takes in, over a succession of connections."""

    def __init__(
        self, session: SessionState, inbox: Inbox, answers: Answers, demand: Demand, bells: Bells
    ) -> None:
        self._session = session
        self._inbox = inbox
        self._answers = answers
        self._demand = demand
        self._bells = bells
        self._overflow = trio.Event()
        self.received = 0

    def begin(self) -> None:
        """A new connection begins."""
        self._overflow = trio.Event()

    @property
    def has_overflowed(self) -> bool:
        """Whether messages on this connection were given back to the broker."""
        return self._overflow.is_set()

    async def read(self, connection: Connection) -> NoReturn:
        """Reads until the connection ends.

        Raises:
            ConnectionLost: it did.
        """
        while True:
            packets = iter(await connection.receive())
            while not await self._take_in(packets, connection):
                pass

    async def _take_in(self, packets: Iterator[p.Inbound], connection: Connection) -> bool:
        """Takes in as many packets as there is room for; true when that was all of them."""
        room = self._inbox.room(connection.batch_bytes)
        if room <= 0 and not self._overflow.is_set():
            room = await self._wait_for_room(connection)
        try:
            return self._session.receive(packets, max(room, 1))
        finally:
            self.hand_on()

    async def _wait_for_room(self, connection: Connection) -> int:
        """Waits until reading on is right. Returns for how many messages."""
        inbox = self._inbox
        inbox.awaited_low = True
        try:
            with connection.resting():
                while (room := inbox.room(connection.batch_bytes)) <= 0:
                    blocked_at = connection.writing_since + BLOCKED_AFTER
                    if self._demand or trio.current_time() >= blocked_at:
                        await trio.lowlevel.checkpoint()  # the application may have its turn
                        break
                    with trio.CancelScope(deadline=blocked_at):
                        await self._bells.reader.wait()
        finally:
            inbox.awaited_low = False
        return room

    def hand_on(self) -> None:
        """Hands on what the session took in, and has what it answered stored and written.

        Raises:
            ConnectionLost: the broker does not read.
        """
        session = self._session
        if session.settled:
            settled, session.settled = session.settled, []
            self._answers.settle(settled)
        if session.refused:
            refused, session.refused = tuple(session.refused), []
            self._inbox.put_error(SubscribeError(refused))
        if session.arrived:
            arrived, session.arrived = session.arrived, []
            self.received += len(arrived)
            for message in arrived:
                self._put(message)
        if session.has_records:
            self._bells.storer.set()
        outbox = session.outbox
        if outbox:
            self._bells.writer.set()
            if len(outbox) > MOST_QUEUED_PACKETS:
                raise ConnectionLost("the broker sends and does not read")

    def _put(self, message: p.Message | p.Delivery) -> None:
        """Puts it where the application finds it, or else gives it up or back."""
        if isinstance(message, p.Message):
            if not self._inbox.put(message):
                self._inbox.given_up += 1
        elif self._overflow.is_set() or not self._inbox.put(message):
            # It stays unanswered, and with it all that follow: the broker will send them again.
            self._session.give_back(message)
            self.received -= 1
            self._overflow.set()

    async def end_overflow(self) -> NoReturn:
        """Waits until messages had to be given back to the broker, and then for an end of it.

        While somebody awaits an answer this connection is the one where it comes: a new one would
        begin with the same messages. So it ends when nobody does, or when there is room again.

        Raises:
            ConnectionLost: for the broker to send the messages again.
        """
        await self._overflow.wait()
        self._inbox.awaited_low = True
        try:
            while self._demand and not self._inbox.is_low:
                await self._bells.reader.wait()
        finally:
            self._inbox.awaited_low = False
        raise ConnectionLost("closed, as the application did not take its messages")
