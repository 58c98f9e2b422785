"""Fixtures for clients on memory streams."""

from __future__ import annotations

import pytest

from .scripted_broker import ScriptedBroker


@pytest.fixture
def scripted() -> ScriptedBroker:
    """Together with `autojump_clock`, which pytest-trio wants from the test itself."""
    return ScriptedBroker()
