"""How much may wait for the application, and what happens to more."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from ._errors import Denied

Overflow: TypeAlias = Literal["wait", "drop_oldest", "drop_newest"]
"""What happens to messages at QoS 0 when the buffer is full."""
OVERFLOWS: tuple[Overflow, ...] = ("wait", "drop_oldest", "drop_newest")


@attrs.frozen
class Buffer:
    """How much may wait for the application, before the client stops reading.

    Raises:
        Denied: one of them is less than 1.
        TypeError: one of them is no `int`.
    """

    messages: int = 1_000
    bytes: int = 64 * 1024 * 1024
    """Of payload."""

    def __attrs_post_init__(self) -> None:
        for value in (self.messages, self.bytes):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"a bound is an int, not {value!r}")
        if self.messages < 1 or self.bytes < 1:
            raise Denied(f"{self} has room for nothing")
