"""Subscription scopes: consumers that are cancelled, at each step of the scheduler in turn.

Each consumer runs again and again, and is cancelled in front of the first step that any task takes
meanwhile, the second, and so on. Whatever it was about, those that come after it get what it was
not done with, once and in order, and the client is as if nothing had happened: all is acknowledged
in the order of the wire, nothing waits, and the next request is answered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_mqtt import Client, Message, MessageChannel, init_session
from trio_mqtt import _packets as p

from .memory_persistence import MemoryPersistence
from .scope_peer import Peer, not_hanging, peered
from .scripted_broker import ScriptedBroker

NUMBERS = list(range(1, 7))
MOST_STEPS = 1_000
"""More than any consumer here takes; one that never comes to its end spins."""


def delivery(number: int, qos: p.QoS) -> p.Delivery:
    return p.Delivery(p.Message("t", str(number).encode(), qos), number)


@attrs.define(eq=False)
class Cut(trio.abc.Instrument):
    """Cancels a consumer in front of a step of any task, its own or another."""

    at: int
    steps: int = 0
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)

    async def run(self, consumer: Callable[[], Awaitable[None]]) -> None:
        trio.lowlevel.add_instrument(self)
        try:
            with self.scope:
                await consumer()
        finally:
            trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self.at:
            self.scope.cancel()

    @property
    def is_done(self) -> bool:
        """Whether it was done before there were so many steps."""
        assert self.steps < MOST_STEPS
        return self.steps < self.at


@attrs.define
class Scene:
    """One client, six messages for it, and who got them."""

    client: Client
    peer: Peer
    qos: p.QoS
    cut: Cut
    got: list[int] = attrs.Factory(list[int])
    """What a consumer was done with."""

    async def play(self, consumer: Callable[[], Awaitable[None]]) -> None:
        """Runs the consumer, while messages come: some before it starts, and some when it waits."""
        with not_hanging():
            await self.send(NUMBERS[:3])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.cut.run, consumer)
                await trio.testing.wait_all_tasks_blocked()
                await self.send(NUMBERS[3:5])
                await self.send(NUMBERS[5:])

    async def send(self, numbers: list[int]) -> None:
        await self.peer.send(*(delivery(number, self.qos) for number in numbers))

    async def take(self, channel: MessageChannel) -> None:
        """Takes what comes, up to the last, each with a little work."""
        while NUMBERS[-1] not in self.got:
            await self.work_on(channel, await channel.receive())

    async def work_on(self, channel: MessageChannel, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        channel.acknowledge()
        self.got.append(int(message.payload))

    async def take_rest(self, channel: MessageChannel) -> None:
        """Takes what is left for who comes next."""
        with trio.move_on_after(1):
            async for message in channel:
                await self.work_on(channel, message)

    async def check(self) -> None:
        """Nothing is left, lost, or out of order."""
        client = self.client
        answer = p.PubAck if self.qos == 1 else p.PubRec
        assert await self.peer.taken(answer) == [answer(number) for number in NUMBERS]
        await client.ping()
        await client.subscribe("other")
        statistics = client.statistics()
        assert statistics.connects == 1
        assert statistics.received == len(NUMBERS)
        assert (statistics.buffered_messages, statistics.buffered_bytes) == (0, 0)
        assert (statistics.given_up, statistics.unclaimed, statistics.repeated) == (0, 0, 0)


@asynccontextmanager
async def scene(
    scripted: ScriptedBroker, cut: Cut, qos: p.QoS, *, durable: bool
) -> AsyncGenerator[Scene]:
    """At QoS 2 on a durable session, if so said, with commits that take a while."""
    persistence = MemoryPersistence()
    persistence.commit_seconds = 0.01
    settings: dict[str, Any] = {"client_id": "c"}
    if durable:
        settings = {"session": await init_session("c", persistence)}
    async with peered(scripted, **settings) as (client, peer):
        playing = Scene(client, peer, qos, cut)
        yield playing
        await playing.check()


sessions = pytest.mark.parametrize(
    ("qos", "durable"), [(1, False), (2, False), (2, True)], ids=["1", "2", "2-durable"]
)


@sessions
async def test_a_scope_that_is_cancelled_leaves_what_it_was_not_done_with_to_the_next(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS, durable: bool
) -> None:
    for at in range(1, MOST_STEPS):
        cut = Cut(at)
        async with scene(scripted, cut, qos, durable=durable) as playing:

            async def consume(playing: Scene = playing) -> None:
                async with playing.client.open_subscription("t") as messages:
                    await playing.take(messages)

            await playing.play(consume)
            async with playing.client.open_subscription("t") as messages:
                await playing.take_rest(messages)
            assert playing.got == NUMBERS
        if cut.is_done:
            break


@sessions
async def test_a_worker_that_is_cancelled_leaves_it_to_the_scope(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS, durable: bool
) -> None:
    for at in range(1, MOST_STEPS):
        cut = Cut(at)
        async with (
            scene(scripted, cut, qos, durable=durable) as playing,
            playing.client.open_subscription("t") as messages,
        ):

            async def work(playing: Scene = playing, messages: MessageChannel = messages) -> None:
                with messages.clone() as own:
                    await playing.take(own)

            await playing.play(work)
            await playing.take_rest(messages)
            assert playing.got == NUMBERS
        if cut.is_done:
            break


@sessions
async def test_one_that_does_not_wait_leaves_it_too(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS, durable: bool
) -> None:
    for at in range(1, MOST_STEPS):
        cut = Cut(at)
        async with (
            scene(scripted, cut, qos, durable=durable) as playing,
            playing.client.open_subscription("t") as messages,
        ):

            async def poll(playing: Scene = playing, messages: MessageChannel = messages) -> None:
                with messages.clone() as own:
                    while NUMBERS[-1] not in playing.got:
                        try:
                            await playing.work_on(own, own.receive_nowait())
                        except trio.WouldBlock:
                            await trio.sleep(0.01)

            await playing.play(poll)
            await playing.take_rest(messages)
            assert playing.got == NUMBERS
        if cut.is_done:
            break


@sessions
async def test_beside_others_it_leaves_them_each_message_once(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS, durable: bool
) -> None:
    """Its workers wait, and so does a scope that overlaps and gets each message as well."""
    for at in range(1, MOST_STEPS):
        cut = Cut(at)
        async with (
            scene(scripted, cut, qos, durable=durable) as playing,
            playing.client.open_subscription("#") as others,
            playing.client.open_subscription("t") as messages,
            trio.open_nursery() as nursery,
        ):
            beside = attrs.evolve(playing, got=[])

            async def work(playing: Scene = playing, messages: MessageChannel = messages) -> None:
                with messages.clone() as own:
                    await playing.take_rest(own)

            nursery.start_soon(beside.take_rest, others)
            for _ in range(2):
                nursery.start_soon(work)
            await playing.play(work)
            await playing.take_rest(messages)
            await trio.sleep(2)
            assert sorted(playing.got) == NUMBERS
            assert beside.got == NUMBERS
        if cut.is_done:
            break
