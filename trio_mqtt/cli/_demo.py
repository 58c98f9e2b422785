"""``demo``: a conversation over MQTT, packet by packet, over connections that break."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from trio_mqtt._transport import Address, resolve_broker
from trio_mqtt.testing import open_broker

from ._member import Lane, open_member
from ._screen import BLUE, BOLD, CYAN, DIM, Screen, wants_colour
from ._story import Story, begin

PATIENCE = 30
"""Seconds that the story may take; over loopback it takes one."""


NAME: str = "demo"
SUMMARY: str = "watch two clients talk, packet by packet, over connections that break"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Two clients talk over MQTT, and you see every packet: at QoS 0, 1 and 2, and "
        "when connections break in the middle. At the end it is counted whether all arrived."
    )
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="mqtt://user:password@host:1883; left out, a broker runs inside this process",
    )
    parser.add_argument("--no-color", action="store_true", help="write plain text")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit code."""
    url: str | None = arguments.broker
    plain: bool = arguments.no_color
    screen = Screen(sys.stdout, colour=not plain and wants_colour(sys.stdout, os.environ))
    return 0 if trio.run(demo, screen, url) else 1


async def demo(screen: Screen, url: str | None, *, patience: float = PATIENCE) -> bool:
    """Shows it all, within `patience` seconds. Returns whether all messages arrived as promised.

    Raises:
        MQTTError: the broker cannot be reached, refuses, or failed a subscription.
    """
    async with _broker(url) as broker:
        screen.line("trio_mqtt: a conversation over MQTT, packet by packet", BOLD)
        if url is None:
            screen.line("The broker runs inside this process. Try yours: --broker URL", DIM)
        else:
            screen.line(f"The broker is {broker.name}", DIM)
        # At a broker that others use, every run has names of its own.
        token = "" if url is None else secrets.token_hex(4)
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
async def _broker(url: str | None) -> AsyncGenerator[Address, None]:
    if url is not None:
        yield resolve_broker(url)
        return
    async with open_broker() as embedded:
        yield resolve_broker(await embedded.listen())
