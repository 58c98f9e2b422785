"""Our requests: acceptance, windows, answers, resends (sections 4.3, 4.4, 4.6)."""

from __future__ import annotations

import pytest

from trio_mqtt import _packets as p
from trio_mqtt._errors import Down, ProtocolViolation, ResponseLost, SubmitInterrupted
from trio_mqtt._outbox import APART
from trio_mqtt._requests import Ping, SubscribeRequest, Transfer
from trio_mqtt._transfers import MAX_PENDING, Limits

from .session_driver import Driver, ids


def publish(driver: Driver, qos: int = 1, payload: bytes = b"x", topic: str = "t") -> Transfer:
    assert qos in (1, 2)
    return driver.session.publish(topic, payload, 2 if qos == 2 else 1, retain=False)


def subscribe(driver: Driver, *filters: str, qos: p.QoS = 2) -> SubscribeRequest:
    return driver.session.subscribe([(topic_filter, qos) for topic_filter in filters])


@pytest.mark.conformance("MQTT-4.3.1-1", "MQTT-2.3.1-5")
def test_at_most_once_is_sent_and_forgotten() -> None:
    driver = Driver()
    driver.session.publish_at_most_once("t", b"x", retain=True)
    assert driver.sent() == [p.Message("t", b"x", 0, retain=True)]
    driver.lose()
    assert driver.attach(present=True) == []
    assert driver.session.counters.published_at_most_once == 1


@pytest.mark.conformance("MQTT-4.3.2-1", "MQTT-2.3.1-3", "MQTT-2.3.1-6")
def test_at_least_once() -> None:
    driver = Driver()
    transfer = publish(driver)
    assert ids(driver.sent()) == [("PUBLISH", 1)]
    assert driver.session.unconfirmed == 1
    assert driver.receive(p.PubAck(1)) == []
    assert driver.settled() == [transfer]
    assert driver.session.unconfirmed == 0
    assert driver.session.counters.confirmed == 1


@pytest.mark.conformance("MQTT-4.3.3-1", "MQTT-2.3.1-3", "MQTT-2.3.1-6")
def test_exactly_once() -> None:
    driver = Driver()
    transfer = publish(driver, 2)
    assert ids(driver.sent()) == [("PUBLISH", 1)]
    assert driver.receive(p.PubRec(1)) == [p.PubRel(1)]
    assert driver.settled() == []
    assert driver.receive(p.PubComp(1)) == []
    assert driver.settled() == [transfer]


@pytest.mark.parametrize("size", [APART - 1, APART, APART + 1])
def test_a_large_message_is_the_same_again_and_takes_no_second_copy(size: int) -> None:
    payload = bytes(size)
    driver = Driver(attach=False)
    publish(driver, 1, payload)
    publish(driver, 2, payload)
    sent = driver.attach(present=True, restart_at=1_000)  # under other identifiers
    assert ids(sent) == [("PUBLISH", 1_000), ("PUBLISH", 1_001)]
    driver.lose()
    again = driver.attach(present=True)
    for packet in (*sent, *again):
        assert isinstance(packet, p.Delivery)
        assert packet.message.payload == payload
        assert packet.message.dup is (packet in again)
    driver.session.publish_at_most_once("t", payload, retain=True)
    assert driver.sent() == [p.Message("t", payload, 0, retain=True)]
    driver.session.publish_at_most_once("t", payload, retain=True)
    assert driver.session.outbox is not None
    assert any(part is payload for part in driver.session.outbox.take()) is (size >= APART)


def test_a_repeated_pubrec_gets_another_pubrel() -> None:
    driver = Driver()
    publish(driver, 2)
    driver.sent()
    assert driver.receive(p.PubRec(1), p.PubRec(1)) == [p.PubRel(1), p.PubRel(1)]


@pytest.mark.conformance("MQTT-4.6.0-4")
def test_pubrels_go_out_in_the_order_of_the_pubrecs() -> None:
    driver = Driver()
    for _ in range(3):
        publish(driver, 2)
    driver.sent()
    answers = driver.receive(p.PubRec(2), p.PubRec(3), p.PubRec(1))
    assert answers == [p.PubRel(2), p.PubRel(3), p.PubRel(1)]
    driver.lose()
    assert ids(driver.attach(present=True)) == [("PUBREL", 2), ("PUBREL", 3), ("PUBREL", 1)]


