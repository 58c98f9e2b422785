"""Durable clients under everything at once: cancellation, a slow and failing disk, cut connections.

What callers are told is compared with what arrives at the broker, over several lives of a session.
"""

from __future__ import annotations

import math
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from trio_mqtt import (
    Buffer,
    Client,
    ClientClosed,
    ClosedInDoubt,
    Denied,
    Exchange,
    NotAuthorized,
    PersistenceError,
    Session,
    adopt_session,
    init_session,
    open_client,
    volatile_session,
)
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt._storer import LAST
from trio_mqtt.testing import Broker, ScriptedBroker, open_broker

from .memory_persistence import MemoryPersistence
from .session_driver import delivery
from .test_client_durable import staged

SEEDS = range(8)


class Flaky(MemoryPersistence):
    """Takes its time, and fails, sometimes with everything stored."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self.slow = False
        self.failing = 0.0

    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        if self.slow:
            await trio.sleep(self._chance.choice([0, 0.01, 0.2, 1.2]))
        if self._chance.random() < self.failing:
            if self._chance.random() < 0.5:
                await super().commit(saves, deletes)
            raise OSError("flaky")
        await super().commit(saves, deletes)


class Ledger:
    """What callers were told of each message, and what came of it."""

    def __init__(self) -> None:
        self.qos: dict[str, Literal[1, 2]] = {}
        self.refused: set[str] = set()
        self.accepted: set[str] = set()
        self.arrived: Counter[str] = Counter()
        self.sent_in: set[str] = set()
        self.received: Counter[str] = Counter()
        self.done: set[str] = set()

    def new(self, qos: Literal[1, 2]) -> str:
        name = str(len(self.qos))
        self.qos[name] = qos
        return name

    def check(self) -> None:
        for name in self.refused:
            assert not self.arrived[name], f"{name} was refused"
        for name in self.accepted:
            assert self.arrived[name], f"{name} was accepted"
        for name, qos in self.qos.items():
            assert qos == 1 or self.arrived[name] <= 1, f"{name} twice"
        assert self.sent_in == set(self.received)


class Chaos:
    """Lives of one durable client, and a broker."""

    def __init__(self, seed: int, broker: Broker) -> None:
        self.chance = random.Random(seed)
        self.broker = broker
        self.persistence = Flaky(self.chance)
        self.ledger = Ledger()

    async def observe(self, observer: Client) -> None:
        async for message in observer.messages:
            self.ledger.arrived[message.payload.decode()] += 1

    async def disturb(self) -> None:
        while True:
            await trio.sleep(self.chance.uniform(0.1, 3))
            self.persistence.failing = self.chance.choice([0, 0, 0.3, 1])
            if self.chance.random() < 0.5:
                with suppress(LookupError):
                    self.broker.disconnect("me")

    async def send_in(self) -> None:
        while True:
            name = str(len(self.ledger.sent_in))
            self.ledger.sent_in.add(name)
            self.broker.publish("in", name.encode(), qos=2)
            await trio.sleep(self.chance.uniform(0.01, 0.5))

    async def publish(self, client: Client) -> None:
        while True:
            qos: Literal[1, 2] = self.chance.choice((1, 2))
            name = self.ledger.new(qos)
            with trio.move_on_after(self.chance.choice([0, 0.01, 0.3, 2, 20])):
                try:
                    await self.submit(client, name, qos)
                except (PersistenceError, ClientClosed):
                    self.ledger.refused.add(name)
                except ClosedInDoubt:
                    return
            await trio.sleep(self.chance.choice([0, 0, 0.01, 0.1]))
            if client.statistics().unconfirmed > 200:
                await trio.sleep(1)

    async def submit(self, client: Client, name: str, qos: Literal[1, 2]) -> None:
        match self.chance.randrange(4):
            case 0:
                await client.publish("out", name, qos=qos)
            case 1:
                await client.enqueue("out", name, qos=qos)
            case 2:
                exchange = client.enqueue_nowait("out", name, qos=qos)
                await exchange.wait_accepted()
            case _:
                exchange = await client.enqueue("out", name, qos=qos)
                self.ledger.accepted.add(name)
                await exchange.wait()
        self.ledger.accepted.add(name)

    async def consume(self, client: Client) -> None:
        held: str | None = None
        while True:
            with trio.move_on_after(self.chance.choice([0, 0.01, 1, math.inf])):
                message = await client.messages.receive()
                if held is not None:
                    self.ledger.done.add(held)
                held = message.payload.decode()
                assert held not in self.ledger.done, f"{held} again"
                self.ledger.received[held] += 1
            await trio.sleep(self.chance.choice([0, 0.01, 0.1]))

    async def live(self, session: Session) -> None:
        """One life, which ends in one way or another."""
        buffer = Buffer(messages=self.chance.choice([1, 2, 1000]))
        async with open_client(
            self.broker.dialer, session=session, reconnect_wait_max=2, buffer=buffer
        ) as client:
            await self.subscribe(client)
            async with trio.open_nursery() as nursery:
                self.persistence.slow = True
                for task in (self.publish, self.publish, self.publish, self.consume):
                    nursery.start_soon(task, client)
                nursery.start_soon(self.disturb)
                nursery.start_soon(self.send_in)
                await trio.sleep(self.chance.uniform(1, 20))
                if self.chance.random() < 0.5:
                    self.leave()
                nursery.cancel_scope.cancel()
            self.persistence.failing = 0

    def leave(self) -> None:
        self.persistence.failing = 0
        raise ZeroDivisionError

    async def subscribe(self, client: Client) -> None:
        while True:
            try:
                await client.subscribe("in")
            except Exception:  # noqa: BLE001, the connection
                await trio.sleep(0.5)
            else:
                return

    async def adopt(self) -> Session:
        self.persistence.slow = False
        self.persistence.failing = 0
        return await adopt_session(self.persistence)

    async def settle(self) -> None:
        """A last life, in which nothing is disturbed."""
        session = await self.adopt()
        async with open_client(self.broker.dialer, session=session) as client:
            for exchange in session.pending:
                await exchange.wait()
            while set(self.ledger.received) != self.ledger.sent_in:
                with trio.fail_after(100):
                    message = await client.messages.receive()
                name = message.payload.decode()
                assert name not in self.ledger.done, f"{name} again"
                self.ledger.received[name] += 1
            client.messages.acknowledge()
            await trio.sleep(10)
        assert {key % 0x10000 for key in self.persistence.values} == {0}
        assert not self.persistence.is_open


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_callers_were_told_is_true_over_several_lives(
    seed: int, autojump_clock: MockClock
) -> None:
    async with (
        open_broker() as broker,
        open_client(broker.dialer, client_id="observer") as observer,
        trio.open_nursery() as nursery,
    ):
        await observer.subscribe("out")
        chaos = Chaos(seed, broker)
        nursery.start_soon(chaos.observe, observer)
        session = await init_session("me", chaos.persistence)
        for _ in range(4):
            try:
                await chaos.live(session)
            except* ZeroDivisionError:
                pass
            assert not chaos.persistence.is_open
            session = await chaos.adopt()
        await session.aclose()
        await chaos.settle()
        await trio.sleep(10)
        chaos.ledger.check()
        assert broker.violations == []
        nursery.cancel_scope.cancel()


# Every method slow, cancelled, or failing in an odd way

ODD: list[Callable[[], BaseException]] = [
    RuntimeError,
    lambda: OSError("odd"),
    KeyboardInterrupt,
    lambda: ExceptionGroup("odd", [ValueError("odd")]),
    lambda: BaseExceptionGroup("odd", [KeyboardInterrupt()]),
]
METHODS = ["open", "keys", "load", "commit", "close"]


class Odd(MemoryPersistence):
    """Each method takes a second, and one of them raises."""

    def __init__(self, raises: str = "", error: Callable[[], BaseException] = OSError) -> None:
        super().__init__()
        self.raises = raises
        self.error = error

    async def at(self, method: str) -> None:
        await trio.sleep(1)
        if method == self.raises:
            raise self.error()

    async def open(self) -> None:
        await self.at("open")
        await super().open()

    async def close(self) -> None:
        await super().close()
        await self.at("close")

    async def load(self, key: int) -> bytes | None:
        await self.at("load")
        return await super().load(key)

    async def keys(self) -> Collection[int]:
        await self.at("keys")
        return await super().keys()

    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        await self.at("commit")
        await super().commit(saves, deletes)


async def still_usable(persistence: MemoryPersistence) -> Session:
    """Whoever had it has let go of it."""
    try:
        return await adopt_session(persistence)
    except Denied:
        return await init_session("me", persistence)


@pytest.mark.parametrize("seconds", range(1, 8))
async def test_a_session_that_is_cancelled_at_its_beginning_lets_go(
    seconds: int, autojump_clock: MockClock
) -> None:
    persistence = Odd()
    for begin in (partial(init_session, "me"), adopt_session):
        with trio.move_on_after(seconds - 0.5):
            try:
                await (await begin(persistence)).aclose()
            except Denied:
                persistence.values.clear()
        session = await still_usable(persistence)
        assert session.pending == ()
        await session.aclose()
        await session.aclose()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", ODD)
async def test_whatever_a_persistence_raises_it_is_let_go_of(
    method: str,
    error: Callable[[], BaseException],
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
) -> None:
    persistence = Odd(method, error)
    scripted.greeting = encode(p.ConnAck(False, 0))
    seen: list[BaseException] = []
    for begin in (partial(init_session, "me"), adopt_session):
        await try_a_life(scripted, partial(begin, persistence), seen)
    assert bool(seen) == (method != "close" or not isinstance(error(), OSError))
    assert not any(isinstance(failure, trio.Cancelled) for failure in seen)
    persistence.raises = ""
    await (await still_usable(persistence)).aclose()


async def try_a_life(
    scripted: ScriptedBroker,
    begin: Callable[[], Awaitable[Session]],
    seen: list[BaseException],
) -> None:
    try:
        session = await begin()
        async with open_client(scripted.dialer, session=session) as client:
            await client.enqueue("t", b"x")
            await client.aclose()
    except BaseException as failure:  # noqa: ASYNC103, BLE001, whatever it raises
        seen.append(failure)


async def leave_cleanly(client: Client) -> None:
    pass


async def leave_by_an_exception(client: Client) -> None:
    raise ZeroDivisionError


async def leave_cancelled(client: Client) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.disconnect()
    raise ZeroDivisionError


WAYS = [leave_cleanly, leave_by_an_exception, leave_cancelled, Client.aclose, Client.disconnect]


class Hanging(MemoryPersistence):
    hangs = False

    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        if self.hangs:
            await trio.sleep_forever()
        await super().commit(saves, deletes)

    async def close(self) -> None:
        if self.hangs:
            await trio.sleep_forever()
        await super().close()


@pytest.mark.parametrize("leave", WAYS)
async def test_however_a_client_is_left_a_storage_that_hangs_does_not_keep_it(
    leave: Callable[[Client], Awaitable[None]], scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = Hanging()
    began = math.inf
    exchanges: list[Exchange] = []
    try:
        async with staged(scripted, persistence=await begun(scripted, persistence)) as on:
            persistence.hangs = True
            await on.link.send(delivery(1, 2), delivery(2, 1))
            exchanges += [on.client.enqueue_nowait("t", b"x", qos=qos) for qos in (1, 2)]
            await on.client.messages.receive()
            await trio.sleep(1)
            exchanges += [on.client.enqueue_nowait("t", b"y", qos=qos) for qos in (1, 2)]
            began = trio.current_time()
            await leave(on.client)
    except ZeroDivisionError:
        pass
    assert trio.current_time() - began <= 4 * LAST + 1
    for exchange in exchanges:
        with pytest.raises((ClosedInDoubt, PersistenceError)):
            await exchange.wait()
    persistence.hangs = False
    await (await still_usable(persistence)).aclose()


async def begun(scripted: ScriptedBroker, persistence: MemoryPersistence) -> MemoryPersistence:
    """After its first connect."""
    session = await init_session("me", persistence)
    async with open_client(scripted.dialer, session=session) as client:
        await (await scripted.accepted()).expect(p.Disconnect)
        await scripted.accepted()
        await client.aclose()
    return persistence


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
async def test_cancelled_during_the_first_connect(
    seconds: float, scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = Odd()
    scripted.dial_seconds = 1
    session = await init_session("me", persistence)
    with trio.move_on_after(seconds):
        async with open_client(scripted.dialer, session=session):
            await trio.sleep(1)
    assert not persistence.is_open
    session = await adopt_session(persistence)
    await session.aclose()


@pytest.mark.parametrize(
    "packets",
    [
        [p.PubRel(packet_id) for packet_id in range(1, 65_536)],
        [p.PubRec(packet_id) for packet_id in range(1, 65_536)],
        [delivery(packet_id, 2) for packet_id in range(1, 65_536)],
        [delivery(7, 2, dup=True)] * 65_535,
    ],
    ids=["PUBREL", "PUBREC", "PUBLISH", "the same PUBLISH"],
)
async def test_a_broker_that_floods_while_the_storage_hangs(
    packets: list[p.Packet], scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = Hanging()
    async with staged(scripted, persistence=await begun(scripted, persistence)) as on:
        persistence.hangs = True
        exchange = on.client.enqueue_nowait("t", b"x")
        data = b"".join(map(encode, packets))
        for _ in range(3):
            await on.link.send_bytes(data)
        await trio.sleep(10)
        statistics = on.client.statistics()
        assert statistics.buffered_messages <= 2000
        assert statistics.connects == (2 if packets[0] == packets[-1] else 1)
        assert not exchange.accepted
        await on.client.aclose()


async def test_a_session_that_is_discarded_is_adopted_afterwards(
    autojump_clock: MockClock,
) -> None:
    persistence = MemoryPersistence()
    async with open_broker() as broker, open_client(broker.dialer, client_id="o") as observer:
        await observer.subscribe("out")
        session = await init_session("me", persistence)
        async with open_client(broker.dialer, session=session) as client:
            await client.subscribe("in")
            for number in range(3):
                broker.publish("in", b"%d" % number, qos=2)
            await client.messages.receive()
            await client.messages.receive()
            broker.pause()
            await client.enqueue("out", b"kept", qos=2)
            await trio.lowlevel.checkpoint()
            broker.resume()
            await client.disconnect(discard=True)
        session = await adopt_session(persistence)
        async with open_client(broker.dialer, session=session) as client:
            assert not client.session_present
            await client.subscribe("in")
            for number in range(5):
                broker.publish("in", b"new %d" % number, qos=2)
            for number in range(5):
                assert (await client.messages.receive()).payload == b"new %d" % number
            for exchange in session.pending:
                await exchange.wait()
        assert (await observer.messages.receive()).payload == b"kept"


async def test_messages_that_the_application_holds_when_the_broker_loses_the_session(
    autojump_clock: MockClock,
) -> None:
    persistence = MemoryPersistence()
    async with open_broker() as broker:
        session = await init_session("me", persistence)
        async with open_client(broker.dialer, session=session) as client:
            await client.subscribe("in")
            for number in range(5):
                broker.publish("in", b"%d" % number, qos=2)
            assert (await client.messages.receive()).payload == b"0"
            persistence.commit_seconds = 1
            broker.crash(keep_sessions=False)
            await broker.wait_subscribed("me", "in")
            for number in range(5, 10):
                broker.publish("in", b"%d" % number, qos=2)
            for number in range(1, 10):
                with trio.fail_after(20):
                    assert (await client.messages.receive()).payload == b"%d" % number
        assert broker.violations == []


@pytest.mark.parametrize("messages", [1, 2])
async def test_a_small_buffer_and_a_slow_storage_in_both_directions(
    messages: int, autojump_clock: MockClock
) -> None:
    persistence = MemoryPersistence()
    async with open_broker() as broker:
        session = await init_session("me", persistence)
        persistence.commit_seconds = 0.2
        async with open_client(
            broker.dialer,
            session=session,
            buffer=Buffer(messages=messages),
            exactly_once_max=1,
            reconnect_wait_min=0.01,  # it is given back what it cannot hold, again and again
            reconnect_wait_max=0.1,
        ) as client:
            await client.subscribe("t")
            for number in range(30):
                await client.enqueue("t", b"%d" % number, qos=2)
            for number in range(30):
                with trio.fail_after(60):
                    message = await client.messages.receive()
                    assert message.payload == b"%d" % number
                    await client.publish("u", b"from the loop", qos=2)
        assert broker.violations == []


# What was found


@pytest.fixture
def alarm() -> Iterator[None]:
    def frozen(*_: object) -> None:
        raise AssertionError("the event loop is frozen")

    signal.signal(signal.SIGALRM, frozen)
    signal.alarm(30)
    yield
    signal.alarm(0)


async def test_disconnect_of_an_outer_task_freezes_the_loop(
    scripted: ScriptedBroker, autojump_clock: MockClock, alarm: None
) -> None:
    persistence = MemoryPersistence()
    async with trio.open_nursery() as outer:
        with pytest.raises(ZeroDivisionError):
            async with open_client(
                scripted.dialer, session=await init_session("me", persistence)
            ) as client:
                await (await scripted.accepted()).expect(p.Disconnect)
                persistence.commit_seconds = 1
                persistence.failure = ZeroDivisionError()
                client.enqueue_nowait("t", b"x")
                outer.start_soon(client.disconnect)  # a task that the client does not cancel
                await trio.sleep_forever()
        outer.cancel_scope.cancel()


async def test_shielded_disconnect_freezes_the_loop_volatile(
    scripted: ScriptedBroker, autojump_clock: MockClock, alarm: None
) -> None:
    dials = 0

    async def dialer() -> trio.abc.Stream:
        nonlocal dials
        dials += 1
        if dials > 1:
            raise ZeroDivisionError
        return await scripted.dialer()

    with pytest.raises(ZeroDivisionError):
        async with open_client(dialer, client_id="me") as client:
            link = await scripted.accepted()
            client.enqueue_nowait("t", b"x")
            await link.expect(p.Delivery)
            await link.close()
            with trio.CancelScope(shield=True):
                await client.disconnect()


async def test_lost_connack_subscriptions(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """The broker restarts, takes CONNECT, and the connection breaks before CONNACK is here."""
    async with open_client(scripted.dialer, session=volatile_session("me")) as client:
        link = await scripted.accepted()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.subscribe, "t")
            await link.expect(p.Subscribe)
            await link.send(p.SubAck(1, (2,)))
        scripted.greeting = b""
        await link.close()
        link = await scripted.accepted()  # here the broker begins a new session, without any
        await link.close()  # subscription; its CONNACK, session present 0, is lost
        scripted.greeting = encode(p.ConnAck(True, 0))  # the session is the new one
        link = await scripted.accepted()
        with trio.move_on_after(100) as scope:
            while not isinstance(await link.next(), p.Subscribe):
                await link.send(p.PingResp())
        await client.aclose()
        assert not scope.cancelled_caught, "never subscribes again: deaf for ever"


async def test_initial_discard_never_ends_while_messages_are_accepted(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = MemoryPersistence()
    session = await init_session("me", persistence)
    persistence.commit_seconds = 0.05

    async def publish() -> None:
        while True:
            with suppress(ClientClosed):
                client.enqueue_nowait("t", b"x")
            await trio.sleep(0.04)

    async def broker() -> None:
        while True:
            link = await scripted.accepted()
            await link.next()

    async with trio.open_nursery() as nursery:
        async with open_client(scripted.dialer, session=session, wait_online=False) as client:
            nursery.start_soon(publish)
            nursery.start_soon(broker)
            with trio.move_on_after(120) as scope:
                await client.wait_online()
            await client.aclose()
        nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught, "never online"


async def test_lost_session_is_not_served_while_messages_are_accepted(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery, staged(scripted, most=10_000) as on:
        on.persistence.commit_seconds = 0.05
        await on.link.send(delivery(1, 2))
        await on.client.messages.receive()
        on.client.messages.acknowledge()
        await on.link.expect(p.PubRec)

        async def publish() -> None:
            while True:
                with suppress(ClientClosed):
                    on.client.enqueue_nowait("t", b"x")
                await trio.sleep(0.04)

        nursery.start_soon(publish)
        await trio.sleep(0.3)
        await on.link.close()
        link = await scripted.accepted()
        with trio.move_on_after(15) as scope:
            while (packet := await link.next()) and not isinstance(packet, p.Delivery):
                pass
            assert packet is not None, "closed: 'cannot store that ...'"
        nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught, "nothing is written"


class StoresAndHangs(MemoryPersistence):
    hangs = False

    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        await super().commit(saves, deletes)
        if self.hangs and saves:
            await trio.sleep(1000)


async def test_persistence_error_for_a_message_that_is_stored(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = StoresAndHangs()
    session = await init_session("me", persistence)
    with pytest.raises(ZeroDivisionError):
        async with open_client(scripted.dialer, session=session) as client:
            await (await scripted.accepted()).expect(p.Disconnect)
            persistence.hangs = True
            exchange = client.enqueue_nowait("t", b"x")
            await trio.sleep(1)
            raise ZeroDivisionError
    session = await adopt_session(persistence)
    assert len(session.pending) == 1  # it will be sent
    with pytest.raises(ClosedInDoubt):  # and not PersistenceError, "will not be"
        await exchange.wait()


async def test_refusal_while_a_commit_hangs(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = MemoryPersistence()
    session = await init_session("me", persistence)
    scripted.greeting = encode(p.ConnAck(False, 5))
    scripted.dial_seconds = 1
    persistence.commit_seconds = math.inf
    with pytest.raises(NotAuthorized):
        with trio.fail_after(100):
            async with open_client(scripted.dialer, session=session, wait_online=False) as client:
                client.enqueue_nowait("t", b"x")
                await client.wait_online()


class ClosesBadly(MemoryPersistence):
    async def close(self) -> None:
        raise RuntimeError("close")


async def test_close_hides_the_exception_of_the_body(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    session = await init_session("me", ClosesBadly())
    with pytest.raises((ZeroDivisionError, ExceptionGroup)):
        async with open_client(scripted.dialer, session=session):
            raise ZeroDivisionError
