"""From the command line's arguments to a command, and from its outcome to an exit code."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from trio_mqtt import MQTTError

from . import _demo

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes. The last one is the shells' own for Control-C."""


class _Command(Protocol):
    """What the module of a command offers."""

    NAME: str
    SUMMARY: str

    def configure(self, parser: argparse.ArgumentParser, /) -> None:
        """Declares the arguments."""

    def run(self, arguments: argparse.Namespace, /) -> int:
        """Runs the command. Returns its exit code."""
        ...


_COMMANDS: tuple[_Command, ...] = (_demo,)


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with the whole help, as a usage line alone helps nobody."""

    def error(self, message: str) -> NoReturn:
        self.print_help(sys.stderr)
        self.exit(MISUSED, f"\nerror: {message}\n")


def main(arguments: Sequence[str] | None = None, *, program: str = "trio-mqtt") -> int:
    """Runs the command that `arguments` name, by default those of the process.

    Returns its exit code: 0 when all is well, 1 when it failed, for which a line on stderr gives
    the reason, 2 when the arguments are wrong, 130 after Control-C.
    """
    parsed = _parser(program).parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    # A command tells by itself what happens to its connections.
    logging.getLogger("trio_mqtt").addHandler(logging.NullHandler())
    try:
        return run(parsed)
    except MQTTError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=program, description="MQTT on the command line.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        added = commands.add_parser(command.NAME, help=command.SUMMARY)
        command.configure(added)
        added.set_defaults(run=command.run)
    return parser


def _version() -> str:
    try:
        return "trio-mqtt " + importlib.metadata.version("trio-mqtt")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "trio-mqtt (not installed)"
