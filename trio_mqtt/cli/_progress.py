"""A line on the terminal that says how far a long transfer is."""

from __future__ import annotations

import sys

import trio

from trio_mqtt import Client

from ._output import say
from ._sender import Sender

BEGIN_AFTER = 1.0
"""Seconds. What takes less needs no progress."""
EVERY = 0.25
"""Seconds."""
_CLEAR = "\r\033[K"


async def show_progress(client: Client, sender: Sender) -> None:
    """Rewrites the line until it is cancelled, and then removes it."""
    await trio.sleep(BEGIN_AFTER)
    try:
        while True:
            say(_CLEAR + _line(client, sender), end="")
            await trio.sleep(EVERY)
    finally:
        say(_CLEAR, end="")


def can_show_progress() -> bool:
    """Whether standard error is a terminal."""
    # It is None where whoever started the process closed it.
    return sys.stderr is not None and sys.stderr.isatty()


def _line(client: Client, sender: Sender) -> str:
    written = _size(client.statistics().bytes_written)
    state = "" if client.online else ", offline"
    return f"{sender.confirmed:,} confirmed, {written} sent{state}"


def _size(count: int) -> str:
    if count < 1_000:
        return f"{count} bytes"
    if count < 1_000_000:
        return f"{count / 1_000:.1f} kB"
    return f"{count / 1_000_000:,.1f} MB"
