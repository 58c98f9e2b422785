"""How the in-process broker begins and ends a connection (sections 3.1, 3.2, 3.14)."""

from __future__ import annotations

import socket
import struct
from typing import TypeAlias, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.testing import Broker, open_broker
from trio_mqtt.testing._broker_core import STANDARD, Core, Options
from trio_mqtt.testing._broker_service import CLOSING_WAIT, Service
from trio_mqtt.testing._raw_client import RawClient

Halves: TypeAlias = trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]
"""What a connection in memory consists of."""


async def answer_to(broker: Broker, connect: p.Packet | bytes) -> list[p.Inbound]:
    """Everything that the broker says to a client that begins like this, and then listens."""
    client = RawClient(await broker.dialer())
    await client.send(connect)
    with trio.fail_after(1):
        return await client.wait_closed()


def wrong(broker: Broker) -> list[str]:
    """What the broker recorded against its clients."""
    return [str(violation) for _, violation in broker.violations]


async def watcher(broker: Broker, *topic_filters: str) -> RawClient:
    client = await RawClient.connect(broker.dialer, "watcher")
    await client.send(p.Subscribe(1, tuple((name, 2) for name in topic_filters)))
    await client.receive()
    return client


# CONNECT


@pytest.mark.conformance("MQTT-3.1.2-2", "MQTT-3.1.2-1", "MQTT-3.1.4-1")
async def test_other_protocols(autojump_clock: MockClock) -> None:
    async with open_broker(strict=False) as broker:
        assert await answer_to(broker, p.UnsupportedLevel(5)) == [p.ConnAck(False, 1)]
        assert not broker.violations
        assert await answer_to(broker, b"\x10\x0c\0\4AMQP\4\2\0\0\0\0") == []
        assert wrong(broker) == ["CONNECT of protocol b'AMQP'"]


