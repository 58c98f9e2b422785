"""A durable session: what waits for which record, without a network and without a disk."""

from __future__ import annotations

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec
from trio_mqtt._journal import Batch
from trio_mqtt._outbox import APART
from trio_mqtt._recovery import new_session, recover
from trio_mqtt._requests import Stage, Transfer
from trio_mqtt._session import Stored
from trio_mqtt._transfers import Limits

from .session_driver import Driver, delivery, ids


def begin(limits: Limits | None = None, *, attach: bool = True) -> Driver:
    """A session that has begun, and that the broker knows nothing of."""
    recovery = new_session("me")
    driver = Driver(limits, stored=recovery.stored, attach=False)
    driver.values.update(recovery.saves)
    driver.session.discarded()
    driver.store()
    if attach:
        driver.attach()
    return driver


def stored(driver: Driver) -> Stored:
    """What the next process finds."""
    return recover(driver.values, Codec()).stored


def adopt(driver: Driver, *, attach: bool = True, present: bool = True) -> Driver:
    """The session in another process, after this one was killed."""
    recovery = recover(driver.values, Codec())
    assert not recovery.warnings
    adopted = Driver(stored=recovery.stored, attach=False)
    adopted.values.update(driver.values)
    if attach:
        adopted.attach(present=present)
    return adopted


def publish(driver: Driver, qos: int = 1, payload: bytes = b"x") -> Transfer:
    return driver.session.publish("t", payload, 2 if qos == 2 else 1, retain=False)


def found(driver: Driver) -> list[tuple[int, Stage]]:
    """The transfers that the next process goes on with."""
    return [(transfer.packet_id, transfer.stage) for transfer in stored(driver).transfers]


# Our messages


@pytest.mark.parametrize("size", [APART - 1, APART])
def test_a_large_message_is_stored_as_a_whole(size: int) -> None:
    driver, payload = begin(), bytes(size)
    publish(driver, 1, payload)
    for sent in (driver.store(), adopt(driver, attach=False).attach(present=True)):
        [packet] = sent
        assert isinstance(packet, p.Delivery)
        assert packet.message.payload == payload


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_is_sent_once_it_is_stored(qos: int) -> None:
    driver = begin()
    transfer = publish(driver, qos)
    assert driver.sent() == []
    assert driver.session.storing() == driver.session.waiting() == [transfer]
    assert driver.session.accepted == []
    assert ids(driver.store()) == [("PUBLISH", 1)]
    assert driver.session.accepted == [transfer]
    assert driver.session.storing() == driver.session.waiting() == []
    assert driver.records() == [(1, "PUBLISH")]


def test_messages_keep_their_order_though_some_were_stored_before() -> None:
    driver = begin(Limits(at_least_once_window=1))
    for payload in (b"1", b"2"):
        publish(driver, payload=payload)
    batch = driver.take()
    publish(driver, payload=b"3")
    assert ids(driver.store(batch)) == [("PUBLISH", 1)]
    assert ids(driver.receive(p.PubAck(1))) == [("PUBLISH", 2)]
    assert driver.store() == []
    assert ids(driver.receive(p.PubAck(2))) == [("PUBLISH", 3)]


def test_a_message_that_is_stored_while_offline_is_new_on_the_next_connection() -> None:
    driver = begin(attach=False)
    publish(driver)
    driver.store()
    assert ids(driver.attach()) == [("PUBLISH", 1)]


def test_a_connection_that_came_during_a_commit_does_not_send_twice() -> None:
    """PITFALLS, the first that a prototype met."""
    driver = begin(attach=False)
    publish(driver)
    batch = driver.take()
    assert driver.attach() == []
    assert ids(driver.store(batch)) == [("PUBLISH", 1)]


def test_a_confirmation_deletes_the_record() -> None:
    driver = begin()
    transfer = publish(driver)
    driver.store()
    driver.receive(p.PubAck(1))
    assert driver.settled() == [transfer]
    assert driver.session.has_records
    assert driver.session.journal is not None
    assert not driver.session.journal.urgent, "nothing waits for it"
    driver.store()
    assert driver.records() == []
    assert not driver.session.has_records


