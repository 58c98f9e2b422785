"""What is measured: a work, in cells, by contenders."""

from __future__ import annotations

import attrs


@attrs.frozen
class Contender:
    """A client, in one way of using it."""

    name: str
    adapter: str
    """A module in `benchmarks.clients`."""
    store: str
    """What the adapter is to keep the session in."""
    note: str = ""
    """What is to be known about its numbers."""


@attrs.frozen
class Cell:
    """One way of doing the work."""

    qos: int
    tasks: int
    """Or messages under way at once, where the peer is who publishes them."""
    unit: str = "task"

    def __str__(self) -> str:
        if not self.tasks:
            return f"QoS {self.qos}"
        return f"QoS {self.qos}, {self.tasks} {self.unit}{'s' * (self.tasks > 1)}"


@attrs.frozen
class Work:
    """Something that clients do, and that can be compared."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    contenders: tuple[Contender, ...]
    reference: Contender
    """By whose rate the others are divided."""
    payload_size: int
