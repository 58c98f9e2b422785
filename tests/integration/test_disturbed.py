"""Durable sessions on real storage and a real clock, disturbed at moments that are drawn.

As in `tests/disturbed.py`, where every point has its turn, with a persistence in memory under a
virtual clock. Here threads write to the disk, so that no two plays are alike. All scenarios are
played at once, each with a persistence of its own.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import trio

from tests.disturbance import Disturbance, How, Play
from tests.disturbed import perform
from tests.persistences import NewPersistence
from tests.scenarios import SCENARIOS
from trio_mqtt import FileSystem, SQLite

pytestmark = pytest.mark.alone

ROUNDS = int(os.environ.get("TRIO_MQTT_ROUNDS", "1"))
SEED = int(os.environ.get("TRIO_MQTT_SEED", random.SystemRandom().randrange(1_000_000)))
"""It repeats the moments. What they hit is the system's business."""
UNIT = 0.25
"""Seconds, of which everything has five to settle."""
MOST_STEPS = 2_000
"""Of all plays together, in which most acts come to their end."""
STORED = [
    name
    for name, scenario in SCENARIOS.items()
    if "durable" in scenario.kinds and not scenario.storage_fails
]


async def play(name: str, path: Path, new: NewPersistence, how: How, draw: random.Random) -> bool:
    """Whether the disturbance was in time."""
    if how == "close" and SCENARIOS[name].opens_client:
        how = "cancel"
    at = round(MOST_STEPS ** draw.random())  # as many early as late
    playing = Play(Disturbance(how, at))
    try:
        with trio.fail_after(60):
            await perform(SCENARIOS[name], "durable", playing, new(path / name), UNIT)
    except BaseException as error:
        error.add_note(f"{name}: {how} at step {at}, with TRIO_MQTT_SEED={SEED}")
        raise
    return playing.happened


@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("new", [FileSystem, SQLite])
async def test_disturbed_at_moments_that_are_drawn(
    tmp_path: Path, new: NewPersistence, how: How
) -> None:
    draw = random.Random(SEED)
    happened: list[bool] = []

    async def play_one(name: str, path: Path) -> None:
        happened.append(await play(name, path, new, how, draw))

    for number in range(ROUNDS):
        path = tmp_path / str(number)
        path.mkdir()
        async with trio.open_nursery() as nursery:
            for name in STORED:
                nursery.start_soon(play_one, name, path)
    assert sum(happened) > len(happened) / 4
