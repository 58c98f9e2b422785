"""Plays a scenario again and again, disturbed at each of its points in turn.

A `Scenario` is an act of an application, with what comes before it and what has to be true
afterwards. It is played once undisturbed, which counts its points; then once for each of them, with
one `Disturbance` there:

- at each step that Trio's scheduler takes, of whichever task, the act is cancelled in front of it,
- or the client is closed in front of it, while the act goes on;
- at each byte, in either direction, of the act and what it leads to, the connection is cut in front
  of it.

Trio schedules in random order. Here that is seeded, as Hypothesis does it, so that all plays are
the same up to the disturbance, which is asserted. The clock is virtual, the network in memory.
"""

from __future__ import annotations

import itertools
import os
import random
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock

import trio_mqtt._supervisor
from trio_mqtt import ClientClosed, ClosedInDoubt, MQTTError, Persistence
from trio_mqtt import _packets as p
from trio_mqtt.testing import open_broker

from .disturbance import CUTS, Disturbance, How, Play
from .memory_persistence import MemoryPersistence
from .scope_peer import not_hanging
from .stage import CLOSED, PREPARED, Kind, Outcome, Scenario, Stage

HANGING = 500.0
"""Seconds in which every play has long ended."""
COMMIT_SECONDS = 0.01
STRIDE = int(os.environ.get("TRIO_MQTT_STRIDE", "16"))
"""Of how many points one is disturbed."""


async def _act(scenario: Scenario, stage: Stage) -> Outcome:
    try:
        with stage.play.acting() as scope:
            await trio.lowlevel.cancel_shielded_checkpoint()  # a point in front of all
            await scenario.act(stage)
    except MQTTError as error:
        return error
    except trio.EndOfChannel:
        return "ended"
    if scope.abandoned:
        return "abandoned"
    if scope.canceled:
        return "canceled"
    return "interrupted" if scope.cancelled_caught else "done"


async def _close(stage: Stage) -> None:
    await stage.play.closing.wait()
    stage.closed_at = trio.current_time()
    stage.closed_offline = not stage.reachable.is_set()
    await stage.client.aclose()


async def _check(scenario: Scenario, stage: Stage, outcome: Outcome) -> None:
    await scenario.check(stage, outcome)
    await stage.settle()
    await stage.become_idle()
    await stage.check_next()


async def perform(
    scenario: Scenario, kind: Kind, play: Play, persistence: Persistence, unit: float = 1
) -> None:
    """Plays it, and checks what it left behind."""

    def answer(client_id: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        return scenario.answer(stage, client_id, packet)

    async with (
        open_broker(answer=answer, **scenario.broker) as broker,
        trio.open_nursery() as nursery,
    ):
        stage = Stage(
            kind, play, broker, persistence, nursery, settings=scenario.settings, unit=unit
        )
        if scenario.opens_client:
            await scenario.prepare(stage)
            outcome, closed = await _act(scenario, stage), True
            play.is_open = False
            await stage.settle()
            if outcome == "done":
                stage.check_stored()
        else:
            async with stage.opened():
                nursery.start_soon(_close, stage)
                await scenario.prepare(stage)
                await trio.sleep(PREPARED * unit)
                outcome = await _act(scenario, stage)
                if stage.closed_at is not None:
                    assert trio.current_time() - stage.closed_at <= CLOSED * unit
                await stage.settle()
                play.is_open = False
                closed = stage.is_closed
                if closed:
                    if isinstance(outcome, MQTTError) and play.disturbance.how == "close":
                        assert isinstance(outcome, (ClientClosed, ClosedInDoubt, *scenario.also))
                    await stage.check_closed()
                else:
                    await _check(scenario, stage, outcome)
        await stage.settle()
        stage.check_left()
        if closed:
            async with stage.opened():
                await stage.settle()
                await _check(scenario, stage, outcome)
            await stage.settle()
            stage.check_left()
        nursery.cancel_scope.cancel()


async def _perform_in_time(scenario: Scenario, kind: Kind, play: Play) -> None:
    persistence = MemoryPersistence()
    persistence.commit_seconds = COMMIT_SECONDS
    with trio.fail_after(HANGING):
        await perform(scenario, kind, play, persistence)
    assert not persistence.is_open


@contextmanager
def repeatable() -> Generator[None]:
    """Whatever is random in Trio or the client is the same as the last time."""
    run = trio._core._run  # noqa: SLF001
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr(run, "_r", random.Random(0))
        seeds = itertools.count()  # another for each client, as none may number as the one before
        seeded = SimpleNamespace(Random=lambda: random.Random(next(seeds)))
        patch.setattr(trio_mqtt._supervisor, "random", seeded)  # noqa: SLF001
        yield


def play_once(scenario: Scenario, kind: Kind, disturbance: Disturbance | None = None) -> Play:
    """Plays it, and checks what it left behind."""
    play = Play(disturbance or Disturbance())
    with repeatable(), not_hanging():
        trio.run(_perform_in_time, scenario, kind, play, clock=MockClock(autojump_threshold=0))
    return play


def play_at_every_point(scenario: Scenario, kind: Kind, how: How, stride: int = STRIDE) -> int:
    """Plays it once for each of its points, or for some, and returns how many there are.

    Arguments:
        stride: of how many points one is taken.
    """
    undisturbed = play_once(scenario, kind)
    points = undisturbed.bytes[how] if how in CUTS else len(undisturbed.steps)
    first = zlib.crc32(f"{type(scenario)} {kind} {how}".encode()) % stride
    for at in range(1 + first % points, points + 1, stride):
        where = (
            f"byte {at}" if how in CUTS else "step {1} of {0}".format(*undisturbed.steps[at - 1])
        )
        try:
            play = play_once(scenario, kind, Disturbance(how, at))
            assert play.happened
            if how not in CUTS:
                assert play.steps[:at] == undisturbed.steps[:at]
        except BaseException as error:
            error.add_note(f"{how} at {where}: point {at} of {points}")
            raise
    return points
