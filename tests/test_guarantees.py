"""A client, a broker and a network that Hypothesis drives, against a model of the guarantees.

What it does is a list of steps, so that what fails shrinks to the shortest one: a sender hands over
messages, a receiver takes them, connections are cut, the broker crashes, requests are cancelled,
time goes by. In the end the network heals. Then each message has arrived at QoS 0 at most once, at
QoS 1 at least once, at QoS 2 exactly once, and those of a topic and a QoS in their order. What was
on its way when the broker lost its sessions is excepted, as it may be lost or come twice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import attrs
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_mqtt import Client, Exchange, InDoubt, NotSent, adopt_session, init_session, open_client
from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, open_broker

from .disturbed import repeatable
from .memory_persistence import MemoryPersistence
from .scope_peer import not_hanging
from .stage import check_idle

EXAMPLES = int(os.environ.get("TRIO_MQTT_EXAMPLES", "25"))
NAMES = ("sender", "receiver")
TOPICS = ("a", "b/c")


@attrs.frozen
class Send:
    """The sender hands over a message, and may be cancelled after a number of checkpoints."""

    topic: str
    qos: p.QoS
    retain: bool
    cancelled_after: int | None


@attrs.frozen
class Cut:
    name: str


@attrs.frozen
class Crash:
    keep_sessions: bool


@attrs.frozen
class Wait:
    seconds: float


@attrs.frozen
class Pause:
    """The broker stands still for so long."""

    seconds: float


@attrs.frozen
class Resubscribe:
    """The receiver enters and leaves a scope for one topic, beside."""

    topic: str


@attrs.frozen
class Restart:
    """The sender's process ends, by a crash or not, and another adopts its session."""

    cleanly: bool


Step: TypeAlias = Send | Cut | Crash | Wait | Pause | Resubscribe | Restart
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        Send,
        topic=st.sampled_from(TOPICS),
        qos=st.sampled_from(p.QOS_LEVELS),
        retain=st.booleans(),
        cancelled_after=st.none() | st.integers(0, 6),
    ),
    st.builds(Cut, name=st.sampled_from(NAMES)),
    st.builds(Crash, keep_sessions=st.booleans()),
    st.builds(Wait, seconds=st.sampled_from([0, 0.001, 0.1, 2, 100])),
    st.builds(Pause, seconds=st.sampled_from([0.1, 30])),
    st.builds(Resubscribe, topic=st.sampled_from(TOPICS)),
    st.builds(Restart, cleanly=st.booleans()),
)


class World:
    """Who sent what, and who got it."""

    def __init__(self, broker: Broker, durable: bool) -> None:
        self.broker = broker
        self.durable = durable
        self.persistence = MemoryPersistence()
        self.persistence.commit_seconds = 0.001
        self.sent: dict[int, Send] = {}
        """What was accepted, in order."""
        self.maybe: dict[int, Send] = {}
        """What was in doubt, or at QoS 0."""
        self.void: set[int] = set()
        """What was on its way when the broker lost its sessions, or the sender its own."""
        self.got: list[tuple[str, int]] = []
        self._exchanges: dict[int, Exchange] = {}
        self._number = 0

    async def send(self, client: Client, step: Send) -> None:
        self._number += 1
        number = self._number
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if step.cancelled_after is not None:
                    nursery.start_soon(self._cancel, scope, step.cancelled_after)
                self.maybe[number] = step
                with suppress(NotSent, InDoubt):
                    if step.qos:
                        await self._enqueue(client, number, step, step.qos)
                    else:
                        await client.publish(step.topic, str(number), retain=step.retain)
                nursery.cancel_scope.cancel()

    async def _enqueue(self, client: Client, number: int, step: Send, qos: Literal[1, 2]) -> None:
        self._exchanges[number] = await client.enqueue(
            step.topic, str(number), qos=qos, retain=step.retain
        )
        self.sent[number] = self.maybe.pop(number)

    @staticmethod
    async def _cancel(scope: trio.CancelScope, checkpoints: int) -> None:
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def receive(self, client: Client) -> None:
        with suppress(trio.EndOfChannel):
            async for message in client.messages:
                if not message.retain:
                    self.got.append((message.topic, int(message.payload)))

    async def suffer(self, fault: Cut | Crash | Pause) -> None:
        broker = self.broker
        match fault:
            case Cut(name):
                with suppress(LookupError):
                    broker.disconnect(name)
            case Crash(keep_sessions):
                broker.crash(keep_sessions=keep_sessions)
                if not keep_sessions:  # and with them what comes before the receiver is back
                    await broker.wait_subscribed("receiver", "#")
                    self.forget_what_is_on_its_way()
            case Pause(seconds):
                broker.pause()
                await trio.sleep(seconds)
                broker.resume()

    def forget_what_is_on_its_way(self) -> None:
        arrived = {number for _, number in self.got}
        confirmed = {number for number, exchange in self._exchanges.items() if exchange.confirmed}
        self.void |= {*self.sent, *self.maybe} - (arrived & confirmed)

    def check(self) -> None:
        times = Counter(number for _, number in self.got)
        assert set(times) <= {*self.sent, *self.maybe}
        for number, step in (self.sent | self.maybe).items():
            if number in self.void:
                continue
            if step.qos != 1:
                assert times[number] <= 1, f"{number} came {times[number]} times at QoS {step.qos}"
            if number in self.sent:
                assert times[number] >= 1, f"{number} never came at QoS {step.qos}"
        for topic in TOPICS:
            for qos in p.QOS_LEVELS:
                first = list(dict.fromkeys(number for name, number in self.got if name == topic))
                of_qos = [
                    number
                    for number in first
                    if number not in self.void and (self.sent | self.maybe)[number].qos == qos
                ]
                assert of_qos == sorted(of_qos), f"out of order on {topic} at QoS {qos}"


