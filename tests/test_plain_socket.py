"""A plain socket, which the writer writes to past Trio as far as it takes something."""

from __future__ import annotations

import socket

import pytest
import trio

from trio_mqtt import Client, Dialer, open_client
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt._connection import LARGE_PIECE_SIZE
from trio_mqtt.testing._server311 import server_decoder

SMALL = 4_096
"""Bytes that the socket is asked to hold; it takes twice as much."""


def connected() -> tuple[Dialer, trio.SocketStream]:
    """What dials to a broker that accepts at once, and the broker's end."""
    ours, theirs = trio.socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    streams = [trio.SocketStream(ours)]

    async def dial() -> trio.abc.Stream:
        if not streams:
            raise OSError("there is only one")
        await broker.send_all(encode(p.ConnAck(session_present=False, return_code=0)))
        return streams.pop()

    broker = trio.SocketStream(theirs)
    return dial, broker


async def serve(broker: trio.SocketStream, payloads: list[bytes], most: int) -> None:
    """Notes what is published, in small reads with time between them, until DISCONNECT."""
    decoder = server_decoder()
    async with broker:
        while True:
            packets = decoder.feed(bytes(await broker.receive_some(most)))
            payloads += [packet.payload for packet in packets if isinstance(packet, p.Message)]
            if p.Disconnect() in packets:
                return
            for _ in range(3):
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("size", [10, 1_000, 200_000])
async def test_what_it_takes_in_part_goes_on_where_it_stopped(size: int) -> None:
    dial, broker = connected()
    count = 200 if size < 200_000 else 5
    expected = [number.to_bytes(2) * (size // 2) for number in range(count)]
    received: list[bytes] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, open_client(dial) as client:
            nursery.start_soon(serve, broker, received, 1_500)
            for payload in expected:
                await client.publish("t", payload)
    assert received == expected


async def test_other_tasks_have_their_turn_between_large_pieces() -> None:
    dial, broker = connected()
    turns = 0

    async def count(client: Client) -> None:
        nonlocal turns
        while client.statistics().bytes_written < 1_000_000:
            turns += 1
            await trio.lowlevel.checkpoint()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, open_client(dial) as client:
            nursery.start_soon(serve, broker, list[bytes](), 65_536)
            nursery.start_soon(count, client)
            await client.publish("t", bytes(1_000_000))
            await client.flush()
    assert turns >= 1_000_000 // LARGE_PIECE_SIZE


async def test_one_that_broke_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    dial, broker = connected()
    async with open_client(dial) as client:
        await broker.aclose()
        exchange = await client.enqueue("t", b"", qos=1)
        with trio.fail_after(10):
            await client.wait_offline()
        assert not exchange.confirmed
        await client.aclose()
    [lost] = [record.getMessage() for record in caplog.records if "lost" in record.getMessage()]
    assert "broke" in lost or "closed the connection" in lost
