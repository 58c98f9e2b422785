"""Receives a message of any size into a file, in little memory.

python3 examples/download.py FILE TOPIC [mqtt://user:password@host:1883]
"""

import sys

import trio

import trio_mqtt

SMALL = 100_000
"""Bytes up to which a message may as well be held in memory."""


async def main(path: str, topic: str, broker: str) -> None:
    async with (
        trio_mqtt.open_client(broker, client_id="download", stream_over=SMALL) as client,
        client.open_subscription(topic, qos=1) as messages,
    ):
        while not await save(await messages.receive(), path):
            pass


async def save(message: trio_mqtt.Message, path: str) -> bool:
    """Whether all of it arrived: after a lost connection the broker sends it again."""
    async with await trio.open_file(path, "wb") as file:
        if not isinstance(message, trio_mqtt.BigMessage):
            await file.write(message.payload)
        else:
            try:
                async for piece in message:
                    await file.write(piece)
            except trio_mqtt.ConnectionLost as error:
                print("starting again:", error, file=sys.stderr)
                return False
        print(f"{path}: {await file.tell()} bytes")
    return True


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2], [*sys.argv, "mqtt://localhost"][3])
