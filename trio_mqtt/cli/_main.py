"""From the command line's arguments to a command, and from its outcome to an exit code."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from trio_mqtt import MQTTError

from . import _broker, _chat, _completion, _demo, _ping, _publish, _subscribe
from ._failures import MISUSED, OK, Failure, exit_code, line
from ._output import say

INTERRUPTED = 130
"""The shells' own exit code for Control-C."""

_EXIT_CODES = """\
exit codes:
  0    all is well; a message was confirmed
  1    it failed: a line on standard error says why, and what to do next
  2    the arguments are wrong
  5-9  the broker refused the connection: 5 its protocol version, 6 the client identifier,
       7 it is unavailable, 8 bad user name or password, 9 not authorized
  130  ended by SIGINT, Control-C: the connection was closed, and the broker publishes the will
  143  ended by SIGTERM, after a proper leave of the broker
"""


class _Command(Protocol):
    """What the module of a command offers."""

    NAME: str
    SUMMARY: str

    def configure(self, parser: argparse.ArgumentParser, /) -> None:
        """Declares the arguments."""

    def run(self, arguments: argparse.Namespace, /) -> int:
        """Runs the command. Returns its exit code.

        Raises:
            MQTTError, Failure, ssl.SSLError: it failed, and the message is for the user.
        """
        ...


_COMMANDS: tuple[_Command, ...] = (
    _publish,
    _subscribe,
    _ping,
    _chat,
    _broker,
    _demo,
    _completion,
)


class _Parser(argparse.ArgumentParser):
    """Answers a mistake in the choice of the command with the help, as that is what is needed."""

    def error(self, message: str) -> NoReturn:
        self.print_help(sys.stderr)
        self.exit(MISUSED, f"\nerror: {message}\n")


class _CommandParser(argparse.ArgumentParser):
    """Answers a mistake in one line, which a screen full of options would hide."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message}: see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None, *, program: str = "trio-mqtt") -> int:
    """Runs the command that `arguments` name, by default those of the process.

    Returns its exit code, as `_EXIT_CODES` has them. What failed is told in a line on stderr,
    unless the arguments want it quiet.
    """
    parsed, unknown = _parser(program).parse_known_args(arguments)
    chosen: argparse.ArgumentParser = parsed.parser
    if unknown:  # of which argparse would tell in the name of the whole
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}")
    run: Callable[[argparse.Namespace], int] = parsed.run
    # What a command does not show of the client's log is not for the user.
    logging.getLogger("trio_mqtt").addHandler(logging.NullHandler())
    try:
        return run(parsed)
    except Failure as failure:
        code, text = failure.code, str(failure)
    except (MQTTError, ssl.SSLError) as error:
        code, text = exit_code(error), line(error)
    except BrokenPipeError:  # who read our output has left
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    if not getattr(parsed, "quiet", False):
        say(f"{chosen.prog}: {text}")
    return code


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description="MQTT on the command line.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(
        title="commands",
        metavar="COMMAND",
        prog=program,
        required=True,
        parser_class=_CommandParser,
    )
    for command in _COMMANDS:
        added = commands.add_parser(
            command.NAME,
            help=command.SUMMARY,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # What an abbreviation stands for may change with the next option that there is.
            allow_abbrev=False,
        )
        command.configure(added)
        added.set_defaults(run=command.run, parser=added, parsers=commands.choices)
    return parser


def _version() -> str:
    try:
        return "trio-mqtt " + importlib.metadata.version("trio-mqtt")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "trio-mqtt (not installed)"
