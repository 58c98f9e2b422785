"""Calls code of the application's: a dialer, a credential, a persistence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

_T = TypeVar("_T")


@trio.lowlevel.disable_ki_protection
async def unprotected(function: Callable[[], Awaitable[_T]]) -> _T:
    """Calls what the application gave us: its code never runs protected from KeyboardInterrupt."""
    try:
        return await function()
    except BaseExceptionGroup as group:
        # A nursery in there, as Trio's own in open_tcp_stream, has wrapped it.
        if group.split(KeyboardInterrupt)[1] is None:
            raise KeyboardInterrupt from group
        raise
