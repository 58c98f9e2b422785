"""A URL to a `Dialer` to a `trio.abc.Stream`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
import trio

from ._errors import Denied

Dialer: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Makes a connection to a broker. An `OSError` or a `trio.BrokenResourceError` means that it could
not be made this time; any other exception ends the client."""

PORT = 1883
"""Of MQTT over TCP, as registered with IANA."""


@attrs.frozen
class Broker:
    """Where a broker is, and what its URL said about the user."""

    name: str
    """For messages: without user name and password."""
    dial: Dialer = attrs.field(repr=False)
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)


def resolve_broker(broker: str | Dialer) -> Broker:
    """What `open_client` was given, as a `Broker`.

    Raises:
        Denied: the URL has no host, a bad port, or a scheme that is not supported.
        TypeError: it is neither a `str` nor callable.
    """
    if isinstance(broker, str):
        return _parse(broker)
    if callable(broker):
        return Broker(getattr(broker, "__qualname__", type(broker).__name__), broker)
    raise TypeError(f"a broker is a URL or a dialer, not {type(broker).__name__}")


def _parse(url: str) -> Broker:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Denied("the broker is not a URL") from None  # whose text may show a password
    where = _without_user(parts)
    if parts.scheme != "mqtt":
        raise Denied(f"the scheme of {where!r} is {parts.scheme!r}; supported: 'mqtt'")
    if not parts.hostname:
        raise Denied(f"{where!r} names no host")
    try:
        port = PORT if parts.port is None else parts.port
    except ValueError as error:
        raise Denied(f"{where!r} has a bad port") from error
    host = parts.hostname
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise Denied(f"{where!r} is no name of a host: {error}") from error

    async def dial() -> trio.abc.Stream:
        try:
            return await trio.open_tcp_stream(host, port)
        except UnicodeError as error:  # Trio's rules for names are stricter
            raise OSError(f"{host!r} is no name of a host: {error}") from error

    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Broker(f"{parts.scheme}://{where}", dial, username, password)


def _without_user(parts: SplitResult) -> str:
    """The URL's host and port: a password must not get into a message."""
    return parts.netloc.rpartition("@")[2]
