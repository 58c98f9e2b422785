"""A URL to a `Dialer`, with what else it says of a broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from ._dialers import TLS, Dialer, tcp_dialer, tls_dialer, unix_dialer, websocket_dialer
from ._errors import Denied


@attrs.frozen
class Address:
    """Where a broker is, and what its URL said about the user."""

    name: str
    """For messages: without user name and password."""
    dial: Dialer = attrs.field(repr=False)
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    hint: str = ""
    """What may be the matter where something else than a broker of that kind answers."""


_Secure: TypeAlias = Callable[[Dialer, str], Dialer]
"""Puts TLS on what a dialer connects to, expecting that host."""


@attrs.frozen
class _Scheme:
    """What the URLs that begin so have in common."""

    port: int | None
    """Where the URL has none; None where there are no ports."""
    dialer: Callable[[SplitResult, int, _Secure], Dialer]
    secure: bool = False
    """Whether it speaks TLS."""
    hint: str = ""


def _tcp(parts: SplitResult, port: int, _: _Secure) -> Dialer:
    return tcp_dialer(parts.hostname or "", port)


def _tls(parts: SplitResult, port: int, secure: _Secure) -> Dialer:
    host = parts.hostname or ""
    return secure(tcp_dialer(host, port), host)


def _unix(parts: SplitResult, _: int, __: _Secure) -> Dialer:
    return unix_dialer(unquote(parts.path))


def _ws(parts: SplitResult, port: int, secure: _Secure) -> Dialer:
    below = (_tls if parts.scheme == "wss" else _tcp)(parts, port, secure)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return websocket_dialer(below, host=_without_user(parts), target=target)


_SCHEMES = {
    "mqtt": _Scheme(1883, _tcp, hint="; if it speaks TLS there, the URL is mqtts://"),
    "mqtts": _Scheme(8883, _tls, secure=True, hint="; it may want another client certificate"),
    "mqtt+unix": _Scheme(None, _unix),
    "ws": _Scheme(80, _ws),
    "wss": _Scheme(443, _ws, secure=True),
}
"""The ports are those registered with IANA."""


def resolve_brokers(
    broker: str | Dialer | Sequence[str | Dialer], tls: TLS | None = None
) -> Sequence[Address]:
    """What `open_client` was given, as addresses, at least one.

    Raises:
        Denied: a URL is malformed, has no host, or a scheme that is not supported; there is no
            broker; or none that `tls` is for.
        TypeError: one is neither a `str` nor callable.
    """
    brokers = (broker,) if isinstance(broker, str) or callable(broker) else broker
    if not isinstance(brokers, Sequence):
        raise TypeError(f"a broker is a URL or a dialer, not {type(broker).__name__}")
    if not brokers:
        raise Denied("no broker")
    if tls is not None and not any(isinstance(one, str) and _is_secure(one) for one in brokers):
        raise Denied("tls is for URLs that begin with mqtts:// or wss://; for a dialer: tls_dialer")
    return [resolve_broker(one, tls) for one in brokers]


def resolve_broker(
    broker: str | Dialer, tls: TLS | None = None, *, server_hostname: str | None = None
) -> Address:
    """One of them.

    Arguments:
        server_hostname: whose certificate is expected, if it is not that of the URL's host.

    Raises:
        Denied, TypeError: as `resolve_brokers`.
    """
    if isinstance(broker, str):
        return _parse(
            broker, lambda dialer, host: tls_dialer(dialer, server_hostname or host, tls=tls)
        )
    if callable(broker):
        return Address(getattr(broker, "__qualname__", type(broker).__name__), broker)
    raise TypeError(f"a broker is a URL or a dialer, not {type(broker).__name__}")


def _is_secure(url: str) -> bool:
    scheme = _SCHEMES.get(url.partition(":")[0].lower())
    return scheme is not None and scheme.secure


def _parse(url: str, secure: _Secure) -> Address:
    parts = _split(url)
    if parts is None:
        raise Denied(
            "the broker's URL is malformed; in a user name or password percent-encode '/', '?', '#'"
        )
    scheme = _SCHEMES.get(parts.scheme)
    where = _without_user(parts)
    if scheme is None:
        *most, last = [f"{name}://" for name in _SCHEMES]
        unlike = f", unlike that of {where}" if where else ""
        raise Denied(f"a broker's URL begins with {', '.join(most)} or {last}{unlike}")
    name = f"{parts.scheme}://{where}"
    if scheme.port is None:
        name += parts.path
        if parts.hostname or not parts.path.strip("/"):
            raise Denied(f"the path of a Unix socket follows three slashes, unlike in {name}")
    elif not parts.hostname:
        raise Denied("the broker's URL names no host")
    port = (scheme.port or 0) if parts.port is None else parts.port
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Address(name, scheme.dialer(parts, port, secure), username, password, scheme.hint)


def _split(url: str) -> SplitResult | None:
    """The parts of the URL, None for one that may have a password in the wrong place.

    Without an exception: the context of another one would show it.
    """
    try:
        parts = urlsplit(url)
        port_is_good = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    has_query = parts.query and parts.scheme not in ("ws", "wss")
    misplaced = "@" in parts.path + parts.query or parts.fragment or has_query
    return None if misplaced or not port_is_good else parts


def _without_user(parts: SplitResult) -> str:
    """The URL's host and port: a password must not get into a message."""
    return parts.netloc.rpartition("@")[2]
