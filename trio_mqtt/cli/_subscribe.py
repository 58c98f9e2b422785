"""``subscribe``: prints messages as they come."""

from __future__ import annotations

import argparse
from functools import partial

import trio

from trio_mqtt import Client, MessageChannel
from trio_mqtt._topics import require_topic_filter
from trio_mqtt.testing._nursery import open_background_nursery

from ._failures import OK, Misuse
from ._interruption import Interruption, run_interruptibly
from ._opening import client_from, log_on_stderr
from ._options import add_client_options, add_qos, positive
from ._output import Output, say, standard_output
from ._render import render_by

NAME: str = "subscribe"
SUMMARY: str = "print messages as they come"

_DESCRIPTION = """\
Prints the messages on topics, each as soon as it comes, until Control-C or until --count of them
came. A message is acknowledged once it is printed. In a filter, + stands for one level of a topic
and # at its end for any number of them."""

_EXAMPLES = """\
examples:
  %(prog)s 'sensors/#' --topic
  %(prog)s 'sensors/+/temperature' 'alerts/#' --json | jq .payload
  %(prog)s camera/front --raw --count 1 >front.jpg
  %(prog)s orders --client-id billing --keep         on from where the last run ended
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.usage = "%(prog)s FILTER ... [option ...]"
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument("filters", metavar="FILTER", nargs="+", help="topic filter, in quotes")
    group = parser.add_argument_group(
        "how messages are printed: by default the payload, and a line feed"
    )
    group.add_argument("--topic", "-t", action="store_true", help="the topic and a space before it")
    how = group.add_mutually_exclusive_group()
    how.add_argument(
        "--quote", action="store_true", help="the payload in quotes, with escapes, on one line"
    )
    how.add_argument(
        "--json",
        action="store_true",
        help="a line of JSON: time, topic, qos, retain, dup, and payload, or payload_base64 where "
        "that is no UTF-8",
    )
    how.add_argument("--raw", action="store_true", help="the payload with nothing behind it")
    group = parser.add_argument_group("what is received")
    group.add_argument("--count", "-n", type=positive, metavar="N", help="end after N messages")
    add_qos(group, default=2, help="at which messages may come at most (default: %(default)s)")
    group.add_argument(
        "--keep",
        action="store_true",
        help="stay subscribed at the end: the broker collects what comes at QoS 1 and 2 for the "
        "next run; needs --client-id",
    )
    add_client_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit code."""
    with log_on_stderr(arguments):
        return run_interruptibly(partial(subscribe, arguments, standard_output()))


async def subscribe(
    arguments: argparse.Namespace, output: Output, interruption: Interruption
) -> int:
    """Prints what comes. Returns the exit code.

    Raises:
        MQTTError: it could not be done.
        Failure: the output cannot be written.
    """
    for topic_filter in arguments.filters:
        require_topic_filter(topic_filter)
    if arguments.topic and arguments.raw:
        raise Misuse("--raw prints nothing besides the payload: leave out --topic")
    if arguments.keep and arguments.client_id is None:
        raise Misuse("--keep is for a session that the broker keeps: give --client-id")
    async with client_from(arguments) as client:
        with interruption.working():
            await _print_until_the_reader_leaves(client, arguments, output)
    return OK


async def _print_until_the_reader_leaves(
    client: Client, arguments: argparse.Namespace, output: Output
) -> None:
    async def end_with_the_reader() -> None:
        await output.wait_broken()
        printing.cancel()

    async with open_background_nursery() as nursery:
        with trio.CancelScope() as printing:
            nursery.start_soon(end_with_the_reader)
            await _print_all(client, arguments, output)


async def _print_all(client: Client, arguments: argparse.Namespace, output: Output) -> None:
    async with client.open_subscription(
        *arguments.filters, qos=arguments.qos, keep=arguments.keep
    ) as messages:
        if arguments.verbose:
            say(f"subscribed to {', '.join(arguments.filters)}")
        await _print_some(messages, arguments, output)


async def _print_some(
    messages: MessageChannel, arguments: argparse.Namespace, output: Output
) -> None:
    """Prints as many as are wanted."""
    render = render_by(arguments, is_terminal=output.is_terminal)
    printed = 0
    async for message in messages:
        await output.write(render(message))
        printed += 1
        if printed == arguments.count:
            return
