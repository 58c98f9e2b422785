"""The transports, each as a `Dialer`. They compose: TLS and WebSocket go over any other.

::

    async def through_a_proxy() -> trio.abc.Stream: ...

    dialer = tls_dialer(through_a_proxy, "broker.example", tls=context)
    async with trio_mqtt.open_client(dialer) as client:
        ...
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio

from ._errors import Denied

Dialer: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Makes a connection to a broker. An `OSError` or a `trio.BrokenResourceError` means that it could
not be made this time; any other exception ends the client. Its `__qualname__` is the broker's name
in messages."""

TLS: TypeAlias = ssl.SSLContext | Callable[[], Awaitable[ssl.SSLContext]]
"""How to speak TLS: whom to trust, and who we are. An async callable is awaited at every attempt to
connect, so that certificates may change; its `OSError` fails that attempt."""


def tcp_dialer(host: str, port: int) -> Dialer:
    """Over TCP. The name is resolved anew each time, and all its addresses are tried.

    Raises:
        Denied: `host` is no name of a host.
    """
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise Denied(f"{host!r} is no name of a host: {error}") from error

    async def dial() -> trio.abc.Stream:
        try:
            return await trio.open_tcp_stream(host, port)
        except UnicodeError as error:  # Trio's rules for names are stricter
            raise OSError(f"{host!r} is no name of a host: {error}") from error

    dial.__qualname__ = f"mqtt://{_in_url(host)}:{port}"
    return dial


def unix_dialer(path: str) -> Dialer:
    """Over a Unix socket.

    Raises:
        Denied: this system has none.
    """
    if not hasattr(socket, "AF_UNIX") or not hasattr(trio, "open_unix_socket"):
        raise Denied("this system has no Unix sockets")

    async def dial() -> trio.abc.Stream:
        return await trio.open_unix_socket(path)

    dial.__qualname__ = f"mqtt+unix://{path}"
    return dial


def tls_dialer(dialer: Dialer, server_hostname: str, *, tls: TLS | None = None) -> Dialer:
    """TLS over what `dialer` connects to.

    Its attempts fail with an `OSError` that says what the matter is: an
    `ssl.SSLCertVerificationError` if it is the broker's certificate.

    Arguments:
        server_hostname: whose certificate is expected: a name, or an IP address.
        tls: left out, `ssl.create_default_context()`, which trusts whom the system trusts.

    Raises:
        TypeError: `tls` has another type.
    """
    if not (tls is None or isinstance(tls, ssl.SSLContext) or callable(tls)):
        raise TypeError(f"tls is an ssl.SSLContext or an async callable, not {tls!r}")
    default: list[ssl.SSLContext] = []
    """Made once, at the first attempt: that takes some 20 ms."""

    async def context() -> ssl.SSLContext:
        if tls is None:
            default[:] = default or [ssl.create_default_context()]
            return default[0]
        return tls if isinstance(tls, ssl.SSLContext) else await tls()

    async def dial() -> trio.abc.Stream:
        ours = await context()
        return await _secured(await dialer(), ours, server_hostname)

    dial.__qualname__ = f"mqtts://{_in_url(server_hostname)}"
    return dial


async def _secured(
    stream: trio.abc.Stream, context: ssl.SSLContext, server_hostname: str
) -> trio.abc.Stream:
    try:
        # Brokers close the connection without saying so in TLS first, as web servers do.
        secured = trio.SSLStream(
            stream, context, server_hostname=server_hostname, https_compatible=True
        )
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise _untangled(error) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def _untangled(error: trio.BrokenResourceError) -> OSError:
    """What is behind the failure of a handshake."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause
    if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
        return OSError(f"the broker broke off the TLS handshake: {describe(cause)}")
    why = "the connection was closed" if cause is None else describe(cause)
    return OSError(f"no TLS there, it seems: {why}")


def describe(error: BaseException) -> str:
    """What a transport said, or what it raised where it said nothing."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if not str(error) and error.__cause__ is not None:
        return describe(error.__cause__)
    return str(error) or type(error).__name__


def websocket_dialer(
    dialer: Dialer, *, host: str, target: str = "/", headers: Sequence[tuple[str, str]] = ()
) -> Dialer:
    """WebSocket over what `dialer` connects to, which may be TLS.

    It needs the extra ``trio-mqtt[websocket]``.

    Arguments:
        host: of the Host header, with the port where it is not the scheme's own.
        target: path and query.
        headers: further ones, such as a proxy may ask for.

    Raises:
        Denied: the extra is not installed.
    """
    try:
        from ._websocket import open_websocket  # noqa: PLC0415, an extra
    except ImportError as error:
        raise Denied("WebSocket needs an extra: pip install 'trio-mqtt[websocket]'") from error

    async def dial() -> trio.abc.Stream:
        stream = await dialer()
        try:
            return await open_websocket(stream, host=host, target=target, headers=headers)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    dial.__qualname__ = f"ws://{host}{target.partition('?')[0]}"
    return dial


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
