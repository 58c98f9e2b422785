"""The quick start: subscribe, publish, receive.

python3 examples/thermostat.py [mqtt://user:password@host:1883]
"""

import sys

import trio

import trio_mqtt


async def main(broker: str) -> None:
    async with (
        trio_mqtt.open_client(broker) as client,
        client.open_subscription("bedroom/#") as messages,
    ):
        await client.publish("bedroom/thermostat", "20.8", qos=1)
        async for message in messages:
            print(message.topic, message.payload.decode())
            break  # A thermostat's display would go on.


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "mqtt://localhost")
