"""Who waits for what: for the answer to a request, for a message's confirmation, for room.

The session says what is settled, and here the tasks that wait for it are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from ._connection import Bells
from ._errors import (
    ClientClosed,
    ClosedInDoubt,
    InDoubt,
    MQTTError,
    NotSent,
    PersistenceError,
    SubmitInterrupted,
)
from ._exchange import Answer, Demand, Exchange
from ._requests import Holding, Pending, Transfer
from ._session import SessionState
from ._turns import Turns


class Answers:
    """Those of one client.

    Arguments:
        session: which settles them.
        demand: that waiting tasks count in.
        bells: which wake the writer and the storer, as what is waited for is queued.
        adopted: the exchanges of transfers that an earlier life of the session left open.
    """

    def __init__(
        self,
        session: SessionState,
        demand: Demand,
        bells: Bells,
        adopted: Mapping[Transfer, Exchange],
    ) -> None:
        self._session = session
        self._demand = demand
        self._bells = bells
        self._answers: dict[Pending, Answer] = {}
        for transfer, exchange in adopted.items():
            self._answers[transfer] = exchange
        self._rooms = {1: Turns[Exchange](), 2: Turns[Exchange]()}

    # The application

    def expect(self, pending: Pending) -> Answer:
        """The answer to a request, which has been queued just now."""
        answer = Answer(self._demand)
        self._answers[pending] = answer
        self._bells.writer.set()
        return answer

    def forget(self, pending: Pending) -> None:
        """Nobody waits for this answer any more."""
        self._answers.pop(pending, None)

    def follow(self, transfer: Transfer) -> Exchange:
        """The exchange of a message, which has been queued just now."""
        exchange = Exchange(self._demand)
        self._answers[transfer] = exchange
        if transfer.stored:
            self._bells.writer.set()
        else:
            exchange.await_storage()
            self._bells.storer.set()
        return exchange

    def has_room(self, qos: Literal[1, 2]) -> bool:
        """Whether there is room for a message, and nobody waits for it."""
        return self._session.room(qos) > 0 and not self._rooms[qos].waiting

    async def wait_for_room(self, qos: Literal[1, 2], publish: Callable[[], Exchange]) -> Exchange:
        """Waits for room for a message, in the order of the calls, and publishes it there.

        Raises:
            ClientClosed: the client was closed.
        """
        self._demand.begin()
        try:
            return await self._rooms[qos].wait(publish)
        finally:
            self._demand.end()

    # The session

    def settle(self, settled: Iterable[Pending]) -> None:
        """The broker answered these."""
        answers = self._answers
        for pending in settled:
            if type(pending) is Transfer and self._rooms[pending.qos].waiting:
                self._free(pending)
            answer = answers.pop(pending, None)
            if answer is not None:
                answer.settle(None)
        if self._bells.progress:
            self._bells.progress.unpark_all()

    def accept(self, transfers: Iterable[Transfer]) -> None:
        """These are stored."""
        for transfer in transfers:
            exchange = self._answers.get(transfer)
            if isinstance(exchange, Exchange):
                exchange.accept()

    def refuse(self, transfers: Iterable[Transfer], cause: Exception | None) -> None:
        """These could not be stored."""
        for transfer in transfers:
            self._free(transfer)
            answer = self._answers.pop(transfer, None)
            if answer is not None:
                error = PersistenceError(f"not stored: {cause}")
                error.__cause__ = cause
                answer.settle(error)

    def lose(
        self,
        lost: Iterable[tuple[Pending, NotSent | InDoubt]],
        cause: Exception | None,
        *,
        ending: bool,
    ) -> None:
        """The connection that carried these was lost, and perhaps the client is ending with it."""
        for pending, error in lost:
            error.__cause__ = cause
            if isinstance(pending, Transfer):
                exchange = self._answers.get(pending)
                was_lost = cause is not None  # else it was ended here, and `end` follows
                if was_lost and isinstance(exchange, Exchange) and isinstance(error, InDoubt):
                    exchange.interrupt(error)
            else:
                answer = self._answers.pop(pending, None)
                if answer is not None:
                    answer.settle(_final(error) if ending else error)

    def end(self) -> None:
        """The client ended: nobody waits any longer."""
        answers, self._answers = self._answers, {}
        asked = self._session.subscriptions.was_asked
        for pending, answer in answers.items():
            if isinstance(pending, Holding) and not asked(pending):
                answer.settle(client_closed())
            else:
                answer.settle(_closed_in_doubt())

    def accept_no_more(self) -> None:
        """The client is ending: nobody waits for room any longer."""
        for room in self._rooms.values():
            room.fail(client_closed)

    def _free(self, transfer: Transfer) -> None:
        qos = transfer.qos
        self._rooms[qos].serve(lambda: self._session.room(qos) > 0)


def client_closed() -> ClientClosed:
    """What a call raises once the client was closed."""
    return ClientClosed("the client was closed")


def in_part(error: NotSent) -> InDoubt:
    """What the end of a request means of which another part was answered."""
    if isinstance(error, ClientClosed):
        return _closed_in_doubt()
    return SubmitInterrupted(f"not all of it was sent: {error}")


def _final(error: NotSent | InDoubt) -> MQTTError:
    if isinstance(error, NotSent):
        return client_closed()
    return _closed_in_doubt()


def _closed_in_doubt() -> ClosedInDoubt:
    return ClosedInDoubt("the client was closed before the broker answered")
