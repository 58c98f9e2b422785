"""Where a `Scenario` is played: a broker, the client of the act, and what both of them saw."""

# ruff: noqa: SLF001, what is left behind shows inside

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import pytest
import trio

from trio_mqtt import (
    Client,
    ClientClosed,
    ClosedInDoubt,
    Denied,
    Exchange,
    MessageChannel,
    MQTTError,
    NotSent,
    Persistence,
    Session,
    adopt_session,
    init_session,
    open_client,
)
from trio_mqtt import _packets as p
from trio_mqtt._transfers import MAX_PENDING
from trio_mqtt.testing import Broker
from trio_mqtt.testing._broker_session import Session as BrokerSession

from .disturbance import CUTS, How, Play, Wire

_P = TypeVar("_P")

Kind: TypeAlias = Literal["generated", "volatile", "durable"]
"""Of session."""
KINDS: tuple[Kind, ...] = ("generated", "volatile", "durable")
Verdict: TypeAlias = Literal["done", "canceled", "abandoned", "interrupted", "ended"]
Outcome: TypeAlias = Verdict | MQTTError
"""What a `RequestScope` said of the act, that its channel ended, or what it raised."""

PREPARED = 1.0
"""Units of time between what comes before the act and the act."""
LATER = PREPARED + 0.5
CLOSED = 3.0
"""Units after the close in which an act ends."""
SETTLED = 5.0
"""Units after which nothing is under way any more."""


