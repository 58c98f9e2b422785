"""10,000 random enters, exits, crashes and cancellations leave nothing behind."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from trio_mqtt.testing import open_broker

from .disturbed import repeatable
from .memory_persistence import MemoryPersistence
from .scope_peer import not_hanging
from .soak import Soak
from .stage import check_idle

EPISODES = 10_000 if "TRIO_MQTT_STRIDE" in os.environ else 1_000
MOST_BLOCKS = 2_000
"""Of memory, that caches may take; a leak takes more than one for each episode."""


def tasks() -> int:
    """How many there are."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    count, waiting = 0, [root]
    while waiting:
        task = waiting.pop()
        count += 1
        waiting += (child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return count


def objects() -> Counter[str]:
    """The library's that are alive, by class."""
    gc.collect()
    names = (
        type(one).__qualname__
        for one in gc.get_objects()
        if type(one).__module__.startswith("trio_mqtt.")
    )
    return Counter(names)


def test_nothing_is_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="trio_mqtt")  # as what is captured is kept
    persistence = MemoryPersistence()

    async def main() -> None:
        async with open_broker(max_in_flight=65_535) as broker:
            before = tasks()
            soak = Soak(broker, broker.dialer, lambda: persistence, unit=1, seed=0)
            async with soak.client(client_id="stays") as client:
                found: list[tuple[int, int, int, Counter[str]]] = []
                for episodes in (EPISODES // 10, EPISODES - EPISODES // 10):
                    await soak.run(client, episodes)
                    check_idle(client)
                    assert not persistence.is_open
                    persistence.commits.clear()
                    alive = objects()
                    found.append((tasks(), soak.open_streams, sys.getallocatedblocks(), alive))
                (*early, blocks_early, alive_early), (*late, blocks_late, alive_late) = found
                assert late == early
                assert alive_late - alive_early == Counter()
                assert blocks_late - blocks_early < MOST_BLOCKS
            await trio.sleep(100)
            assert tasks() == before
            assert soak.open_streams == 0
            for what in ("generated", "volatile", "durable", "left", "scope", "done"):
                assert soak.happened[what] > EPISODES / 50, soak.happened

    with repeatable(), not_hanging(120):
        trio.run(main, clock=MockClock(autojump_threshold=0))
