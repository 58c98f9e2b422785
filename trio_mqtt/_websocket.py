"""WebSocket as a `trio.abc.Stream`: the bytes of MQTT in binary messages (chapter 6).

wsproto knows the protocol, and this module moves its bytes. Packets and frames need not align
[MQTT-6.0.0-2], so what is received is handed on as it comes, however it is framed, and each
`send_all` is a message. One task reads and one writes, as a connection has them. What reading finds
to be answered, a ping or the peer's good-bye, goes out at once, or behind what is being written. It
is the latest answer only, which is all that a peer may expect that does not read (RFC 6455, 5.5.3).

trio-websocket was no choice: it wants a nursery, and takes a message as a whole.
"""

from __future__ import annotations

import http
from collections.abc import Iterable, Sequence
from contextlib import suppress

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from ._errors import Denied

SUBPROTOCOL = "mqtt"
"""[MQTT-6.0.0-3]. Servers echo what they are offered, so it is offered alone."""
READ_SIZE = 65_536
CLOSE_MOST = 1.0
"""Seconds that the good-bye may take on closing. Nobody waits for the peer's: mosquitto sends none,
and proxies cut the connection."""


async def open_websocket(
    stream: trio.abc.Stream, *, host: str, target: str, headers: Sequence[tuple[str, str]] = ()
) -> trio.abc.Stream:
    """Makes a WebSocket of a stream, which stays open if that fails.

    Raises:
        OSError: there is none, or it does not speak MQTT.
        Denied: `host`, `target` or a header is not legal in HTTP.
    """
    connection = WSConnection(ConnectionType.CLIENT)
    websocket = WebSocketStream(stream, connection)
    request = _request(connection, host, target, headers)
    try:
        await stream.send_all(request)
        events: Sequence[Event] = ()
        while not events:
            events = _events(connection, await stream.receive_some(READ_SIZE))
    except trio.BrokenResourceError as error:
        raise OSError(_CLOSED) from error
    _check_accepted(events[0])
    websocket.take(events[1:])
    return websocket


_CLOSED = "the connection was closed in the WebSocket handshake"


def _check_accepted(event: Event) -> None:
    """Raises `OSError` unless that is what the server did."""
    match event:
        case AcceptConnection():
            if event.subprotocol != SUBPROTOCOL:  # [MQTT-6.0.0-4]
                raise OSError("the WebSocket is not for MQTT: its server chose no subprotocol")
        case RejectConnection():
            raise OSError(_rejection(event))
        case _:
            raise OSError(f"{type(event).__name__} in the WebSocket handshake")


def _request(
    connection: WSConnection, host: str, target: str, headers: Sequence[tuple[str, str]]
) -> bytes:
    # Without an exception: the context of another one would show the headers' values.
    with suppress(h11.LocalProtocolError, UnicodeEncodeError):
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        return connection.send(
            Request(host, target, subprotocols=[SUBPROTOCOL], extra_headers=encoded)
        )
    raise Denied("the host, the path or a header is not legal in HTTP")


def _events(connection: WSConnection, data: bytes | bytearray) -> list[Event]:
    """What the server's answer means.

    Raises:
        OSError: it is none of HTTP, or none at all.
    """
    if not data:
        raise OSError(_CLOSED)
    try:
        connection.receive_data(bytes(data))
        return list(connection.events())
    except (RemoteProtocolError, UnicodeError) as error:
        raise OSError(f"no WebSocket there, it seems: {error}") from error


def _rejection(rejection: RejectConnection) -> str:
    code = rejection.status_code
    named = f"{code} {http.HTTPStatus(code).phrase}" if code in _STATUS_CODES else str(code)
    where = [value for name, value in rejection.headers if name.lower() == b"location"]
    to = f", to {where[0].decode('latin-1')}" if where else ""
    return f"the server answered the WebSocket handshake with {named}{to}"


_STATUS_CODES = frozenset(http.HTTPStatus)


