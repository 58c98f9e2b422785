"""From what went wrong to an exit code, and to one line that says what, and what to do next."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import cast

from trio_mqtt import (
    BadCredentials,
    ConnectionLost,
    ConnectionRefused,
    Denied,
    Down,
    IdentifierRejected,
    MQTTError,
    NotAuthorized,
    ServerUnavailable,
    SubscribeError,
    UnacceptableProtocolVersion,
)

OK, FAILED, MISUSED = 0, 1, 2
REFUSED = 4
"""What is added to the return code of CONNACK, 1 to 5: the exit code is 5 to 9."""


class Failure(Exception):
    """Ends a command. The message is the line for the user."""

    code = FAILED


class Misuse(Failure):
    """The arguments are wrong: the same call will always fail."""

    code = MISUSED


_USER = "give --username, and the password in MQTT_PASSWORD or with --password-file"

_NEXT: tuple[tuple[type[BaseException], str], ...] = (
    (UnacceptableProtocolVersion, "the broker has to allow MQTT 3.1.1"),
    (IdentifierRejected, "choose another --client-id, of letters and digits"),
    (ServerUnavailable, "the broker runs, and asks to try again later"),
    (BadCredentials, _USER),
    (NotAuthorized, _USER),
    (SubscribeError, "the user may not read there, by the broker's configuration"),
    (ssl.SSLCertVerificationError, "--ca FILE names the authority that the broker's is from"),
    (ssl.SSLError, "does the broker speak TLS at this port?"),
    (socket.gaierror, "check the host's name in --broker"),
    (ConnectionRefusedError, "does a broker run there, at this port? --broker URL names another"),
    (ConnectionLost, "is it a broker for MQTT, and is TLS asked for where it has to be?"),
    (OSError, "check --broker, and the network"),
    (Down, "does the network pass it? --timeout SECONDS waits longer"),
)
"""What to do next: the first of these that is among the errors which led to each other."""


def line(error: MQTTError | ssl.SSLError) -> str:
    """What is said of it."""
    return f"{error}: {hint}" if (hint := _hint(error)) else str(error)


def exit_code(error: MQTTError | ssl.SSLError) -> int:
    """What the process ends with."""
    if isinstance(error, ConnectionRefused):
        return REFUSED + error.code
    return MISUSED if isinstance(error, Denied) else FAILED


def _hint(error: BaseException) -> str:
    # What an argument lacks is in the message, and a request that broke off is no configuration.
    if isinstance(error, Denied):
        return ""
    known = isinstance(error, (ConnectionRefused, Down, SubscribeError, ssl.SSLError))
    reasons = list(_reasons(error)) if known else []
    hints = (hint for kind, hint in _NEXT if any(isinstance(one, kind) for one in reasons))
    return next(hints, "")


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    if error is None:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)  # narrowed to one of Unknown
        for inner in group.exceptions:
            yield from _reasons(inner)
    yield from _reasons(error.__cause__)
