"""``broker``: the broker of `trio_mqtt.testing` on TCP, for trying things out."""

from __future__ import annotations

import argparse
from functools import partial

import trio

from trio_mqtt.testing import Broker, Record, open_broker

from ._failures import Failure
from ._interruption import Interruption, run_interruptibly
from ._options import sixteen_bits
from ._output import Output, standard_output
from ._trace import broker_tracer

NAME: str = "broker"
SUMMARY: str = "run a broker, for trying things out"

_DESCRIPTION = """\
Prints its URL, and runs until Control-C. It is made for tests: it lets everybody in, keeps
everything in memory, and closes the connection of who breaks the specification."""

_EXAMPLES = """\
examples:
  %(prog)s
  %(prog)s --port 0 --trace
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="on which to listen (default: %(default)s, which this machine alone reaches)",
    )
    parser.add_argument(
        "--port",
        type=sixteen_bits,
        default=1883,
        help="0 for one that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--trace",
        action="store_true",
        help="show each packet on standard error, with time and direction, without any password",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit code."""
    return run_interruptibly(partial(serve, arguments, standard_output()))


async def serve(arguments: argparse.Namespace, output: Output, _: Interruption) -> int:
    """Serves until it is cancelled.

    Raises:
        Failure: it cannot listen there.
    """
    watch = broker_tracer() if arguments.trace else _ignore
    async with open_broker(watch=watch, strict=False) as broker:
        url = await _listen(broker, arguments.host, arguments.port)
        await output.write(f"{url}\n".encode())
        await trio.sleep_forever()


async def _listen(broker: Broker, host: str, port: int) -> str:
    try:
        return await broker.listen(host=host, port=port)
    except OSError as error:
        raise Failure(
            f"cannot listen on port {port} of {host}: {error.strerror}: --port 0 takes a free one"
        ) from error


def _ignore(_: Record) -> None:
    """Keeps nothing, as the broker may run for long."""
