"""Requests and consumers that are disturbed at every point. See `disturbed`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .disturbance import How
from .disturbed import play_at_every_point
from .scenarios import SCENARIOS
from .stage import Kind, Scenario


def every(wanted: Callable[[Scenario], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("name", "kind"),
        [
            (name, kind)
            for name, scenario in SCENARIOS.items()
            for kind in scenario.kinds
            if wanted(scenario)
        ],
    )


@every(lambda _: True)
def test_cancelled_at_every_step(name: str, kind: Kind) -> None:
    assert play_at_every_point(SCENARIOS[name], kind, "cancel")


@every(lambda scenario: not scenario.opens_client)
def test_closed_at_every_step(name: str, kind: Kind) -> None:
    assert play_at_every_point(SCENARIOS[name], kind, "close")


@pytest.mark.parametrize("how", ["break", "swallow"])
@every(lambda scenario: scenario.cuttable and "break" not in scenario.silent)
def test_cut_at_every_byte_that_is_written(name: str, kind: Kind, how: How) -> None:
    assert play_at_every_point(SCENARIOS[name], kind, how)


@every(lambda scenario: scenario.cuttable and "truncate" not in scenario.silent)
def test_cut_at_every_byte_that_is_read(name: str, kind: Kind) -> None:
    assert play_at_every_point(SCENARIOS[name], kind, "truncate")
