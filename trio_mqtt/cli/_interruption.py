"""What signals do to a command that runs.

SIGINT closes: the connection ends at once, and the broker publishes the Will. SIGTERM ends what the
command does with the connection, and then takes leave of the broker. A second one may be SIGINT.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager, suppress

import trio

from trio_mqtt.testing._nursery import open_background_nursery

SIGNALLED = 128
"""What shells add to the number of a signal for an exit code."""


class Interruption:
    """What signals did so far, and to what the next one would do it."""

    def __init__(self) -> None:
        self.code: int | None = None
        """The exit code, once there was a signal."""
        self.everything = trio.CancelScope()
        self._work: trio.CancelScope | None = None

    @contextmanager
    def working(self) -> Generator[None]:
        """Around what is done with an open client, inside of it.

        Who reads our output may leave, as `head` does. That ends the work too, and is no failure.
        """
        with suppress(BrokenPipeError), trio.CancelScope() as self._work:
            yield

    def signalled(self, number: int) -> None:
        """A signal came."""
        if self.code is None or number == signal.SIGINT:
            self.code = SIGNALLED + number
        if number == signal.SIGTERM and self._work is not None:
            self._work.cancel()
        else:
            self.everything.cancel()


def run_interruptibly(command: Callable[[Interruption], Awaitable[int]]) -> int:
    """Runs the coroutine of a command, until it ends or a signal ends it. Returns the exit code."""
    return trio.run(_run, command)


async def _run(command: Callable[[Interruption], Awaitable[int]]) -> int:
    interruption = Interruption()
    code = 0
    # A script that starts a job in the background has it ignore Control-C.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    numbers = (signal.SIGTERM,) if ignored else (signal.SIGINT, signal.SIGTERM)
    with trio.open_signal_receiver(*numbers) as signals:
        async with open_background_nursery() as nursery:
            nursery.start_soon(_listen, signals, interruption)
            with interruption.everything:
                code = await command(interruption)
    return code if interruption.code is None else interruption.code


async def _listen(signals: AsyncIterator[int], interruption: Interruption) -> None:
    async for number in signals:
        interruption.signalled(number)