@pytest.mark.conformance("MQTT-4.3.3-1")
def test_pubrel_is_sent_once_it_is_stored_that_pubrec_came() -> None:
    driver = begin()
    transfer = publish(driver, 2)
    driver.store()
    assert driver.receive(p.PubRec(1)) == []
    assert driver.store() == [p.PubRel(1)]
    assert driver.records() == [(1, "RELEASED")]
    assert driver.receive(p.PubRec(1)) == [p.PubRel(1)], "the broker may not have it"
    assert driver.receive(p.PubComp(1)) == []
    assert driver.settled() == [transfer]
    driver.store()
    assert driver.records() == []


def test_a_pubrec_again_while_the_first_is_being_stored_is_not_answered_yet() -> None:
    driver = begin()
    publish(driver, 2)
    driver.store()
    driver.receive(p.PubRec(1))
    assert driver.receive(p.PubRec(1)) == []
    assert driver.store() == [p.PubRel(1)]


@pytest.mark.conformance("MQTT-4.4.0-1")
def test_a_connection_that_came_while_pubrec_was_being_stored() -> None:
    driver = begin()
    publish(driver, 2)
    driver.store()
    driver.receive(p.PubRec(1))
    driver.lose()
    assert driver.attach(present=True) == [], "neither PUBLISH again, nor PUBREL yet"
    assert driver.store() == [p.PubRel(1)]
    driver.lose()
    assert driver.attach(present=True) == [p.PubRel(1)]


def test_pubrec_that_is_stored_while_offline_waits_for_the_connection() -> None:
    driver = begin()
    publish(driver, 2)
    driver.store()
    driver.receive(p.PubRec(1))
    driver.lose()
    driver.store()
    assert driver.attach(present=True) == [p.PubRel(1)]


def test_a_pubcomp_that_came_too_early_leaves_no_record() -> None:
    driver = begin()
    transfer = publish(driver, 2)
    driver.store()
    driver.receive(p.PubRec(1), p.PubComp(1))
    assert driver.settled() == [transfer]
    assert driver.store() == []
    assert driver.records() == []


def test_an_identifier_is_used_again_before_its_record_was_deleted() -> None:
    driver = begin()
    for packet_id in range(1, 65_536):
        publish(driver)
        driver.store()
        driver.receive(p.PubAck(packet_id))
    driver.settled()
    publish(driver, payload=b"again")
    assert ids(driver.store()) == [("PUBLISH", 1)]
    assert found(driver) == [(1, Stage.WAITING)]


# What could not be stored


def fail(driver: Driver) -> list[Transfer]:
    driver.take()
    return driver.session.not_stored()


def test_a_message_that_cannot_be_stored_is_not_accepted_and_frees_its_place() -> None:
    driver = begin(Limits(at_least_once_max=1))
    transfer = publish(driver)
    assert driver.session.room(1) == 0
    assert fail(driver) == [transfer]
    assert transfer.stage is Stage.REFUSED
    assert not transfer.is_open
    assert driver.session.room(1) == 1
    assert driver.session.unconfirmed == 0
    assert driver.sent() == []
    driver.lose()
    assert driver.attach(present=True) == []


def test_a_commit_that_failed_may_have_stored_it_so_the_next_one_deletes_it() -> None:
    driver = begin()
    publish(driver)
    batch = driver.take()
    driver.values.update(batch.saves())
    driver.session.not_stored()
    assert found(driver) == [(1, Stage.WAITING)]
    driver.store()
    assert found(driver) == []


def test_everything_else_of_a_failed_commit_is_tried_again_in_order() -> None:
    driver = begin()
    for _ in range(3):
        publish(driver, 2)
    driver.store()
    driver.receive(p.PubRec(2))
    refused = publish(driver)
    driver.take()
    driver.receive(p.PubRec(3), p.PubRec(1))
    accepted = publish(driver)
    assert driver.session.not_stored() == [refused]
    assert ids(driver.store()) == [
        ("PUBREL", 2),
        ("PUBREL", 3),
        ("PUBREL", 1),
        ("PUBLISH", accepted.packet_id),
    ]
    assert found(driver) == [
        (2, Stage.RELEASED),
        (3, Stage.RELEASED),
        (1, Stage.RELEASED),
        (accepted.packet_id, Stage.WAITING),
    ]


# Adopting


