"""``chat``: everybody on a topic reads the lines that anybody types.

The same as ``examples/chat.py``, which shows how to write such a thing with the public names alone.
"""

from __future__ import annotations

import argparse
from functools import partial
from urllib.parse import unquote, urlsplit

from trio_mqtt import Client, MessageChannel, NotSent
from trio_mqtt._topics import require_topic_name
from trio_mqtt.testing._nursery import open_background_nursery

from ._failures import OK
from ._input import Input, Lines, standard_input
from ._interruption import Interruption, run_interruptibly
from ._opening import broker_url, client_from, log_on_stderr
from ._options import add_client_options
from ._output import Output, say, standard_output
from ._trace import printable

NAME: str = "chat"
SUMMARY: str = "talk with everybody who is on the same topic"

_DESCRIPTION = """\
Sends each line that you type to all who chat on the topic, and prints theirs, at QoS 0: a chat may
lose a line now and then. The end of input, Ctrl-D, leaves."""

_EXAMPLES = """\
examples:
  %(prog)s kitchen --name alice
  %(prog)s kitchen --name alice --retain             those who join later see the last line
  %(prog)s kitchen --clear-retained                  remove that line
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.usage = "%(prog)s TOPIC [option ...]"
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument("topic", metavar="TOPIC")
    group = parser.add_argument_group("talking")
    group.add_argument("--name", help="what you are called; otherwise your user name")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--retain", action="store_true", help="have the broker keep the last line")
    how.add_argument("--clear-retained", action="store_true", help="remove it, and exit")
    add_client_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit code."""
    with log_on_stderr(arguments):
        source, output = standard_input(), standard_output()
        return run_interruptibly(partial(chat, arguments, source, output))


async def chat(
    arguments: argparse.Namespace, source: Input, output: Output, interruption: Interruption
) -> int:
    """Talks and listens until the end of input. Returns the exit code.

    Raises:
        MQTTError: it could not be done.
    """
    topic: str = arguments.topic
    require_topic_name(topic)
    async with client_from(arguments) as client:
        with interruption.working():
            if arguments.clear_retained:
                await client.clear_retained(topic)
            else:
                await _talk_and_listen(client, arguments, source, output)
    return OK


async def _talk_and_listen(
    client: Client, arguments: argparse.Namespace, source: Input, output: Output
) -> None:
    name, topic = _name(arguments), arguments.topic
    async with (
        client.open_subscription(topic, qos=0) as messages,
        open_background_nursery() as nursery,
    ):
        nursery.start_soon(_listen, messages, output)
        if not arguments.quiet:
            say(f"joined {topic!r} as {name}: type a line, or Ctrl-D to leave")
        lines = Lines(source)
        while some := await lines.next_some():
            for line in some:
                text = line.decode(errors="replace").strip()
                if text:
                    await _send(client, topic, f"{name}: {text}", retain=arguments.retain)


async def _listen(messages: MessageChannel, output: Output) -> None:
    """Prints what is said, our own lines too: they come back from the broker."""
    async for message in messages:
        if message.payload:  # it is empty when somebody cleared the retained line
            text = printable(message.payload.decode(errors="replace"))
            await output.write(f"* {text}\n".encode())


async def _send(client: Client, topic: str, text: str, *, retain: bool) -> None:
    try:
        await client.publish(topic, text, retain=retain)
    except NotSent as error:  # offline, most likely: the client reconnects
        say(f"not sent: {error}")


def _name(arguments: argparse.Namespace) -> str:
    name: str | None = arguments.name or arguments.username
    return name or unquote(urlsplit(broker_url(arguments)).username or "") or "anonymous"
