"""An application's test: the broker is away from 03:00 to 04:00. The day takes a second or two.

python3 -m pip install pytest pytest-trio && python3 -m pytest examples/test_outage.py
"""

import pytest
import trio

import trio_mqtt
from trio_mqtt.testing import Broker


async def read_meter(client: trio_mqtt.Client) -> None:  # the application
    for hour in range(24):
        await client.enqueue("meter", f"{hour:02}:00", qos=2)
        await trio.sleep(3600)


@pytest.mark.trio
async def test_no_reading_is_lost(mqtt_broker: Broker, autojump_clock: object) -> None:
    async with (
        trio_mqtt.open_client(mqtt_broker.dialer, client_id="meter") as meter,
        trio_mqtt.open_client(mqtt_broker.dialer, client_id="office") as office,
        office.open_subscription("meter") as readings,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read_meter, meter)
        await trio.sleep(3 * 3600)
        mqtt_broker.refuse(3)  # server unavailable
        mqtt_broker.disconnect_all()
        await trio.sleep(3600)
        mqtt_broker.refuse(None)
        for hour in range(24):
            assert (await readings.receive()).payload.decode() == f"{hour:02}:00"
