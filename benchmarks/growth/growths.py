"""What is measured: growths, each of them the time of a message by a number."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

import attrs

from . import receiving


@attrs.frozen
class Growth:
    """The time of a message, by the number of something."""

    name: str
    """By which it is chosen; others may have the same."""
    title: str
    numbers: tuple[int, ...]
    reference: int
    """By whose time the others are divided."""
    measure: Callable[[int, int], Awaitable[float]]
    """Given the port of the peer and the number, returns how many microseconds a message took."""
    unit: Literal["message", "byte", "character", "level"] = "message"
    """What has a constant cost; if it is no message, then the number is how many make one."""


GROWTHS = (
    *(
        Growth(
            "scopes",
            f"receiving at QoS {qos}, by open subscription scopes",
            (1, 10, 1_000, 10_000),
            10,
            partial(receiving.by_scopes, qos=qos),
        )
        for qos in (0, 1)
    ),
)
