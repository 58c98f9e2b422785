"""Programs that run beside a test, and end with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial

import trio


async def start_process(
    nursery: trio.Nursery, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> trio.Process:
    """Starts a program with pipes for all that it reads and writes."""
    process: trio.Process = await nursery.start(
        partial(
            trio.run_process,
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, **(environment or {})},
            deliver_cancel=_kill,
        )
    )
    return process


async def _kill(process: trio.Process) -> None:
    """Trio's own way begins with SIGTERM, and warns before SIGKILL, which is an error here."""
    process.kill()
    await trio.lowlevel.checkpoint()