def test_answers_are_matched_in_any_order() -> None:
    """PITFALLS G9: several brokers and clouds answer out of order."""
    driver = Driver()
    transfers = [publish(driver) for _ in range(3)]
    driver.sent()
    driver.receive(p.PubAck(3), p.PubAck(1), p.PubAck(2))
    assert driver.settled() == [transfers[2], transfers[0], transfers[1]]


def test_a_puback_for_exactly_once_confirms_and_is_counted() -> None:
    """RabbitMQ's habit."""
    driver = Driver()
    transfer = publish(driver, 2)
    driver.sent()
    driver.receive(p.PubAck(1))
    assert driver.settled() == [transfer]
    assert driver.session.counters.downgrades == 1


@pytest.mark.conformance("MQTT-2.3.1-1", "MQTT-2.3.1-2")
def test_identifiers_count_up_wrap_and_skip_those_in_use() -> None:
    driver = Driver()
    kept = publish(driver)
    for expected in range(2, 65_536):
        assert publish(driver).packet_id == expected
        driver.session.receive([p.PubAck(expected)])
    assert kept.packet_id == 1
    assert publish(driver).packet_id == 2


def test_windows_bound_what_is_on_the_wire_by_qos() -> None:
    driver = Driver(Limits(at_least_once_window=2, exactly_once_window=1))
    one = [publish(driver, 1) for _ in range(3)]
    for _ in range(2):
        publish(driver, 2)
    assert [transfer.is_waiting for transfer in one] == [False, False, True]
    assert ids(driver.sent()) == [("PUBLISH", 1), ("PUBLISH", 2), ("PUBLISH", 4)]
    assert [transfer.packet_id for transfer in driver.session.waiting()] == [3, 5]
    assert ids(driver.receive(p.PubAck(2))) == [("PUBLISH", 3)]
    # What is released is on the wire until PUBCOMP: mosquitto counts it.
    assert ids(driver.receive(p.PubRec(4))) == [("PUBREL", 4)]
    assert ids(driver.receive(p.PubComp(4))) == [("PUBLISH", 5)]
    assert driver.session.waiting() == []


def test_room_is_what_is_accepted_and_not_confirmed() -> None:
    driver = Driver(Limits(at_least_once_max=2, exactly_once_max=1))
    assert (driver.session.room(1), driver.session.room(2)) == (2, 1)
    publish(driver)
    publish(driver, 2)
    assert (driver.session.room(1), driver.session.room(2)) == (1, 0)
    driver.sent()
    driver.receive(p.PubAck(1))
    assert driver.session.room(1) == 2


# Resends


@pytest.mark.conformance("MQTT-4.4.0-1", "MQTT-3.3.1-1", "MQTT-2.3.1-3")
@pytest.mark.parametrize("present", [True, False], ids=["present", "lost"])
def test_resends_with_the_original_identifiers_and_dup(present: bool) -> None:
    """Whatever session present says: a message that was accepted is delivered."""
    driver = Driver()
    publish(driver, 2, b"released")
    publish(driver, 2, b"published")
    publish(driver, 1)
    driver.sent()
    driver.receive(p.PubRec(1))
    driver.lose()
    assert ids(driver.attach(present=present)) == [
        ("PUBREL", 1),
        ("PUBLISH!", 2),
        ("PUBLISH!", 3),
    ]


@pytest.mark.conformance("MQTT-4.6.0-1")
def test_resends_in_the_order_of_the_first_sending_across_qos() -> None:
    driver = Driver(Limits(exactly_once_window=1))
    publish(driver, 2)  # 1
    publish(driver, 2)  # 2 waits for 1
    publish(driver, 1)  # 3 overtakes it
    assert ids(driver.sent()) == [("PUBLISH", 1), ("PUBLISH", 3)]
    driver.receive(p.PubRec(1), p.PubComp(1))
    driver.lose()
    assert ids(driver.attach(present=True)) == [("PUBLISH!", 3), ("PUBLISH!", 2)]


@pytest.mark.conformance("MQTT-4.3.3-1")
def test_a_publish_is_not_sent_again_after_its_pubrel() -> None:
    driver = Driver()
    publish(driver, 2)
    driver.sent()
    driver.receive(p.PubRec(1))
    for _ in range(2):
        driver.lose()
        assert driver.attach(present=True) == [p.PubRel(1)]


def test_a_message_accepted_offline_goes_out_without_dup() -> None:
    """PITFALLS, the prototype's second: DUP means attempted before."""
    driver = Driver(attach=False)
    publish(driver)
    publish(driver, 2)
    assert ids(driver.attach()) == [("PUBLISH", 1), ("PUBLISH", 2)]


