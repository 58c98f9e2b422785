"""``publish``: sends messages, and ends when the broker has confirmed them."""

from __future__ import annotations

import argparse
import logging
from functools import partial

from trio_mqtt import Client, Down, Session
from trio_mqtt._topics import require_topic_name
from trio_mqtt.testing._nursery import open_background_nursery

from ._failures import OK, Failure, Misuse
from ._input import Input, Lines, open_file, standard_input
from ._interruption import Interruption, run_interruptibly
from ._opening import client_from, log_on_stderr
from ._options import add_client_options, add_qos
from ._output import say
from ._progress import can_show_progress, show_progress
from ._sender import Sender
from ._stored import open_session, tell_about, undelivered

NAME: str = "publish"
SUMMARY: str = "send a message, or one a line"

_DESCRIPTION = """\
Sends a message, and ends when the broker has confirmed it. Without another source, all of standard
input is one message."""

_EXAMPLES = """\
examples:
  %(prog)s bedroom/lamp --message on
  date | %(prog)s clock
  %(prog)s camera/front --file front.jpg --retain
  %(prog)s camera/front --empty                      remove what is retained there
  tail -f app.log | %(prog)s logs/app --lines        each line is a message
  %(prog)s meter/17 -m 230.1 --session ~/.meter      deliver it now, or with the next call
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.usage = "%(prog)s TOPIC [--message TEXT | --file PATH | --lines | --empty] [option ...]"
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument("topic", metavar="TOPIC")
    group = parser.add_argument_group("what is sent")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--message", "-m", metavar="TEXT", help="this text")
    source.add_argument("--file", "-f", metavar="PATH", help="this file")
    source.add_argument(
        "--lines",
        "-l",
        action="store_true",
        help="each line of standard input, without its end; empty lines are left out",
    )
    source.add_argument(
        "--empty",
        action="store_true",
        help="an empty message, retained: the broker forgets the one it retains",
    )
    group.add_argument(
        "--retain",
        "-r",
        action="store_true",
        help="have the broker keep it for later subscribers; an empty one has it keep none",
    )
    add_qos(
        group,
        default=1,
        help="0: at most once, and nothing confirms it; 1: at least once; 2: exactly once "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--session",
        metavar="DIRECTORY",
        help="first store each message there. What a call could not deliver the next one does",
    )
    add_client_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit code."""
    # With a session it ends when it cannot connect, and says so itself.
    least = logging.WARNING if arguments.session is None else logging.ERROR
    with log_on_stderr(arguments, least=least):
        return run_interruptibly(partial(publish, arguments))


async def publish(arguments: argparse.Namespace, interruption: Interruption) -> int:
    """Publishes what the arguments say. Returns the exit code.

    Raises:
        MQTTError: it could not be done.
        Failure: the input cannot be read, or messages are stored and not delivered.
    """
    require_topic_name(arguments.topic)
    directory: str | None = arguments.session
    if directory is None:
        source = await _source(arguments)
        async with client_from(arguments) as client:
            with interruption.working():
                await Publishing(arguments, client, None).run(source)
        return OK
    if arguments.qos == 0:
        raise Misuse("a --session keeps messages at QoS 1 and 2, not at 0")
    return await _publish_stored(arguments, interruption, directory)


async def _publish_stored(
    arguments: argparse.Namespace, interruption: Interruption, directory: str
) -> int:
    source = await _source(arguments)
    session = await open_session(directory, arguments.client_id)
    try:
        if not arguments.quiet:
            tell_about(session)
        opening = client_from(arguments, session=session, wait_online=False)
        async with opening as client:
            publishing = Publishing(arguments, client, session)
            with interruption.working():
                try:
                    await publishing.run(source)
                except Down as down:
                    count = client.statistics().unconfirmed
                    raise Failure(undelivered(directory, count, down)) from down
    finally:
        await session.aclose()
    return OK


async def _source(arguments: argparse.Namespace) -> Input | None:
    """Where the payload comes from; None if it is in the arguments."""
    if arguments.message is not None or arguments.empty:
        return None
    if arguments.file is not None:
        return await open_file(arguments.file)
    source = standard_input()
    if source.is_terminal and not arguments.quiet:
        what = "messages, a line each" if arguments.lines else "the message"
        say(f"type {what}; Ctrl-D at the beginning of a line ends it")
    return source


class Publishing:
    """One run of the command, with its client open."""

    def __init__(
        self, arguments: argparse.Namespace, client: Client, session: Session | None
    ) -> None:
        self._arguments = arguments
        self._client = client
        self._session = session
        self._sender = Sender(
            client, arguments.topic, arguments.qos, retain=arguments.retain or arguments.empty
        )

    async def run(self, source: Input | None) -> None:
        """Sends all, and waits for the confirmations.

        Raises:
            Down: with a session, what it has cannot be delivered now.
        """
        try:
            async with open_background_nursery() as nursery:
                if self._session is not None:
                    nursery.start_soon(self._sender.wait_down)
                if not self._arguments.quiet and can_show_progress():
                    nursery.start_soon(show_progress, self._client, self._sender)
                await self._send(source)
                await self._sender.wait_confirmed()
                await self._deliver_earlier()
        except Down:
            # Cancelled in it, that is what counts.
            await self._sender.wait_accepted()  # noqa: ASYNC120
            raise

    async def _send(self, source: Input | None) -> None:
        if source is None:
            text: str = "" if self._arguments.empty else self._arguments.message
            # What came in an argument and is not UTF-8 goes out as it came.
            await self._sender.send(text.encode(errors="surrogateescape"))
        elif self._arguments.lines:
            lines = Lines(source)
            while some := await lines.next_some():
                for line in some:
                    await self._sender.send(line)
        else:
            await self._sender.send(await source.read_all())

    async def _deliver_earlier(self) -> None:
        """Waits for what earlier calls left."""
        if self._session is not None:
            self._sender.begin_waiting()
            for exchange in self._session.pending:
                await exchange.wait()
