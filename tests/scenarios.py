"""What applications do with a client, for `disturbed`: acts, and what has to be true after each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Literal

import pytest
import trio

from trio_mqtt import (
    BigMessage,
    Client,
    ClientClosed,
    ClosedInDoubt,
    ConnectionLost,
    Down,
    InDoubt,
    Message,
    MessageChannel,
    NotSent,
    PersistenceError,
    SubscribeError,
    Will,
)
from trio_mqtt import _packets as p

from .disturbance import CUTS
from .memory_persistence import MemoryPersistence
from .stage import LATER, Outcome, Scenario, Stage

NUMBERS = (1, 2, 3, 4)
ONE = {"at_least_once_max": 1, "exactly_once_max": 1}


def is_not_sent(outcome: Outcome) -> bool:
    return outcome == "canceled" or isinstance(outcome, NotSent)


# Publishing


class Publish(Scenario):
    """Publishes one message, and awaits what there is to await."""

    def __init__(self, qos: p.QoS) -> None:
        self.qos: p.QoS = qos
        if type(self) is Publish and not qos:
            self.silent = ("truncate",)

    async def act(self, stage: Stage) -> None:
        await stage.client.publish("a", b"m", qos=self.qos)

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        stage.check_published(b"m", self.qos, outcome)


class PublishInTurn(Publish):
    """Waits for room, as one is unconfirmed until half a second into the act."""

    settings = ONE

    async def prepare(self, stage: Stage) -> None:
        stage.broker.pause()
        stage.nursery.start_soon(stage.later, stage.broker.resume)
        for qos in (1, 2):
            stage.exchanges.append(await stage.client.enqueue("a", b"earlier", qos=qos))


class PublishToASlowBroker(Publish):
    """Waits for the network to take what is in front."""

    cuttable = False  # with as many bytes

    def __init__(self) -> None:
        super().__init__(0)

    async def prepare(self, stage: Stage) -> None:
        stage.play.open_gate = trio.Event()
        stage.nursery.start_soon(stage.later, stage.play.open_gate.set)
        stage.client.publish_nowait("a", bytes(1024 * 1024))


class PublishOffline(Publish):
    """The broker is not there until half a second into the act."""

    async def prepare(self, stage: Stage) -> None:
        stage.be_offline()


class PublishDown(Publish):
    """The broker is not there, and the attempt fails that is under way until then."""

    also = (Down,)  # which came first

    async def prepare(self, stage: Stage) -> None:
        stage.be_offline()
        stage.failing = 1
        stage.nursery.start_soon(self._fail_no_more, stage)

    async def _fail_no_more(self, stage: Stage) -> None:
        await trio.sleep(2 * LATER * stage.unit)  # in case it was closed before
        stage.failing = 0

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        assert outcome == "canceled" or isinstance(outcome, (Down, ClientClosed))
        await super().check(stage, outcome)


class PublishInterrupted(Publish):
    """The connection is lost instead of the first answer of a kind."""

    def __init__(self, qos: p.QoS, at: type[p.PubAck | p.PubRec | p.PubComp]) -> None:
        super().__init__(qos)
        self.at = at

    def answer(self, stage: Stage, client_id: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        return stage.cut_once(client_id) if isinstance(packet, self.at) else None


class Enqueue(Scenario):
    """Hands over one message."""

    def __init__(self, qos: Literal[1, 2]) -> None:
        self.qos: Literal[1, 2] = qos

    async def act(self, stage: Stage) -> None:
        stage.exchanges.append(await stage.client.enqueue("a", b"m", qos=self.qos))

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        if outcome == "interrupted":
            outcome = "done"  # the wait was, not the transfer
        lost = stage.play.disturbance.how == "close" and stage.kind != "durable"
        confirmed = all(exchange.confirmed for exchange in stage.exchanges)
        assert confirmed or stage.play.disturbance.how == "close"
        if not (outcome == "done" and lost and not confirmed):
            stage.check_published(b"m", self.qos, outcome)


class EnqueueInTurn(Enqueue):
    """Waits for room."""

    settings = ONE
    prepare = PublishInTurn.prepare


class EnqueueUnstored(Enqueue):
    """Nothing can be stored until half a second into the act."""

    kinds = ("durable",)
    cuttable = False
    storage_fails = True
    also = (PersistenceError,)

    async def prepare(self, stage: Stage) -> None:
        assert isinstance(stage.persistence, MemoryPersistence)
        stage.persistence.failure = OSError("full")
        stage.nursery.start_soon(stage.later, partial(setattr, stage.persistence, "failure", None))

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        assert outcome in {"canceled", "abandoned"} or isinstance(outcome, (NotSent, ClosedInDoubt))
        assert stage.routed(b"m") == 0


class Follow(Enqueue):
    """Hands over one message, and follows its transfer."""

    async def act(self, stage: Stage) -> None:
        await super().act(stage)
        exchange = stage.exchanges[-1]
        await exchange.wait_accepted()
        async for interruption in exchange:
            assert isinstance(interruption, InDoubt)
            assert interruption.__cause__ is not None
        assert exchange.confirmed


class Flush(Scenario):
    """Waits until three messages are written."""

    async def act(self, stage: Stage) -> None:
        for qos in (1, 2, 1):
            stage.exchanges.append(stage.client.enqueue_nowait("a", b"m", qos=qos))
        await stage.client.flush()

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        assert outcome in {"done", "interrupted"} or isinstance(outcome, ClientClosed)
        if stage.kind == "durable" or stage.play.disturbance.how != "close":
            assert stage.routed(b"m") >= 3


# Requests


class Subscribe(Scenario):
    """Subscribes to so many topics."""

    def __init__(self, count: int = 1) -> None:
        self.filters = [f"s{number}" for number in range(count)]

    async def act(self, stage: Stage) -> None:
        assert await stage.client.subscribe(*self.filters) == (2,) * len(self.filters)

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        requests = [request for packet in stage.seen(p.Subscribe) for request in packet.requests]
        sent = {name for name, _ in requests} & set(self.filters)
        if is_not_sent(outcome):
            assert not sent
        elif isinstance(outcome, str):
            assert outcome in {"done", "abandoned"}
            assert sent == set(self.filters)
            if stage.kind != "generated" or stage.play.disturbance.how != "close":
                assert set(stage.subscriptions) == set(self.filters)
        else:
            assert isinstance(outcome, InDoubt)
            assert self.filters[0].encode() in stage.play.handed
        if outcome not in {"done", "abandoned"} and len(self.filters) == 1:
            held = stage.client._session.subscriptions.match(self.filters[0])  # noqa: SLF001
            assert held == []
        await stage.client.unsubscribe(*self.filters)


class SubscribeOffline(Subscribe):
    """The broker is not there until half a second into the act."""

    prepare = PublishOffline.prepare


class SubscribeDown(Subscribe):
    """The broker is not there, and the attempt fails that is under way until then."""

    also = (Down,)
    prepare = PublishDown.prepare
    _fail_no_more = PublishDown._fail_no_more  # noqa: SLF001, as above

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        assert outcome == "canceled" or isinstance(outcome, (Down, ClientClosed))
        await super().check(stage, outcome)


class Unsubscribe(Scenario):
    """Ends a subscription."""

    async def prepare(self, stage: Stage) -> None:
        await stage.client.subscribe("s0")

    async def act(self, stage: Stage) -> None:
        await stage.client.unsubscribe("s0")

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        sent = stage.seen(p.Unsubscribe)
        if is_not_sent(outcome):
            assert not sent
            if stage.kind != "generated" or stage.play.disturbance.how != "close":
                assert set(stage.subscriptions) == {"s0"}
        elif isinstance(outcome, str):
            assert outcome in {"done", "abandoned"}
            assert sent
            assert not stage.subscriptions
        else:
            assert isinstance(outcome, InDoubt)
            assert b"s0" in stage.play.handed
        await stage.client.unsubscribe("s0")


class Ping(Scenario):
    """Makes a round trip."""

    async def act(self, stage: Stage) -> None:
        assert await stage.client.ping() >= 0

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        sent = len(stage.seen(p.PingReq))
        if is_not_sent(outcome):
            assert not sent
        elif isinstance(outcome, str):
            assert outcome in {"done", "abandoned"}
            assert sent == 1
        else:
            assert isinstance(outcome, InDoubt)
            assert b"\xc0\x00" in stage.play.handed


class PingInTurn(Scenario):
    """Waits for another's to be answered."""

    async def prepare(self, stage: Stage) -> None:
        stage.broker.pause()
        stage.nursery.start_soon(stage.later, stage.broker.resume)
        stage.nursery.start_soon(self._first, stage)

    async def _first(self, stage: Stage) -> None:
        try:
            await stage.client.ping()
        except InDoubt:
            stage.did.append("failed")

    async def act(self, stage: Stage) -> None:
        await stage.client.ping()

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        sent = len(stage.seen(p.PingReq))
        assert stage.did in ([], ["failed"])
        if is_not_sent(outcome):
            assert sent == 1
        elif isinstance(outcome, str):
            assert outcome in {"done", "abandoned"}
            assert sent == 2
        else:
            assert isinstance(outcome, InDoubt)


