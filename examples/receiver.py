"""A set-up with all its error handling: receives for as long as it runs, and says what is amiss.

python3 examples/receiver.py [mqtt://user:password@host:1883]
"""

import logging
import sys

import trio

import trio_mqtt

logger = logging.getLogger("receiver")


async def receive(client: trio_mqtt.Client) -> None:
    async with client.open_subscription("demo/#") as messages:
        async for message in messages:
            if isinstance(message, trio_mqtt.BigMessage):
                logger.info("%r: %d byte message omitted", message.topic, message.size)
            else:
                logger.info("%r: %r", message.topic, message.payload)


async def main(broker: str) -> None:
    try:
        # The client connects again by itself, and logs why it has to: the network, or a broker
        # that refuses, which it asks again every minute.
        async with trio_mqtt.open_client(
            broker,
            client_id="demo-client",
            pause_timeout=4,
            stream_over=64 * 1024,
        ) as client:
            await receive(client)
    except (trio_mqtt.Denied, trio_mqtt.ConnectionRefused, trio_mqtt.Down) as error:
        sys.exit(f"exit on broken setup: {error}")
    except (trio_mqtt.SubscribeError, trio_mqtt.ClientClosed, trio_mqtt.ClosedInDoubt) as error:
        sys.exit(f"terminated: {error}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "mqtt://localhost")
