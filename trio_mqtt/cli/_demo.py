"""``demo``: a conversation over MQTT, packet by packet, over connections that break."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_mqtt._transport import Address, resolve_broker
from trio_mqtt.testing import open_broker

from ._failures import FAILED, OK
from ._interruption import Interruption, run_interruptibly
from ._member import Lane, open_member
from ._opening import credentials, require_no_password
from ._options import add_credentials
from ._screen import BLUE, BOLD, CYAN, DIM, Screen, wants_colour
from ._story import Story, begin

PATIENCE = 30
"""Seconds that the story may take; over loopback it takes one."""


NAME: str = "demo"
SUMMARY: str = "watch two clients talk, packet by packet, over connections that break"


_DESCRIPTION = """\
Two clients talk over MQTT, and you see every packet: at QoS 0, 1 and 2, and when connections break
in the middle. At the end it is counted whether all arrived."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="mqtt://user@host:1883; left out, a broker runs inside this process",
    )
    add_credentials(parser)
    parser.add_argument("--no-color", action="store_true", help="write plain text")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit code."""
    broker = None if arguments.broker is None else _address(arguments)
    plain: bool = arguments.no_color
    screen = Screen(sys.stdout, colour=not plain and wants_colour(sys.stdout, os.environ))

    async def show(_: Interruption) -> int:
        return OK if await demo(screen, broker) else FAILED

    return run_interruptibly(show)


def _address(arguments: argparse.Namespace) -> Address:
    require_no_password(arguments.broker)
    address = resolve_broker(arguments.broker)
    username, password = credentials(arguments, address)
    if isinstance(password, bytes):
        password = password.decode(errors="surrogateescape")
    return attrs.evolve(address, username=username, password=password)


async def demo(screen: Screen, address: Address | None, *, patience: float = PATIENCE) -> bool:
    """Shows it all, within `patience` seconds. Returns whether all messages arrived as promised.

    Raises:
        MQTTError: the broker cannot be reached, refuses, or failed a subscription.
    """
    async with _broker(address) as broker:
        screen.line("trio_mqtt: a conversation over MQTT, packet by packet", BOLD)
        if address is None:
            screen.line("The broker runs inside this process. Try yours: --broker URL", DIM)
        else:
            screen.line(f"The broker is {broker.name}", DIM)
        # At a broker that others use, every run has names of its own.
        token = "" if address is None else secrets.token_hex(4)
        prefix = f"demo-{token}/" if token else ""
        begin(screen)
        async with (
            open_member(screen, broker, Lane("alice", CYAN), f"alice{token}") as alice,
            open_member(screen, broker, Lane("bob", BLUE, mirrored=True), f"bob{token}") as bob,
        ):
            story = Story(screen, alice, bob, prefix)
            with trio.move_on_after(patience) as scope:
                await story.tell()
        complete = story.verify()
        if scope.cancelled_caught:
            screen.verdict(f"it took more than {patience} s", right=False)
        return complete and not scope.cancelled_caught


@asynccontextmanager
async def _broker(address: Address | None) -> AsyncGenerator[Address, None]:
    if address is not None:
        yield address
        return
    async with open_broker() as embedded:
        yield resolve_broker(await embedded.listen())