# Receiving


class Receiving(Scenario):
    """Takes four messages: two come before it asks, and two while it waits."""

    at_most = 1
    """How many messages at QoS 2 a durable session may receive again after a crash."""
    may_miss = 0
    """How many may get lost where the broker keeps no session."""
    puts_back = False
    """Whether a consumer that fails leaves the message that it has to the next."""

    def __init__(self, qos: p.QoS) -> None:
        self.qos: p.QoS = qos
        if type(self) is Receiving and not qos:
            self.silent = ("break", "swallow")

    async def prepare(self, stage: Stage) -> None:
        await self.subscribe(stage)
        self.publish(stage, NUMBERS[:2])
        stage.nursery.start_soon(stage.later, partial(self.publish, stage, NUMBERS[2:]))

    async def subscribe(self, stage: Stage) -> None:
        await stage.client.subscribe("t")

    def publish(self, stage: Stage, numbers: Sequence[int]) -> None:
        for number in numbers:
            stage.broker.publish("t", str(number), qos=self.qos)

    async def take(self, stage: Stage, channel: MessageChannel) -> None:
        """Takes what comes, up to the last, each with a little work, as long as it may come."""
        with trio.move_on_after(2 * stage.unit):
            while NUMBERS[-1] not in stage.got:
                await self.work_on(stage, channel, await channel.receive())

    async def work_on(self, stage: Stage, channel: MessageChannel, message: Message) -> None:
        if self.puts_back and message.qos:
            await trio.lowlevel.checkpoint()  # cancelled here, the message is the next one's
            channel.acknowledge()
        stage.got.append(int(message.payload))

    async def take_rest(self, stage: Stage, channel: MessageChannel) -> None:
        """Takes what is left for who comes next."""
        with trio.move_on_after(stage.unit):
            async for message in channel:
                await self.work_on(stage, channel, message)

    async def act(self, stage: Stage) -> None:
        await self.take(stage, stage.client.messages)

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        assert outcome in {"done", "interrupted", "ended"}
        await self.take_rest(stage, stage.client.messages)
        stage.check_received(self.qos, NUMBERS, at_most=self.at_most, may_miss=self.may_miss)
        await stage.client.unsubscribe("t")


