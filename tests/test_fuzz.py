"""Random and mutated bytes from the broker: a violation, and nothing else, ever."""

from __future__ import annotations

import gc
import os
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_mqtt import Buffer, Client, InDoubt, MessageChannel, NotSent, SubscribeError, open_client
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec, client_decoder, encode
from trio_mqtt._errors import ProtocolViolation

from .disturbed import repeatable
from .scope_peer import not_hanging

ROUNDS = int(os.environ.get("TRIO_MQTT_FUZZ", "1000"))
CONNACK = encode(p.ConnAck(False, 0))


def packets(draw: random.Random) -> Iterator[bytes]:
    """What a broker may say, without end."""
    while True:
        name = draw.choice([1, 2, 3, draw.randrange(1, 65_536)])
        qos = draw.choice(p.QOS_LEVELS)
        message = p.Message(
            draw.choice(["t", "t/a", "é"]), draw.randbytes(draw.choice([0, 1, 30, 300])), qos
        )
        packet: p.Packet = draw.choice(
            [
                p.Delivery(message, name) if qos else message,
                p.PubAck(name),
                p.PubRec(name),
                p.PubRel(name),
                p.PubComp(name),
                p.SubAck(name, (draw.choice([0, 1, 2, 0x80]),)),
                p.UnsubAck(name),
                p.PingResp(),
                p.ConnAck(False, 0),
            ]
        )
        yield encode(packet)


def mutated(draw: random.Random, data: bytes) -> bytes:
    """The same with some bytes changed, left out, doubled, or moved."""
    garbled = bytearray(data)
    for _ in range(draw.choice([0, 1, 1, 2, 5])):
        place, size = draw.randrange(len(garbled) + 1), draw.choice([1, 1, 2, 8])
        match draw.randrange(4):
            case 0:
                garbled[place : place + size] = draw.randbytes(size)
            case 1:
                del garbled[place : place + size]
            case 2:
                garbled[place:place] = draw.choice([draw.randbytes(size), b"\xff" * size])
            case _:
                piece = garbled[place : place + size]
                del garbled[place : place + size]
                garbled += piece
    return bytes(garbled)


def streams(seed: int) -> Iterator[bytes]:
    """What a bad broker sends on one connection after another."""
    draw = random.Random(seed)
    source = packets(draw)
    while True:
        if draw.random() < 0.1:
            yield draw.randbytes(draw.randrange(200))
        else:
            whole = b"".join(next(source) for _ in range(draw.randrange(1, 6)))
            yield mutated(draw, whole)


def pieces(draw: random.Random, data: bytes) -> Iterator[bytes]:
    """Cut at random."""
    while data:
        size = draw.choice([1, 2, 7, 1000])
        yield data[:size]
        data = data[size:]


def fed(decoder: p.Decoder, data: bytes) -> list[p.Decoded]:
    """The packets in it, up to a violation."""
    try:
        return list(decoder.feed(data))
    except ProtocolViolation:
        return []


@pytest.mark.parametrize("stream_over", [None, 20])
def test_the_decoder_finds_a_violation_or_packets(stream_over: int | None) -> None:
    draw, source = random.Random(1), streams(2)
    found: Counter[str] = Counter()
    for _ in range(ROUNDS):
        data = next(source)
        whole = client_decoder()
        expected = fed(whole, data)
        decoder = Codec().new_decoder(stream_over)
        got: list[p.Decoded] = []
        for piece in pieces(draw, data):
            got += fed(decoder, piece)
            if decoder.violation is not None:
                assert isinstance(decoder.violation, ProtocolViolation)
                found["violation"] += 1
                break
        found.update(type(packet).__name__ for packet in got)
        if stream_over is None:
            assert list(map(repr, got)) == list(map(repr, expected))
            assert str(decoder.violation) == str(whole.violation)
    assert found["violation"] > ROUNDS / 10
    assert len(found) > 8


class Fuzzer:
    """A broker that accepts each connection, and then sends what comes next."""

    def __init__(self, seed: int) -> None:
        self._streams = streams(seed)
        self._draw = random.Random(seed)
        self.connections = 0
        self.good = False
        """Whether it behaves from now on: it answers pings."""
        self._nursery: trio.Nursery

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def dial(self) -> trio.abc.Stream:
        self.connections += 1
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        await trio.lowlevel.checkpoint()
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.receive_some()
            await stream.send_all(CONNACK)
            if not self.good:
                for piece in pieces(self._draw, next(self._streams)):
                    await stream.send_all(piece)
            while data := await stream.receive_some():
                if self.good and b"\xc0\0" in data:
                    await stream.send_all(encode(p.PingResp()))
                elif not self.good and self._draw.random() < 0.5:
                    break
        await trio.aclose_forcefully(stream)


async def consume(messages: MessageChannel) -> None:
    while True:
        try:
            await messages.receive()
        except SubscribeError:
            continue
        except trio.EndOfChannel:
            return


async def use(client: Client, draw: random.Random) -> None:
    """Of what a client may raise, all is documented."""
    while True:
        with suppress(NotSent, InDoubt, SubscribeError), trio.move_on_after(1):
            match draw.randrange(5):
                case 0:
                    await client.publish("t", bytes(9), qos=draw.choice(p.QOS_LEVELS))
                case 1:
                    await client.subscribe("t")
                case 2:
                    await client.unsubscribe("t")
                case 3:
                    async with client.open_subscription("#"):
                        await trio.sleep(0.01)
                case _:
                    await client.ping()
        await trio.sleep(0.01)


@pytest.mark.parametrize("stream_over", [None, 20])
def test_a_client_closes_the_connection_and_goes_on(
    stream_over: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="trio_mqtt")
    rounds = max(ROUNDS // 10, 300)  # until the caches are as large as they get
    most: list[int] = []

    async def main() -> None:
        fuzzer = Fuzzer(3)
        async with trio.open_nursery() as nursery:
            await nursery.start(fuzzer.run)
            async with open_client(
                fuzzer.dial,
                client_id="c",
                keep_alive=5,
                pause_timeout=1,
                reconnect_wait_min=0.01,
                reconnect_wait_max=0.01,
                unclaimed_wait=1,
                buffer=Buffer(messages=50, bytes=10_000),
                at_least_once_max=20,
                exactly_once_max=20,
                stream_over=stream_over,
            ) as client:
                nursery.start_soon(consume, client.messages)
                for seed in range(3):
                    nursery.start_soon(use, client, random.Random(seed))
                for part in (1, 2):
                    while fuzzer.connections < rounds * part / 2:  # noqa: ASYNC110
                        await trio.sleep(1)
                    gc.collect()
                    most.append(tracemalloc.get_traced_memory()[0])
                fuzzer.good = True
                while True:
                    with suppress(NotSent, InDoubt), trio.fail_after(100):
                        await client.ping()
                        break
                    await client.wait_online()
                await client.aclose()
            nursery.cancel_scope.cancel()

    tracemalloc.start()
    try:
        with repeatable(), not_hanging(600):
            trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        tracemalloc.stop()
    assert most[1] - most[0] < 200_000
