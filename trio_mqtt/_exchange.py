"""What a task waits for: the answer to a request, or the confirmation of a message."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Awaitable
from typing import Literal

import trio

from ._connection import Wakeup
from ._errors import InDoubt, MQTTError
from ._packets import Message

_MOST_INTERRUPTIONS = 100
"""How many are kept for an iteration that is slow or never begins; older ones are dropped."""


class Demand:
    """How many tasks need the reader to go on, even with the application's buffer full.

    A task that awaits an answer inside its message loop would otherwise wait for ever. The reader
    looks at the count right before it waits, so that nothing has to be kept for one that does not.
    """

    def __init__(self, reader: Wakeup) -> None:
        self.reader = reader
        """Whom it wakes."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def begin(self) -> None:
        """One more does."""
        self._count += 1
        if self.reader.waiting:
            self.reader.set()

    def end(self) -> None:
        """One less does."""
        self._count -= 1
        if self.reader.waiting:
            self.reader.set()

    async def park(self, lot: trio.lowlevel.ParkingLot) -> None:
        """Waits in `lot`, and counts."""
        self.begin()
        try:
            await lot.park()
        finally:
            self.end()


class Answer:
    """The answer to one request: it comes, or it is known that it will not."""

    # What most answers never set is set here: it is made once a message.
    _waiters: list[trio.lowlevel.Task] | None = None
    """A list in the place of a ParkingLot, which costs as much as the rest of an answer."""
    _error: MQTTError | None = None
    _settled = False

    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    def settle(self, error: MQTTError | None) -> None:
        """It came, or `error` says why it does not. The first word counts."""
        if not self._settled:
            self._settled = True
            if error is not None:
                self._fail(error)
            if self._waiters:
                self._notify()

    def _fail(self, error: MQTTError) -> None:
        self._error = error

    async def wait_settled(self) -> None:
        """Waits for it.

        Raises:
            InDoubt: it will not come, and the request may have been executed.
            NotSent: it will not come, as the request was not sent.
            PersistenceError: it will not come, as the message could not be stored.
        """
        if self._settled:
            await trio.lowlevel.checkpoint()
        while not self._settled:
            await self._change()
            self._demand.end()
        if self._error is not None:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            # One for each waiter, as it gets a traceback of its own.
            raise copy.copy(self._error) from self._error.__cause__

    def _change(self) -> Awaitable[None]:
        """Something happens to it. It is the caller's then to end the demand, in its own turn.

        Until then it may be about to wait for something else, a reply, and is not to be taken for
        somebody who needs the connection no more.
        """
        task = trio.lowlevel.current_task()
        waiters = self._waiters
        if waiters is None:
            waiters = self._waiters = []
        waiters.append(task)
        self._demand.begin()

        def abort(_: object) -> trio.lowlevel.Abort:
            waiters.remove(task)
            self._demand.end()
            return trio.lowlevel.Abort.SUCCEEDED

        return trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105, the caller awaits it

    def _notify(self) -> None:
        waiters = self._waiters
        if waiters:
            for task in waiters:
                trio.lowlevel.reschedule(task)
            waiters.clear()


class Exchange(Answer):
    """The transfer of one message at QoS 1 or 2, which the client executes with endless retries.

    Nothing has to be done with it: the message is on its way in any case, and cancelling a wait
    here abandons the wait alone. Iterating follows the transfer::

        exchange = await client.enqueue("alert", "🍸🆘", qos=1)
        async for interruption in exchange:
            print("⚠️ alert request transfer interrupted:", interruption)
        print("alert acknowledged ✓")
    """

    _accepted = True
    _acceptors: trio.lowlevel.ParkingLot | None = None
    """Of its own, as who waits for the confirmation need not wake up twice."""
    _interruptions: deque[InDoubt] | None = None

    @property
    def confirmed(self) -> bool:
        """Whether the broker confirmed the message."""
        return self._settled and self._error is None

    @property
    def accepted(self) -> bool:
        """Whether the session has the message for good: a volatile one has it at once."""
        return self._accepted

    async def wait_accepted(self) -> None:
        """Waits until the session has the message for good, which on a durable one is stored then.

        Raises:
            PersistenceError: it could not be stored, so that it was not sent and will not be.
            ClosedInDoubt: the client ended while it was being stored.
        """
        if self._accepted or self._settled:
            await trio.lowlevel.checkpoint()
        while not (self._accepted or self._settled):
            if self._acceptors is None:
                self._acceptors = trio.lowlevel.ParkingLot()
            await self._demand.park(self._acceptors)
        if not self._accepted:
            self._check()

    async def wait(self) -> None:
        """Waits until the broker confirms the message: PUBACK, or PUBCOMP.

        Raises:
            PersistenceError: it could not be stored, so that it was not sent and will not be.
            ClosedInDoubt: the client ended first.
        """
        await self.wait_settled()

    def __aiter__(self) -> Exchange:
        return self

    async def __anext__(self) -> InDoubt:
        """Waits for the next interruption; the iteration ends when the message is confirmed.

        Raises:
            PersistenceError: it could not be stored, so that it was not sent and will not be.
            ClosedInDoubt: the client ended first.
        """
        if self._interruptions or self._settled:
            await trio.lowlevel.checkpoint()
        while not self._interruptions and not self._settled:
            await self._change()
            self._demand.end()
        if self._interruptions:
            return self._interruptions.popleft()
        self._check()
        raise StopAsyncIteration

    def interrupt(self, interruption: InDoubt) -> None:
        """The connection was lost in the middle. For the client alone to call."""
        if self._interruptions is None:
            self._interruptions = deque(maxlen=_MOST_INTERRUPTIONS)
        self._interruptions.append(interruption)
        self._notify()

    def await_storage(self) -> None:
        """The session has it once it is stored. For the client alone to call."""
        self._accepted = False

    def accept(self) -> None:
        """The session has it. For the client alone to call."""
        self._accepted = True
        self._wake_acceptors()

    def _fail(self, error: MQTTError) -> None:
        super()._fail(error)
        self._wake_acceptors()

    def _wake_acceptors(self) -> None:
        if self._acceptors is not None:
            self._acceptors.unpark_all()


class AdoptedExchange(Exchange):
    """An exchange that an earlier life of the session left open, and this one goes on with."""

    def __init__(
        self, demand: Demand, packet_id: int, qos: Literal[1, 2], message: Message | None
    ) -> None:
        super().__init__(demand)
        self.packet_id = packet_id
        """By which the broker knows it."""
        self.qos = qos
        self.message = message
        """None once the broker has it, at QoS 2, and merely the end of the exchange is left."""

    def __repr__(self) -> str:
        what = "received by the broker" if self.message is None else repr(self.message)
        return f"<AdoptedExchange {self.packet_id} at QoS {self.qos}: {what}>"
