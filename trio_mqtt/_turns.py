"""Callers that wait for room, and are served in the order of their calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

_T = TypeVar("_T")


class Turns(Generic[_T]):
    """Who waits for room, and what each of them wants to do there.

    Whoever makes room does it for them. To wake them and have them do it themselves would not keep
    the order, as Trio runs in random order what is woken together; and a newcomer might be first.
    """

    def __init__(self) -> None:
        self.waiting: OrderedDict[_Turn[_T], None] = OrderedDict()
        """In order. In a plain dict the first takes the longer to find, the more were before it."""

    async def wait(self, act: Callable[[], _T]) -> _T:
        """Waits until there is room and `act` was called. Cancelled, it will not be.

        Raises:
            Exception: as `act`, or what `fail` says.
        """
        turn = _Turn(trio.lowlevel.current_task(), act)
        self.waiting[turn] = None

        def abort(_: object) -> trio.lowlevel.Abort:
            del self.waiting[turn]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return turn.result()

    def serve(self, has_room: Callable[[], bool]) -> None:
        """There may be room: serves the first of them, and those behind, as far as it goes."""
        while self.waiting and has_room():
            turn, _ = self.waiting.popitem(last=False)
            turn.take()

    def fail(self, error: Callable[[], Exception]) -> None:
        """There will be no room: each of them raises what `error` makes."""
        waiting, self.waiting = self.waiting, OrderedDict()
        for turn in waiting:
            turn.give_up(error())


class _Turn(Generic[_T]):
    """One of them."""

    result: Callable[[], _T]
    """Returns or raises what came of it."""

    def __init__(self, task: trio.lowlevel.Task, act: Callable[[], _T]) -> None:
        self._task = task
        self._act = act

    def take(self) -> None:
        try:
            result = self._act()
        except Exception as error:  # noqa: BLE001, the caller's
            self.give_up(error)
        else:
            self.result = lambda: result
            trio.lowlevel.reschedule(self._task)

    def give_up(self, error: Exception) -> None:
        def fail() -> _T:
            raise error

        self.result = fail
        trio.lowlevel.reschedule(self._task)