class ReceivingInAScope(Receiving):
    """The consumer has a scope of its own; what it was not done with is the next one's."""

    puts_back = True

    async def act(self, stage: Stage) -> None:
        async with stage.client.open_subscription("t") as messages:
            await self.take(stage, messages)

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        await self.take_from_next(stage)
        await super().check(stage, "done")

    async def take_from_next(self, stage: Stage) -> None:
        async with stage.client.open_subscription("t") as messages:
            await self.take_rest(stage, messages)


class ReceivingAsAWorker(Receiving):
    """The consumer has a clone; what it was not done with is left to the original."""

    puts_back = True

    async def act(self, stage: Stage) -> None:
        with stage.client.messages.clone() as own:
            await self.take(stage, own)


class Polling(ReceivingAsAWorker):
    """The consumer does not wait."""

    async def act(self, stage: Stage) -> None:
        with stage.client.messages.clone() as own, trio.move_on_after(2 * stage.unit):
            while NUMBERS[-1] not in stage.got:
                try:
                    await self.work_on(stage, own, own.receive_nowait())
                except trio.WouldBlock:
                    await trio.sleep(0.1 * stage.unit)


class ReceivingBesideOthers(ReceivingInAScope):
    """Three workers take from one scope."""

    at_most = 3

    async def act(self, stage: Stage) -> None:
        async with stage.client.open_subscription("t") as messages, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(self._work, stage, messages.clone(), nursery.cancel_scope)

    async def _work(self, stage: Stage, own: MessageChannel, others: trio.CancelScope) -> None:
        with own, suppress(trio.EndOfChannel):
            await self.take(stage, own)
        others.cancel()

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        await self.take_from_next(stage)
        stage.got.sort()
        await super().check(stage, outcome)


