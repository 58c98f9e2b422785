"""Readings of a meter, of which none is lost: not with the connection, the process, or the power.

python3 examples/meter.py DATABASE [mqtt://user:password@host:1883]

Run it without a broker, then with one: the readings of the first run arrive with the second.
"""

import sys

import trio

import trio_mqtt


async def open_session(database: str) -> trio_mqtt.Session:
    """Goes on where an earlier process stopped, or begins."""
    storage = trio_mqtt.SQLite(database)
    try:
        session = await trio_mqtt.adopt_session(storage)
    except trio_mqtt.Denied:  # there is nothing to adopt
        session = await trio_mqtt.init_session("meter-example", storage)
    for warning in session.warnings:
        print("warning:", warning)
    return session


async def main(database: str, broker: str) -> None:
    session = await open_session(database)
    print(len(session.pending), "readings are left from before")
    # Without `wait_online` readings are accepted also while there is no connection.
    async with trio_mqtt.open_client(broker, session=session, wait_online=False) as client:
        exchanges: list[trio_mqtt.Exchange] = list(session.pending)
        for reading in (230.1, 229.8, 230.4):
            exchange = await client.enqueue("meter/voltage", str(reading), qos=2)
            # From here on the reading is on the disk, and on its way to the broker.
            exchanges.append(exchange)
        with trio.move_on_after(3):
            for exchange in exchanges:
                await exchange.wait()
        print(client.statistics().unconfirmed, "readings are left for the next run")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "mqtt://localhost")