async def play(steps: Sequence[Step], durable: bool) -> None:
    async with open_broker() as broker, trio.open_nursery() as nursery:
        world = World(broker, durable)
        common: dict[str, Any] = {"pause_timeout": 5, "keep_alive": 20, "reconnect_wait_max": 1}
        async with open_client(broker.dialer, client_id="receiver", **common) as receiver:
            await receiver.subscribe("#")
            nursery.start_soon(world.receive, receiver)
            pending = list(steps)
            while pending:
                if durable:
                    common["session"] = await session_of(world.persistence)
                else:
                    common["client_id"] = "sender"
                with suppress(Restarted):
                    async with open_client(broker.dialer, **common) as sender:
                        common.pop("session", None)
                        await run(world, sender, receiver, pending, nursery)
                        broker.resume()
                        await trio.sleep(1000)
                        await sender.ping()  # for one of keep-alive's may be under way
                        check_idle(sender)
                if not durable:
                    world.forget_what_is_on_its_way()
                if not pending:
                    break
            if durable:
                async with open_client(
                    broker.dialer, session=await session_of(world.persistence)
                ) as sender:
                    await trio.sleep(1000)
                    await sender.ping()
                    check_idle(sender)
            await trio.sleep(1000)
        world.check()
        assert not broker.violations


class Restarted(Exception):
    """The sender's process crashed."""


async def session_of(persistence: MemoryPersistence) -> Any:
    if persistence.values:
        return await adopt_session(persistence)
    return await init_session("sender", persistence)


async def run(
    world: World,
    sender: Client,
    receiver: Client,
    pending: list[Step],
    nursery: trio.Nursery,
) -> None:
    """Up to the end, or a restart."""
    while pending:
        match pending.pop(0):
            case Send() as step:
                await world.send(sender, step)
            case Resubscribe(topic):
                nursery.start_soon(look_in, receiver, topic)
            case Restart(cleanly):
                if cleanly:
                    return
                raise Restarted
            case Wait(seconds):
                await trio.sleep(seconds)
            case fault:
                await world.suffer(fault)


async def look_in(client: Client, topic: str) -> None:
    """A scope beside, for what was retained: what else comes to it counts for the application."""
    with suppress(NotSent, InDoubt):
        async with client.open_subscription("retained/" + topic):
            await trio.sleep(0.01)


@given(steps=st.lists(STEPS, max_size=25), durable=st.booleans())
@settings(
    max_examples=EXAMPLES,
    derandomize="TRIO_MQTT_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
@example(steps=[], durable=True)
@example(steps=[Wait(100), Wait(100)], durable=False)  # keep-alive awaits an answer in the end
def test_the_guarantees(steps: list[Step], durable: bool) -> None:
    with repeatable(), not_hanging(60):
        trio.run(play, steps, durable, clock=MockClock(autojump_threshold=0))
