"""The broker's messages: delivery, acknowledgement, redelivery (sections 4.3 to 4.6)."""

from __future__ import annotations

import itertools

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._errors import ProtocolViolation

from .session_driver import Driver, delivery, ids


@pytest.mark.conformance("MQTT-4.3.2-2", "MQTT-3.3.4-1", "MQTT-2.3.1-6")
def test_at_least_once_is_acknowledged_when_released() -> None:
    driver = Driver()
    assert driver.receive(delivery(7)) == []
    [arrived] = driver.delivered()
    assert driver.release(arrived) == [p.PubAck(7)]


@pytest.mark.conformance("MQTT-4.3.3-2", "MQTT-3.3.4-1", "MQTT-2.3.1-6")
def test_exactly_once() -> None:
    driver = Driver()
    assert driver.receive(delivery(7, 2)) == []
    [arrived] = driver.delivered()
    assert driver.release(arrived) == [p.PubRec(7)]
    assert driver.receive(p.PubRel(7)) == [p.PubComp(7)]
    driver.receive(delivery(7, 2))  # a new publication
    assert len(driver.delivered()) == 1


def test_at_most_once_just_arrives() -> None:
    driver = Driver()
    message = p.Message("t", b"x")
    assert driver.receive(message) == []
    assert driver.arrived() == [message]


def test_both_identifier_spaces_are_apart() -> None:
    """The broker's packet 1 is not our packet 1."""
    driver = Driver()
    ours = driver.session.publish("t", b"ours", 2, retain=False)
    driver.sent()
    driver.receive(delivery(1, 2), delivery(1, 1))
    theirs, other = driver.delivered()
    assert driver.release(theirs, other) == [p.PubAck(1), p.PubRec(1)]
    assert driver.receive(p.PubRec(1), p.PubRel(1)) == [p.PubRel(1), p.PubComp(1)]
    driver.receive(p.PubComp(1))
    assert driver.settled() == [ours]


@pytest.mark.conformance("MQTT-4.6.0-2", "MQTT-4.6.0-3")
@pytest.mark.parametrize("qos", [1, 2])
def test_answers_keep_the_order_of_the_publish_packets(qos: p.QoS) -> None:
    answer = p.PubAck if qos == 1 else p.PubRec
    driver = Driver()
    driver.receive(delivery(5, qos), delivery(3, qos), delivery(9, qos))
    first, second, third = driver.delivered()
    assert driver.release(third) == []
    assert driver.release(first) == [answer(5)]
    assert driver.release(second) == [answer(3), answer(9)]


# Repetitions


@pytest.mark.conformance("MQTT-4.3.3-2")
def test_every_duplicate_gets_its_pubrec_and_is_not_delivered_again() -> None:
    """PITFALLS G2."""
    driver = Driver()
    driver.receive(delivery(7, 2), delivery(7, 2, dup=True))
    [arrived] = driver.delivered()
    assert driver.release(arrived) == [p.PubRec(7), p.PubRec(7)]
    assert driver.receive(delivery(7, 2, dup=True)) == [p.PubRec(7)]
    assert driver.delivered() == []
    assert driver.session.repeated == 2
    assert driver.receive(p.PubRel(7)) == [p.PubComp(7)]


@pytest.mark.conformance("MQTT-4.6.0-3")
def test_the_pubrec_of_a_duplicate_waits_for_those_before() -> None:
    driver = Driver()
    driver.receive(delivery(1, 2))
    driver.release(*driver.delivered())
    driver.receive(delivery(2, 2))
    [second] = driver.delivered()
    assert driver.receive(delivery(1, 2, dup=True)) == []
    assert driver.release(second) == [p.PubRec(2), p.PubRec(1)]


@pytest.mark.conformance("MQTT-4.3.2-2")
def test_at_least_once_is_never_deduplicated_after_its_puback() -> None:
    driver = Driver()
    for _ in range(2):
        driver.receive(delivery(7, 1, dup=True))
        [arrived] = driver.delivered()
        assert driver.release(arrived) == [p.PubAck(7)]