@pytest.mark.conformance("MQTT-4.6.0-1")
def test_an_adopted_session_goes_on_where_it_stopped() -> None:
    driver = begin()
    for qos in (2, 1, 2, 1):
        publish(driver, qos)
    driver.store()
    driver.receive(p.PubRec(3))
    driver.store()
    adopted = adopt(driver, attach=False)
    assert adopted.session.unconfirmed == 4
    assert ids(adopted.attach(present=True)) == [
        ("PUBREL", 3),
        ("PUBLISH!", 1),
        ("PUBLISH!", 2),
        ("PUBLISH!", 4),
    ]
    assert adopted.receive(p.PubAck(2), p.PubAck(4), p.PubComp(3)) == []
    assert len(adopted.settled()) == 3


@pytest.mark.conformance("MQTT-4.6.0-4", "MQTT-4.4.0-1")
def test_adopted_releases_are_in_the_order_of_their_pubrecs() -> None:
    driver = begin()
    for _ in range(3):
        publish(driver, 2)
    driver.store()
    driver.receive(p.PubRec(3), p.PubRec(1))
    driver.store()
    assert ids(adopt(driver, attach=False).attach(present=True)) == [
        ("PUBREL", 3),
        ("PUBREL", 1),
        ("PUBLISH!", 2),
    ]


def test_adopted_messages_keep_within_the_window() -> None:
    driver = begin()
    for _ in range(5):
        publish(driver)
    driver.store()
    adopted = Driver(Limits(at_least_once_window=2), stored=stored(driver), attach=False)
    assert ids(adopted.attach(present=True)) == [("PUBLISH!", 1), ("PUBLISH!", 2)]
    publish(adopted)
    adopted.store()
    assert ids(adopted.receive(p.PubAck(1))) == [("PUBLISH!", 3)]
    assert ids(adopted.receive(p.PubAck(2), p.PubAck(3), p.PubAck(4))) == [
        ("PUBLISH!", 4),
        ("PUBLISH!", 5),
        ("PUBLISH", 6),
    ]


def test_adopted_messages_count_towards_the_most_that_are_accepted() -> None:
    driver = begin()
    for _ in range(5):
        publish(driver)
    driver.store()
    adopted = Driver(Limits(at_least_once_max=4), stored=stored(driver), attach=False)
    assert adopted.session.room(1) < 0
    adopted.attach(present=True)
    adopted.receive(p.PubAck(1), p.PubAck(2))
    assert adopted.session.room(1) == 1


def test_the_broker_lost_its_side_of_an_adopted_session() -> None:
    """The original identifiers all the same, with DUP, PUBREL as PUBREL."""
    driver = begin()
    publish(driver, 2)
    publish(driver, 2)
    driver.store()
    driver.receive(p.PubRec(1))
    driver.store()
    assert ids(adopt(driver, attach=False).attach(present=False)) == [
        ("PUBREL", 1),
        ("PUBLISH!", 2),
    ]


def test_adopt_publish_adopt_publish_adopt_loses_nothing() -> None:
    """PITFALLS G1: each life continues the numbering, so that its messages come behind."""
    driver = begin()
    for life in range(4):
        publish(driver, payload=b"%d" % life)
        driver.store()
        driver = adopt(driver, attach=False)
    assert found(driver) == [(number, Stage.WAITING) for number in range(1, 5)]
    sequences = [stored(driver).next_sequence]
    driver = adopt(driver, attach=False)
    publish(driver)
    driver.store()
    sequences.append(stored(driver).next_sequence)
    assert sequences == [sequences[0], sequences[0] + 1]


def test_a_session_that_was_never_connected_still_has_its_discarding_due() -> None:
    recovery = new_session("me")
    driver = Driver(stored=recovery.stored, attach=False)
    driver.values.update(recovery.saves)
    assert stored(driver).identity.discard_due
    driver.session.discarded()
    driver.store()
    assert not stored(driver).identity.discard_due


def test_a_volatile_session_keeps_no_record_of_its_discarding() -> None:
    driver = Driver()
    driver.session.discarded()
    assert not driver.session.has_records
    assert not driver.session.is_identifying


# Messages of the broker's


@pytest.mark.conformance("MQTT-4.3.3-2")
def test_pubrec_is_sent_once_the_release_is_stored() -> None:
    driver = begin()
    driver.receive(delivery(7, 2))
    (message,) = driver.delivered()
    assert driver.release(message) == []
    assert not message.released
    assert driver.store() == [p.PubRec(7)]
    assert message.released
    assert driver.records() == [(0x10007, "RECEIVED")]


def test_a_release_at_qos_1_needs_no_record() -> None:
    driver = begin()
    driver.receive(delivery(7, 1))
    assert driver.release(*driver.delivered()) == [p.PubAck(7)]
    assert not driver.session.has_records


