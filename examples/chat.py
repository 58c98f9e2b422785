"""A chat over MQTT: everybody on a topic reads the lines that anybody types.

    python3 examples/chat.py --user alice --password s3cret mqtt://localhost:1883/test

The path of the URL is the topic. Lines travel at QoS 0, as a chat may lose one now and then. With
--retain the broker keeps the last one, for those who join later; --clear-retained removes it.
"""

import argparse
import io
import re
import signal
import sys
from urllib.parse import unquote, urlsplit

import trio

import trio_mqtt


async def chat(client: trio_mqtt.Client, topic: str, user: str, *, retain: bool) -> None:
    """Talks and listens until the end of input, or Control-C."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_on_signal, nursery.cancel_scope)
        async with (
            client.open_subscription(topic, qos=0) as messages,
            trio.open_nursery() as listening,
        ):
            listening.start_soon(listen, messages)
            print(f"joined {topic!r} as {user}: type a line, or Ctrl-C to leave", file=sys.stderr)
            await talk(client, topic, user, retain=retain)
            listening.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def listen(messages: trio_mqtt.MessageChannel) -> None:
    """Prints what is said, our own lines too: they come back from the broker."""
    async for message in messages:
        if message.payload:  # it is empty when somebody cleared the retained line
            text = message.payload.decode(errors="replace")
            # Without control characters, or others could take over our terminal.
            print("*", re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text), flush=True)


async def talk(client: trio_mqtt.Client, topic: str, user: str, *, retain: bool) -> None:
    """Publishes what is typed, until the end of input."""
    # A thread waits for the terminal, so that nothing else has to. It cannot be interrupted, so on
    # cancellation it is left behind; it does not keep the process from ending.
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        if text := line.strip():
            try:
                await client.publish(topic, f"{user}: {text}", retain=retain)
            except trio_mqtt.NotSent as error:  # offline, most likely: the client reconnects
                print(f"not sent: {error}", file=sys.stderr)


async def cancel_on_signal(scope: trio.CancelScope) -> None:
    """Cancels the chat on Control-C, so that the client is left without an exception: cleanly."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def run(arguments: argparse.Namespace) -> None:
    broker: str = arguments.url
    url = urlsplit(broker)
    topic = unquote(url.path[1:])
    user = arguments.user or unquote(url.username or "")
    password = arguments.password or unquote(url.password or "")
    async with trio_mqtt.open_client(
        broker, username=user or None, password=password or None
    ) as client:
        if arguments.clear_retained:
            await client.clear_retained(topic)
        else:
            await chat(client, topic, user or "anonymous", retain=arguments.retain)


def main() -> int:
    parser = argparse.ArgumentParser(description="A chat over MQTT.")
    parser.add_argument("url", help="mqtt://user:password@host:1883/topic")
    parser.add_argument("--user", help="your name; overrides that of the URL")
    parser.add_argument("--password", help="overrides that of the URL")
    parser.add_argument("--retain", action="store_true", help="have the last line kept")
    parser.add_argument("--clear-retained", action="store_true", help="remove it, and exit")
    arguments = parser.parse_args()
    if not urlsplit(str(arguments.url)).path[1:]:
        parser.error("the URL names no topic")
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal knows every character
            stream.reconfigure(errors="replace")
    status = 0
    try:
        trio.run(run, arguments)
    except* trio_mqtt.MQTTError as errors:
        print("chat:", *errors.exceptions, file=sys.stderr)
        status = 1
    except* KeyboardInterrupt:  # while connecting; later, see cancel_on_signal
        pass
    return status


if __name__ == "__main__":
    sys.exit(main())