def test_at_least_once_with_other_content_under_a_held_identifier_is_delivered() -> None:
    driver = Driver()
    driver.receive(delivery(7, payload=b"a"), delivery(7, payload=b"b"), delivery(7, topic="u"))
    first, second, third = driver.delivered()
    assert driver.release(first, second, third) == [p.PubAck(7)] * 3


def test_repetition_without_end_is_a_violation() -> None:
    driver = Driver()
    driver.receive(delivery(1))
    endless = itertools.repeat(delivery(1))
    with pytest.raises(ProtocolViolation, match="repeated without end"):
        driver.session.receive(endless)
    assert len(driver.delivered()) == 1


# Over connections


@pytest.mark.parametrize("qos", [1, 2])
def test_a_redelivery_of_what_the_application_holds_is_answered_when_released(qos: p.QoS) -> None:
    driver = Driver()
    driver.receive(delivery(7, qos), delivery(8, qos))
    taken, untaken = driver.delivered()
    driver.lose()
    driver.attach(present=True)
    assert driver.receive(delivery(7, qos, dup=True), delivery(8, qos, dup=True)) == []
    assert driver.delivered() == []
    answer = p.PubAck if qos == 1 else p.PubRec
    assert driver.release(taken, untaken) == [answer(7), answer(8)]


def test_what_a_connection_owed_dies_with_it() -> None:
    driver = Driver()
    driver.receive(delivery(1), delivery(2))
    first, second = driver.delivered()
    driver.session.release(second)  # waits for the first
    driver.lose()
    driver.session.release(first)
    assert driver.attach(present=True) == []
    driver.receive(delivery(1, dup=True), delivery(2, dup=True))
    again = driver.delivered()
    assert driver.release(*again) == [p.PubAck(1), p.PubAck(2)]


@pytest.mark.conformance("MQTT-4.3.3-2")
def test_exactly_once_released_offline_is_recorded_and_gets_pubrec_alone() -> None:
    driver = Driver()
    driver.receive(delivery(7, 2))
    [arrived] = driver.delivered()
    driver.lose()
    driver.session.release(arrived)
    driver.attach(present=True)
    assert driver.receive(delivery(7, 2, dup=True)) == [p.PubRec(7)]
    assert driver.delivered() == []
    assert driver.receive(p.PubRel(7)) == [p.PubComp(7)]


@pytest.mark.parametrize("released", [True, False])
def test_a_lost_session_clears_the_inbound_identifiers(released: bool) -> None:
    """PITFALLS G3: a new message with an old identifier must not be swallowed."""
    driver = Driver()
    driver.receive(delivery(7, 2), delivery(8, 1))
    old = driver.delivered()
    if released:
        driver.release(*old)
    driver.lose()
    driver.attach(present=False)
    driver.receive(delivery(7, 2, payload=b"new"), delivery(8, 1))
    new = driver.delivered()
    assert [packet.packet_id for packet in new] == [7, 8]
    assert driver.release(*old) == []  # still deliverable, and nothing is sent for it
    assert driver.release(*new) == [p.PubAck(8), p.PubRec(7)]


def test_a_pubrel_that_comes_before_our_pubrec_ends_the_exchange() -> None:
    driver = Driver()
    driver.receive(delivery(7, 2), delivery(8, 2))
    old, behind = driver.delivered()
    driver.session.release(behind)
    assert driver.receive(p.PubRel(7)) == [p.PubRec(8), p.PubComp(7)]
    driver.receive(delivery(7, 2, payload=b"new"))
    [new] = driver.delivered()
    assert driver.release(old) == []
    assert driver.release(new) == [p.PubRec(7)]