@pytest.mark.conformance("MQTT-4.6.0-3")
def test_pubrecs_keep_their_order_though_a_later_one_is_stored_first() -> None:
    driver = begin()
    driver.receive(delivery(1, 2), delivery(2, 2))
    first, second = driver.delivered()
    assert driver.release(second) == []
    assert driver.store() == []
    assert driver.release(first) == []
    assert driver.store() == [p.PubRec(1), p.PubRec(2)]


def test_pubcomp_is_sent_once_the_identifier_is_forgotten() -> None:
    """Else a crash would have a new message under that identifier taken for this one."""
    driver = begin()
    driver.receive(delivery(7, 2))
    driver.release(*driver.delivered())
    driver.store()
    assert driver.receive(p.PubRel(7)) == []
    assert driver.store() == [p.PubComp(7)]
    assert driver.records() == []


def test_pubcomp_of_a_connection_that_was_lost_meanwhile_is_not_sent_on_the_next() -> None:
    driver = begin()
    driver.receive(p.PubRel(7))
    driver.lose()
    driver.attach(present=True)
    assert driver.store() == []
    driver.receive(p.PubRel(7))
    assert driver.store() == [p.PubComp(7)]


def test_a_redelivery_while_the_release_is_being_stored() -> None:
    driver = begin()
    driver.receive(delivery(7, 2))
    driver.release(*driver.delivered())
    driver.lose()
    driver.attach(present=True)
    assert driver.receive(delivery(7, 2, dup=True)) == []
    assert driver.arrived() == []
    assert driver.store() == [p.PubRec(7)]


def test_a_release_that_is_stored_while_offline() -> None:
    driver = begin()
    driver.receive(delivery(7, 2))
    (message,) = driver.delivered()
    driver.lose()
    driver.session.release(message)
    driver.store()
    driver.attach(present=True)
    assert driver.receive(delivery(7, 2, dup=True)) == [p.PubRec(7)]
    assert driver.arrived() == []


def test_what_was_received_in_an_earlier_life_is_not_received_again() -> None:
    driver = begin()
    driver.receive(delivery(7, 2), delivery(8, 2))
    driver.release(driver.delivered()[0])
    driver.store()
    adopted = adopt(driver)
    assert adopted.receive(delivery(7, 2, dup=True), delivery(8, 2, dup=True)) == [p.PubRec(7)]
    assert [message.packet_id for message in adopted.delivered()] == [8]
    assert adopted.receive(p.PubRel(7)) == []
    assert adopted.store() == [p.PubComp(7)]
    assert adopted.receive(delivery(7, 2)) == []
    assert [message.packet_id for message in adopted.delivered()] == [7], "a new one"


def test_a_lost_session_forgets_what_was_received() -> None:
    """PITFALLS G3."""
    driver = begin()
    driver.receive(delivery(1, 2), delivery(2, 2), delivery(3, 2))
    first, second, _ = driver.delivered()
    driver.release(first)
    driver.store()
    driver.release(second)
    driver.lose()
    driver.attach(present=False)
    assert driver.session.is_clearing
    driver.store()
    assert not driver.session.is_clearing
    assert driver.records() == []
    assert second.released, "whoever waits for that need not wait for ever"


def test_a_session_that_is_lost_in_the_middle_of_a_commit_is_cleared_by_the_next() -> None:
    driver = begin()
    driver.receive(delivery(7, 2))
    (message,) = driver.delivered()
    driver.release(message)
    batch = driver.take()
    driver.lose()
    driver.attach(present=False)
    driver.receive(delivery(7, 2))
    (another,) = driver.delivered()
    assert driver.store(batch) == []
    assert message.released
    assert not another.released
    assert driver.session.is_clearing
    assert driver.store() == []
    assert driver.records() == []
    assert driver.release(another) == []
    assert driver.store() == [p.PubRec(7)]


def test_clearing_that_fails_is_not_forgotten() -> None:
    driver = begin()
    driver.receive(delivery(7, 2))
    driver.release(*driver.delivered())
    driver.store()
    driver.lose()
    driver.attach(present=False)
    assert fail(driver) == []
    assert driver.session.is_clearing
    driver.lose()
    driver.attach(present=True)
    assert driver.session.is_clearing
    driver.store()
    assert not driver.session.is_clearing


