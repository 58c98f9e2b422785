"""What happens to an act of an application: it is cancelled, its client closed, its network cut."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import attrs
import trio

from trio_mqtt import RequestScope, move_on_after

How: TypeAlias = Literal["not", "cancel", "close", "break", "swallow", "truncate"]
"""break: what is written ends there. swallow: it goes on, to nowhere, for a while. truncate: what
is read ends there."""
CUTS: tuple[How, ...] = ("break", "swallow", "truncate")
Step: TypeAlias = tuple[str, int]
"""A task, and which of its steps."""

SWALLOWING_SECONDS = 0.1


@attrs.frozen
class Disturbance:
    """What happens to a play, and at which of its points, from 1 on."""

    how: How = "not"
    at: int = 0


NOT_DISTURBED = Disturbance()


class Play(trio.abc.Instrument):
    """What an act went through, and who disturbs it."""

    def __init__(self, disturbance: Disturbance) -> None:
        self.disturbance = disturbance
        self.steps: list[Step] = []
        self.bytes: Counter[How] = Counter()
        """How many went over the network, by who counts them."""
        self.happened = False
        """Whether the disturbance was."""
        self.is_open = False
        """Whether the network may be cut: from the act on until what it led to has settled."""
        self._scope: RequestScope | None = None
        self.closing = trio.Event()
        self.open_gate: trio.Event | None = None
        """What has to happen before anything is written."""
        self.handed = bytearray()
        """What the client gave to its transports, since the act began."""
        self._task_steps: Counter[trio.lowlevel.Task] = Counter()
        self._names: dict[trio.lowlevel.Task, str] = {}

    @contextmanager
    def acting(self) -> Generator[RequestScope]:
        """Surrounds the act."""
        self.is_open = True
        self.handed.clear()
        trio.lowlevel.add_instrument(self)
        try:
            with move_on_after(math.inf) as self._scope:
                yield self._scope
        finally:
            self._scope = None
            trio.lowlevel.remove_instrument(self)

    @property
    def is_acting(self) -> bool:
        return self._scope is not None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._scope is None:
            return
        self._task_steps[task] += 1
        self.steps.append((self._name(task), self._task_steps[task]))
        if len(self.steps) == self.disturbance.at:
            if self.disturbance.how == "cancel":
                self.happened = True
                self._scope.cancel()
            elif self.disturbance.how == "close":
                self.happened = True
                self.closing.set()

    def _name(self, task: trio.lowlevel.Task) -> str:
        if task not in self._names:
            self._names[task] = f"{task.name.rpartition('.')[2]}#{len(self._names)}"
        return self._names[task]

    def cut_at(self, how: How, size: int) -> int | None:
        """Where in the next so many bytes the connection is cut, if it is."""
        if not self.is_open:
            return None
        place = self.disturbance.at - 1 - self.bytes[how]
        self.bytes[how] += size
        if self.happened or self.disturbance.how != how or place >= size:
            return None
        self.happened = True
        return place


class Wire(trio.abc.Stream):
    """The client's end of a connection, which may be cut."""

    def __init__(self, inner: trio.abc.Stream, play: Play, nursery: trio.Nursery) -> None:
        self._inner = inner
        self._play = play
        self._nursery = nursery
        self._swallows = False
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._play.handed += data
        if self._play.open_gate is not None:
            await self._play.open_gate.wait()
        if self._swallows:
            await trio.lowlevel.checkpoint()
            return
        place = self._play.cut_at("break", len(data))
        if place is not None:
            await self._inner.send_all(bytes(data[:place]))
            await trio.aclose_forcefully(self._inner)
            raise trio.BrokenResourceError("cut")
        place = self._play.cut_at("swallow", len(data))
        if place is not None:
            self._swallows = True
            self._nursery.start_soon(self._break_later)
        await self._inner.send_all(bytes(data[:place]))

    async def _break_later(self) -> None:
        await trio.sleep(SWALLOWING_SECONDS)
        await trio.aclose_forcefully(self._inner)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._inner.receive_some(max_bytes))
        place = self._play.cut_at("truncate", len(data))
        if place is not None:
            await trio.aclose_forcefully(self._inner)
        return data[:place]

    async def aclose(self) -> None:
        self.closed = True
        await self._inner.aclose()