class ReceivingInTwoScopes(ReceivingAsAWorker):
    """The consumer has a clone of a scope, and one that overlaps gets each message as well."""

    async def prepare(self, stage: Stage) -> None:
        await stage.nursery.start(self._hold_scopes, stage)
        await super().prepare(stage)

    async def _hold_scopes(self, stage: Stage, task_status: trio.TaskStatus[None]) -> None:
        async with (
            stage.client.open_subscription("t") as stage.shared,
            stage.client.open_subscription("#") as messages,
        ):
            task_status.started()
            with stage.beside:
                async for message in messages:
                    stage.got_beside.append(int(message.payload))

    async def act(self, stage: Stage) -> None:
        # The scope ends with the client, and with it the clone.
        with suppress(trio.ClosedResourceError), stage.shared.clone() as own:
            await self.take(stage, own)

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        if stage.play.disturbance.how != "close":
            await self.take_rest(stage, stage.shared)
        stage.beside.cancel()
        await stage.settle()
        if not stage.was_cut:
            assert stage.got_beside == list(NUMBERS)
        await super().check(stage, outcome)
        await stage.client.unsubscribe("#")


class ReceivingInterrupted(Receiving):
    """The connection is lost instead of the first PUBREL, that is in the middle of QoS 2."""

    def __init__(self) -> None:
        super().__init__(2)

    def answer(self, stage: Stage, client_id: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        return stage.cut_once(client_id) if isinstance(packet, p.PubRel) else None


class ReceivingInPieces(ReceivingAsAWorker):
    """The messages are streamed, and read in pieces, to the end or not."""

    may_miss = 1  # the beginning of one was taken, and the broker keeps no session to send it again

    settings: ClassVar[dict[str, Any]] = {"stream_over": 10}

    def publish(self, stage: Stage, numbers: Sequence[int]) -> None:
        for number in numbers:
            stage.broker.publish("t", str(number) * 30, qos=self.qos)

    async def work_on(self, stage: Stage, channel: MessageChannel, message: Message) -> None:
        assert isinstance(message, BigMessage)
        try:
            number = int((await message.receive_some(7))[:1])
            if number % 2:
                assert set(await message.read_all()) == set(str(number).encode())
        except ConnectionLost:
            return  # it comes again
        channel.acknowledge()
        stage.got.append(number)


# Scopes


class EnteringAScope(Scenario):
    """Enters a scope, does a step in it, and leaves it."""

    filters: tuple[str, ...] = ("s0", "s1")

    async def act(self, stage: Stage) -> None:
        async with stage.client.open_subscription(*self.filters):
            stage.did.append("entered")
            await trio.lowlevel.checkpoint()
            stage.did.append("leaving")

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        sent = {name for packet in stage.seen(p.Subscribe) for name, _ in packet.requests}
        entered, leaving = "entered" in stage.did, "leaving" in stage.did
        how = stage.play.disturbance.how
        if is_not_sent(outcome) or isinstance(outcome, ClientClosed):
            assert not entered
            assert not sent & set(self.filters)
        if outcome == "abandoned":
            assert not entered
            assert sent >= set(self.filters)
        if not entered and how != "close":
            assert not stage.subscriptions
        if leaving and how != "close":
            assert not stage.subscriptions
        if outcome == "interrupted" and stage.kind != "generated":
            assert set(stage.subscriptions) == (set() if leaving else set(self.filters))
        await stage.client.unsubscribe(*self.filters)


class EnteringAScopeThatFails(EnteringAScope):
    """The broker fails one of two topic filters."""

    broker: ClassVar[dict[str, Any]] = {"fail_filters": ("s1",)}

    async def act(self, stage: Stage) -> None:
        with pytest.raises(SubscribeError) as caught:
            await super().act(stage)
        assert caught.value.topic_filters == ("s1",)
        stage.did.append("failed")

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        assert "entered" not in stage.did
        assert ("failed" in stage.did) == (outcome == "done")
        await super().check(stage, outcome)


class EnteringAScopeOffline(EnteringAScope):
    """The broker is not there until half a second into the act."""

    prepare = PublishOffline.prepare

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        if isinstance(outcome, ClosedInDoubt):
            assert not stage.closed_offline  # for which nothing was sent
        await super().check(stage, outcome)


class EnteringAScopeTwice(EnteringAScope):
    """A scope in a scope of the same filters: only the last one out unsubscribes."""

    async def act(self, stage: Stage) -> None:
        async with stage.client.open_subscription(*self.filters):
            await super().act(stage)

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        if stage.play.disturbance.how != "close" and outcome == "done":
            assert not stage.subscriptions
        await stage.client.unsubscribe(*self.filters)


# The whole client


WILL = Will("will", b"gone", qos=1)


class Connecting(Scenario):
    """Opens a client, and leaves it."""

    opens_client = True

    def __init__(self, *, clean: bool = False) -> None:
        self.clean = clean

    async def act(self, stage: Stage) -> None:
        settings = {"clean_session": True} if self.clean and stage.kind == "volatile" else {}
        async with stage.opened(will=WILL, **settings):
            stage.did.append("entered")
            await trio.lowlevel.checkpoint()
            stage.did.append("leaving")

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        if stage.play.disturbance.how in {"not", "cancel"}:
            assert outcome in {"done", "canceled", "interrupted"}
        else:
            assert outcome == "done" or isinstance(outcome, Down)
        # The broker publishes the Will, unless DISCONNECT came: the one or the other, and once.
        parted = [
            any(isinstance(packet, p.Disconnect) for packet in packets)
            for connect, packets in stage.connections()
            if connect.will is not None
        ]
        assert stage.routed(b"gone") == parted.count(False)
        assert parted.count(True) == 0 or "leaving" in stage.did


class Adopting(Connecting):
    """Goes on with the session of an earlier client."""

    kinds = ("durable",)

    async def prepare(self, stage: Stage) -> None:
        async with stage.opened() as client:
            await client.publish("a", b"earlier", qos=2)


class Leaving(Scenario):
    """Leaves a client with a message unconfirmed until half a second into the act."""

    opens_client = True

    async def act(self, stage: Stage) -> None:
        async with stage.opened() as client:
            stage.broker.pause()
            stage.nursery.start_soon(stage.later, stage.broker.resume)
            stage.exchanges.append(await client.enqueue("a", b"m", qos=2))

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        how = stage.play.disturbance.how
        confirmed = all(exchange.confirmed for exchange in stage.exchanges)
        if outcome == "done":
            assert confirmed or stage.kind == "durable"
        if (stage.exchanges and stage.kind == "durable") or (stage.exchanges and confirmed):
            assert stage.routed(b"m") == 1 or (how in CUTS and stage.kind == "generated")
        elif not stage.exchanges and stage.kind != "durable":
            assert stage.routed(b"m") == 0 or how == "cancel"


class Disconnecting(Scenario):
    """Disconnects with a message unconfirmed until half a second into the act."""

    def __init__(self, *, discard: bool = False) -> None:
        self.discard = discard

    async def prepare(self, stage: Stage) -> None:
        stage.broker.pause()
        stage.nursery.start_soon(stage.later, stage.broker.resume)
        stage.exchanges.append(await stage.client.enqueue("a", b"m", qos=1))

    async def act(self, stage: Stage) -> None:
        await stage.client.disconnect(discard=self.discard)

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        how = stage.play.disturbance.how
        if how in {"not", "cancel"}:
            assert outcome in {"done", "canceled"}
            parted = [
                packets
                for connect, packets in stage.connections()  # but for those that merely discard
                if stage.kind == "generated" or not connect.clean_session
            ]
            assert (outcome == "done") == any(p.Disconnect() in packets for packets in parted)
            assert (outcome == "done") == (len(stage.clients) == 2)
            # A durable session does not wait for the answer: the message is sent again.
            assert stage.routed(b"m") == 1 or stage.kind == "durable"
        elif how == "close":
            assert outcome == "done" or isinstance(outcome, ClientClosed)
        else:
            assert outcome == "done" or (self.discard and isinstance(outcome, Down))
            assert stage.routed(b"m") >= 1


class DisconnectingOffline(Disconnecting):
    """The broker is not there until half a second into the act."""

    kinds = ("generated", "volatile")
    cuttable = False

    async def prepare(self, stage: Stage) -> None:
        stage.be_offline()
        stage.exchanges.append(await stage.client.enqueue("a", b"m", qos=1))


class DisconnectingBesideOthers(Disconnecting):
    """Another task waits for room, and has it if the client stays open."""

    kinds = ("generated", "volatile")  # a durable session does not wait
    settings = ONE

    async def prepare(self, stage: Stage) -> None:
        await super().prepare(stage)
        stage.nursery.start_soon(self._publish, stage, stage.client)

    async def _publish(self, stage: Stage, client: Client) -> None:
        try:
            await client.publish("a", b"other", qos=1)
            stage.did.append("published")
        except (ClientClosed, ClosedInDoubt):
            stage.did.append("closed")

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        if outcome == "canceled":
            assert stage.did == ["published"]
            assert stage.routed(b"other") == 1
        elif stage.play.disturbance.how in {"not", "close"}:
            assert stage.did == ["closed"]
        await super().check(stage, outcome)


class DisconnectingWithAMessage(Scenario):
    """Disconnects with a message in hand, which is acknowledged thereby."""

    kinds = ("volatile", "durable")
    silent = ("truncate",)

    async def prepare(self, stage: Stage) -> None:
        await stage.client.subscribe("t")
        stage.broker.publish("t", b"1", qos=1)

    async def act(self, stage: Stage) -> None:
        await stage.client.messages.receive()
        await stage.client.disconnect()

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        with trio.move_on_after(stage.unit):
            stage.got.append(int((await stage.client.messages.receive()).payload))
        stage.client.messages.acknowledge()
        if outcome == "done" and stage.play.disturbance.how in {"not", "cancel"}:
            assert stage.got == []
        await stage.client.unsubscribe("t")


class Living(Scenario):
    """A durable session's whole life: sends at QoS 2 what comes back to it."""

    opens_client = True
    kinds = ("durable",)

    async def prepare(self, stage: Stage) -> None:
        async with stage.opened() as client:
            await client.subscribe("t")

    async def act(self, stage: Stage) -> None:
        async with stage.opened() as client, client.open_subscription("t") as messages:
            for number in NUMBERS:
                stage.exchanges.append(await client.enqueue("t", str(number), qos=2))
            while NUMBERS[-1] not in stage.got:
                message = await messages.receive()
                await trio.lowlevel.checkpoint()
                messages.acknowledge()
                stage.got.append(int(message.payload))

    async def check(self, stage: Stage, outcome: Outcome) -> None:
        accepted = {str(number).encode() for number in NUMBERS[: len(stage.exchanges)]}
        times = {payload: stage.routed(payload) for payload in map(_payload, NUMBERS)}
        assert all(times[payload] == 1 for payload in accepted)
        assert all(count <= 1 for count in times.values())
        before = list(stage.got)
        async with stage.client.open_subscription("t") as messages:
            with trio.move_on_after(stage.unit):
                async for message in messages:
                    stage.got.append(int(message.payload))
        sent = [number for number in NUMBERS if times[_payload(number)]]
        again = sum(stage.got.count(number) - 1 for number in set(stage.got))
        assert set(stage.got) == set(sent)
        assert again <= (outcome != "done")
        assert before == sent[: len(before)]


def _payload(number: int) -> bytes:
    return str(number).encode()


SCENARIOS: dict[str, Scenario] = {
    "publish-0": Publish(0),
    "publish-1": Publish(1),
    "publish-2": Publish(2),
    "publish-in-turn-1": PublishInTurn(1),
    "publish-in-turn-2": PublishInTurn(2),
    "publish-to-a-slow-broker": PublishToASlowBroker(),
    "publish-offline-0": PublishOffline(0),
    "publish-offline-2": PublishOffline(2),
    "publish-down": PublishDown(0),
    "publish-interrupted-at-puback": PublishInterrupted(1, p.PubAck),
    "publish-interrupted-at-pubrec": PublishInterrupted(2, p.PubRec),
    "publish-interrupted-at-pubcomp": PublishInterrupted(2, p.PubComp),
    "enqueue-1": Enqueue(1),
    "enqueue-2": Enqueue(2),
    "enqueue-in-turn": EnqueueInTurn(2),
    "enqueue-unstored": EnqueueUnstored(2),
    "follow": Follow(2),
    "flush": Flush(),
    "subscribe": Subscribe(),
    "subscribe-in-two-packets": Subscribe(9),
    "subscribe-offline": SubscribeOffline(),
    "subscribe-down": SubscribeDown(),
    "unsubscribe": Unsubscribe(),
    "ping": Ping(),
    "ping-in-turn": PingInTurn(),
    "receiving-0": Receiving(0),
    "receiving-1": Receiving(1),
    "receiving-2": Receiving(2),
    "receiving-in-a-scope-0": ReceivingInAScope(0),
    "receiving-in-a-scope-1": ReceivingInAScope(1),
    "receiving-in-a-scope-2": ReceivingInAScope(2),
    "receiving-as-a-worker": ReceivingAsAWorker(2),
    "polling": Polling(2),
    "receiving-beside-others": ReceivingBesideOthers(2),
    "receiving-in-two-scopes-1": ReceivingInTwoScopes(1),
    "receiving-in-two-scopes-2": ReceivingInTwoScopes(2),
    "receiving-interrupted": ReceivingInterrupted(),
    "receiving-in-pieces-1": ReceivingInPieces(1),
    "receiving-in-pieces-2": ReceivingInPieces(2),
    "entering-a-scope": EnteringAScope(),
    "entering-a-scope-that-fails": EnteringAScopeThatFails(),
    "entering-a-scope-offline": EnteringAScopeOffline(),
    "entering-a-scope-twice": EnteringAScopeTwice(),
    "connecting": Connecting(),
    "connecting-clean": Connecting(clean=True),
    "adopting": Adopting(),
    "leaving": Leaving(),
    "disconnecting": Disconnecting(),
    "disconnecting-offline": DisconnectingOffline(),
    "disconnecting-beside-others": DisconnectingBesideOthers(),
    "disconnecting-with-a-message": DisconnectingWithAMessage(),
    "disconnecting-for-good": Disconnecting(discard=True),
    "living": Living(),
}
