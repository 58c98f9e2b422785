"""Holders of topic filters at random, against a model of a broker."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_mqtt import _packets as p
from trio_mqtt import _subscriptions
from trio_mqtt._codec311 import Codec
from trio_mqtt._requests import Holding, SubscribeRequest, UnsubscribeRequest
from trio_mqtt._session import SessionState
from trio_mqtt._topics import matches, routed_filter
from trio_mqtt._transfers import Limits
from trio_mqtt.testing._server311 import server_decoder

from .session_driver import write

FILTERS = ("a", "b", "+", "$share/g/a", "a/#")
TOPICS = ("a", "b", "a/b")
some = st.integers(0, 4)
one_filter = st.sampled_from(FILTERS)
several = st.lists(one_filter, min_size=1, max_size=3).map(tuple)
qos_levels: st.SearchStrategy[p.QoS] = st.sampled_from((0, 1, 2))


class Machine(RuleBasedStateMachine):
    """Scopes, an application, and a broker that answers in order and fails what it likes.

    A SUBSCRIBE that it fails leaves what it had from an earlier one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(_subscriptions, "MAX_PENDING", 3)
        self.session = SessionState(Codec(), Limits())
        self.subscriptions = self.session.subscriptions
        self.decoder = server_decoder()
        self.wire: deque[p.Served] = deque()
        self.answers: deque[p.Inbound] = deque()
        self.broker: set[str] = set()
        """The filters that it has."""
        self.remaining: set[str] = set()
        """Those that it may have though nobody holds them, and nobody is to blame."""
        self.scopes: dict[Holding, set[str]] = {}
        """What each holds still."""
        self.settled: set[Holding] = set()
        self.application: set[str] = set()
        self.asking: dict[SubscribeRequest, set[str]] = {}
        """Of each request of the application, what it wants of it still."""
        self.leaving: dict[UnsubscribeRequest, tuple[str, ...]] = {}
        """Requests of the application."""

    @property
    def attached(self) -> bool:
        return self.session.outbox is not None

    @property
    def has_room(self) -> bool:
        return self.attached and self.session.request_room > 0

    def held(self) -> set[str]:
        return self.application.union(*self.scopes.values(), *self.asking.values())

    # Those who hold

    @rule(topic_filters=several, qos=qos_levels)
    def hold(self, topic_filters: tuple[str, ...], qos: p.QoS) -> None:
        holding = Holding(topic_filters, qos)
        self.scopes[holding] = set(topic_filters)
        self.session.hold(holding)

    @precondition(lambda self: self.scopes)
    @rule(index=some, unsubscribe=st.sampled_from((True, True, True, False)))
    def let_go(self, index: int, unsubscribe: bool) -> None:
        holding = list(self.scopes)[index % len(self.scopes)]
        topic_filters = self.scopes.pop(holding)
        self.settled.discard(holding)
        if not unsubscribe:
            self.remaining |= topic_filters - self.held()
        self.session.let_go(holding, unsubscribe=unsubscribe)

    @precondition(lambda self: self.settled)
    @rule(index=some)
    def keep(self, index: int) -> None:
        ordered = [holding for holding in self.scopes if holding in self.settled]
        holding = ordered[index % len(ordered)]
        self.settled.discard(holding)
        self.application |= self.scopes.pop(holding)
        self.subscriptions.keep(holding)
        self.session.let_go(holding, unsubscribe=True)

    @precondition(lambda self: self.has_room)
    @rule(topic_filters=several, qos=qos_levels)
    def subscribe(self, topic_filters: tuple[str, ...], qos: p.QoS) -> None:
        wanted = dict.fromkeys(topic_filters)
        request = self.session.subscribe([(topic_filter, qos) for topic_filter in wanted])
        self.asking[request] = set(wanted)

    @precondition(lambda self: self.has_room)
    @rule(topic_filters=several)
    def unsubscribe(self, topic_filters: tuple[str, ...]) -> None:
        self.application -= set(topic_filters)
        for wanted in self.asking.values():
            wanted -= set(topic_filters)
        for request in self.session.unsubscribe(topic_filters):
            assert not set(request.packet.topic_filters) & self.held()
            self.leaving[request] = request.packet.topic_filters

    # The wire

    @precondition(lambda self: self.attached)
    @rule()
    def write(self) -> None:
        assert self.session.outbox is not None
        self.wire += self.decoder.feed(write(self.session.outbox))

    @precondition(lambda self: self.wire)
    @rule(failing=st.one_of(st.just(set[str]()), st.sets(one_filter)))
    def broker_receives(self, failing: set[str]) -> None:
        packet = self.wire.popleft()
        if isinstance(packet, p.Subscribe):
            topic_filters = [name for name, _ in packet.requests]
            assert len(topic_filters) <= p.MAX_TOPIC_FILTERS
            self.broker |= set(topic_filters) - failing
            codes = (p.FAILED if name in failing else qos for name, qos in packet.requests)
            self.answers.append(p.SubAck(packet.packet_id, tuple(codes)))
        else:
            assert isinstance(packet, p.Unsubscribe)
            self.broker -= set(packet.topic_filters)
            self.answers.append(p.UnsubAck(packet.packet_id))

    @precondition(lambda self: self.attached and self.answers)
    @rule()
    def answer(self) -> None:
        self.session.receive([self.answers.popleft()])
        self.session.subscriptions.forget_left()
        self.take_refused()
        settled, self.session.settled = self.session.settled, []
        for pending in settled:
            match pending:
                case Holding():
                    assert pending not in self.settled
                    self.settled.add(pending)
                    self.scopes[pending] -= set(pending.failed)
                    self.remaining -= self.scopes[pending]
                case SubscribeRequest():
                    self.answered(pending)
                case UnsubscribeRequest():
                    self.leaving.pop(pending, None)
                case _:
                    raise AssertionError(pending)

    def answered(self, request: SubscribeRequest) -> None:
        wanted = self.asking.pop(request, None)
        if wanted is None:
            return  # it was sent for scopes
        for (name, _), code in zip(request.packet.requests, request.return_codes, strict=True):
            if name in wanted and code != p.FAILED:
                self.application.add(name)
                self.remaining.discard(name)
            elif name in wanted:
                self.application.discard(name)

    def take_refused(self) -> None:
        for holding, topic_filter in self.subscriptions.refused:
            if holding is self.subscriptions.application:
                self.application.discard(topic_filter)
            else:
                assert holding in self.settled or topic_filter not in holding.unanswered
                self.scopes[holding].discard(topic_filter)
        self.subscriptions.refused.clear()

    @precondition(lambda self: self.wire or self.answers)
    @rule()
    def round_trip(self) -> None:
        """What is on its way arrives, and nothing fails."""
        while self.wire:
            self.broker_receives(set())
        while self.answers:
            self.answer()

    # Connections

    @precondition(lambda self: self.attached)
    @rule(still_arrives=some)
    def lose(self, still_arrives: int) -> None:
        for _ in range(min(still_arrives, len(self.wire))):
            self.broker_receives(set())
        self.wire.clear()
        self.answers.clear()
        lost = {request for request, _ in self.session.detach("cut")}
        # Of these the application is told that nobody knows.
        for asking, topic_filters in list(self.asking.items()):
            assert asking in lost
            del self.asking[asking]
            self.remaining |= topic_filters
            self.remaining |= {name for name, _ in asking.packet.requests}
        for leaving in list(self.leaving):
            assert leaving in lost
            self.remaining |= set(self.leaving.pop(leaving))

    @precondition(lambda self: not self.attached)
    @rule(
        session_lost=st.sampled_from((False, False, True)),
        in_doubt=st.sampled_from((False, False, True)),
    )
    def attach(self, session_lost: bool, in_doubt: bool) -> None:
        if session_lost:
            self.broker.clear()
            self.remaining.clear()
        self.decoder = server_decoder()
        # Where a CONNECT got no answer the session that the broker began then is present now.
        present = in_doubt or not session_lost
        self.session.attach(clean=False, present=present, restart_at=1, in_doubt=in_doubt)

    # What holds

    @invariant()
    def no_more_is_asked_for_at_once_than_there_is_room_for(self) -> None:
        assert self.session.request_room >= 0 or self.leaving or self.asking

    @invariant()
    def what_a_scope_holds_matches(self) -> None:
        for topic in TOPICS:
            found = self.subscriptions.match(topic)
            assert len(found) == len(set(found))
            for holding, topic_filters in self.scopes.items():
                expected = topic_filters - set(holding.failed)
                assert (holding in found) == any_matches(expected, topic)
            is_applications = self.subscriptions.application in found
            assert is_applications == any_matches(self.application, topic)

    def teardown(self) -> None:
        try:
            if not self.attached:
                self.attach(session_lost=False, in_doubt=False)
            self.write()
            while self.wire or self.answers:
                self.round_trip()
                self.write()
            self.check_end()
        finally:
            self.patch.undo()

    def check_end(self) -> None:
        """Everything is answered."""
        assert self.settled == set(self.scopes)
        assert not any(holding.unanswered for holding in self.scopes)
        assert not self.asking
        assert self.session.request_room == 3
        assert self.held() <= self.broker
        assert self.broker <= self.held() | self.remaining
        self.what_a_scope_holds_matches()
        for topic in TOPICS:
            assert self.subscriptions.leaving not in self.subscriptions.match(topic)


