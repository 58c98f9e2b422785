"""Faults on the wire: what each does, and that the client keeps its promises over all of them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_mqtt import Denied, InDoubt, NotSent, open_client
from trio_mqtt import _packets as p
from trio_mqtt.testing import Faults, FaultyDialer, open_broker

Pair = tuple[trio.abc.Stream, trio.abc.Stream]


async def connect(faults: Faults, seed: int = 0) -> Pair:
    """A stream with faults, and the other end."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def dial() -> trio.abc.Stream:
        return ours

    return await FaultyDialer(dial, faults, seed=seed)(), theirs


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency": -1},
        {"bytes_per_second": 0},
        {"read_size": 0},
        {"cut_after_bytes": -1},
        {"cut_after_seconds": float("nan")},
        {"black_hole_after_bytes": -1},
        {"black_hole_after_seconds": -1},
        {"corruption": 1.1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_is_no_fault_is_denied(wrong: dict[str, float]) -> None:
    with pytest.raises(Denied, match=next(iter(wrong))):
        Faults(**wrong)  # type: ignore[arg-type]


async def test_without_faults_it_is_the_stream(autojump_clock: MockClock) -> None:
    ours, theirs = await connect(Faults())
    await ours.send_all(b"abc")
    assert await theirs.receive_some() == b"abc"
    await theirs.send_all(b"def")
    assert await ours.receive_some() == b"def"
    await theirs.aclose()
    assert await ours.receive_some() == b""
    assert trio.current_time() == 0


async def test_latency_and_rate_take_time(autojump_clock: MockClock) -> None:
    ours, theirs = await connect(Faults(latency=2, bytes_per_second=10))
    await ours.send_all(bytes(50))
    assert trio.current_time() == 7
    assert await theirs.receive_some() == bytes(50)
    await theirs.send_all(bytes(30))
    assert await ours.receive_some() == bytes(30)
    assert trio.current_time() == 12


async def test_a_read_that_is_cancelled_loses_nothing(autojump_clock: MockClock) -> None:
    ours, theirs = await connect(Faults(latency=2))
    await theirs.send_all(b"abc")
    with trio.move_on_after(1):
        await ours.receive_some()
    assert await ours.receive_some() == b"abc"


async def test_reads_are_small(autojump_clock: MockClock) -> None:
    ours, theirs = await connect(Faults(read_size=1))
    await theirs.send_all(b"abc")
    assert [await ours.receive_some() for _ in range(3)] == [b"a", b"b", b"c"]


async def test_it_is_cut_after_so_many_bytes_in_both_directions(autojump_clock: MockClock) -> None:
    ours, theirs = await connect(Faults(cut_after_bytes=5))
    await ours.send_all(b"abc")
    await theirs.send_all(b"def")
    assert await ours.receive_some() == b"de"
    with pytest.raises(trio.BrokenResourceError, match="cut"):
        await ours.send_all(b"more")
    assert await theirs.receive_some() == b"abc"
    assert await theirs.receive_some() == b""


async def test_it_is_cut_at_a_time(autojump_clock: MockClock) -> None:
    ours, _ = await connect(Faults(cut_after_seconds=5))
    with pytest.raises(trio.BrokenResourceError, match="cut"):
        await ours.receive_some()
    assert trio.current_time() == 5
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await ours.send_all(b"more")


@pytest.mark.parametrize(
    "faults", [Faults(black_hole_after_bytes=4), Faults(black_hole_after_seconds=5)]
)
async def test_a_black_hole_takes_all_and_brings_nothing(
    autojump_clock: MockClock, faults: Faults
) -> None:
    ours, theirs = await connect(faults)
    await ours.send_all(b"abcd")
    await trio.sleep(6)
    await ours.send_all(b"e")
    await theirs.send_all(b"f")
    assert await theirs.receive_some() == b"abcd"
    for stream in (ours, theirs):
        with trio.move_on_after(1000) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught


async def test_a_black_hole_is_cut_too(autojump_clock: MockClock) -> None:
    ours, _ = await connect(Faults(black_hole_after_bytes=0, cut_after_seconds=9))
    await ours.send_all(b"a")
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some()
    assert trio.current_time() == 9


async def test_what_is_corrupted_comes_from_the_seed(autojump_clock: MockClock) -> None:
    seen: list[bytes] = []
    for seed in (1, 1, 2):
        ours, theirs = await connect(Faults(corruption=0.1), seed)
        await ours.send_all(bytes(1000))
        seen.append(bytes(await theirs.receive_some()))
    assert seen[0] == seen[1] != seen[2]
    assert 50 < sum(map(bool, seen[0])) < 200


KEPT = {
    "slow": Faults(latency=0.5, bytes_per_second=200),
    "byte by byte": Faults(read_size=1),
    "cut early": Faults(cut_after_bytes=400),
    "cut often": Faults(cut_after_seconds=3, latency=0.1),
    "dead": Faults(black_hole_after_bytes=400),
    "dead later": Faults(black_hole_after_seconds=4, latency=0.1),
}


@pytest.mark.parametrize("faults", KEPT.values(), ids=KEPT.keys())
async def test_over_all_of_them_the_guarantees_hold(
    autojump_clock: MockClock, faults: Faults
) -> None:
    async with open_broker() as broker:
        dialer = FaultyDialer(broker.dialer, faults)
        async with open_client(
            dialer, client_id="c", keep_alive=10, pause_timeout=5, reconnect_wait_max=2
        ) as client:
            while "t" not in broker.sessions["c"].subscriptions:
                try:
                    await client.subscribe("t")
                except (NotSent, InDoubt):
                    await client.wait_online()
            for number in range(20):
                await client.enqueue("t", str(number), qos=2)
                await trio.sleep(0.5)
            got = [int((await client.messages.receive()).payload) for _ in range(20)]
            client.messages.acknowledge()
        assert got == list(range(20))
        assert not broker.violations
        if faults not in (KEPT["slow"], KEPT["byte by byte"]):
            assert dialer.connections > 1


async def test_corruption_raises_nothing_but_what_is_documented(autojump_clock: MockClock) -> None:
    draw = random.Random(0)
    seen: Counter[str] = Counter()
    async with open_broker(strict=False) as broker:
        dialer = FaultyDialer(broker.dialer)
        async with open_client(
            dialer, client_id="c", keep_alive=5, pause_timeout=5, reconnect_wait_max=1
        ) as client:
            dialer.faults = Faults(corruption=0.02)
            broker.disconnect_all()
            for _ in range(300):
                try:
                    with trio.move_on_after(5):
                        await client.publish("t", bytes(20), qos=draw.choice(p.QOS_LEVELS))
                        await client.ping()
                        await client.subscribe("t")
                except (NotSent, InDoubt) as error:
                    seen[type(error).__name__] += 1
            dialer.faults = Faults()
            await client.aclose()
    assert dialer.connections > 10
    assert seen
