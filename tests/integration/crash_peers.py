"""The two programs that are killed: one publishes numbers, the other one receives them.

The publisher has one session for both QoS. The subscriber has two, in one process: what waits in
mosquitto 2.0.11 for a client that receives at QoS 1 and at QoS 2 gets out of order there.

Each run is one life of the same sessions. It says on its standard output how far it got::

    python -m tests.integration.crash_peers publisher mqtt://localhost SQLite /tmp/publisher 3

The arguments are the role, the broker, the persistence, a folder for that and for the ledgers, the
number of this life, and "last" where it is to end by itself.
"""

from __future__ import annotations

import enum
import itertools
import sys
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Literal, TypeAlias

import attrs
import trio

from trio_mqtt import (
    Client,
    Denied,
    FileSystem,
    Session,
    SQLite,
    adopt_session,
    init_session,
)

from .clients import open_client
from .crash_ledger import QOS_LEVELS, Entry, Ledger, Number

END = b"end"
"""What is published last of all, at each QoS."""
BOTH = "both"
"""What the publisher's session is called."""
LIFETIME = 300
"""Seconds after which it ends, should nobody be left to kill it."""
PERSISTENCES: dict[str, type[FileSystem | SQLite]] = {"FileSystem": FileSystem, "SQLite": SQLite}

Role: TypeAlias = Literal["publisher", "subscriber"]


class Phase(enum.StrEnum):
    """How far a life got."""

    STARTING = "starting"
    """Before a word is said, as Python is not up."""
    OPENING = "opening"
    """Adopting the session, or beginning it."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    """And subscribed, if it does."""


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201, to whom it may kill us


@attrs.frozen
class Life:
    """What one run is told."""

    role: str
    url: str
    persistence: str
    folder: Path
    number: int
    is_last: bool

    @property
    def ledger(self) -> Path:
        return ledger_path(self.folder, self.number)

    async def open_session(self, name: str) -> Session:
        """The session of the life before, or a new one if no life got as far as that."""
        persistence = PERSISTENCES[self.persistence](self.folder / name)
        try:
            session = await adopt_session(persistence)
        except Denied:  # it is empty
            session = await init_session(f"{self.role}-{name}", persistence)
        if session.warnings:
            raise AssertionError(f"a kill damages nothing: {session.warnings}")
        return session


def ledger_path(folder: Path, life: int) -> Path:
    """Where the ledger of a life is."""
    return folder / f"{life}.ledger"


async def publish(life: Life) -> None:
    """Publishes numbers until it is killed, or the last life: sees to it that all arrive."""
    say(Phase.OPENING)
    session = await life.open_session(BOTH)
    say(Phase.CONNECTING, len(session.pending))
    # Not waiting for the connection, so that what is new and what is adopted meet.
    async with open_client(life.url, session=session, wait_online=False) as client:
        if life.is_last:
            await drain(client, session)
            return
        with closing(Ledger(life.ledger)) as ledger:
            async with trio.open_nursery() as nursery:
                for qos in QOS_LEVELS:
                    nursery.start_soon(publish_numbers, client, life.number, ledger, qos)
                await client.wait_online()
                say(Phase.CONNECTED)


async def publish_numbers(client: Client, life: int, ledger: Ledger, qos: Literal[1, 2]) -> None:
    """Enters into the ledger what the client has accepted, and nothing else."""
    for position in itertools.count():
        number = Number(life, position)
        await client.enqueue(f"numbers/{qos}", str(number), qos=qos)
        ledger.enter(Entry(qos, number))


async def drain(client: Client, session: Session) -> None:
    """Waits until what earlier lives left is confirmed, and publishes the end behind it."""
    for exchange in session.pending:
        await exchange.wait()
    for qos in QOS_LEVELS:
        await client.publish(f"numbers/{qos}", END, qos=qos)


async def receive(life: Life) -> None:
    """Receives until it is killed, or the end arrives at each QoS."""
    say(Phase.OPENING)
    sessions = [await life.open_session(f"qos{qos}") for qos in QOS_LEVELS]
    say(Phase.CONNECTING)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_client(life.url, session=session))
            for session in sessions
        ]
        for client, qos in zip(clients, QOS_LEVELS, strict=True):
            await client.subscribe(f"numbers/{qos}", qos=qos)
        say(Phase.CONNECTED)
        with closing(Ledger(life.ledger)) as ledger:
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(receive_numbers, client, ledger)


async def receive_numbers(client: Client, ledger: Ledger) -> None:
    """Enters into the ledger each message before it asks for the next one."""
    while True:
        message = await client.messages.receive()
        if message.payload == END:
            return
        ledger.enter(Entry(message.qos, Number.parse(message.payload.decode())))


async def live(life: Life) -> None:
    with trio.fail_after(LIFETIME):
        await (publish(life) if life.role == "publisher" else receive(life))


if __name__ == "__main__":
    role, url, persistence, folder, number, *options = sys.argv[1:]
    trio.run(live, Life(role, url, persistence, Path(folder), int(number), "last" in options))
