"""The brokers as fixtures, skipped where one is not installed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import brokers
from .brokers import Broker, Missing, Mosquitto

_REQUIRED = os.environ.get("TRIO_MQTT_REQUIRE_BROKERS") == "1"
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@contextmanager
def _or_skip() -> Generator[None]:
    """Turns the absence of a broker into a skip, or into a failure where it has to be there."""
    try:
        yield
    except Missing as missing:
        if _REQUIRED:
            pytest.fail(f"{missing} (TRIO_MQTT_REQUIRE_BROKERS=1)")
        pytest.skip(str(missing))


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    """One that forgets everything when it is stopped."""
    with _or_skip(), brokers.mosquitto() as broker:
        yield broker


@pytest.fixture
def persistent_mosquitto() -> Iterator[Mosquitto]:
    """One that goes on where it was stopped."""
    with _or_skip(), brokers.mosquitto(persistent=True) as broker:
        yield broker


@pytest.fixture
def strict_mosquitto() -> Iterator[Mosquitto]:
    """One that asks for a password."""
    with _or_skip(), brokers.mosquitto(users=brokers.USERS) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Broker]:
    """The same for all tests."""
    with _or_skip(), brokers.rabbitmq() as broker:
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
    with _or_skip():
        return brokers.find_program("mosquitto_pub", "mosquitto-clients")


@pytest.fixture
def mosquitto_sub() -> str:
    with _or_skip():
        return brokers.find_program("mosquitto_sub", "mosquitto-clients")