def any_matches(topic_filters: set[str], topic: str) -> bool:
    return any(matches(routed_filter(topic_filter), topic) for topic_filter in topic_filters)


TestSubscriptionsModel = Machine.TestCase
TestSubscriptionsModel.settings = settings(
    derandomize=True, deadline=None, max_examples=50, stateful_step_count=50
)


# The same by weighted chance, as Hypothesis chooses short and uneventful runs

WEIGHTS = {
    "hold": 4,
    "let_go": 3,
    "keep": 0.3,
    "subscribe": 1,
    "unsubscribe": 1,
    "write": 6,
    "broker_receives": 6,
    "answer": 6,
    "round_trip": 1,
    "lose": 1,
    "attach": 3,
}


class Walk:
    """One run of the machine."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.machine = Machine()

    def run(self, steps: int) -> None:
        for name in self.chance.choices([*WEIGHTS], [*WEIGHTS.values()], k=steps):
            self.step(name)
            self.machine.what_a_scope_holds_matches()
        self.machine.teardown()

    def step(self, name: str) -> None:
        machine, chance = self.machine, self.chance
        index = chance.randrange(5)
        names = tuple(chance.choices(FILTERS, k=chance.randint(1, 3)))
        qos: p.QoS = chance.choice((0, 1, 2))
        failing = {chance.choice(FILTERS)} if chance.random() < 0.2 else set[str]()
        possible: dict[str, tuple[bool, Callable[[], None]]] = {
            "hold": (True, partial(machine.hold, names, qos)),
            "let_go": (
                bool(machine.scopes),
                partial(machine.let_go, index, chance.random() < 0.8),
            ),
            "keep": (bool(machine.settled), partial(machine.keep, index)),
            "subscribe": (machine.has_room, partial(machine.subscribe, names, qos)),
            "unsubscribe": (machine.has_room, partial(machine.unsubscribe, names)),
            "write": (machine.attached, machine.write),
            "broker_receives": (bool(machine.wire), partial(machine.broker_receives, failing)),
            "answer": (machine.attached and bool(machine.answers), machine.answer),
            "round_trip": (bool(machine.wire or machine.answers), machine.round_trip),
            "lose": (machine.attached, partial(machine.lose, index)),
            "attach": (
                not machine.attached,
                partial(machine.attach, chance.random() < 0.3, chance.random() < 0.3),
            ),
        }
        may, act = possible[name]
        if may:
            act()


@pytest.mark.parametrize("seed", range(100))
def test_a_long_walk(seed: int) -> None:
    walk = Walk(seed)
    try:
        walk.run(100)
    finally:
        walk.machine.patch.undo()
