"""Starts the command line, such that Control-C is silent from here to the end of the process.

It is a module beside the package, as importing anything of the package imports all of it, and Trio:
a quarter of a second in which a `KeyboardInterrupt` would end in a traceback. While a command runs
it says itself what a signal does, see `trio_mqtt.cli._interruption`. Before and after that nothing
is there that could be lost, and the process ends at once. An exception would not do: raised while
an object is finalized it is printed, and ignored.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def main(*, program: str = "trio-mqtt") -> int:
    """Runs the command that the process's arguments name. Returns its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever started the process may have it ignore them, as `nohup` and `&` in scripts do.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from trio_mqtt.cli import main as run  # noqa: PLC0415, see above

    return run(program=program)


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)
