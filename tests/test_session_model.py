"""A session and a broker, step by step at random, with crashes, against what both promise.

The broker is a small model that is exact. Hypothesis chooses what happens next: a message, a part
of what is on the wire arrives, a commit begins, succeeds, or fails with or without having stored
something, the connection is lost with what is in flight, the broker loses the session, the process
is killed. At the end everything drains, and then no message may be missing or have come twice.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Literal

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec
from trio_mqtt._journal import Batch
from trio_mqtt._records import BROKERS, decode_record
from trio_mqtt._recovery import new_session, recover
from trio_mqtt._requests import Stage, Transfer
from trio_mqtt._session import SessionState, Stored
from trio_mqtt._transfers import Limits
from trio_mqtt.testing._server311 import server_decoder

from .session_driver import Driver, ids, write
from .session_driver import delivery as broker_sends
from .test_session_durable import adopt, begin

LIMITS = Limits(
    at_least_once_max=6, exactly_once_max=6, at_least_once_window=2, exactly_once_window=2
)
BROKERS_WINDOW = 3

QoS = Literal[1, 2]
qos_levels = st.sampled_from([1, 2])
some = st.integers(0, 6)


# The broker


@attrs.define
class Outbound:
    """A message of the broker's that is on its way to the client."""

    number: int
    qos: QoS
    packet_id: int
    released: bool = False


class Broker:
    """One client's session at a broker that does everything right, and its application."""

    def __init__(self) -> None:
        self.has_session = False
        self.inbound: dict[int, int] = {}
        """Messages of QoS 2 that it has and that are not released, by packet identifier."""
        self.queue: deque[tuple[int, QoS]] = deque()
        self.in_flight: dict[int, Outbound] = {}
        self.answers: dict[int, deque[int]] = {1: deque(), 2: deque()}
        """Packet identifiers of PUBLISH packets on this connection in the order of the answers."""
        self.arrived: Counter[int] = Counter()
        self.first: dict[int, list[int]] = {1: [], 2: []}
        self.repeatable: Counter[int] = Counter()
        """How often the loss of its session may make a message come again."""
        self.ended: set[int] = set()
        """Messages to the client whose exchange is over."""
        self.lost: set[int] = set()
        """Those that were lost with the session."""
        self.wire: deque[p.Inbound] = deque()

    def lose_session(self) -> None:
        self.has_session = False
        self.repeatable.update(self.inbound.values())
        self.inbound.clear()
        self.lost.update(number for number, _ in self.queue)
        self.lost.update(message.number for message in self.in_flight.values())
        self.queue.clear()
        self.in_flight.clear()

    def connect(self) -> bool:
        """Returns whether there is a session, and sends again what it has."""
        present, self.has_session = self.has_session, True
        self.wire.clear()
        for order in self.answers.values():
            order.clear()
        for message in self.in_flight.values():
            if message.released:
                self.wire.append(p.PubRel(message.packet_id))
            else:
                self._send(message, dup=True)
        return present

    def publish(self, number: int, qos: QoS) -> None:
        self.queue.append((number, qos))

    def fill_window(self) -> None:
        while self.queue and len(self.in_flight) < BROKERS_WINDOW:
            number, qos = self.queue.popleft()
            packet_id = min(set(range(1, BROKERS_WINDOW + 1)) - set(self.in_flight))
            self.in_flight[packet_id] = message = Outbound(number, qos, packet_id)
            self._send(message, dup=False)

    def _send(self, message: Outbound, *, dup: bool) -> None:
        payload = b"%d" % message.number
        sent = p.Message("from broker", payload, message.qos, False, dup)
        self.wire.append(p.Delivery(sent, message.packet_id))
        self.answers[message.qos].append(message.packet_id)

    def receive(self, packet: p.Served) -> None:
        match packet:
            case p.Delivery():
                self._on_publish(packet.packet_id, packet.message)
            case p.PubRel():
                self.inbound.pop(packet.packet_id, None)
                self.wire.append(p.PubComp(packet.packet_id))
            case p.PubAck():
                self._on_puback(packet.packet_id)
            case p.PubRec():
                self._on_pubrec(packet.packet_id)
            case p.PubComp():
                self._on_pubcomp(packet.packet_id)
            case p.Subscribe():
                self.wire.append(p.SubAck(packet.packet_id, (2,) * len(packet.requests)))
            case _:
                raise AssertionError(packet)

    def _on_publish(self, packet_id: int, message: p.Message) -> None:
        number = int(message.payload)
        if message.qos == 1:
            self._arrive(number, 1)
            self.wire.append(p.PubAck(packet_id))
            return
        if packet_id in self.inbound:
            assert self.inbound[packet_id] == number, "an identifier that is in use"
            assert message.dup
        else:
            self.inbound[packet_id] = number
            self._arrive(number, 2)
        self.wire.append(p.PubRec(packet_id))

    def _arrive(self, number: int, qos: QoS) -> None:
        self.arrived[number] += 1
        if self.arrived[number] == 1:
            assert not self.first[qos] or self.first[qos][-1] < number, "out of order"
            self.first[qos].append(number)
        if qos == 2:
            assert self.arrived[number] <= 1 + self.repeatable[number], f"{number} twice"

    def _on_puback(self, packet_id: int) -> None:
        assert self.answers[1].popleft() == packet_id, "PUBACK out of order"
        self.ended.add(self.in_flight.pop(packet_id).number)

    def _on_pubrec(self, packet_id: int) -> None:
        assert self.answers[2].popleft() == packet_id, "PUBREC out of order"
        self.in_flight[packet_id].released = True
        self.wire.append(p.PubRel(packet_id))

    def _on_pubcomp(self, packet_id: int) -> None:
        assert self.in_flight[packet_id].released
        self.ended.add(self.in_flight.pop(packet_id).number)


