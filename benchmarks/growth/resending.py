"""Reconnecting with messages that are not confirmed: how many microseconds each of them takes.

The peer takes all of them, confirms none, and closes the connection. On the next one it confirms
what is sent again. Measured is that connection, from the end of its dialling to the last
confirmation. A volatile session reconnects by itself. One in SQLite is closed, and adopted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Literal

import trio

import trio_mqtt

from .publishing import PAYLOAD, TOPIC

BUILD = Path(__file__).parents[2] / "build"
"""On the disk that is worked on: a temporary directory is often none."""
MOST = 16_384
"""As many may be accepted, and the window is as wide."""
SOON, LATE = 0.01, 60.0
"""Seconds until a client reconnects."""

Levels = tuple[Literal[1, 2], ...]
"""The QoS of the messages, in turn. Those at QoS 2 are sent again after PUBREC."""


class Resending:
    """One measurement."""

    def __init__(self, port: int, number: int, levels: Levels) -> None:
        self._dial = trio_mqtt.tcp_dialer("127.0.0.1", port)
        self._number = number
        self._levels = levels
        self._dialled_at = 0.0

    async def volatile(self) -> float:
        """With a session in memory."""
        async with self._open(trio_mqtt.volatile_session("bench"), SOON) as client:
            exchanges = await self._lose(client)
            return await self._confirm(client, exchanges)

    async def durable(self, path: Path) -> float:
        """With one in SQLite."""
        await self._fill(path)
        session = await trio_mqtt.adopt_session(trio_mqtt.SQLite(path))
        async with self._open(session, LATE) as client:
            return await self._confirm(client, session.pending)

    async def adopting(self, path: Path) -> float:
        """What it takes to adopt that one, without a connection."""
        await self._fill(path)
        began = time.perf_counter()
        session = await trio_mqtt.adopt_session(trio_mqtt.SQLite(path))
        seconds = time.perf_counter() - began
        await session.aclose()
        return seconds / self._number * 1e6

    async def _fill(self, path: Path) -> None:
        session = await trio_mqtt.init_session("bench", trio_mqtt.SQLite(path))
        async with self._open(session, LATE) as client:
            await self._lose(client)
            await client.aclose()

    def _open(
        self, session: trio_mqtt.Session, wait: float
    ) -> AbstractAsyncContextManager[trio_mqtt.Client]:
        return trio_mqtt.open_client(
            self._dial_noting,
            session=session,
            at_least_once_window=MOST,
            exactly_once_window=MOST,
            reconnect_wait_min=wait,
        )

    async def _dial_noting(self) -> trio.abc.Stream:
        stream = await self._dial()
        self._dialled_at = time.perf_counter()
        return stream

    async def _lose(self, client: trio_mqtt.Client) -> list[trio_mqtt.Exchange]:
        """Has the peer take all messages and close the connection."""
        await client.publish(f"hold/{self._number}", b"")
        exchanges = [
            client.enqueue_nowait(TOPIC, PAYLOAD, qos=self._levels[one % len(self._levels)])
            for one in range(self._number)
        ]
        await client.wait_offline()
        return exchanges

    async def _confirm(
        self, client: trio_mqtt.Client, exchanges: Sequence[trio_mqtt.Exchange]
    ) -> float:
        """Waits for the last of each QoS, as they are confirmed in order."""
        for exchange in exchanges[-len(self._levels) :]:
            await exchange.wait()
        seconds = time.perf_counter() - self._dialled_at
        await client.aclose()
        return seconds / self._number * 1e6


async def volatile(port: int, number: int, *, levels: Levels) -> float:
    """As many messages, in memory."""
    return await Resending(port, number, levels).volatile()


async def durable(port: int, number: int, *, levels: Levels) -> float:
    """As many messages, in SQLite."""
    with working_path() as path:
        return await Resending(port, number, levels).durable(path)


async def adopting(port: int, number: int, *, levels: Levels) -> float:
    """As many messages, in SQLite, that are not sent again."""
    with working_path() as path:
        return await Resending(port, number, levels).adopting(path)


@contextmanager
def working_path() -> Generator[Path, None, None]:
    """Of a database that is deleted in the end."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as directory:
        yield Path(directory) / "session.db"
