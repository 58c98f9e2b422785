"""``ping``: how long a round trip to the broker takes."""

from __future__ import annotations

import argparse
from functools import partial

import trio

from trio_mqtt import Client

from ._failures import OK
from ._interruption import Interruption, run_interruptibly
from ._opening import client_from, log_on_stderr
from ._options import add_client_options, positive
from ._output import Output, standard_output

NAME: str = "ping"
SUMMARY: str = "check that the broker answers, and how fast"

EVERY = 1
"""Seconds between two."""

_DESCRIPTION = """\
Connects, makes a round trip to the broker, and prints how long that took. The exit code says
whether the broker can be used."""

_EXAMPLES = """\
examples:
  %(prog)s
  %(prog)s --broker mqtt://test.example:1883 --count 5
  %(prog)s --quiet || echo "exit $?"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.usage = "%(prog)s [option ...]"
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--count",
        "-n",
        type=positive,
        default=1,
        metavar="N",
        help="make as many, one a second (default: %(default)s)",
    )
    add_client_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit code."""
    with log_on_stderr(arguments):
        return run_interruptibly(partial(ping, arguments, standard_output()))


async def ping(arguments: argparse.Namespace, output: Output, interruption: Interruption) -> int:
    """Makes the round trips. Returns the exit code.

    Raises:
        MQTTError: the broker does not answer.
    """
    async with client_from(arguments) as client:
        with interruption.working():
            await _ping(client, arguments.count, output)
    return OK


async def _ping(client: Client, count: int, output: Output) -> None:
    for number in range(count):
        if number:
            await trio.sleep(EVERY)
        seconds = await client.ping()
        await output.write(f"{seconds * 1000:.2f} ms\n".encode())