class WebSocketStream(trio.abc.Stream):
    """See above. Closing it closes the stream below."""

    def __init__(self, below: trio.abc.Stream, connection: WSConnection) -> None:
        self._below = below
        self._connection = connection
        self._received = bytearray()
        """What was not asked for yet."""
        self._answer = b""
        """What is to be sent as soon as nothing else is."""
        self._is_sending = trio.Lock()
        self._is_writing = self._is_reading = False
        self._ended = False
        """Whether the peer said good-bye."""
        self._flaw: str | None = None
        """What the peer did against the protocol, for after what came before."""
        self._closed = self._torn = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends a binary message [MQTT-6.0.0-1]. Cancelled, it leaves the connection broken."""
        self._check()
        if self._is_writing:
            raise trio.BusyResourceError("another task writes")
        self._is_writing = True
        try:
            async with self._is_sending:
                self._check()
                if self._ended or self._flaw:
                    raise trio.BrokenResourceError(self._flaw or "the peer closed the WebSocket")
                await self._send(self._connection.send(BytesMessage(bytes(data))))
                await self._send_answer()
        finally:
            self._is_writing = False

    async def _send(self, data: bytes) -> None:
        """Sends all of it, or nothing ever again."""
        try:
            await self._below.send_all(data)
        except BaseException:
            self._torn = True
            raise

    async def _send_answer(self) -> None:
        while self._answer:
            answer, self._answer = self._answer, b""
            await self._send(answer)

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        self._check()
        await self._below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, however they were framed; none once the peer is gone.

        It also answers the peer's pings. Cancelled in the middle of that, which takes a peer that
        does not read, nothing can be sent any more.
        """
        self._check_open()
        if max_bytes is not None and not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes is an int, not {max_bytes!r}")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes is 1 at least, not {max_bytes}")
        if self._is_reading:
            raise trio.BusyResourceError("another task reads")
        self._is_reading = True
        try:
            return await self._receive(max_bytes)
        finally:
            self._is_reading = False

    async def _receive(self, max_bytes: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._received or self._ended or self._flaw):
            data = await self._below.receive_some(READ_SIZE)
            if data:
                self._connection.receive_data(bytes(data))
                self.take(self._connection.events())
                await self._answer_now()
            else:
                self._ended = True
        if not self._received and self._flaw:
            raise trio.BrokenResourceError(self._flaw)
        taken = bytes(self._received[:max_bytes])
        del self._received[: len(taken)]
        return taken

    def take(self, events: Iterable[Event]) -> None:
        """Takes note of what was received."""
        for event in events:
            match event:
                case BytesMessage():
                    self._received += event.data
                case TextMessage():  # [MQTT-6.0.0-1]
                    self._flaw = "the peer sent a text message over the WebSocket"
                    return
                case Ping() if self._connection.state is ConnectionState.OPEN:
                    self._answer = self._connection.send(event.response())
                case CloseConnection():
                    self._take_end(event)
                    return
                case _:
                    pass

    def _take_end(self, event: CloseConnection) -> None:
        """A good-bye, or what wsproto makes one of: frames that are none."""
        match self._connection.state:
            case ConnectionState.OPEN:
                self._flaw = f"the peer broke the WebSocket: {event.reason}"
            case ConnectionState.REMOTE_CLOSING:
                self._answer = self._connection.send(event.response())
                self._ended = True
            case _:
                self._ended = True

    async def _answer_now(self) -> None:
        """Unless the task that writes does, when it is done."""
        if self._answer and not (self._torn or self._is_sending.locked()):
            async with self._is_sending:
                with suppress(trio.BrokenResourceError):  # what was received counts all the same
                    await self._send_answer()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this WebSocket was closed")

    def _check(self) -> None:
        self._check_open()
        if self._torn:
            raise trio.BrokenResourceError("the WebSocket was left in the middle of a frame")

    async def aclose(self) -> None:
        """Says good-bye, if that is quick, and closes the stream below."""
        is_idle = not (self._torn or self._is_sending.locked())
        is_open = self._connection.state is ConnectionState.OPEN
        polite = is_idle and is_open and not self._closed
        self._closed = True
        try:
            if polite:
                with trio.move_on_after(CLOSE_MOST):
                    await self._below.send_all(self._connection.send(CloseConnection(1000)))
        except trio.BrokenResourceError:
            pass  # it is gone
        finally:
            await self._below.aclose()