# The client


@attrs.define
class Ours:
    """A message of ours: STORING, ACCEPTED, CONFIRMED, REFUSED, or GONE with the process."""

    number: int
    qos: QoS
    packet_id: int
    state: str = "STORING"


@attrs.define
class Theirs:
    """A message of the broker's at the application: NEW, HELD, RELEASING, DONE, or MAYBE after a
    crash in the middle of storing that."""

    qos: QoS
    state: str = "NEW"
    handed: int = 0


class Machine(RuleBasedStateMachine):
    """Everything that may happen to a session."""

    session: SessionState

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.durable = True
        self.values: dict[int, bytes] = {}
        self.batch: Batch | None = None
        self.wire: deque[p.Served] = deque()
        self.ours: list[Ours] = []
        self.by_transfer: dict[Transfer, Ours] = {}
        self.theirs: list[Theirs] = []
        self.held: list[p.Delivery] = []
        self.releasing: list[p.Delivery] = []
        self.received: set[int] = set()
        """Identifiers at QoS 2 that the application is done with, and PUBREL did not come for."""
        self.ghosts: set[int] = set()
        """Messages that were refused, though the commit that failed did store them."""
        self.pubrecs: dict[int, int] = {}
        """By packet identifier, as how many PUBREC packets came before it."""
        self.pubrecs_seen = 0
        self.latest_pubrel = -1
        self.overflows = False

    @initialize(durable=st.booleans())
    def begin(self, durable: bool) -> None:
        self.durable = durable
        if not durable:
            self.session = SessionState(Codec(), LIMITS)
            return
        recovery = new_session("me")
        self.values.update(recovery.saves)
        self.live(recovery.stored)
        self.session.discarded()

    def live(self, stored: Stored) -> None:
        self.session = SessionState(Codec(), LIMITS, stored)
        self.decoder = server_decoder()

    @property
    def attached(self) -> bool:
        return self.session.outbox is not None

    @property
    def served(self) -> bool:
        """Whether the supervisor reads and writes."""
        return self.attached and not self.session.is_clearing

    # The applications

    @rule(qos=qos_levels)
    def publish(self, qos: QoS) -> None:
        if self.session.room(qos) <= 0:
            return
        number = len(self.ours)
        transfer = self.session.publish("to broker", b"%d" % number, qos, retain=False)
        ours = Ours(number, qos, transfer.packet_id)
        self.ours.append(ours)
        self.by_transfer[transfer] = ours
        if not self.durable:
            ours.state = "ACCEPTED"

    @precondition(lambda self: self.served)
    @rule()
    def subscribe(self) -> None:
        self.session.subscribe([("from broker", 2)])

    @precondition(lambda self: self.broker.has_session)
    @rule(qos=qos_levels)
    def broker_publishes(self, qos: QoS) -> None:
        self.broker.publish(len(self.theirs), qos)
        self.theirs.append(Theirs(qos))
        if self.attached:
            self.broker.fill_window()

    @precondition(lambda self: self.held)
    @rule(index=some)
    def release(self, index: int) -> None:
        delivery = self.held.pop(index % len(self.held))
        self.their(delivery).state = "RELEASING"
        self.releasing.append(delivery)
        self.session.release(delivery)
        if delivery.message.qos == 1 or not self.durable:
            assert delivery.released
        self.note_released()

    def note_released(self) -> None:
        for delivery in self.releasing:
            if delivery.released:
                theirs, number = self.their(delivery), int(delivery.message.payload)
                theirs.state = "DONE"
                at_broker = self.broker.in_flight.get(delivery.packet_id)
                if theirs.qos == 2 and at_broker is not None and at_broker.number == number:
                    self.received.add(delivery.packet_id)
        self.releasing = [delivery for delivery in self.releasing if not delivery.released]

    def their(self, delivery: p.Delivery) -> Theirs:
        return self.theirs[int(delivery.message.payload)]

    # The wire

    @precondition(lambda self: self.served)
    @rule()
    def write(self) -> None:
        outbox = self.session.outbox
        assert outbox is not None
        for packet in self.decoder.feed(write(outbox)):
            if self.durable:
                self.check_stored(packet)
            if isinstance(packet, p.PubRel):
                self.check_order(self.pubrecs[packet.packet_id])
            self.wire.append(packet)

    def check_order(self, pubrel: int) -> None:
        """On one connection, as PUBREC came [MQTT-4.6.0-4]."""
        assert pubrel > self.latest_pubrel
        self.latest_pubrel = pubrel

    def check_stored(self, packet: p.Served) -> None:
        """Nothing is written before what it depends on is stored."""
        match packet:
            case p.Delivery():
                assert self.kind(packet.packet_id) == "PUBLISH"
            case p.PubRel():
                assert self.kind(packet.packet_id) == "RELEASED"
            case p.PubRec():
                assert self.kind(BROKERS | packet.packet_id) == "RECEIVED"
            case p.PubComp():
                assert self.kind(BROKERS | packet.packet_id) is None
            case _:
                pass

    def kind(self, key: int) -> str | None:
        value = self.values.get(key)
        return None if value is None else decode_record(key, value).kind.name

    @precondition(lambda self: self.wire)
    @rule(count=some)
    def broker_receives(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            self.broker.receive(self.wire.popleft())
        self.broker.fill_window()

    @precondition(lambda self: self.served and self.broker.wire)
    @rule(count=some, overflows=st.sampled_from([False] * 9 + [True]))
    def client_receives(self, count: int, overflows: bool) -> None:
        self.overflows |= overflows
        count = min(count, len(self.broker.wire))
        packets = [self.broker.wire.popleft() for _ in range(count)]
        self.received -= {packet.packet_id for packet in packets if isinstance(packet, p.PubRel)}
        for packet in packets:
            if isinstance(packet, p.PubRec):
                self.note_pubrec(packet.packet_id)
        self.session.receive(packets)
        self.hand_on()

    def note_pubrec(self, packet_id: int) -> None:
        self.pubrecs[packet_id] = self.pubrecs_seen
        self.pubrecs_seen += 1

    def hand_on(self) -> None:
        arrived, self.session.arrived = self.session.arrived, []
        for delivery in arrived:
            assert isinstance(delivery, p.Delivery)
            if self.overflows:
                self.session.give_back(delivery)
            else:
                self.hand(delivery)
        settled, self.session.settled = self.session.settled, []
        for request in settled:
            if isinstance(request, Transfer):
                self.settle(self.by_transfer.pop(request))

    def hand(self, delivery: p.Delivery) -> None:
        theirs = self.their(delivery)
        payloads = [held.message.payload for held in self.held]
        assert delivery.message.payload not in payloads, "the application has it"
        assert theirs.qos == 1 or theirs.state in ("NEW", "MAYBE"), theirs
        theirs.state = "HELD"
        theirs.handed += 1
        self.held.append(delivery)

    def settle(self, ours: Ours) -> None:
        assert ours.state in ("ACCEPTED", "CONFIRMED"), ours
        assert self.broker.arrived[ours.number]
        ours.state = "CONFIRMED"

    @precondition(lambda self: self.attached)
    @rule(still_arrives=some)
    def lose_connection(self, still_arrives: int) -> None:
        self.cut(still_arrives)
        self.session.detach("cut")

    def cut(self, still_arrives: int) -> None:
        """The rest of what is in flight is lost, in both directions."""
        for _ in range(min(still_arrives, len(self.wire))):
            self.broker.receive(self.wire.popleft())
        self.wire.clear()
        self.broker.wire.clear()
        self.latest_pubrel = -1
        self.overflows = False

    @precondition(lambda self: not self.attached)
    @rule()
    def connect(self) -> None:
        present = self.broker.connect()
        if not present:
            self.received.clear()
        self.decoder = server_decoder()
        self.session.attach(clean=False, present=present, restart_at=1)
        self.hand_on()
        self.broker.fill_window()

    @rule(still_arrives=some, session_lost=st.sampled_from([False, False, True]))
    def reconnect(self, still_arrives: int, session_lost: bool) -> None:
        if self.attached:
            self.lose_connection(still_arrives)
        if session_lost:
            self.broker.lose_session()
        self.connect()

    @precondition(lambda self: self.served)
    @rule()
    def round_trip(self) -> None:
        """Everything that is written arrives, and so does what the broker says to it."""
        self.write()
        self.broker_receives(len(self.wire))
        self.client_receives(len(self.broker.wire), overflows=False)

    @precondition(lambda self: self.batch is None and self.has_queued)
    @rule()
    def store(self) -> None:
        self.take()
        self.stored()

    @precondition(lambda self: not self.attached)
    @rule()
    def broker_loses_session(self) -> None:
        self.broker.lose_session()

    # The disk

    @precondition(lambda self: self.batch is None and self.has_queued)
    @rule()
    def take(self) -> None:
        assert self.session.journal is not None
        self.batch = self.session.journal.take()

    @property
    def has_queued(self) -> bool:
        return self.session.journal is not None and self.session.journal.has_queued

    @precondition(lambda self: self.batch is not None)
    @rule()
    def stored(self) -> None:
        batch = self.commit()
        self.session.stored(batch)
        accepted, self.session.accepted = self.session.accepted, []
        for transfer in accepted:
            assert self.by_transfer[transfer].state == "STORING"
            self.by_transfer[transfer].state = "ACCEPTED"
        self.note_released()

    def commit(self) -> Batch:
        """What was taken is safe."""
        assert self.batch is not None
        batch, self.batch = self.batch, None
        saves, deletes = batch.saves(), batch.deletes()
        assert not set(saves) & set(deletes)
        self.values.update(saves)
        for key in deletes:
            self.values.pop(key, None)
        self.ghosts.clear()
        return batch

    @precondition(lambda self: self.batch is not None)
    @rule(really=st.booleans())
    def not_stored(self, really: bool) -> None:
        if really:
            self.commit()
        self.batch = None
        for transfer in self.session.not_stored():
            ours = self.by_transfer.pop(transfer)
            assert ours.state == "STORING"
            assert transfer.stage is Stage.REFUSED
            ours.state = "REFUSED"
            if really:
                self.ghosts.add(ours.number)

    # The end of the process

    @precondition(lambda self: self.durable)
    @rule(still_arrives=some, really=st.booleans())
    def crash(self, still_arrives: int, really: bool) -> None:
        if self.session.is_clearing:
            # A CONNACK that said session present 0, and that nothing is stored of: the next one
            # says 1. Nothing that MQTT 3.1.1 has tells these sessions apart.
            self.broker.lose_session()
        if really and self.batch is not None:
            new = {
                self.by_transfer[item].number for item in self.batch.transfers if item.is_waiting
            }
            self.commit()
            self.ghosts = new
        self.batch = None
        self.cut(still_arrives)
        self.forget()
        self.restart()

    def forget(self) -> None:
        """What the process had in its memory alone."""
        for delivery in self.held:
            self.their(delivery).state = "NEW"
        for delivery in self.releasing:
            self.their(delivery).state = "MAYBE"
        self.held.clear()
        self.releasing.clear()
        self.by_transfer.clear()

    def restart(self) -> None:
        recovery = recover(self.values, Codec())
        assert not recovery.warnings
        assert not recovery.saves
        found: set[int] = set()
        for transfer in recovery.stored.transfers:
            message = recovery.messages.get(transfer.packet_id)
            ours = self.released(transfer) if message is None else self.ours[int(message.payload)]
            self.by_transfer[transfer] = ours
            found.add(ours.number)
        for ours in self.ours:
            self.check_found(ours, found=ours.number in found)
        self.ghosts.clear()
        self.received = set(recovery.stored.received)
        self.live(recovery.stored)

    def released(self, transfer: Transfer) -> Ours:
        """The latest message that had this identifier and was sent."""
        return [
            ours
            for ours in self.ours
            if ours.packet_id == transfer.packet_id and ours.state in ("ACCEPTED", "CONFIRMED")
        ][-1]

    def check_found(self, ours: Ours, *, found: bool) -> None:
        if ours.state == "ACCEPTED":
            assert found, f"{ours} is lost"
        elif ours.state in ("STORING", "REFUSED", "GONE"):
            assert not found or ours.number in self.ghosts, f"{ours} was never stored"
            ours.state = "ACCEPTED" if found else "GONE" if ours.state == "STORING" else ours.state

    # What holds

    @invariant()
    def nothing_arrives_that_was_not_accepted(self) -> None:
        for ours in self.ours:
            if ours.state in ("STORING", "REFUSED", "GONE"):
                assert not self.broker.arrived[ours.number], ours

    @invariant()
    def what_is_pending_is_counted(self) -> None:
        if hasattr(self, "session"):
            pending = self.session.unconfirmed_transfers()
            assert set(pending) == set(self.by_transfer)
            assert len(pending) == self.session.unconfirmed
            for qos, most in ((1, LIMITS.at_least_once_max), (2, LIMITS.exactly_once_max)):
                count = sum(transfer.qos == qos for transfer in pending)
                assert self.session.room(1 if qos == 1 else 2) == most - count

    @invariant()
    def what_is_stored_says_what_the_session_is(self) -> None:
        if not hasattr(self, "session") or not self.durable or self.session.has_records:
            return
        stored = recover(self.values, Codec()).stored
        pending = self.session.unconfirmed_transfers()
        assert {(t.packet_id, t.qos, t.stage is Stage.RELEASED) for t in stored.transfers} == {
            (t.packet_id, t.qos, t.stage is Stage.RELEASED) for t in pending
        }
        if not self.attached or self.served:
            assert stored.received == self.received

    def teardown(self) -> None:
        if hasattr(self, "session"):
            while self.drain():
                pass
            self.check_end()

    def drain(self) -> bool:
        """One step towards the end of everything; False when there is none."""
        if self.batch is not None:
            self.stored()
        elif self.has_queued:
            self.take()
        elif not self.attached:
            self.connect()
        elif self.session.has_output:
            self.write()
        elif self.wire:
            self.broker_receives(len(self.wire))
        elif self.broker.wire:
            self.client_receives(len(self.broker.wire), overflows=False)
        elif self.overflows:
            self.lose_connection(0)
        elif self.held:
            self.release(0)
        else:
            return False
        return True

    def check_end(self) -> None:
        for ours in self.ours:
            assert ours.state in ("CONFIRMED", "REFUSED", "GONE"), ours
        broker = self.broker
        assert not broker.inbound
        assert not broker.queue
        assert not broker.in_flight
        assert self.session.unconfirmed == 0
        assert not self.releasing
        assert {key % BROKERS for key in self.values} <= {0}
        for number, theirs in enumerate(self.theirs):
            if number not in broker.lost:
                assert number in broker.ended
                assert theirs.state in ("DONE", "MAYBE"), f"{number} {theirs} never came"


TestSessionModel = Machine.TestCase
TestSessionModel.settings = settings(
    derandomize=True, deadline=None, max_examples=60, stateful_step_count=60
)


# The same by weighted chance, as Hypothesis chooses short and uneventful runs

WEIGHTS = {
    "publish": 4.0,
    "broker_publishes": 4.0,
    "release": 5.0,
    "write": 3.0,
    "broker_receives": 3.0,
    "client_receives": 3.0,
    "round_trip": 4.0,
    "lose_connection": 0.7,
    "connect": 2.0,
    "reconnect": 0.7,
    "take": 2.0,
    "store": 2.0,
    "stored": 2.0,
    "not_stored": 1.0,
    "crash": 0.7,
    "subscribe": 0.3,
}


class Walk:
    """One run of the machine."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.machine = Machine()

    def run(self, steps: int) -> None:
        self.machine.begin(durable=self.chance.random() < 0.85)
        for name in self.chance.choices([*WEIGHTS], [*WEIGHTS.values()], k=steps):
            self.step(name)
            self.machine.nothing_arrives_that_was_not_accepted()
            self.machine.what_is_pending_is_counted()
            self.machine.what_is_stored_says_what_the_session_is()
        self.machine.teardown()

    def step(self, name: str) -> None:
        machine, chance = self.machine, self.chance
        count, really = chance.randrange(7), chance.random() < 0.5
        qos: QoS = chance.choice((1, 2))
        possible: dict[str, tuple[bool, Callable[[], None]]] = {
            "publish": (True, partial(machine.publish, qos=qos)),
            "broker_publishes": (
                machine.broker.has_session,
                partial(machine.broker_publishes, qos=qos),
            ),
            "release": (bool(machine.held), partial(machine.release, index=count)),
            "write": (machine.served, machine.write),
            "broker_receives": (bool(machine.wire), partial(machine.broker_receives, count=count)),
            "client_receives": (
                machine.served and bool(machine.broker.wire),
                partial(machine.client_receives, count=count, overflows=chance.random() < 0.05),
            ),
            "round_trip": (machine.served, machine.round_trip),
            "lose_connection": (
                machine.attached,
                partial(machine.lose_connection, still_arrives=count),
            ),
            "connect": (not machine.attached, machine.connect),
            "reconnect": (
                True,
                partial(machine.reconnect, still_arrives=count, session_lost=chance.random() < 0.3),
            ),
            "take": (machine.batch is None and machine.has_queued, machine.take),
            "store": (machine.batch is None and machine.has_queued, machine.store),
            "stored": (machine.batch is not None, machine.stored),
            "not_stored": (machine.batch is not None, partial(machine.not_stored, really=really)),
            "crash": (
                machine.durable,
                partial(machine.crash, still_arrives=count, really=really),
            ),
            "subscribe": (machine.served, machine.subscribe),
        }
        allowed, act = possible[name]
        if allowed:
            act()


@pytest.mark.parametrize("seed", range(5))
def test_walks(seed: int) -> None:
    for number in range(60):
        Walk(1000 * seed + number).run(100)


# What it found, and what was found beside it


def test_pubrel_not_stored_and_session_lost() -> None:
    driver = begin()
    driver.receive(broker_sends(7, 2, payload=b"old"))
    driver.release(*driver.delivered())
    driver.store()
    driver.receive(p.PubRel(7))  # its deletion is queued, the disk is slow or full
    driver.lose()
    driver.attach(present=False)  # and the broker lost the session
    # Whatever is_clearing says is all that the supervisor waits for.
    if driver.session.is_clearing:
        driver.store()
    assert driver.receive(broker_sends(7, 2, payload=b"new")) == []
    assert len(driver.delivered()) == 1  # handed out, not released: then the process is killed
    driver = adopt(driver)
    driver.receive(broker_sends(7, 2, payload=b"new", dup=True))
    assert [d.message.payload for d in driver.delivered()] == [b"new"], "swallowed: lost"


def test_pubrec_for_an_adopted_message_beyond_the_window() -> None:
    """A broker that resends PUBREC on reconnect (mosquitto 1.x did)."""
    driver = begin()
    driver.session.publish("t", b"1", 2, retain=False)
    driver.session.publish("t", b"2", 2, retain=False)
    driver.store()
    stored = recover(driver.values, Codec()).stored
    adopted = Driver(Limits(exactly_once_window=1), stored=stored, attach=False)
    adopted.values.update(driver.values)
    assert ids(adopted.attach(present=True)) == [("PUBLISH!", 1)]
    sent = adopted.receive(p.PubRec(2))
    sent += adopted.store()
    sent += adopted.receive(p.PubComp(2))
    sent += adopted.receive(p.PubRec(1))
    sent += adopted.store()
    sent += adopted.receive(p.PubComp(1))
    assert ("PUBLISH!", 2) not in ids(sent), "PUBREL 2 freed it at the broker: it arrives twice"
