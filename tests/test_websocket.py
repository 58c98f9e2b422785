"""`_websocket`, over memory streams, against wsproto's own server and against made-up bytes."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import (
    MockClock,
    check_two_way_stream,
    lockstep_stream_pair,
    memory_stream_pair,
)
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
)

import trio_mqtt
from trio_mqtt import Denied, Down, websocket_dialer
from trio_mqtt._websocket import CLOSE_MOST, WebSocketStream, open_websocket
from trio_mqtt.testing import open_broker

from .test_dialers import Secure, secure_broker

pytestmark = pytest.mark.conformance("MQTT-6.0.0-1")


class Server:
    """The other end, by wsproto."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.connection = WSConnection(ConnectionType.SERVER)
        self.events: list[Event] = []
        self.request: Request | None = None

    async def accept(self, answer: Event | None = None) -> None:
        request = await self.next()
        assert isinstance(request, Request)
        self.request = request
        await self.send(answer or AcceptConnection(subprotocol="mqtt"))

    async def send(self, *events: Event) -> None:
        await self.stream.send_all(b"".join(map(self.connection.send, events)))

    async def next(self) -> Event | None:
        """What comes next; None for the end."""
        while not self.events:
            data = await self.stream.receive_some()
            if not data:
                return None
            self.connection.receive_data(bytes(data))
            self.events += self.connection.events()
        return self.events.pop(0)

    async def next_data(self, size: int) -> bytes:
        """So many bytes, which have to come in binary messages."""
        data = b""
        while len(data) < size:
            event = await self.next()
            assert isinstance(event, BytesMessage), event
            data += event.data
        return data