def test_what_no_transport_was_given_goes_out_without_dup() -> None:
    driver = Driver()
    publish(driver)
    outbox = driver.session.outbox
    assert outbox is not None
    driver.sent()
    publish(driver)
    assert [type(error) for _, error in driver.lose()] == [ResponseLost]
    assert ids(driver.attach(present=True)) == [("PUBLISH!", 1), ("PUBLISH", 2)]


def test_nothing_is_queued_to_be_sent_while_detached_so_nothing_goes_out_twice() -> None:
    """PITFALLS, the prototype's first: attaching and queueing the resends are one transition."""
    driver = Driver()
    publish(driver)
    driver.sent()
    driver.lose()
    publish(driver)
    assert ids(driver.attach(present=True)) == [("PUBLISH!", 1), ("PUBLISH", 2)]
    assert driver.sent() == []


def test_a_clean_session_sends_again_as_new_and_confirms_what_was_released() -> None:
    driver = Driver(attach=False)
    driver.attach(clean=True)
    released = publish(driver, 2)
    publish(driver, 2)
    publish(driver, 1)
    driver.sent()
    driver.receive(p.PubRec(1))
    driver.lose()
    assert ids(driver.attach(clean=True)) == [("PUBLISH", 2), ("PUBLISH", 3)]
    assert driver.settled() == [released]


def test_a_clean_session_sends_nothing_twice_and_keeps_the_order() -> None:
    driver = Driver(Limits(exactly_once_window=2), attach=False)
    driver.attach(clean=True)
    for _ in range(3):
        publish(driver, 2)
    driver.sent()
    driver.receive(p.PubRec(1))
    driver.lose()
    assert ids(driver.attach(clean=True)) == [("PUBLISH", 2), ("PUBLISH", 3)]


@pytest.mark.conformance("MQTT-2.3.1-2")
def test_a_session_of_an_unknown_past_numbers_from_elsewhere() -> None:
    driver = Driver(attach=False)
    first, long = publish(driver), publish(driver, 2, b"y" * 1000)
    sent = driver.attach(present=True, restart_at=65_535)
    assert ids(sent) == [("PUBLISH", 65_535), ("PUBLISH", 1)]
    assert isinstance(sent[1], p.Delivery)
    assert sent[1].message == p.Message("t", b"y" * 1000, 2)
    assert (first.packet_id, long.packet_id) == (65_535, 1)
    driver.receive(p.PubAck(65_535), p.PubRec(1), p.PubComp(1))
    assert driver.settled() == [first, long]
    driver.lose()
    driver.attach(present=True, restart_at=500)  # from now on the session is ours
    assert publish(driver).packet_id == 2


# Subscriptions


@pytest.mark.conformance("MQTT-2.3.1-7", "MQTT-3.8.4-2")
def test_subscribe_and_unsubscribe() -> None:
    driver = Driver()
    request = subscribe(driver, "a", "b/#", qos=1)
    assert driver.sent() == [p.Subscribe(1, (("a", 1), ("b/#", 1)))]
    driver.receive(p.SubAck(1, (0, p.FAILED)))
    assert driver.settled() == [request]
    assert request.return_codes == (0, p.FAILED)
    [other] = driver.session.unsubscribe(["a"])
    assert driver.sent() == [p.Unsubscribe(2, ("a",))]
    driver.receive(p.UnsubAck(2))
    assert driver.settled() == [other]
    assert driver.session.request_room == MAX_PENDING


def test_a_lost_session_gets_its_subscriptions_back_before_anything_else() -> None:
    driver = Driver()
    filters = [f"a/{i}" for i in range(p.MAX_TOPIC_FILTERS + 1)]
    for topic_filter in filters:
        request = subscribe(driver, topic_filter, qos=1)
        driver.receive(p.SubAck(request.packet.packet_id, (1,)))
    publish(driver)
    driver.sent()
    driver.settled()
    driver.lose()
    first, second, resend = driver.attach()
    assert isinstance(first, p.Subscribe)
    assert isinstance(second, p.Subscribe)
    assert isinstance(resend, p.Delivery)
    assert first.requests + second.requests == tuple((name, 1) for name in filters)
    assert len(first.requests) == p.MAX_TOPIC_FILTERS


