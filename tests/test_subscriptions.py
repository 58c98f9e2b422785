"""Who holds which topic filter, and what the broker is asked for because of that."""

from __future__ import annotations

import pytest

from trio_mqtt import _packets as p
from trio_mqtt import _subscriptions
from trio_mqtt._errors import ProtocolViolation, ResponseLost
from trio_mqtt._requests import Holding
from trio_mqtt._transfers import MAX_PENDING

from .session_driver import Driver, ids


def hold(driver: Driver, *topic_filters: str, qos: p.QoS = 1) -> Holding:
    """A scope begins; whatever is sent for it is for the test to look at."""
    holding = Holding(topic_filters, qos)
    driver.session.hold(holding)
    return holding


def enter(driver: Driver, *topic_filters: str, qos: p.QoS = 1) -> Holding:
    """A scope begins, and the broker grants it all."""
    holding = hold(driver, *topic_filters, qos=qos)
    grant(driver, *driver.sent())
    assert driver.settled()[-1] is holding
    return holding


def grant(driver: Driver, *packets: p.Served) -> list[p.Served]:
    """The broker answers SUBSCRIBE packets at the QoS asked for, and UNSUBSCRIBE packets."""
    answers: list[p.Inbound] = []
    for packet in packets:
        if isinstance(packet, p.Subscribe):
            codes = tuple(qos for _, qos in packet.requests)
            answers.append(p.SubAck(packet.packet_id, codes))
        else:
            assert isinstance(packet, p.Unsubscribe)
            answers.append(p.UnsubAck(packet.packet_id))
    return driver.receive(*answers)


def fail(driver: Driver, *packets: p.Served) -> list[p.Served]:
    """The broker fails all filters of SUBSCRIBE packets."""
    answers: list[p.SubAck] = []
    for packet in packets:
        assert isinstance(packet, p.Subscribe)
        answers.append(p.SubAck(packet.packet_id, (p.FAILED,) * len(packet.requests)))
    return driver.receive(*answers)


def let_go(driver: Driver, holding: Holding, *, unsubscribe: bool = True) -> list[p.Served]:
    """A scope ends. Returns what is sent then, if there is a connection."""
    driver.session.let_go(holding, unsubscribe=unsubscribe)
    return [] if driver.session.outbox is None else driver.sent()


def resume(driver: Driver, *, present: bool = True) -> list[p.Served]:
    """The next connection, once the last one is lost."""
    driver.lose()
    return driver.attach(present=present)


def asked_for(packets: list[p.Served]) -> list[tuple[str, p.QoS]]:
    """The filters of SUBSCRIBE packets."""
    asked: list[tuple[str, p.QoS]] = []
    for packet in packets:
        assert isinstance(packet, p.Subscribe)
        asked += packet.requests
    return asked