@asynccontextmanager
async def pair(**options: Any) -> AsyncGenerator[tuple[trio.abc.Stream, Server]]:
    """Both ends, connected."""
    ours, theirs = memory_stream_pair()
    server = Server(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        client = await open_websocket(ours, host="host", target="/mqtt", **options)
    yield client, server


class Slow(trio.abc.Stream):
    """A stream that writes when it is told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.may_write: trio.Event | None = None
        self.written = 0
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.may_write is not None:
            await self.may_write.wait()
            self.written += 1
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self._stream.aclose()


async def slow_pair() -> tuple[trio.abc.Stream, Slow, Server]:
    """Both ends, connected, and what writes below ours when it is told to."""
    ours, theirs = memory_stream_pair()
    slow, server = Slow(ours), Server(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        client = await open_websocket(slow, host="host", target="/")
    return client, slow, server


# The handshake


@pytest.mark.conformance("MQTT-6.0.0-3")
async def test_what_is_asked_for() -> None:
    async with pair(headers=[("X-Token", "secret")]) as (_, server):
        assert server.request is not None
        assert server.request.host == "host"
        assert server.request.target == "/mqtt"
        assert server.request.subprotocols == ["mqtt"]
        assert server.request.extensions == []
        assert (b"x-token", b"secret") in [
            (name.lower(), value) for name, value in server.request.extra_headers
        ]


REJECTIONS = [
    (RejectConnection(status_code=404), "answered the WebSocket handshake with 404 Not Found$"),
    (RejectConnection(status_code=599), "answered the WebSocket handshake with 599$"),
    (
        RejectConnection(status_code=301, headers=[(b"Location", b"http://else")]),
        "301 Moved Permanently, to http://else$",
    ),
    (AcceptConnection(), "is not for MQTT: its server chose no subprotocol"),
]


@pytest.mark.conformance("MQTT-6.0.0-4")
@pytest.mark.parametrize(("answer", "why"), REJECTIONS)
async def test_a_server_that_does_not_want(answer: Event, why: str) -> None:
    ours, theirs = memory_stream_pair()
    server = Server(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept, answer)
        with pytest.raises(OSError, match=why):
            await open_websocket(ours, host="host", target="/")


async def answered(answer: bytes) -> trio.abc.Stream:
    """What becomes of the handshake if the server says that, and closes the connection."""
    ours, theirs = memory_stream_pair()
    await theirs.send_all(answer)
    await theirs.send_eof()
    return await open_websocket(ours, host="host", target="/")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "was closed in the WebSocket handshake"),
        (b"HTTP/1.1 101", "was closed in the WebSocket handshake"),
        (b"220 mail.test ESMTP\r\n\r\n", "no WebSocket there, it seems"),
        (b"\x20\x02\x00\x05" * 3, "no WebSocket there|was closed"),
        (b"HTTP/1.1 101 x\r\nA: " + bytes(100_000), "no WebSocket there"),
        (b"HTTP/1.1 101 x\r\n" + b"A: b\r\n" * 100_000, "no WebSocket there"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "200 OK"),
        (b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", "no WebSocket there"),
    ],
)
async def test_answers_that_are_none(answer: bytes, why: str) -> None:
    with pytest.raises(OSError, match=why):
        await answered(answer)


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@given(
    st.binary() | st.binary().map(lambda end: SWITCH + end) | st.binary().map(lambda end: end * 99)
)
@example(SWITCH + b"Sec-WebSocket-Protocol: \xff\r\n\r\n")
@example(SWITCH + b"Sec-WebSocket-Accept: \xff\r\n\r\n")
@example(b"HTTP/1.1 101 \xff\r\nConnection: \xff\r\n\r\n")
@example(b"HTTP/1.1 100 Continue\r\n\r\n" * 3)
def test_whatever_is_answered_only_an_oserror_comes_out(answer: bytes) -> None:
    async def main() -> None:
        with pytest.raises(OSError):  # noqa: PT011, whatever it says
            await answered(answer)

    trio.run(main)


async def test_an_accept_for_another_request() -> None:
    with pytest.raises(OSError, match="Bad accept token"):
        await answered(SWITCH + b"Sec-WebSocket-Accept: x\r\n\r\n")


@pytest.mark.conformance("MQTT-6.0.0-2")
async def test_every_byte_may_come_alone_in_the_handshake_and_after() -> None:
    ours, theirs = memory_stream_pair()

    async def serve() -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await theirs.receive_some()
        lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:-2])
        magic = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        digest = hashlib.sha1(lines[b"Sec-WebSocket-Key"] + magic).digest()  # noqa: S324, so it is
        accept = b"Sec-WebSocket-Accept: " + base64.b64encode(digest)
        protocol = b"Sec-WebSocket-Protocol: mqtt"
        frames = b"\x82\x03abc" + b"\x02\x01d" + b"\x00\x00" + b"\x80\x02ef"
        for byte in SWITCH + accept + b"\r\n" + protocol + b"\r\n\r\n" + frames:
            await theirs.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await open_websocket(ours, host="host", target="/")
        got = b""
        while len(got) < 6:
            piece = await client.receive_some()
            assert piece  # an empty frame is no end
            got += piece
        assert got == b"abcdef"


async def test_what_comes_with_the_answer_counts() -> None:
    ours, theirs = memory_stream_pair()
    server = Server(theirs)

    async def serve() -> None:
        assert isinstance(await server.next(), Request)
        accept = server.connection.send(AcceptConnection(subprotocol="mqtt"))
        await theirs.send_all(accept + server.connection.send(BytesMessage(b"abc")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await open_websocket(ours, host="host", target="/")
        assert await client.receive_some() == b"abc"


@pytest.mark.parametrize(
    "options",
    [
        {"headers": [("a b", "secret")]},
        {"headers": [("a", "secret\nb: c")]},
        {"headers": [("a", "secret\udc80")]},
        {"target": "/a secret"},
    ],
)
async def test_what_is_illegal_in_http_is_denied_and_not_shown(options: dict[str, Any]) -> None:
    ours, _ = memory_stream_pair()
    with pytest.raises(Denied, match="is not legal in HTTP") as caught:
        await open_websocket(
            ours, host="host", target=options.get("target", "/"), headers=options.get("headers", ())
        )
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in f"{error!r} {vars(error)}"
        error = error.__cause__ or error.__context__


# The stream


@pytest.mark.conformance("MQTT-6.0.0-2")
async def test_bytes_travel_however_they_are_framed() -> None:
    async with pair() as (client, server):
        await client.send_all(b"abc")
        await client.send_all(bytearray(b"def"))
        await client.send_all(memoryview(b"ghi"))
        assert await server.next_data(9) == b"abcdefghi"
        await server.send(BytesMessage(b"a", message_finished=False))
        await server.send(BytesMessage(b"", message_finished=False), BytesMessage(b"b"))
        await server.send(*[BytesMessage(bytes([byte])) for byte in range(256)])
        got = b""
        while len(got) < 258:
            got += await client.receive_some(100)
        assert got == b"ab" + bytes(range(256))


async def test_a_large_message_comes_in_pieces() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.send, BytesMessage(bytes(1_000_000)))
        got = 0
        while got < 1_000_000:
            piece = await client.receive_some()
            assert 0 < len(piece) <= 65_536
            got += len(piece)


async def test_no_more_than_asked_for() -> None:
    async with pair() as (client, server):
        await server.send(BytesMessage(b"abcde"))
        assert await client.receive_some(2) == b"ab"
        assert await client.receive_some(2) == b"cd"
        assert await client.receive_some(2) == b"e"
        with pytest.raises(ValueError, match="1 at least"):
            await client.receive_some(0)


async def test_a_ping_is_answered_at_once() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.receive_some)
        await server.send(Ping(b"1"), Pong(b"unasked"))
        assert await server.next() == Pong(b"1")
        await server.send(BytesMessage(b"x"))


async def test_pings_are_answered_behind_what_is_being_written() -> None:
    """And only the latest, so that nothing piles up for a peer that does not read."""
    client, slow, server = await slow_pair()
    async with trio.open_nursery() as nursery:
        slow.may_write = trio.Event()
        nursery.start_soon(client.send_all, b"abc")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(client.receive_some)
        await server.send(*[Ping(b"%d" % number) for number in range(1000)])
        await trio.testing.wait_all_tasks_blocked()
        slow.may_write.set()
        assert await server.next() == BytesMessage(b"abc")
        assert await server.next() == Pong(b"999")
        assert slow.written == 2
        await server.send(BytesMessage(b"x"))


async def test_a_good_bye_is_answered_and_is_the_end() -> None:
    async with pair() as (client, server):
        await server.send(BytesMessage(b"abc"), CloseConnection(1000))
        assert await client.receive_some() == b"abc"
        assert await client.receive_some() == b""
        assert await client.receive_some() == b""
        assert isinstance(await server.next(), CloseConnection)
        with pytest.raises(trio.BrokenResourceError, match="the peer closed the WebSocket"):
            await client.send_all(b"x")


async def test_what_came_before_a_good_bye_counts_though_nobody_hears_ours() -> None:
    async with pair() as (client, server):
        await server.send(BytesMessage(b"abc"), CloseConnection(1000))
        await server.stream.aclose()
        assert await client.receive_some() == b"abc"
        assert await client.receive_some() == b""


async def test_who_waits_to_write_when_it_is_closed() -> None:
    client, slow, server = await slow_pair()
    slow.may_write = trio.Event()
    ended: list[str] = []

    async def until_closed(call: Callable[[], Any]) -> None:
        with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
            await call()
        ended.append("")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_closed, client.receive_some)
        await server.send(Ping(b"1"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(until_closed, lambda: client.send_all(b"x"))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        slow.may_write.set()
    assert len(ended) == 2


async def test_an_end_without_good_bye() -> None:
    async with pair() as (client, server):
        await server.stream.aclose()
        assert await client.receive_some() == b""


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"\x81\x01a", "sent a text message"),
        (b"\x01\x01a", "sent a text message"),
        (b"\x83\x01a", "broke the WebSocket: "),
        (b"\xc2\x01a", "broke the WebSocket: "),
        (b"\x82\x81abcda", "broke the WebSocket: "),
        (b"\x80\x01a", "broke the WebSocket: "),
        (b"\x81\x01\xff", "broke the WebSocket: "),
        (b"\x89\x7e\x00\x7e" + bytes(126), "broke the WebSocket: "),
        (b"\x82\x7f" + b"\xff" * 8, "broke the WebSocket: "),
    ],
)
async def test_what_no_peer_may_send(frame: bytes, why: str) -> None:
    async with pair() as (client, server):
        await server.stream.send_all(b"\x82\x03abc" + frame)
        assert await client.receive_some() == b"abc"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match=why):
                await client.receive_some()
        with pytest.raises(trio.BrokenResourceError, match=why):
            await client.send_all(b"x")


@given(st.lists(st.binary(max_size=200), max_size=20))
@example([b"\x88\x02\x03\xe8", b"\x89\x00"])
@example([b"\x88\x01a"])
def test_whatever_comes_only_what_a_stream_raises_comes_out(pieces: Sequence[bytes]) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            for piece in pieces:
                await server.stream.send_all(piece)
            await server.stream.aclose()
            try:
                while await client.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
            await trio.aclose_forcefully(client)

    trio.run(main)


@pytest.mark.parametrize("maker", [memory_stream_pair, lockstep_stream_pair])
async def test_it_is_a_stream_as_trio_has_them(
    maker: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]], autojump_clock: MockClock
) -> None:
    async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        ours, theirs = maker()
        server = Server(theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.accept)
            client = await open_websocket(ours, host="host", target="/")
        return client, WebSocketStream(theirs, server.connection)

    await check_two_way_stream(make, make if maker is lockstep_stream_pair else None)


async def test_one_task_reads_and_one_writes() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.receive_some()
        await server.send(BytesMessage(b"x"))
    client, slow, server = await slow_pair()
    async with trio.open_nursery() as nursery:
        slow.may_write = trio.Event()
        nursery.start_soon(client.send_all, b"abc")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.send_all(b"abc")
        slow.may_write.set()


async def test_a_write_that_was_cancelled_leaves_it_broken() -> None:
    client, slow, _ = await slow_pair()
    slow.may_write = trio.Event()
    with trio.move_on_after(0.01) as scope:
        await client.send_all(b"abc")
    assert scope.cancelled_caught
    with pytest.raises(trio.BrokenResourceError, match="in the middle of a frame"):
        await client.send_all(b"abc")


async def test_a_read_that_was_cancelled_loses_nothing() -> None:
    async with pair() as (client, server):
        with trio.move_on_after(0.01) as scope:
            await client.receive_some()
        assert scope.cancelled_caught
        await server.send(BytesMessage(b"abc"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.receive_some()
        assert await client.receive_some() == b"abc"


async def test_closing_says_good_bye() -> None:
    async with pair() as (client, server):
        await client.aclose()
        await client.aclose()
        farewell = await server.next()
        assert isinstance(farewell, CloseConnection)
        assert farewell.code == 1000
        assert await server.next() is None
        calls: list[Callable[[], Any]] = [
            client.receive_some,
            lambda: client.send_all(b"x"),
            client.wait_send_all_might_not_block,
        ]
        for call in calls:
            with pytest.raises(trio.ClosedResourceError):
                await call()


async def test_closing_takes_not_long_and_always_closes(autojump_clock: MockClock) -> None:
    for cancelled in (False, True):
        client, slow, _ = await slow_pair()
        slow.may_write = trio.Event()
        began = trio.current_time()
        with trio.CancelScope() as scope:
            if cancelled:
                scope.cancel()
            await client.aclose()
        assert slow.closed
        assert trio.current_time() - began == pytest.approx(0 if cancelled else CLOSE_MOST)


async def test_closing_ends_who_reads() -> None:
    async with pair() as (client, _), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()


async def test_who_waits_for_room_waits_for_the_stream_below() -> None:
    async with pair() as (client, _):
        await client.wait_send_all_might_not_block()


# The dialer


class WebSocketFront:
    """An in-process broker behind WebSocket."""

    def __init__(self, secure: Secure) -> None:
        self.secure = secure

    async def dialer(self) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        self.secure.nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        server = Server(stream)
        await server.accept()
        plain = await self.secure.broker.dialer()

        async def out(scope: trio.CancelScope) -> None:
            async for data in plain:
                await server.send(
                    *[BytesMessage(data[at : at + 3]) for at in range(0, len(data), 3)]
                )
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(out, nursery.cancel_scope)
            while isinstance(event := await server.next(), BytesMessage):
                await plain.send_all(bytes(event.data))
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(plain)
        await trio.aclose_forcefully(stream)


async def test_messages_travel_over_websocket(autojump_clock: MockClock) -> None:
    async with secure_broker() as secure:
        dialer = websocket_dialer(WebSocketFront(secure).dialer, host="broker", target="/ws?x=1")
        async with trio_mqtt.open_client(dialer) as client:
            assert repr(client).endswith("of ws://broker/ws: online>")
            await client.subscribe("a")
            for size in (0, 1, 10_000):
                await client.publish("a", bytes(size), qos=2)
                assert (await client.messages.receive()).payload == bytes(size)


async def test_a_port_without_websocket(autojump_clock: MockClock) -> None:
    async with open_broker(strict=False) as broker:
        with pytest.raises(Down, match=r"closed in the WebSocket handshake|no WebSocket there"):
            async with trio_mqtt.open_client(websocket_dialer(broker.dialer, host="broker")):
                pytest.fail("it was entered")


async def test_the_handshake_has_pause_timeout(autojump_clock: MockClock) -> None:
    async def silent() -> trio.abc.Stream:
        return memory_stream_pair()[0]

    with pytest.raises(Down, match="within 3 s"):
        async with trio_mqtt.open_client(websocket_dialer(silent, host="x"), pause_timeout=3):
            pytest.fail("it was entered")


@pytest.mark.parametrize("url", ["ws://host", "wss://host/mqtt"])
async def test_without_the_extra_it_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio_mqtt._websocket", raising=False)
    monkeypatch.setitem(sys.modules, "wsproto", None)
    with pytest.raises(Denied, match=r"pip install 'trio-mqtt\[websocket\]'"):
        async with trio_mqtt.open_client(url):
            pytest.fail("it was entered")
