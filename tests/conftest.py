"""Fixtures for clients on memory streams. All tests hold public calls to their docstrings."""

from __future__ import annotations

import pytest

from trio_mqtt.testing import ScriptedBroker

from . import documented

documented.hold()


@pytest.fixture
def scripted() -> ScriptedBroker:
    """Together with `autojump_clock`, which pytest-trio wants from the test itself."""
    return ScriptedBroker()