def asked_for_leaving(packets: list[p.Served]) -> list[str]:
    """The filters of the UNSUBSCRIBE packets among these."""
    return [
        topic_filter
        for packet in packets
        if isinstance(packet, p.Unsubscribe)
        for topic_filter in packet.topic_filters
    ]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many requests may await their answer, in a test that takes this."""
    monkeypatch.setattr(_subscriptions, "MAX_PENDING", 2)
    return 2


# Entering


def test_what_rabbitmq_makes_of_a_dot_finds_who_asked_for_the_dot() -> None:
    driver = Driver()
    dotted, other = enter(driver, "a.b/+"), enter(driver, "a/b/x")
    match = driver.session.subscriptions.match
    assert match("a.b/c") == match("a/b/c") == [dotted]
    assert match("a/b/x") == [other]
    let_go(driver, other)
    let_go(driver, dotted)
    assert match("a/b/c") == [driver.session.subscriptions.leaving]
    driver.receive(p.UnsubAck(3), p.UnsubAck(4))
    assert match("a/b/c") == []


@pytest.mark.conformance("MQTT-2.3.1-7", "MQTT-3.8.4-2")
def test_a_scope_is_settled_once_the_broker_answered() -> None:
    driver = Driver()
    holding = hold(driver, "a", "b/#", qos=2)
    assert driver.sent() == [p.Subscribe(1, (("a", 2), ("b/#", 2)))]
    assert driver.settled() == []
    driver.receive(p.SubAck(1, (2, 0)))
    assert driver.settled()[-1] is holding
    assert holding.failed == []
    assert not holding.unanswered


def test_each_entry_sends_subscribe_again() -> None:
    """So that each gets the retained messages."""
    driver = Driver()
    enter(driver, "a")
    hold(driver, "a")
    assert driver.sent() == [p.Subscribe(2, (("a", 1),))]


def test_what_is_asked_for_is_the_highest_level_of_its_holders() -> None:
    driver = Driver()
    low = enter(driver, "a", qos=0)
    high = enter(driver, "a", qos=2)
    hold(driver, "a", qos=1)
    assert asked_for(driver.sent()) == [("a", 2)]
    driver.session.subscribe([("a", 0)])
    assert asked_for(driver.sent()) == [("a", 2)]
    let_go(driver, high)
    let_go(driver, low)
    hold(driver, "a", qos=0)
    assert asked_for(driver.sent()) == [("a", 1)]


def test_a_packet_has_eight_filters_at_most() -> None:
    driver = Driver()
    names = [f"a/{i}" for i in range(17)]
    holding = hold(driver, *names)
    sent = driver.sent()
    assert [len(asked_for([packet])) for packet in sent] == [8, 8, 1]
    assert [name for name, _ in asked_for(sent)] == names
    grant(driver, sent[2], sent[0])
    assert holding not in driver.settled()
    grant(driver, sent[1])
    assert driver.settled()[-1] is holding


def test_a_filter_that_is_given_twice_is_asked_for_once() -> None:
    driver = Driver()
    holding = hold(driver, "a", "a")
    assert driver.sent() == [p.Subscribe(1, (("a", 1),))]
    driver.receive(p.SubAck(1, (1,)))
    assert driver.settled()[-1] is holding
    assert let_go(driver, holding) == [p.Unsubscribe(2, ("a",))]


def test_what_a_scope_holds_matches_from_its_entry_to_its_end() -> None:
    driver = Driver()
    subscriptions = driver.session.subscriptions
    versions = [subscriptions.version]
    holding = hold(driver, "a/+")
    versions.append(subscriptions.version)
    assert subscriptions.match("a/b") == [holding]
    assert subscriptions.match("a") == []
    let_go(driver, holding, unsubscribe=False)
    versions.append(subscriptions.version)
    assert subscriptions.match("a/b") == []
    assert len(set(versions)) == 3


def test_filters_of_one_scope_that_share_what_they_match_are_held_one_by_one() -> None:
    driver = Driver()
    holding = hold(driver, "a", "$share/g/a")
    driver.sent()
    driver.receive(p.SubAck(1, (1, p.FAILED)))
    assert holding.failed == ["$share/g/a"]
    assert driver.session.subscriptions.match("a") == [holding]


def test_a_scope_that_ends_before_its_answer_is_not_settled() -> None:
    driver = Driver()
    holding = hold(driver, "a")
    assert ids(let_go(driver, holding)) == [("SUBSCRIBE", 1), ("UNSUBSCRIBE", 2)]
    driver.receive(p.SubAck(1, (1,)), p.UnsubAck(2))
    assert holding not in driver.settled()
    assert resume(driver) == []


@pytest.mark.parametrize("code", [1, p.FAILED])
def test_an_answer_to_what_was_asked_before_it_began_settles_no_scope(code: int) -> None:
    driver = Driver()
    first = hold(driver, "a")
    second = hold(driver, "a")
    driver.sent()
    driver.receive(p.SubAck(1, (code,)))
    assert driver.settled()[-1] is first
    assert second.unanswered == {"a"}
    assert second.failed == []
    driver.receive(p.SubAck(2, (1,)))
    assert driver.settled()[-1] is second


def test_one_answer_settles_all_scopes_that_had_begun() -> None:
    driver = Driver(attach=False)
    first = hold(driver, "a")
    second = hold(driver, "a", qos=2)
    assert driver.attach() == [p.Subscribe(1, (("a", 2),))]
    driver.receive(p.SubAck(1, (2,)))
    assert driver.settled()[-2:] == [first, second]


def test_an_answer_to_the_application_settles_a_scope_that_had_begun() -> None:
    driver = Driver()
    holding = hold(driver, "a")
    driver.session.subscribe([("a", 1)])
    driver.sent()
    driver.receive(p.SubAck(2, (1,)))
    assert driver.settled()[-1] is holding
    driver.receive(p.SubAck(1, (1,)))
    assert holding not in driver.settled()


# Failed filters


def test_failed_filters_are_told_to_the_scope_that_enters() -> None:
    driver = Driver()
    holding = hold(driver, "a", "b", "c")
    driver.sent()
    driver.receive(p.SubAck(1, (p.FAILED, 1, p.FAILED)))
    assert driver.settled()[-1] is holding
    assert holding.failed == ["a", "c"]
    subscriptions = driver.session.subscriptions
    assert subscriptions.refused == []
    assert subscriptions.match("a") == []
    assert subscriptions.match("b") == [holding]
    assert let_go(driver, holding) == [p.Unsubscribe(2, ("b",))]


def test_a_failed_entry_leaves_an_earlier_holder_alone() -> None:
    driver = Driver()
    earlier = enter(driver, "a")
    later = hold(driver, "a", qos=2)
    fail(driver, *driver.sent())
    assert later.failed == ["a"]
    subscriptions = driver.session.subscriptions
    assert subscriptions.refused == []
    assert subscriptions.match("a") == [earlier]
    # Whether the broker still has it is unknown.
    assert resume(driver) == [p.Subscribe(3, (("a", 1),))]


def test_a_failed_request_of_the_application_leaves_a_scope_alone() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    driver.session.subscribe([("a", 1)])
    fail(driver, *driver.sent())
    subscriptions = driver.session.subscriptions
    assert subscriptions.refused == []
    assert subscriptions.match("a") == [holding]


# A SUBSCRIBE that fails leaves what the broker had from an earlier one, as mosquitto does.


def test_what_was_granted_before_a_failed_entry_is_unsubscribed_in_the_end() -> None:
    driver = Driver()
    earlier = enter(driver, "a")
    later = hold(driver, "a")
    fail(driver, *driver.sent())
    assert let_go(driver, later) == []
    assert let_go(driver, earlier) == [p.Unsubscribe(3, ("a",))]


def test_what_was_left_to_an_entry_that_fails_is_unsubscribed() -> None:
    driver = Driver()
    earlier = enter(driver, "a")
    later = hold(driver, "a")
    asked = driver.sent()
    assert let_go(driver, earlier) == []
    sent = fail(driver, *asked)
    assert later.failed == ["a"]
    assert sent + let_go(driver, later) == [p.Unsubscribe(3, ("a",))]


def test_what_was_owed_is_unsubscribed_if_holding_it_anew_fails() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    driver.lose()
    let_go(driver, holding)
    anew = hold(driver, "a")
    sent = fail(driver, *driver.attach(present=True))
    assert anew.failed == ["a"]
    assert sent + let_go(driver, anew) == [p.Unsubscribe(3, ("a",))]


# Leaving


@pytest.mark.conformance("MQTT-2.3.1-7")
def test_unsubscribe_goes_out_when_nobody_holds_the_filter() -> None:
    driver = Driver()
    first = enter(driver, "a", "b")
    second = enter(driver, "b")
    assert let_go(driver, first) == [p.Unsubscribe(3, ("a",))]
    assert let_go(driver, second) == [p.Unsubscribe(4, ("b",))]


def test_leaving_returns_the_requests_that_it_sends() -> None:
    driver = Driver()
    names = tuple(f"a/{i}" for i in range(9))
    holding = enter(driver, *names)
    first, second = driver.session.let_go(holding, unsubscribe=True)
    assert driver.sent() == [first.packet, second.packet]
    assert first.packet.topic_filters + second.packet.topic_filters == names
    assert len(first.packet.topic_filters) == 8
    driver.receive(p.UnsubAck(first.packet.packet_id), p.UnsubAck(second.packet.packet_id))
    assert driver.settled() == [first, second]
    assert driver.session.request_room == MAX_PENDING


def test_a_scope_that_was_let_go_is_not_let_go_again() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    assert len(let_go(driver, holding)) == 1
    assert let_go(driver, holding) == []


def test_leaving_may_leave_the_broker_to_collect() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    assert let_go(driver, holding, unsubscribe=False) == []
    assert resume(driver) == []
    again = enter(driver, "a")
    assert let_go(driver, again) == [p.Unsubscribe(3, ("a",))]


def test_what_the_application_holds_outlives_a_scope() -> None:
    driver = Driver()
    driver.session.subscribe([("a", 1)])
    grant(driver, *driver.sent())
    holding = enter(driver, "a")
    assert let_go(driver, holding) == []
    subscriptions = driver.session.subscriptions
    assert subscriptions.match("a") == [subscriptions.application]
    driver.session.unsubscribe(["a"])
    assert driver.sent() == [p.Unsubscribe(3, ("a",))]
    assert subscriptions.match("a") == [subscriptions.leaving]


def test_the_application_unsubscribes_only_what_no_scope_holds() -> None:
    driver = Driver()
    driver.session.subscribe([("a", 1), ("b", 1)])
    grant(driver, *driver.sent())
    holding = enter(driver, "a")
    [request] = driver.session.unsubscribe(["a", "b", "unknown", "b"])
    assert driver.sent() == [request.packet] == [p.Unsubscribe(3, ("b", "unknown"))]
    assert driver.session.subscriptions.match("a") == [holding]
    assert driver.session.unsubscribe(["a"]) == []
    assert let_go(driver, holding) == [p.Unsubscribe(4, ("a",))]


def test_the_application_unsubscribes_eight_filters_in_a_packet() -> None:
    driver = Driver()
    requests = driver.session.unsubscribe([f"a/{i}" for i in range(9)])
    assert [len(request.packet.topic_filters) for request in requests] == [8, 1]
    assert driver.sent() == [request.packet for request in requests]


def test_keeping_makes_the_filters_the_applications() -> None:
    driver = Driver()
    holding = hold(driver, "a", "b", qos=2)
    driver.sent()
    driver.receive(p.SubAck(1, (2, p.FAILED)))
    subscriptions = driver.session.subscriptions
    subscriptions.keep(holding)
    assert subscriptions.match("a") == [subscriptions.application]
    assert subscriptions.match("b") == []
    assert let_go(driver, holding) == []
    assert asked_for(resume(driver, present=False)) == [("a", 2)]


def test_keeping_what_is_held_by_others_adds_the_application() -> None:
    driver = Driver()
    kept, other = enter(driver, "a"), enter(driver, "a")
    subscriptions = driver.session.subscriptions
    subscriptions.keep(kept)
    assert sorted(subscriptions.match("a"), key=id) == sorted(
        [other, subscriptions.application], key=id
    )
    assert let_go(driver, other) == []


# What is being left


def test_what_is_being_left_matches_until_it_is_answered() -> None:
    driver = Driver()
    holding = enter(driver, "a/#")
    subscriptions = driver.session.subscriptions
    sent = let_go(driver, holding)
    assert subscriptions.match("a/b") == [subscriptions.leaving]
    grant(driver, *sent)
    assert subscriptions.match("a/b") == []


def test_what_is_held_anew_while_being_left_matches_both() -> None:
    driver = Driver()
    left = let_go(driver, enter(driver, "a"))
    holding = hold(driver, "a")
    asked = driver.sent()
    subscriptions = driver.session.subscriptions
    assert set(subscriptions.match("a")) == {holding, subscriptions.leaving}
    grant(driver, *left)
    assert subscriptions.match("a") == [holding]
    grant(driver, *asked)
    assert driver.settled()[-1] is holding
    assert resume(driver) == []


def test_what_is_left_twice_is_being_left_until_the_second_answer() -> None:
    driver = Driver()
    first = let_go(driver, enter(driver, "a"))
    second = let_go(driver, enter(driver, "a"))
    subscriptions = driver.session.subscriptions
    grant(driver, *first)
    assert subscriptions.match("a") == [subscriptions.leaving]
    grant(driver, *second)
    assert subscriptions.match("a") == []


@pytest.mark.parametrize("present", [True, False], ids=["present", "lost"])
def test_what_was_left_twice_is_owed_once(present: bool) -> None:
    driver = Driver()
    let_go(driver, enter(driver, "a"))
    let_go(driver, enter(driver, "a"))
    grant(driver, *resume(driver, present=present))
    assert driver.session.subscriptions.match("a") == []


def test_filters_being_left_that_share_what_they_match_are_left_one_by_one() -> None:
    driver = Driver()
    shared, plain = enter(driver, "$share/g/a"), enter(driver, "a")
    sent = let_go(driver, shared)
    let_go(driver, plain)
    grant(driver, *sent)
    subscriptions = driver.session.subscriptions
    assert subscriptions.match("a") == [subscriptions.leaving]


def test_what_the_application_unsubscribes_is_being_left_too() -> None:
    driver = Driver()
    driver.session.unsubscribe(["a"])
    subscriptions = driver.session.subscriptions
    assert subscriptions.match("a") == [subscriptions.leaving]
    driver.lose()
    assert subscriptions.match("a") == []
    assert driver.attach(present=True) == []  # it was told that the outcome is unknown


# Offline


def test_what_is_held_offline_is_asked_for_at_the_next_connection() -> None:
    driver = Driver(attach=False)
    holding = hold(driver, "a", qos=2)
    assert driver.attach() == [p.Subscribe(1, (("a", 2),))]
    driver.receive(p.SubAck(1, (2,)))
    assert driver.settled()[-1] is holding


def test_what_was_granted_to_another_is_asked_for_again_if_held_offline() -> None:
    driver = Driver()
    enter(driver, "a", "b")
    driver.lose()
    holding = hold(driver, "a")
    assert driver.attach(present=True) == [p.Subscribe(2, (("a", 1),))]
    driver.receive(p.SubAck(2, (1,)))
    assert driver.settled()[-1] is holding


def test_what_is_held_and_let_go_offline_is_not_sent() -> None:
    driver = Driver()
    driver.lose()
    assert driver.session.let_go(hold(driver, "a"), unsubscribe=True) == []
    assert driver.attach(present=True) == []


def test_unsubscribe_is_owed_while_offline() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    driver.lose()
    assert driver.session.let_go(holding, unsubscribe=True) == []
    subscriptions = driver.session.subscriptions
    assert subscriptions.match("a") == [subscriptions.leaving]
    sent = driver.attach(present=True)
    assert sent == [p.Unsubscribe(2, ("a",))]
    grant(driver, *sent)
    assert subscriptions.match("a") == []


def test_unsubscribe_is_not_owed_to_a_broker_that_lost_the_session() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    driver.lose()
    let_go(driver, holding)
    assert driver.attach(present=False) == []
    assert driver.session.subscriptions.match("a") == []
    assert resume(driver) == []


def test_unsubscribe_is_no_longer_owed_once_the_filter_is_held_anew() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    driver.lose()
    let_go(driver, holding)
    anew = hold(driver, "a")
    assert driver.session.subscriptions.match("a") == [anew]
    assert driver.attach(present=True) == [p.Subscribe(2, (("a", 1),))]


def test_unsubscribe_is_owed_again_once_what_was_held_anew_offline_is_let_go() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    driver.lose()
    let_go(driver, holding)
    let_go(driver, hold(driver, "a"))
    assert driver.attach(present=True) == [p.Unsubscribe(2, ("a",))]


def test_unsubscribe_is_owed_for_what_was_asked_for_and_not_answered() -> None:
    driver = Driver()
    holding = hold(driver, "a")
    driver.sent()
    driver.lose()
    let_go(driver, holding)
    assert driver.attach(present=True) == [p.Unsubscribe(2, ("a",))]


# Lost connections


def test_a_scope_survives_a_lost_connection_and_is_settled_on_the_next() -> None:
    driver = Driver()
    holding = hold(driver, "a", "b")
    driver.sent()
    [(request, error)] = driver.lose()
    assert request is not holding
    assert isinstance(error, ResponseLost)
    assert driver.attach(present=True) == [p.Subscribe(2, (("a", 1), ("b", 1)))]
    driver.receive(p.SubAck(2, (1, p.FAILED)))
    assert driver.settled()[-1] is holding
    assert holding.failed == ["b"]
    assert driver.session.subscriptions.refused == []


@pytest.mark.parametrize("present", [True, False], ids=["present", "lost"])
def test_what_had_been_granted_to_another_survives_a_lost_connection(present: bool) -> None:
    driver = Driver()
    enter(driver, "a")
    holding = hold(driver, "a")
    driver.sent()
    sent = resume(driver, present=present)
    assert sent == [p.Subscribe(3, (("a", 1),))]
    grant(driver, *sent)
    assert driver.settled()[-1] is holding
    assert resume(driver) == []


def test_what_waited_for_room_survives_a_lost_connection(few: int) -> None:
    driver = Driver()
    enter(driver, "a")
    driver.session.unsubscribe(["x"])
    driver.session.unsubscribe(["y"])
    driver.sent()
    holding = hold(driver, "a")
    assert driver.sent() == []
    sent = resume(driver)
    assert asked_for(sent) == [("a", 1)]
    grant(driver, *sent)
    assert driver.settled()[-1] is holding


def test_a_scope_that_was_partly_answered_is_asked_for_in_part() -> None:
    driver = Driver()
    holding = hold(driver, *(f"a/{i}" for i in range(9)))
    grant(driver, driver.sent()[0])
    sent = resume(driver)
    assert asked_for(sent) == [("a/8", 1)]
    grant(driver, *sent)
    assert driver.settled()[-1] is holding


def test_unsubscribe_is_owed_again_if_its_answer_is_lost() -> None:
    driver = Driver()
    let_go(driver, enter(driver, "a"))
    subscriptions = driver.session.subscriptions
    assert resume(driver) == [p.Unsubscribe(3, ("a",))]
    sent = resume(driver)
    assert sent == [p.Unsubscribe(4, ("a",))]
    assert subscriptions.match("a") == [subscriptions.leaving]
    grant(driver, *sent)
    assert subscriptions.match("a") == []
    assert resume(driver) == []


def test_unsubscribe_is_not_owed_again_if_the_filter_is_held_anew() -> None:
    driver = Driver()
    let_go(driver, enter(driver, "a", "b"))
    holding = hold(driver, "a")
    driver.sent()
    subscriptions = driver.session.subscriptions
    driver.lose()
    assert subscriptions.match("a") == [holding]
    assert subscriptions.match("b") == [subscriptions.leaving]
    assert driver.attach(present=True) == [p.Unsubscribe(4, ("b",)), p.Subscribe(5, (("a", 1),))]
    assert let_go(driver, holding) == [p.Unsubscribe(6, ("a",))]


def test_a_lost_unsubscribe_is_owed_after_a_holder_that_was_never_sent(few: int) -> None:
    """Its SUBSCRIBE found no room, but the broker may have the filter from before."""
    driver = Driver()
    holding = enter(driver, "a")
    driver.session.unsubscribe(["x"])
    let_go(driver, holding)
    anew = hold(driver, "a")
    assert driver.sent() == []
    driver.lose()
    let_go(driver, anew)
    assert asked_for_leaving(driver.attach(present=True)) == ["a"]


def test_an_unsubscribe_of_the_applications_that_is_lost_is_owed_after_a_new_holder() -> None:
    driver = Driver()
    driver.session.subscribe([("a", 1)])
    grant(driver, *driver.sent())
    driver.session.unsubscribe(["a"])
    driver.sent()
    driver.lose()
    assert driver.attach(present=True) == []
    holding = hold(driver, "a")
    driver.sent()
    assert asked_for_leaving(let_go(driver, holding)) == ["a"]


def test_a_request_of_the_applications_that_is_lost_is_not_restored() -> None:
    driver = Driver()
    request = driver.session.subscribe([("a", 1), ("b", 1)])
    driver.sent()
    subscriptions = driver.session.subscriptions
    assert len(subscriptions.match("a")) == 1
    [(lost, error)] = driver.lose()
    assert lost is request
    assert isinstance(error, ResponseLost)
    assert subscriptions.match("a") == []
    assert driver.attach(present=False) == []


def test_what_the_application_had_and_asked_for_again_is_restored() -> None:
    driver = Driver()
    driver.session.subscribe([("a", 1)])
    grant(driver, *driver.sent())
    driver.session.subscribe([("a", 2)])
    driver.sent()
    assert resume(driver) == [p.Subscribe(3, (("a", 1),))]


def test_what_a_scope_holds_is_restored_when_the_applications_request_is_lost() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    driver.session.subscribe([("a", 2)])
    driver.sent()
    assert resume(driver) == [p.Subscribe(3, (("a", 1),))]
    assert driver.session.subscriptions.match("a") == [holding]


def test_a_session_in_doubt_gets_everything_again_and_is_owed_what_it_was() -> None:
    driver = Driver()
    left = enter(driver, "left")
    enter(driver, "a")
    driver.lose()
    let_go(driver, left)
    driver.session.attach(clean=False, present=True, restart_at=1, in_doubt=True)
    assert [kind for kind, _ in ids(driver.sent())] == ["UNSUBSCRIBE", "SUBSCRIBE"]


# Restoration


def test_a_filter_refused_at_its_restoration_is_told_to_all_that_had_entered() -> None:
    driver = Driver()
    first, second = enter(driver, "a", "b"), enter(driver, "a")
    driver.session.subscribe([("a", 1)])
    grant(driver, *driver.sent())
    driver.lose()
    entering = hold(driver, "a")
    driver.attach(present=False)
    driver.receive(p.SubAck(4, (p.FAILED, 1)))
    subscriptions = driver.session.subscriptions
    assert subscriptions.refused == [
        (first, "a"),
        (second, "a"),
        (subscriptions.application, "a"),
    ]
    assert entering.failed == ["a"]
    assert driver.settled()[-1] is entering
    assert subscriptions.match("a") == []
    assert asked_for(resume(driver, present=False)) == [("b", 1)]


def test_a_filter_refused_at_its_restoration_is_not_unsubscribed() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    fail(driver, *resume(driver, present=False))
    assert driver.session.subscriptions.refused == [(holding, "a")]
    assert let_go(driver, holding) == []


def test_a_request_that_awaits_its_own_answer_is_not_refused_at_a_restoration() -> None:
    driver = Driver()
    driver.session.subscribe([("a", 1)])
    grant(driver, *driver.sent())
    restoring = resume(driver, present=False)
    driver.session.subscribe([("a", 1)])
    asked = driver.sent()
    subscriptions = driver.session.subscriptions
    fail(driver, *restoring)
    assert subscriptions.refused == [(subscriptions.application, "a")]
    grant(driver, *asked)
    assert subscriptions.match("a") == [subscriptions.application]


def test_what_was_restored_is_not_refused_by_a_later_entry() -> None:
    driver = Driver()
    earlier = enter(driver, "a")
    grant(driver, *resume(driver, present=False))
    later = hold(driver, "a")
    fail(driver, *driver.sent())
    subscriptions = driver.session.subscriptions
    assert later.failed == ["a"]
    assert subscriptions.refused == []
    assert subscriptions.match("a") == [earlier]


def test_a_restored_scope_is_not_settled_again() -> None:
    driver = Driver()
    holding = enter(driver, "a")
    grant(driver, *resume(driver, present=False))
    assert holding not in driver.settled()


def test_what_was_granted_to_a_scope_at_qos_0_is_asked_for_again() -> None:
    """RabbitMQ forgets it."""
    driver = Driver()
    holding = hold(driver, "zero", "one")
    driver.sent()
    driver.receive(p.SubAck(1, (0, 1)))
    driver.settled()
    sent = resume(driver)
    assert sent == [p.Subscribe(2, (("zero", 1),))]
    fail(driver, *sent)
    assert driver.session.subscriptions.refused == [(holding, "zero")]


# Room


@pytest.mark.usefixtures("few")
def test_what_has_no_room_is_sent_as_answers_come() -> None:
    driver = Driver()
    holding = hold(driver, *(f"a/{i}" for i in range(26)))
    sent = driver.sent()
    assert len(sent) == 2
    assert driver.session.request_room == 0
    seen = asked_for(sent)
    while sent:
        assert holding not in driver.settled()
        answered, *sent = sent
        more = grant(driver, answered)
        seen += asked_for(more)
        sent += more
        assert len(sent) <= 2
    assert seen == [(f"a/{i}", 1) for i in range(26)]
    assert driver.settled()[-1] is holding


@pytest.mark.usefixtures("few")
def test_a_restoration_that_has_no_room_goes_on_as_answers_come() -> None:
    driver = Driver(attach=False)
    names = [f"a/{i}" for i in range(20)]
    hold(driver, *names)
    first, second = driver.attach()
    [third] = grant(driver, first)
    assert [name for name, _ in asked_for([first, second, third])] == names
    # What the broker did not answer for is due again, and what it did is not.
    assert [name for name, _ in asked_for(resume(driver))] == names[8:]


@pytest.mark.usefixtures("few")
def test_unsubscribe_waits_for_room_and_goes_first() -> None:
    driver = Driver()
    left = enter(driver, "left")
    driver.session.unsubscribe(["x"])
    driver.session.unsubscribe(["y"])
    driver.sent()
    hold(driver, "a")
    assert let_go(driver, left) == []
    subscriptions = driver.session.subscriptions
    assert subscriptions.match("left") == [subscriptions.leaving]
    assert driver.receive(p.UnsubAck(2)) == [p.Unsubscribe(4, ("left",))]
    assert driver.receive(p.UnsubAck(3)) == [p.Subscribe(5, (("a", 1),))]


@pytest.mark.usefixtures("few")
def test_what_is_let_go_before_it_had_room_is_never_sent() -> None:
    driver = Driver()
    driver.session.unsubscribe(["x"])
    driver.session.unsubscribe(["y"])
    driver.sent()
    assert let_go(driver, hold(driver, "a")) == []
    assert driver.receive(p.UnsubAck(1), p.UnsubAck(2)) == []


def test_many_more_filters_than_may_be_asked_for_at_once() -> None:
    driver = Driver()
    for i in range(MAX_PENDING - 1):
        driver.session.unsubscribe([f"x/{i}"])
    driver.sent()
    holding = hold(driver, *(f"a/{i}" for i in range(16)))
    [first] = driver.sent()
    assert driver.session.request_room == 0
    [second] = grant(driver, first)
    grant(driver, second)
    assert driver.settled()[-1] is holding


# Answers that do not belong


@pytest.mark.parametrize("answer", [p.UnsubAck(7), p.SubAck(7, (1,))], ids=repr)
def test_an_answer_to_nothing_is_counted(answer: p.Inbound) -> None:
    driver = Driver()
    holding = hold(driver, "a")
    driver.receive(answer)
    assert driver.session.counters.unmatched_answers == 1
    assert holding.unanswered == {"a"}


def test_an_unsuback_to_a_subscribe_is_a_violation() -> None:
    driver = Driver()
    hold(driver, "a")
    driver.sent()
    with pytest.raises(ProtocolViolation, match="UNSUBACK 1 does not answer SUBSCRIBE"):
        driver.receive(p.UnsubAck(1))


@pytest.mark.conformance("MQTT-3.8.4-5")
def test_a_suback_answers_for_each_filter_of_a_scope() -> None:
    driver = Driver()
    hold(driver, "a", "b")
    driver.sent()
    with pytest.raises(ProtocolViolation, match="SUBACK with 3 return codes for 2 topic filters"):
        driver.receive(p.SubAck(1, (0, 0, 0)))