def test_a_restoration_that_was_cut_off_is_taken_up_again() -> None:
    driver = Driver()
    subscribe(driver, "a")
    driver.receive(p.SubAck(1, (2,)))
    driver.lose()
    assert ids(driver.attach(present=False)) == [("SUBSCRIBE", 2)]
    driver.lose()
    # The broker made a new session at that connect, and so it is present now, without the filter.
    assert ids(driver.attach(present=True)) == [("SUBSCRIBE", 3)]
    driver.receive(p.SubAck(3, (2,)))
    driver.lose()
    assert driver.attach(present=True) == []


def test_a_kept_session_gets_back_what_was_granted_at_qos_0() -> None:
    """RabbitMQ forgets these."""
    driver = Driver()
    subscribe(driver, "zero", "one")
    driver.receive(p.SubAck(1, (0, 1)))
    driver.lose()
    assert driver.attach(present=True) == [p.Subscribe(2, (("zero", 2),))]


def test_what_was_unsubscribed_or_failed_is_not_restored() -> None:
    driver = Driver()
    subscribe(driver, "a", "b", "c")
    driver.receive(p.SubAck(1, (2, p.FAILED, 2)))
    driver.session.unsubscribe(["a"])  # not even answered
    subscribe(driver, "c")
    driver.receive(p.SubAck(3, (p.FAILED,)))
    driver.lose()
    assert driver.attach() == []


def test_an_unsuback_ends_a_subscription_that_was_granted_meanwhile() -> None:
    driver = Driver()
    subscribe(driver, "a")
    driver.session.unsubscribe(["a"])
    driver.receive(p.SubAck(1, (2,)), p.UnsubAck(2))
    driver.lose()
    assert driver.attach() == []


def test_a_filter_refused_at_its_restoration_is_told() -> None:
    driver = Driver()
    subscribe(driver, "a", "b")
    driver.receive(p.SubAck(1, (2, 2)))
    driver.lose()
    driver.attach()
    driver.receive(p.SubAck(2, (2, p.FAILED)))
    subscriptions = driver.session.subscriptions
    assert subscriptions.refused == [(subscriptions.application, "b")]
    driver.lose()
    assert driver.attach() == [p.Subscribe(3, (("a", 2),))]


def test_a_filter_refused_at_its_restoration_and_unsubscribed_since_is_not() -> None:
    driver = Driver()
    subscribe(driver, "a")
    driver.receive(p.SubAck(1, (2,)))
    driver.lose()
    driver.attach()
    driver.session.unsubscribe(["a"])
    driver.receive(p.SubAck(2, (p.FAILED,)), p.UnsubAck(3))
    assert driver.session.subscriptions.refused == []


# What the end of a connection means


def test_the_end_of_a_connection_tells_what_became_of_each_request() -> None:
    driver = Driver()
    written = subscribe(driver, "a")
    driver.sent()
    [interrupted] = driver.session.unsubscribe(["a"])
    outbox = driver.session.outbox
    assert outbox is not None
    outbox.begun += 3
    unsent = driver.session.ping()
    lost = dict(driver.lose("pulled"))
    assert {pending: type(error) for pending, error in lost.items()} == {
        written: ResponseLost,
        interrupted: SubmitInterrupted,
        unsent: Down,
    }
    assert all("pulled" in str(error) for error in lost.values())
    driver.attach(present=True)
    assert publish(driver).packet_id == 3  # they gave their identifiers back, and no answer comes
    driver.receive(p.SubAck(1, (0,)), p.PingResp())
    assert driver.session.counters.unmatched_answers == 2
    assert driver.settled() == []


def test_transfers_are_interrupted_and_go_on() -> None:
    driver = Driver()
    released, published = publish(driver, 2), publish(driver, 1)
    driver.sent()
    driver.receive(p.PubRec(1))
    lost = driver.lose()
    assert [(pending, type(error)) for pending, error in lost] == [
        (released, ResponseLost),
        (published, ResponseLost),
    ]


def test_pings_are_answered_in_turn() -> None:
    driver = Driver()
    first, second = driver.session.ping(), driver.session.ping()
    assert driver.sent() == [p.PingReq(), p.PingReq()]
    driver.receive(p.PingResp())
    assert driver.settled() == [first]
    assert driver.session.oldest_ping is second
    driver.receive(p.PingResp())
    assert driver.settled() == [second]
    assert driver.session.oldest_ping is None
    assert isinstance(first, Ping)


@pytest.mark.conformance("MQTT-3.14.4-2")
def test_nothing_goes_out_behind_disconnect() -> None:
    driver = Driver()
    driver.session.publish_at_most_once("t", b"x", retain=False)
    driver.session.disconnect()
    publish(driver)
    assert driver.sent() == [p.Message("t", b"x"), p.Disconnect()]