def test_a_lost_session_without_anything_received_has_nothing_to_clear() -> None:
    driver = begin()
    driver.lose()
    driver.attach(present=False)
    assert not driver.session.is_clearing
    assert not driver.session.has_records


def test_a_release_of_what_the_lost_session_sent_needs_no_record() -> None:
    driver = begin()
    driver.receive(delivery(7, 2))
    (message,) = driver.delivered()
    driver.lose()
    driver.attach(present=False)
    driver.store()
    assert driver.release(message) == []
    assert message.released
    assert not driver.session.has_records


def test_a_release_and_a_pubrel_that_failed_are_stored_with_the_next_commit() -> None:
    driver = begin()
    driver.receive(delivery(7, 2), delivery(8, 2))
    first, second = driver.delivered()
    driver.release(first)
    driver.receive(p.PubRel(9))
    driver.take()
    driver.release(second)
    assert driver.session.not_stored() == []
    assert driver.store() == [p.PubRec(7), p.PubRec(8), p.PubComp(9)]


# A CONNECT that got no answer


def lose_in_doubt(driver: Driver) -> None:
    """The broker may have begun another session since, of which the client did not hear."""
    driver.lose()
    driver.session.attach(clean=False, present=True, restart_at=1, in_doubt=True)


@pytest.mark.parametrize("durable", [True, False])
def test_after_a_lost_connack_a_new_message_under_a_known_identifier_is_new(
    durable: bool,
) -> None:
    """A redelivery has DUP [MQTT-3.3.1-1]: a message without it is another one."""
    driver = begin() if durable else Driver()
    driver.receive(delivery(7, 2), delivery(8, 2), delivery(9, 2))
    released, held, _ = driver.delivered()
    driver.release(released)
    if durable:
        driver.store()
    lose_in_doubt(driver)
    driver.receive(delivery(7, 2, payload=b"new"), delivery(8, 2, payload=b"new"))
    new = driver.delivered()
    assert [message.message.payload for message in new] == [b"new", b"new"]
    driver.receive(delivery(10, 2))
    assert len(driver.delivered()) == 1
    driver.receive(delivery(9, 2, dup=True))
    assert driver.delivered() == [], "which the application holds"
    driver.receive(delivery(7, 2, payload=b"new", dup=True))
    assert driver.delivered() == [], "once is enough"
    sent = driver.release(*new)
    if durable:
        sent += driver.store()
    assert ids(sent)[:2] == [("PUBREC", 7), ("PUBREC", 8)]
    assert not held.released


def test_after_a_lost_connack_a_redelivery_is_still_one() -> None:
    driver = begin()
    driver.receive(delivery(7, 2))
    driver.release(*driver.delivered())
    driver.store()
    lose_in_doubt(driver)
    assert driver.receive(delivery(7, 2, dup=True)) == [p.PubRec(7)]
    assert driver.receive(p.PubRel(7)) == []
    assert driver.store() == [p.PubComp(7)]


def test_after_a_lost_connack_all_subscriptions_are_asked_for_again() -> None:
    driver = Driver()
    driver.session.subscribe([("a", 2)])
    driver.receive(p.SubAck(1, (2,)))
    lose_in_doubt(driver)
    assert driver.sent() == [p.Subscribe(2, (("a", 2),))]


# Urgency


def test_what_somebody_waits_for_is_urgent() -> None:
    driver = begin()
    journal = driver.session.journal
    assert journal is not None
    assert not journal.has_queued
    driver.receive(delivery(7, 2))
    driver.release(*driver.delivered())
    assert journal.urgent
    assert not journal.wanted, "no caller is to be told at once"
    publish(driver)
    assert journal.wanted
    driver.store()
    assert not journal.urgent
    assert not journal.wanted
    driver.receive(p.PubRel(7))
    assert journal.urgent


def test_a_batch_is_all_that_was_queued_and_one_is_under_way_at_a_time() -> None:
    driver = begin()
    publish(driver, payload=b"12345")
    publish(driver, payload=b"12345")
    batch = driver.take()
    assert sorted(batch.saves()) == [1, 2]
    assert batch.deletes() == []
    assert batch.payload_bytes == 2 * len(b"\x32\x0a\0\x01t\0\x0112345")
    publish(driver)
    with pytest.raises(AssertionError):
        driver.take()
    driver.store(batch)
    assert sorted(driver.take().saves()) == [3]
    assert Batch().payload_bytes == 0
