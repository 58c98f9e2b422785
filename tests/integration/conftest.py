"""The brokers as fixtures, skipped where one is not installed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import brokers
from .brokers import Broker, Mosquitto, or_skip

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    """One that forgets everything when it is stopped."""
    with or_skip(), brokers.mosquitto() as broker:
        yield broker


@pytest.fixture
def persistent_mosquitto() -> Iterator[Mosquitto]:
    """One that goes on where it was stopped."""
    with or_skip(), brokers.mosquitto(persistent=True) as broker:
        yield broker


@pytest.fixture
def strict_mosquitto() -> Iterator[Mosquitto]:
    """One that asks for a password."""
    with or_skip(), brokers.mosquitto(users=brokers.USERS) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Broker]:
    """The same for all tests."""
    with or_skip(), brokers.rabbitmq() as broker:
        yield broker


@pytest.fixture(
    params=[
        pytest.param("mosquitto", marks=pytest.mark.mosquitto),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ]
)
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each of them in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Broker)
    return found


@pytest.fixture
def topic() -> str:
    """A topic, and a client identifier, that no other test uses: RabbitMQ is the same for all."""
    return f"topic{next(_numbers)}"


@pytest.fixture
def mosquitto_pub() -> str:
    with or_skip():
        return brokers.find_program("mosquitto_pub", "mosquitto-clients")


@pytest.fixture
def mosquitto_sub() -> str:
    with or_skip():
        return brokers.find_program("mosquitto_sub", "mosquitto-clients")
