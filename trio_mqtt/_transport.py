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
not be made this time; any other exception ends the client. Its `__qualname__` is the broker's name
in messages."""

PORT = 1883
"""Of MQTT over TCP, as registered with IANA."""


@attrs.frozen
class Address:
    """Where a broker is, and what its URL said about the user."""

    name: str
    """For messages: without user name and password."""
    dial: Dialer = attrs.field(repr=False)
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)


def resolve_broker(broker: str | Dialer) -> Address:
    """What `open_client` was given, as an `Address`.

    Raises:
        Denied: the URL is malformed, has no host, or a scheme that is not supported.
        TypeError: it is neither a `str` nor callable.
    """
    if isinstance(broker, str):
        return _parse(broker)
    if callable(broker):
        return Address(getattr(broker, "__qualname__", type(broker).__name__), broker)
    raise TypeError(f"a broker is a URL or a dialer, not {type(broker).__name__}")


def _parse(url: str) -> Address:
    parts = _split(url)
    if parts is None:
        raise Denied(
            "the broker's URL is malformed; in a user name or password percent-encode '/', '?', '#'"
        )
    where = _without_user(parts)
    if parts.scheme != "mqtt":
        raise Denied(f"a broker's URL begins with 'mqtt://', and with no other scheme yet: {where}")
    if not parts.hostname:
        raise Denied("the broker's URL names no host")
    host, port = parts.hostname, PORT if parts.port is None else parts.port
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise Denied(f"{host!r} is no name of a host: {error}") from error

    async def dial() -> trio.abc.Stream:
        try:
            return await trio.open_tcp_stream(host, port)
        except UnicodeError as error:  # Trio's rules for names are stricter
            raise OSError(f"{host!r} is no name of a host: {error}") from error

    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Address(f"{parts.scheme}://{where}", dial, username, password)


def _split(url: str) -> SplitResult | None:
    """The parts of the URL, None for one that may have a password in the wrong place.

    Without an exception: the context of another one would show it.
    """
    try:
        parts = urlsplit(url)
        port_is_good = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    misplaced = "@" in parts.path or parts.query or parts.fragment
    return None if misplaced or not port_is_good else parts


def _without_user(parts: SplitResult) -> str:
    """The URL's host and port: a password must not get into a message."""
    return parts.netloc.rpartition("@")[2]
