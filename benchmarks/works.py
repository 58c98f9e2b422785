"""What is measured: a work, in cells, by contenders."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import attrs

from .other_ends import peer

SMALL = 64
"""Bytes of payload, as a sensor has them."""
KIB = 1024
MIB = 1024 * KIB


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
class Figure:
    """What a work measures, or one of several such."""

    name: str
    """In a `Sample`, and in JSON."""
    unit: str
    """At the head of its column."""
    style: str
    """Its width and digits, as `format` takes them."""
    more_is_better: bool = False

    @property
    def worst(self) -> float:
        """Of one who did nothing."""
        return 0.0 if self.more_is_better else math.inf

    def format(self, value: float) -> str:
        """In its column."""
        return f"{value:{self.style}}" if math.isfinite(value) else f"{'-':>{self.width}}"

    @property
    def width(self) -> int:
        """Of its column."""
        return len(f"{0:{self.style}}")


RATE = Figure("rate", "msg/s", "11,.0f", more_is_better=True)
CPU_TIME = Figure("cpu_us", "µs CPU", "9.1f")
"""Microseconds of processor time for each message."""
CPU_SHARE = Figure("cpu_share", "CPU", "6.0%")
"""Of one processor."""


@attrs.frozen
class Cell:
    """One way of doing the work."""

    qos: int | None
    """None where nothing is published."""
    tasks: int
    """Or messages under way at once, where the peer is who publishes them."""
    unit: str = "task"
    payload_size: int = SMALL
    does: str = ""
    """The adapter's function, where a work has several; else that of the work's name."""

    def __str__(self) -> str:
        parts = [self.does.replace("_", " ")] if self.does else []
        if self.qos is not None:
            parts.append(f"QoS {self.qos}")
        if self.tasks:
            parts.append(f"{self.tasks:,} {self.unit}{'s' * (self.tasks > 1)}")
        if self.payload_size != SMALL:
            parts.append(size_text(self.payload_size))
        return ", ".join(parts)


def size_text(size: int) -> str:
    """Bytes, in the largest binary unit of which they are a multiple."""
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


@attrs.frozen
class Work:
    """Something that clients do, and that can be compared."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    contenders: tuple[Contender, ...]
    reference: Contender
    """By whose first figure those of the others are divided."""
    figures: tuple[Figure, ...] = (RATE, CPU_TIME, CPU_SHARE)
    """The first is compared; of the others there is the median alone."""
    other_end: Callable[[Path], AbstractContextManager[int]] = peer
    """Yields the port on which the clients find it. The directory is empty."""
