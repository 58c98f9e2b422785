"""An alert that has to arrive: every way in which it may be held up, and what to do then.

python3 examples/critical.py [mqtt://user:password@host:1883]
"""

import sys

import trio

import trio_mqtt


async def send_alert(client: trio_mqtt.Client) -> None:
    while True:
        try:
            exchange = client.enqueue_nowait("demo/alert", "🍸🆘", qos=1)
            await exchange.wait_accepted()  # a session on disk has it stored then
            break
        except trio_mqtt.PendingLimit as error:
            print("alert submission hold-up:", error)
            await trio.sleep(0.25)
        except trio_mqtt.PersistenceError as error:
            print("alert submission blocked on persistence malfunction:", error)
            await trio.sleep(4)
    print("alert submitted...")
    async for interruption in exchange:
        # No need to act: the client connects again, and sends the alert again.
        print("alert transfer interrupted:", interruption)
    print("alert acknowledged")


async def main(broker: str) -> None:
    # With an identifier of its own the session, and the alert in it, survives lost connections.
    # Without `wait_online` the alert is accepted also while there is no connection yet.
    async with trio_mqtt.open_client(broker, client_id="critical", wait_online=False) as client:
        try:
            await send_alert(client)
        except trio_mqtt.NotSent as error:  # Denied, or ClientClosed
            print("alert not sent:", error)
        except trio_mqtt.ClosedInDoubt as error:  # of a session on disk, adopt_session goes on
            print("alert exchange suspended:", error)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "mqtt://localhost")
