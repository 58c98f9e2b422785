"""What applications do at random, for as long as it takes to see whether anything is left of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from trio_mqtt import (
    Client,
    Denied,
    Dialer,
    InDoubt,
    MessageChannel,
    NotSent,
    Persistence,
    SubscribeError,
    adopt_session,
    init_session,
    open_client,
)
from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker

from .links import Counted

WAITS = (0, 0, 0.001, 0.01, 0.1, 1)
"""Units of time after which something is cancelled."""


class Crash(Exception):
    """What bodies fail with."""


class Soak:
    """Clients that come and go, and one that stays.

    Arguments:
        broker: whose connections are lost, and who loses its sessions.
        dialer: for connections to it.
        new_persistence: for durable sessions.
        unit: of time, in seconds.
        seed: of what happens.
    """

    def __init__(
        self,
        broker: Broker,
        dialer: Dialer,
        new_persistence: Callable[[], Persistence],
        *,
        unit: float,
        seed: int,
    ) -> None:
        self.broker = broker
        self._dialer = dialer
        self.open_streams = 0
        self.unit = unit
        self.draw = random.Random(seed)
        self.happened: Counter[str] = Counter()
        self._persistence = new_persistence()

    async def run(self, client: Client, episodes: int) -> None:
        """So many episodes, each on this client, or with one of its own."""
        for _ in range(episodes):
            if self.draw.random() < 0.3:
                await self.enter_and_leave()
            else:
                await self.episode(client)
            self.broker._service.log.clear()  # noqa: SLF001, all that grows
        self.broker.crash(keep_sessions=False)
        await client.wait_offline()
        await client.wait_online()
        await client.unsubscribe("s", "t")
        with trio.move_on_after(10 * self.unit):  # whatever waits for nobody
            async for _ in client.messages:
                pass
        self.broker._service.log.clear()  # noqa: SLF001

    async def _dial(self) -> trio.abc.Stream:
        stream = Counted(await self._dialer(), self)
        self.open_streams += 1
        return stream

    def client(self, **settings: Any) -> Any:
        return open_client(
            self._dial,
            keep_alive=0,
            reconnect_wait_min=0.001,
            reconnect_wait_max=0.01,
            stream_over=100,
            unclaimed_wait=self.unit,
            **settings,
        )

    async def enter_and_leave(self) -> None:
        """A client, with an episode or two, and one of the ways out."""
        kind = self.draw.choice(["generated", "volatile", "durable"])
        with self.cancelled(), self.surviving():
            settings: dict[str, Any] = {}
            if kind == "volatile":
                settings["client_id"] = "goes"
            elif kind == "durable":
                settings["session"] = await self._session()
            async with self.client(**settings) as client:
                self.happened[kind] += 1
                for _ in range(self.draw.randrange(3)):
                    await self.episode(client)
                match self.draw.randrange(5):
                    case 0:
                        raise Crash
                    case 1:
                        await client.aclose()
                    case 2:
                        await client.disconnect()
                    case 3:
                        client.enqueue_nowait("t", b"unconfirmed", qos=self.draw.choice([1, 2]))
                    case _:
                        pass
                self.happened["left"] += 1

    async def _session(self) -> Any:
        try:
            return await adopt_session(self._persistence)
        except Denied:
            return await init_session("durable", self._persistence)

    @asynccontextmanager
    async def scope(self, client: Client) -> AsyncGenerator[MessageChannel]:
        topic_filter = self.draw.choice(["t", "t/#", "#", "u", "$share/g/t"])
        async with client.open_subscription(topic_filter, qos=self.draw.choice(p.QOS_LEVELS)) as it:
            self.happened["scope"] += 1
            yield it

    async def episode(self, client: Client) -> None:
        """A request, a scope, or a fault, cancelled or not."""
        choices: list[Callable[[Client], Awaitable[None]]] = [
            self._publish,
            self._request,
            self._receive,
            self._nest,
            self._work,
            self._fault,
        ]
        with self.cancelled(), self.surviving():
            await self.draw.choice(choices)(client)
            self.happened["done"] += 1

    def cancelled(self) -> trio.CancelScope:
        """Later, if at all."""
        if self.draw.random() < 0.5:
            return trio.CancelScope()
        return trio.move_on_after(self.draw.choice(WAITS) * self.unit)

    @staticmethod
    def surviving() -> suppress:
        """Of what a client may raise; all else fails the test."""
        return suppress(Crash, NotSent, InDoubt, SubscribeError, trio.EndOfChannel)

    async def _publish(self, client: Client) -> None:
        topic, payload = self.draw.choice(["t", "t/a", "u"]), bytes(self.draw.choice([1, 200]))
        match self.draw.randrange(4):
            case 0:
                await client.enqueue(topic, payload, qos=self.draw.choice([1, 2]))
            case 1:
                client.publish_nowait(topic, payload)
            case _:
                await client.publish(topic, payload, qos=self.draw.choice(p.QOS_LEVELS))

    async def _request(self, client: Client) -> None:
        match self.draw.randrange(4):
            case 0:
                await client.ping()
            case 1:
                await client.flush()
            case _:
                await client.subscribe("s", "t")
                await client.unsubscribe("s", "t")

    async def _receive(self, client: Client) -> None:
        with trio.move_on_after(0.1 * self.unit):
            async with self.scope(client) as messages:
                await client.publish("t", bytes(self.draw.choice([1, 200])), qos=1)
                async for _ in messages:
                    await trio.lowlevel.checkpoint()
                    if self.draw.random() < 0.1:
                        raise Crash

    async def _nest(self, client: Client) -> None:
        async with self.scope(client), self.scope(client) as messages:
            await client.publish("t", b"", qos=2)
            messages.close()
            if self.draw.random() < 0.3:
                raise Crash

    async def _work(self, client: Client) -> None:
        async with self.scope(client) as messages, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(self._worker, messages.clone())
            for _ in range(3):
                await client.publish("t", bytes(200), qos=self.draw.choice(p.QOS_LEVELS))
            if self.draw.random() < 0.5:
                await trio.sleep(0.01 * self.unit)
            nursery.cancel_scope.cancel()

    async def _worker(self, messages: MessageChannel) -> None:
        with messages, suppress(trio.EndOfChannel):
            async for _ in messages:
                await trio.lowlevel.checkpoint()

    async def _fault(self, client: Client) -> None:
        match self.draw.randrange(6):
            case 0:
                self.broker.crash(keep_sessions=False)
            case 1:
                self.broker.crash(keep_sessions=True)
            case _:
                self.broker.disconnect_all()
        await client.wait_online()