class Stage:
    """A broker, one client at a time, and what became of it all."""

    def __init__(
        self,
        kind: Kind,
        play: Play,
        broker: Broker,
        persistence: Persistence,
        nursery: trio.Nursery,
        *,
        settings: Mapping[str, Any],
        unit: float,
    ) -> None:
        self.kind = kind
        self.play = play
        self.broker = broker
        self.persistence = persistence
        self.nursery = nursery
        self._settings = settings
        self.unit = unit
        """Seconds, which are virtual or fractions."""
        self.clients: list[Client] = []
        self._wires: list[Wire] = []
        self._observer = BrokerSession("observer", clean=False, max_in_flight=1)
        self._observer.subscriptions["#"] = 2
        broker._core.sessions["observer"] = self._observer
        self.reachable = trio.Event()
        """Whether the broker is, for which dialling waits."""
        self.reachable.set()
        self.failing = 0
        """How many attempts to dial fail."""
        self.closed_at: float | None = None
        self.closed_offline = False
        """Whether the broker was not there when the client was closed."""
        self.exchanges: list[Exchange] = []
        """What the act enqueued."""
        self.got: list[int] = []
        """The messages that the act received and was done with."""
        self.got_beside: list[int] = []
        """Those that another consumer received."""
        self.beside = trio.CancelScope()
        self.shared: MessageChannel
        self.did: list[str] = []
        """What else the act got to."""

    # The client

    @property
    def client(self) -> Client:
        return self.clients[-1]

    async def dial(self) -> trio.abc.Stream:
        await self.reachable.wait()
        if self.failing:
            self.failing -= 1
            raise OSError("unreachable")
        wire = Wire(await self.broker.dialer(), self.play, self.nursery)
        self._wires.append(wire)
        return wire

    @asynccontextmanager
    async def opened(self, **settings: Any) -> AsyncGenerator[Client]:
        """The client, or another that goes on with its session."""
        if self.kind == "volatile":
            settings.setdefault("client_id", "c")
        elif self.kind == "durable":
            settings.setdefault("session", await self._session())
        settings = {
            "keep_alive": 0,
            "reconnect_wait_min": 0.01,
            "reconnect_wait_max": 0.05,
            **self._settings,
            **settings,
        }
        async with open_client(self.dial, **settings) as client:
            self.clients.append(client)
            yield client

    async def _session(self) -> Session:
        try:
            return await adopt_session(self.persistence)
        except Denied:
            return await init_session("c", self.persistence)

    @property
    def is_closed(self) -> bool:
        return self.client._supervisor.closed

    async def later(self, function: Callable[[], object]) -> None:
        """Calls it half a second into the act."""
        await trio.sleep(LATER * self.unit)
        function()

    def be_offline(self) -> None:
        """The broker is gone, and comes back half a second into the act."""
        self.reachable = trio.Event()
        self.broker.disconnect_all()
        self.nursery.start_soon(self.later, self.reachable.set)

    def cut_once(self, client_id: str) -> Sequence[p.Packet] | None:
        """In the place of an answer, cuts the connection, the first time in the act."""
        if "cut" in self.did or not self.play.is_acting:
            return None
        self.did.append("cut")
        self.broker.disconnect(client_id)
        return ()

    async def settle(self) -> None:
        """Waits until nothing is under way any more."""
        await trio.sleep(SETTLED * self.unit)

    # What the broker saw

    def seen(self, kind: type[_P]) -> list[_P]:
        """The packets of this kind that clients sent."""
        packets = (record.packet for record in self.broker.log if record.direction == "in")
        return [packet for packet in packets if isinstance(packet, kind)]

    def connections(self) -> list[tuple[p.Connect, list[object]]]:
        """Each CONNECT, and what came after it."""
        found: list[tuple[p.Connect, list[object]]] = []
        for packet in self.seen(object):
            if isinstance(packet, p.Connect):
                found.append((packet, []))
            else:
                found[-1][1].append(packet)
        return found

    def routed(self, payload: bytes) -> int:
        """How often the broker took this message at QoS 1 or 2 for one to pass on."""
        return sum(message.payload == payload for message in self._observer.queue)

    @property
    def subscriptions(self) -> dict[str, p.QoS]:
        """The client's."""
        name = self.client._supervisor.settings.client_id
        session = self.broker.sessions.get(name)
        return {} if session is None else dict(session.subscriptions)

    @property
    def was_cut(self) -> bool:
        """Whether the connection ended in the middle of the act."""
        return "cut" in self.did or self.play.disturbance.how not in {"not", "cancel"}

    # What has to be true

    def check_published(self, payload: bytes, qos: p.QoS, outcome: Outcome) -> None:
        """The verdict on a `Client.publish` is true."""
        how = self.play.disturbance.how
        if qos == 0:
            times = sum(message.payload == payload for message in self.seen(p.Message))
            assert times <= 1
            assert not (times and (outcome == "canceled" or isinstance(outcome, NotSent)))
            assert outcome in {"done", "canceled"} or isinstance(outcome, NotSent)
            assert times == (outcome == "done") or how in CUTS or how == "close"
            return
        times = self.routed(payload)
        if outcome == "canceled" or isinstance(outcome, NotSent):
            assert times == 0
            return
        assert outcome in {"done", "abandoned"} or isinstance(outcome, ClosedInDoubt)
        if outcome == "done" or how != "close" or self.kind == "durable":
            assert times >= 1
        if (qos == 2 and self.kind != "generated") or not self.was_cut:
            assert times <= 1

    def check_received(
        self, qos: p.QoS, numbers: Sequence[int], *, at_most: int, may_miss: int
    ) -> None:
        """Of the messages from the broker all came, each as often as it should."""
        times = Counter(self.got)
        assert set(times) <= set(numbers)
        closed = self.play.disturbance.how == "close"
        if self.kind == "generated":
            may_miss = len(numbers) if self.was_cut else may_miss
            assert len(times) >= len(numbers) - may_miss
        elif qos or not self.was_cut:
            assert set(times) == set(numbers)
        if not self.was_cut or (qos == 2 and not closed):
            assert self.got == sorted(times)
        if qos == 2 and closed and self.kind == "durable":
            assert sum(times.values()) <= len(numbers) + at_most

    async def become_idle(self) -> None:
        """The client is as if nothing had happened, soon where time is real."""
        with trio.move_on_after(0 if self.unit == 1 else 10):
            while True:
                with suppress(AssertionError):
                    return check_idle(self.client)
                await trio.sleep(0.01)
        return check_idle(self.client)

    async def check_next(self) -> None:
        """The next requests of each kind work."""
        client = self.client
        for qos in p.QOS_LEVELS:
            await client.publish("next", f"next {qos}", qos=qos)
        assert await client.subscribe("next") == (2,)
        await client.ping()
        self.broker.publish("next", "to us", qos=2)
        assert (await client.messages.receive()).payload == b"to us"
        client.messages.acknowledge()
        await client.unsubscribe("next")
        async with client.open_subscription("next") as messages:
            await client.publish("next", "by us", qos=1)
            assert (await messages.receive()).payload == b"by us"
        await self.settle()
        await self.become_idle()

    async def check_closed(self) -> None:
        """Every call says that the client was closed, and nothing hangs."""
        client = self.client
        for call in (
            lambda: client.publish("a", b""),
            lambda: client.publish("a", b"", qos=1),
            lambda: client.enqueue("a", b"", qos=2),
            lambda: client.clear_retained("a"),
            client.flush,
            lambda: client.subscribe("a"),
            lambda: client.unsubscribe("a"),
            lambda: client.open_subscription("a").__aenter__(),
            client.ping,
            client.wait_online,
            client.disconnect,
        ):
            with pytest.raises(ClientClosed):
                await call()
        for function in (client.publish_nowait, client.enqueue_nowait):
            with pytest.raises(ClientClosed):
                function("a", b"")
        with pytest.raises(trio.EndOfChannel):
            await client.messages.receive()
        await client.wait_offline()
        await client.aclose()
        for exchange in self.exchanges:
            if not exchange.confirmed:
                with pytest.raises((ClosedInDoubt, NotSent)):
                    await exchange.wait()
        assert len(client._supervisor.demand) == 0

    def check_stored(self) -> None:
        """A client that was left without an exception has stored everything."""
        assert not self.client._session.has_records

    def check_left(self) -> None:
        """Nothing is left of the client."""
        assert all(wire.closed for wire in self._wires)
        assert not any(session.connected for session in self.broker.sessions.values())
        assert not self.broker.violations