# Answers that do not belong


@pytest.mark.parametrize(
    "answer",
    [p.PubAck(9), p.PubComp(9), p.SubAck(9, (0,)), p.UnsubAck(9), p.PingResp()],
    ids=repr,
)
def test_an_answer_to_nothing_is_counted_and_ignored(answer: p.Inbound) -> None:
    driver = Driver()
    assert driver.receive(answer) == []
    assert driver.settled() == []
    assert driver.session.counters.unmatched_answers == 1


def test_a_pubrec_to_nothing_gets_its_pubrel_so_that_the_exchange_ends() -> None:
    driver = Driver()
    assert driver.receive(p.PubRec(9)) == [p.PubRel(9)]
    assert driver.session.counters.unmatched_answers == 1


@pytest.mark.parametrize(
    "answer", [p.PubAck(2), p.PubComp(2), p.SubAck(2, (0,)), p.UnsubAck(2)], ids=repr
)
def test_an_answer_to_what_was_not_sent_yet_is_counted_and_ignored(answer: p.Inbound) -> None:
    driver = Driver(Limits(at_least_once_window=1))
    publish(driver)
    publish(driver)
    driver.sent()
    assert driver.receive(answer) == []
    assert driver.session.counters.unmatched_answers == 1
    assert ids(driver.receive(p.PubAck(1))) == [("PUBLISH", 2)]


@pytest.mark.parametrize(
    ("qos", "answer"),
    [
        (1, p.PubRec(1)),
        (1, p.PubComp(1)),
        (2, p.PubComp(1)),
        (1, p.SubAck(1, (0,))),
        (1, p.UnsubAck(1)),
    ],
    ids=repr,
)
def test_an_impossible_answer_to_a_publish_is_a_violation(qos: int, answer: p.Inbound) -> None:
    driver = Driver()
    publish(driver, qos)
    driver.sent()
    with pytest.raises(ProtocolViolation, match=r"1 (does not answer|answers a) PUBLISH"):
        driver.receive(answer)
    assert driver.settled() == []


def test_a_puback_after_the_pubrec_is_a_violation() -> None:
    driver = Driver()
    publish(driver, 2)
    driver.sent()
    driver.receive(p.PubRec(1))
    with pytest.raises(ProtocolViolation, match="PUBACK 1 does not answer PUBLISH"):
        driver.receive(p.PubAck(1))


@pytest.mark.parametrize(
    "answer", [p.PubAck(1), p.PubRec(1), p.PubComp(1), p.UnsubAck(1)], ids=repr
)
def test_an_impossible_answer_to_a_subscribe_is_a_violation(answer: p.Inbound) -> None:
    driver = Driver()
    subscribe(driver, "a")
    driver.sent()
    with pytest.raises(ProtocolViolation, match="1 does not answer SUBSCRIBE, sent with it"):
        driver.receive(answer)


def test_a_suback_to_an_unsubscribe_is_a_violation() -> None:
    driver = Driver()
    driver.session.unsubscribe(["a"])
    driver.sent()
    with pytest.raises(ProtocolViolation, match="SUBACK 1 does not answer UNSUBSCRIBE"):
        driver.receive(p.SubAck(1, (0,)))


@pytest.mark.conformance("MQTT-3.8.4-5")
def test_a_suback_has_a_return_code_for_each_filter() -> None:
    driver = Driver()
    subscribe(driver, "a", "b")
    driver.sent()
    with pytest.raises(ProtocolViolation, match="SUBACK with 1 return codes for 2 topic filters"):
        driver.receive(p.SubAck(1, (0,)))


@pytest.mark.conformance("MQTT-3.2.0-1")
def test_a_second_connack_is_a_violation() -> None:
    driver = Driver()
    with pytest.raises(ProtocolViolation, match="CONNACK on a connection that is established"):
        driver.receive(p.ConnAck(False, 0))


def test_what_was_accepted_while_offline_is_sent_in_order_over_both_levels() -> None:
    driver = Driver(Limits(exactly_once_window=1), attach=False)
    for qos in (2, 1, 2, 1):
        publish(driver, qos)
    assert ids(driver.attach()) == [("PUBLISH", 1), ("PUBLISH", 2), ("PUBLISH", 4)]
    driver.receive(p.PubRec(1))
    assert ids(driver.receive(p.PubComp(1))) == [("PUBLISH", 3)]
