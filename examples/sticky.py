"""A subscription that does not give up for a minute: every way in which it may fail, and what then.

python3 examples/sticky.py [mqtt://user:password@host:1883]
"""

import sys

import trio

import trio_mqtt


async def subscribe(client: trio_mqtt.Client) -> None:
    with trio_mqtt.fail_after(60):
        while True:
            try:
                await client.subscribe("demo/+")
                print("subscribe confirmed by broker")
                return
            except trio_mqtt.PendingLimit:
                print("subscribe hold-up due to an excessive number of pending requests")
                await trio.sleep(2)
            except (trio_mqtt.Down, trio_mqtt.ResponseLost, trio_mqtt.SubmitInterrupted) as error:
                print("subscribe delay:", error)  # in doubt or not, twice does no harm
                await client.wait_online()
                print("subscribe retry with new connection")


async def main(broker: str) -> None:
    async with trio_mqtt.open_client(broker, wait_online=False) as client:
        try:
            await subscribe(client)
        except trio_mqtt.SubscribeError as error:
            print("subscribe failed by broker:", error)
        except trio_mqtt.RequestCanceled:
            print("no subscribe due to timeout")
        except trio_mqtt.RequestAbandoned:
            print("subscribe state unknown due to timeout")
        except trio.TooSlowError:
            print("subscribe timeout")
        except trio_mqtt.NotSent as error:  # Denied, or ClientClosed
            print("no subscribe:", error)
        except trio_mqtt.ClosedInDoubt as error:
            print("subscribe state unknown:", error)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "mqtt://localhost")