def check_idle(client: Client) -> None:
    """The client is as if nothing had happened."""
    supervisor, router = client._supervisor, client._supervisor.router
    session, answers = supervisor.session, supervisor.answers
    assert dict(session._ids.outstanding) == {}
    assert session.unconfirmed == 0
    assert session.request_room == MAX_PENDING
    assert not session.awaits_answers
    assert session.journal is None or not session.journal
    assert answers._answers == {}
    for room in answers._rooms.values():
        assert not room.waiting
    assert len(supervisor.demand) == 0
    assert not supervisor.bells.space.waiting
    assert not supervisor.bells.progress
    subscriptions = session.subscriptions
    assert subscriptions._due == subscriptions._owed == {}
    assert not subscriptions._being_left
    assert all(not entry.lost for entry in subscriptions._filters.values())
    assert not router.is_full
    statistics = client.statistics()
    assert (statistics.buffered_messages, statistics.buffered_bytes) == (0, 0)


class Scenario:
    """An act of an application: see above."""

    settings: ClassVar[dict[str, Any]] = {}
    """Of the client."""
    broker: ClassVar[dict[str, Any]] = {}
    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    also: ClassVar[tuple[type[MQTTError], ...]] = ()
    """What the act may raise when the client is closed, besides that it was."""
    cuttable: ClassVar[bool] = True
    """Whether to cut the connection at every byte."""
    silent: tuple[How, ...] = ()
    """Which of `CUTS` there are none of."""
    opens_client: ClassVar[bool] = False
    """Whether the act does, so that there is none before."""
    storage_fails: ClassVar[bool] = False
    """Whether it does as told, which `MemoryPersistence` can."""

    def answer(self, stage: Stage, client_id: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        """What the broker sends to a client instead of this; None for this."""

    async def prepare(self, stage: Stage) -> None:
        """What comes before."""

    async def act(self, stage: Stage) -> None:
        """What is disturbed."""
        raise NotImplementedError

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        """What has to be true once everything has settled. The client is open."""
        raise NotImplementedError
