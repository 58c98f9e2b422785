"""The pytest plugin of trio_mqtt: the fixtures `mqtt_broker` and `mqtt_client`.

pytest loads it wherever trio_mqtt is installed, before anything else. So it stands beside the
package, and imports that only for a test which asks for a fixture.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trio_mqtt import Client
    from trio_mqtt.testing import Broker

_BROKER = "mqtt_broker(**options): what `trio_mqtt.testing.open_broker` gets, for the fixture"
_CLIENT = "mqtt_client(**options): what `trio_mqtt.open_client` gets, for the fixture"


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marks."""
    config.addinivalue_line("markers", _BROKER)
    config.addinivalue_line("markers", _CLIENT)


@pytest.fixture
async def mqtt_broker(request: pytest.FixtureRequest) -> AsyncGenerator[Broker]:
    """A broker inside the test; `mqtt_broker.dialer` is what to open a client with.

    The mark ``mqtt_broker`` has options for `trio_mqtt.testing.open_broker`. The test fails if a
    client violated the specification.
    """
    from trio_mqtt.testing import open_broker  # noqa: PLC0415, see above

    async with open_broker(**_options(request, "mqtt_broker")) as broker:
        yield broker


@pytest.fixture
async def mqtt_client(
    request: pytest.FixtureRequest, mqtt_broker: Broker
) -> AsyncGenerator[Client]:
    """A client of `mqtt_broker`, online.

    The mark ``mqtt_client`` has options for `trio_mqtt.open_client`.
    """
    from trio_mqtt import open_client  # noqa: PLC0415, see above

    async with open_client(mqtt_broker.dialer, **_options(request, "mqtt_client")) as client:
        yield client


def _options(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    """What the closest marks say, the closer ones before the others."""
    options: dict[str, Any] = {}
    for mark in request.node.iter_markers(name):
        options = {**mark.kwargs, **options}
    return options
