"""The reader: takes in what a connection brings, and hands it on, as far as there is room.

Arrivals go to the router, and answers to the tasks that wait for them. When an inbox is full the
reader rests, unless a task needs it to go on; beyond the inbox's second bound messages are given up
or back.
"""

from __future__ import annotations

from typing import NoReturn

import trio

from ._answers import Answers
from ._connection import Bells, Connection
from ._errors import ConnectionLost
from ._exchange import Demand
from ._router import Router
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
        self, session: SessionState, router: Router, answers: Answers, demand: Demand, bells: Bells
    ) -> None:
        self._session = session
        self._router = router
        self._answers = answers
        self._demand = demand
        self._bells = bells

    async def read(self, connection: Connection) -> NoReturn:
        """Reads until the connection ends.

        Raises:
            ConnectionLost: it did.
        """
        while True:
            packets = await connection.receive()
            try:
                self._session.receive(packets)
            finally:
                self.hand_on()
            if self._router.is_full or self._router.is_ahead:
                await self._rest(connection)

    async def _rest(self, connection: Connection) -> None:
        """Waits until reading on is right."""
        router = self._router
        with connection.resting():
            while router.is_full or router.is_ahead:
                blocked_at = connection.writing_since + BLOCKED_AFTER
                if self._demand or trio.current_time() >= blocked_at:
                    await trio.lowlevel.checkpoint()  # the application may have its turn
                    if router.is_ahead:
                        await router.spool()
                    elif router.is_full and not router.press_on():
                        return
                else:
                    with trio.CancelScope(deadline=blocked_at):
                        await self._bells.reader.wait()
                router.take_in()

    def hand_on(self) -> None:
        """Hands on what the session took in, and has what it answered stored and written.

        Raises:
            ConnectionLost: the broker does not read.
        """
        session = self._session
        if session.settled:
            settled, session.settled = session.settled, []
            self._answers.settle(settled)
        self._router.take_in()
        if session.has_records:
            self._bells.storer.set()
        outbox = session.outbox
        if outbox:
            self._bells.writer.set()
            if len(outbox) > MOST_QUEUED_PACKETS:
                raise ConnectionLost("the broker sends and does not read")

    async def end_overflow(self) -> NoReturn:
        """Waits until messages had to be given back to the broker, and then for an end of it.

        While somebody awaits an answer or a message, this connection is the one where it comes: a
        new one would begin with the same messages. So it ends when nobody does, or when there is
        room again.

        Raises:
            ConnectionLost: for the broker to send the messages again.
        """
        router = self._router
        await router.wait_overflow()
        while self._demand and not router.is_low:
            await self._bells.reader.wait()
        raise ConnectionLost("closed, as the application did not take its messages")