@pytest.mark.conformance("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-6")
async def test_empty_client_identifier(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        assert await answer_to(broker, p.Connect("", False, 0)) == [p.ConnAck(False, 2)]
        await RawClient.connect(broker.dialer, "generated-2")
        await RawClient.connect(broker.dialer, "")
        await RawClient.connect(broker.dialer, "")
        assert list(broker.sessions) == ["generated-2", "generated-3", "generated-4"]


@pytest.mark.parametrize(
    ("username", "password", "code"),
    [
        ("me", b"secret", 0),
        ("me", b"Secret", 5),
        ("me", b"", 5),
        ("me", None, 5),
        ("you", b"secret", 5),
        ("you", b"", 5),
        ("you", None, 5),
        (None, None, 5),
        ("\xe9", "\xe8".encode(), 0),
    ],
)
async def test_users(
    username: str | None, password: bytes | None, code: int, autojump_clock: MockClock
) -> None:
    users = {"me": "secret", "\xe9": "\xe8"}
    async with open_broker(users=users) as broker:
        client = RawClient(await broker.dialer())
        await client.send(p.Connect("raw", True, 0, None, username, password))
        assert await client.receive() == p.ConnAck(False, code)
        assert bool(broker.sessions) is (code == 0)
        assert not broker.violations


async def test_connect_has_to_come_in_time(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = RawClient(await broker.dialer())
        start = trio.current_time()
        await trio.sleep(9)
        await client.send(b"\x10")
        assert await client.wait_closed() == []
        assert trio.current_time() - start == pytest.approx(10)


@pytest.mark.conformance("MQTT-3.1.0-1")
async def test_connect_comes_first(autojump_clock: MockClock) -> None:
    async with open_broker(strict=False) as broker:
        assert await answer_to(broker, p.PingReq()) == []
        assert broker.violations[0][0] == ""
        assert wrong(broker) == ["PingReq comes before CONNECT"]


@pytest.mark.conformance("MQTT-3.1.0-2")
@pytest.mark.parametrize("second", [p.Connect("raw", True, 0), p.UnsupportedLevel(3)])
async def test_second_connect(second: p.Packet, autojump_clock: MockClock) -> None:
    async with open_broker(strict=False) as broker:
        client = await RawClient.connect(broker.dialer)
        await client.send(second)
        assert await client.wait_closed() == []
        assert broker.violations[0][0] == "raw"
        assert wrong(broker) == ["a second CONNECT"]


# Sessions


@pytest.mark.conformance(
    "MQTT-3.1.2-4", "MQTT-3.1.2-6", "MQTT-3.2.2-1", "MQTT-3.2.2-2", "MQTT-3.2.2-3",
    "MQTT-3.1.4-3", "MQTT-3.1.4-4", "MQTT-3.1.3-2", "MQTT-4.1.0-1",
)  # fmt: skip
async def test_session_present(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        for clean, present in (
            (False, False),
            (False, True),
            (True, False),
            (False, False),
            (False, True),
        ):
            client = await RawClient.connect(
                broker.dialer, clean_session=clean, session_present=present
            )
            assert broker.sessions["raw"].connected
            assert bool(broker.sessions["raw"].subscriptions) is present
            await client.send(p.Subscribe(1, (("a", 0),)), p.Disconnect())
            await broker.wait_disconnected("raw")
            assert bool(broker.sessions) is not clean


@pytest.mark.conformance("MQTT-3.1.4-2", "MQTT-3.1.2-8")
@pytest.mark.parametrize("clean", [False, True])
async def test_takeover(clean: bool, autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        watching = await watcher(broker, "will")
        will = p.Will("will", b"taken over", qos=1)
        first = await RawClient.connect(broker.dialer, clean_session=clean, will=will)
        second = await RawClient.connect(
            broker.dialer, clean_session=False, session_present=not clean
        )
        assert await first.wait_closed() == []
        assert await watching.receive_delivery() == (1, p.Message("will", b"taken over", 1))
        await second.send(p.PingReq())
        assert await second.receive() == p.PingResp()
        assert not broker.violations


# Wills


@pytest.mark.conformance(
    "MQTT-3.1.2-8", "MQTT-3.1.2-9", "MQTT-3.1.2-10", "MQTT-3.1.2-16", "MQTT-3.1.2-17"
)
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("end", ["close", "cut", "violation", "silence"])
async def test_will(end: str, retain: bool, autojump_clock: MockClock) -> None:
    async with open_broker(strict=False) as broker:
        watching = await watcher(broker, "will")
        will = p.Will("will", b"gone", qos=2, retain=retain)
        client = await RawClient.connect(broker.dialer, keep_alive=10, will=will)
        if end == "close":
            await client.stream.aclose()
        elif end == "cut":
            broker.disconnect("raw")
        elif end == "violation":
            await client.send(b"\xf0\x00")
        assert await watching.receive_delivery() == (1, p.Message("will", b"gone", 2))
        assert await watching.settle(100) == []
        assert broker.retained == ({"will": p.Message("will", b"gone", 2, True)} if retain else {})
        assert list(broker.sessions) == ["watcher"]


@pytest.mark.conformance("MQTT-3.14.4-3", "MQTT-3.1.2-12")
async def test_no_will_after_disconnect(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        watching = await watcher(broker, "#")
        client = await RawClient.connect(broker.dialer, will=p.Will("will", b"gone"))
        await client.send(p.Disconnect())
        assert await client.wait_closed() == []
        without = await RawClient.connect(broker.dialer)
        await without.stream.aclose()
        await broker.wait_disconnected("raw")
        assert await watching.settle() == []


# Keep-alive


@pytest.mark.conformance("MQTT-3.1.2-24")
async def test_keep_alive(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer, keep_alive=10)
        eternal = await RawClient.connect(broker.dialer, "eternal", keep_alive=0)
        for _ in range(3):
            await trio.sleep(14)
            await client.send(p.PingReq())
            assert await client.receive() == p.PingResp()
        start = trio.current_time()
        assert await client.wait_closed() == []
        assert trio.current_time() - start == pytest.approx(15)
        await trio.sleep(80_000)
        await eternal.send(p.PingReq())
        assert await eternal.receive() == p.PingResp()


async def test_part_of_a_packet_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer, keep_alive=10)
        for byte in b"\xc0\x00":
            await trio.sleep(14)
            await client.send(bytes((byte,)))
        assert await client.receive() == p.PingResp()


# The end


@pytest.mark.conformance("MQTT-3.14.4-1", "MQTT-3.14.4-2")
@pytest.mark.parametrize(
    ("at_once", "later", "flaws"),
    [
        (b"", b"", []),
        (b"\xc0\x00", b"", ["a packet after DISCONNECT"]),
        (b"\xc0", b"", ["bytes after DISCONNECT"]),
        (b"", b"\xc0", ["bytes after DISCONNECT"]),
        (b"\xff", b"", ["packet type 15 with flags 0b1111 is not for this side to send"]),
    ],
)
async def test_nothing_follows_disconnect(
    at_once: bytes, later: bytes, flaws: list[str], autojump_clock: MockClock
) -> None:
    async with open_broker(strict=False) as broker:
        client = await RawClient.connect(broker.dialer)
        await client.send(p.Disconnect(), at_once)
        await broker.wait_disconnected("raw")
        await client.send(later)
        assert await client.wait_closed() == []
        assert wrong(broker) == flaws


@pytest.mark.conformance("MQTT-4.8.0-1")
async def test_what_came_before_a_violation_counts(autojump_clock: MockClock) -> None:
    async with open_broker(strict=False) as broker:
        client = await RawClient.connect(broker.dialer)
        await client.send(p.PingReq(), b"\x00\x00", p.PingReq())
        assert await client.wait_closed() == [p.PingResp()]
        assert wrong(broker) == ["packet type 0 with flags 0b0000 is not for this side to send"]


async def test_a_client_that_no_longer_listens(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        halves = cast("Halves", client.stream)
        await halves.receive_stream.aclose()
        await client.send(p.PingReq())
        await broker.wait_disconnected("raw")


async def test_a_connection_that_is_reset() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        client = RawClient(stream)
        await client.send(p.Connect("raw", True, 0))
        await client.receive()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        with trio.fail_after(30):
            await broker.wait_disconnected("raw")


async def test_a_client_that_takes_nothing_is_not_waited_for_forever(
    autojump_clock: MockClock,
) -> None:
    options = Options(
        users=None,
        max_in_flight=1,
        max_unreleased=1,
        grant=lambda _, qos: qos,
        fail_filters=(),
        habits=STANDARD,
    )
    service = Service(Core(options), None)
    stream, served = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        await nursery.start(service.serve, served)
        await stream.send_all(encode(p.Connect("raw", True, 0)))
        await stream.send_all(b"\x00\x00")
        start = trio.current_time()
        await trio.sleep(5)
        await stream.send_all(b"\x00\x00")  # which does not buy time
    assert trio.current_time() - start == pytest.approx(CLOSING_WAIT)
    assert [violated for violated, _ in service.core.violations] == ["raw"]