def test_a_pubrel_for_nothing_gets_its_pubcomp() -> None:
    driver = Driver()
    assert driver.receive(p.PubRel(3)) == [p.PubComp(3)]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_given_back_arrives_as_new(qos: p.QoS) -> None:
    driver = Driver()
    driver.receive(delivery(7, qos))
    [unwanted] = driver.delivered()
    driver.session.give_back(unwanted)
    driver.lose()
    driver.attach(present=True)
    driver.receive(delivery(7, qos, dup=True))
    [again] = driver.delivered()
    driver.session.give_back(unwanted)  # has no hold on the new one
    assert ids(driver.release(again)) == [("PUBACK" if qos == 1 else "PUBREC", 7)]


# Payloads that are streamed


def streamed(packet_id: int, qos: p.QoS) -> p.Delivery:
    """The beginning of a message of two bytes."""
    message = p.Streamed("t", b"", qos, body=p.Body(2))
    return p.Delivery(message, packet_id, complete=False)


def complete(driver: Driver, packet: p.Delivery) -> list[p.Served]:
    """The rest of it arrives. Returns what is sent in answer."""
    assert isinstance(packet.message, p.Streamed)
    packet.message.body.feed(b"xx")
    packet.complete = True
    driver.session.receive([p.Grown(packet)])
    return driver.sent()


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_streamed_is_answered_behind_its_last_byte(qos: p.QoS) -> None:
    driver = Driver()
    driver.session.receive([packet := streamed(1, qos)])
    assert driver.delivered() == [packet]
    assert driver.release(packet) == []
    driver.session.receive([p.Grown(packet), p.Grown(p.Message("other", b""))])
    assert driver.sent() == []
    assert complete(driver, packet) == [p.PubAck(1) if qos == 1 else p.PubRec(1)]


@pytest.mark.conformance("MQTT-4.3.3-2")
def test_what_was_cut_short_and_is_done_with_before_it_comes_again_does_not_come_twice() -> None:
    driver = Driver(present=True)
    driver.session.receive([first := streamed(1, 2)])
    assert driver.delivered() == [first]
    first.claims = 1
    driver.lose()
    driver.attach(present=True)
    driver.release(first)
    again = driver.receive(delivery(1, 2, payload=b"large", dup=True))
    assert driver.delivered() == []
    assert ids(again) == [("PUBREC", 1)]


def test_what_was_cut_short_and_came_again_is_not_released_by_the_first() -> None:
    driver = Driver(present=True)
    driver.session.receive([first := streamed(1, 2)])
    first.claims = 1
    driver.lose()
    driver.attach(present=True)
    assert driver.receive(again := delivery(1, 2, payload=b"large", dup=True)) == []
    assert driver.release(first) == []
    assert driver.delivered() == [first, again]
    assert ids(driver.release(again)) == [("PUBREC", 1)]


def test_at_qos_1_what_is_streamed_is_never_taken_for_a_repetition() -> None:
    driver = Driver()
    driver.session.receive([first := streamed(1, 1)])
    complete(driver, first)
    driver.lose()
    driver.attach(present=True)
    driver.session.receive([again := streamed(1, 1)])
    assert driver.delivered() == [first, again]


@pytest.mark.conformance("MQTT-4.3.3-2")
def test_at_qos_2_a_repetition_of_what_the_application_was_done_with_is_skipped() -> None:
    driver = Driver()
    driver.session.receive([first := streamed(1, 2)])
    assert driver.delivered() == [first]
    first.claims = 0
    driver.release(first)
    driver.lose()
    driver.attach(present=True)
    driver.session.receive([again := streamed(1, 2)])
    assert driver.delivered() == []
    assert driver.sent() == []
    assert complete(driver, again) == [p.PubRec(1)]
    assert isinstance(again.message, p.Streamed)
    assert again.message.body.take() == []


@pytest.mark.parametrize("qos", [1, 2])
def test_what_broke_off_in_its_middle_comes_as_new(qos: p.QoS) -> None:
    driver = Driver()
    driver.session.receive([first := streamed(1, qos)])
    driver.lose()
    driver.attach(present=True)
    driver.session.receive([again := streamed(1, qos)])
    assert driver.delivered() == [first, again]
    driver.release(first)
    complete(driver, again)
    assert driver.release(again) == [p.PubAck(1) if qos == 1 else p.PubRec(1)]
