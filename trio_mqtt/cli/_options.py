"""The options that commands share."""

from __future__ import annotations

import argparse

DEFAULT_BROKER = "mqtt://localhost"
BROKER_VARIABLE = "MQTT_BROKER"
MAX_SIXTEEN_BITS = 65_535
PASSWORD_VARIABLE = "MQTT_PASSWORD"  # noqa: S105, the name of a variable


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Those of all commands that are a client of a broker."""
    _add_connection(parser)
    add_credentials(parser)
    _add_tls(parser)
    _add_session(parser)
    _add_will(parser)
    _add_telling(parser)


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Those that say who is asking."""
    group = parser.add_argument_group(
        "user",
        f"The password is in a file, or in the environment's {PASSWORD_VARIABLE}, as everybody on\n"
        "this machine can see the arguments of a process.",
    )
    group.add_argument("--username", metavar="NAME", help="otherwise that of the URL")
    group.add_argument(
        "--password-file", metavar="PATH", help="the first line of the file is the password"
    )


def add_qos(group: argparse._ArgumentGroup, *, default: int, help: str) -> None:  # noqa: A002
    """``--qos``."""
    group.add_argument("--qos", type=int, choices=(0, 1, 2), default=default, help=help)


def positive(text: str) -> int:
    """A number of things, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def sixteen_bits(text: str) -> int:
    """The number of a port, or of seconds in CONNECT, for argparse."""
    number = int(text)
    if not 0 <= number <= MAX_SIXTEEN_BITS:
        raise argparse.ArgumentTypeError(f"{number} is not in 0 to {MAX_SIXTEEN_BITS}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not number > 0:  # also what is no number
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the broker")
    group.add_argument(
        "--broker",
        metavar="URL",
        help="mqtt://user@host:1883, mqtts:// for TLS, ws:// or wss:// for WebSocket, mqtt+unix:// "
        f"for a Unix socket; otherwise that of the environment's {BROKER_VARIABLE}, which "
        f"may have a password too; otherwise {DEFAULT_BROKER}",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=10,
        metavar="SECONDS",
        help="in which something has to move, be it one byte, whenever it is due; inf for ever "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--keep-alive",
        type=sixteen_bits,
        default=60,
        metavar="SECONDS",
        help="after which an idle connection is tried; 0 for never (default: %(default)s)",
    )


def _add_tls(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("TLS, which URLs like mqtts://host:8883 ask for")
    group.add_argument(
        "--ca", metavar="FILE", help="trust these authorities, in PEM; otherwise the system's"
    )
    group.add_argument("--cert", metavar="FILE", help="the client's own certificate, in PEM")
    group.add_argument("--key", metavar="FILE", help="its private key, where --cert has none")
    group.add_argument(
        "--server-name", metavar="NAME", help="expect this name in the broker's certificate"
    )


def _add_session(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("session")
    group.add_argument(
        "--client-id",
        metavar="ID",
        help="have the broker keep a session of this name; otherwise it keeps none",
    )
    group.add_argument(
        "--clean-session",
        action="store_true",
        help="first have the broker forget what it kept under that name",
    )


def _add_will(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "will: what the broker publishes when the connection is lost, or ends by Control-C"
    )
    group.add_argument("--will-topic", metavar="TOPIC")
    group.add_argument("--will-message", metavar="TEXT", help="empty when left out")
    group.add_argument("--will-qos", type=int, choices=(0, 1, 2))
    group.add_argument("--will-retain", action="store_true", help="have the broker keep it")


def _add_telling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is told on standard error")
    how_much = group.add_mutually_exclusive_group()
    how_much.add_argument("--verbose", action="store_true", help="also what goes well")
    how_much.add_argument(
        "--quiet", action="store_true", help="nothing: the exit code alone says how it went"
    )
    group.add_argument(
        "--trace",
        action="store_true",
        help="each packet, with time and direction, and without any password",
    )
