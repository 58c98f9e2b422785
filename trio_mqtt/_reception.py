"""The reader: takes in what a connection brings, and hands it on, as far as there is room.

Arrivals go to the router, and answers to the tasks that wait for them. When an inbox is full the
reader rests, unless a task needs it to go on; beyond the inbox's second bound messages are given up
or back.
"""

from __future__ import annotations

import math
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

PATIENCE = 1.0
"""Seconds that a connection goes on after messages were given back, for what is awaited on it."""
TURNS = 1_000
"""Or until so often somebody began or ended to wait: with hundreds of tasks that are never done a
second is a long time, and under a clock that only idleness moves it is for ever."""


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
                await trio.lowlevel.checkpoint()  # the application may have its turn
                blocked_at = connection.writing_since + BLOCKED_AFTER
                if self._demand or trio.current_time() >= blocked_at:
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
        if session.has_output:
            self._bells.writer.set()
            if session.queued_packets > MOST_QUEUED_PACKETS:
                raise ConnectionLost("the broker sends and does not read")

    async def wait_overflow_over(self) -> None:
        """Waits until messages had to be given back to the broker, and then for room for them.

        While somebody awaits an answer or a message, and none of those that were given back, there
        is `PATIENCE`: what is sent at QoS 0 in the meantime, a reply perhaps, would be lost. There
        is as well where nobody does and there is no room: the application may just be busy with a
        message, and a new connection would begin with those that there is no room for.
        """
        router = self._router
        await router.wait_overflow()
        before, since, turns = (False, False), trio.current_time(), 0
        while True:
            await trio.lowlevel.checkpoint()  # who was woken may have its turn
            turns += 1
            state = (router.is_low, len(self._demand) > router.overflow_waiters)
            if state != before:
                before, since = state, trio.current_time()
            is_low, is_awaited = state
            turns = turns if is_low else 0
            due = since + PATIENCE if is_low is is_awaited else since if is_low else math.inf
            if trio.current_time() >= due or turns > TURNS:
                return
            with trio.CancelScope(deadline=due):
                await self._bells.reader.wait()

    async def wait_answered(self) -> None:
        """Waits until the broker answered what was asked before, for `PATIENCE` at most."""
        with trio.move_on_after(PATIENCE):
            while self._session.awaits_answers:
                await self._bells.progress.park()
