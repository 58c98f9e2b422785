"""The exchanges in which the brokers have to agree, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode

from .agreement import Stage
from .wrong_packets import CONNECTS, PACKETS, connect

Exchange: TypeAlias = Callable[[Stage], Awaitable[None]]

EXCHANGES: dict[str, Exchange] = {}
WILL = p.Will("will", b"gone", qos=1)


def exchange(function: Exchange) -> Exchange:
    """Enters it into the table, by its own name."""
    EXCHANGES[function.__name__.replace("_", " ")] = function
    return function


# Packets that are wrong, or may be


def _first(packet: bytes) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("watcher")
        await stage.subscribe("watcher", ("#", 2))
        await stage.dial("a")
        await stage.say("a", packet)

    return play


EXCHANGES.update({f"CONNECT: {name}": _first(data) for name, data in CONNECTS.items()})


def _later(packet: bytes) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("watcher")
        await stage.subscribe("watcher", ("#", 2))
        await stage.connect("a", will=WILL)
        await stage.say("a", packet)

    return play


EXCHANGES.update({name: _later(data) for name, data in PACKETS.items()})


# Sessions


@exchange
async def a_clean_session_leaves_nothing(stage: Stage) -> None:
    await stage.connect("a")
    await stage.subscribe("a", ("t", 1))
    await stage.part("a")
    await stage.connect("a", clean=False)
    await stage.connect("b")
    await stage.publish("b", "for nobody", qos=1)


@exchange
async def a_session_stays(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.subscribe("a", ("t", 1))
    await stage.part("a")
    await stage.connect("a", clean=False)
    await stage.connect("b")
    await stage.publish("b", "here", qos=1)


@exchange
async def a_session_without_subscriptions_stays(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.part("a")
    await stage.connect("a", clean=False)


@exchange
async def a_clean_session_ends_the_one_before(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.subscribe("a", ("t", 1))
    await stage.part("a")
    await stage.connect("a")
    await stage.part("a")
    await stage.connect("a", clean=False)


@exchange
async def two_clients_without_identifier(stage: Stage) -> None:
    await stage.connect("a", "")
    await stage.connect("b", "")
    await stage.subscribe("a", ("t", 0))
    await stage.publish("b", "x")


@exchange
async def packets_right_behind_connect(stage: Stage) -> None:
    await stage.dial("a")
    behind = p.Subscribe(1, (("t", 0),)), p.Message("t", b"x")
    await stage.say("a", p.Connect("a", True, 0), *behind)


@exchange
async def packets_right_behind_a_connect_that_is_refused(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 0))
    await stage.dial("a")
    await stage.say("a", connect("", flags=0), p.Message("t", b"x"))


@exchange
async def messages_wait_for_a_client_that_is_away(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.subscribe("a", ("t", 2), ("u", 1), ("v", 0))
    await stage.part("a")
    await stage.connect("b")
    for topic in "tuv":
        for qos in p.QOS_LEVELS:
            for number in range(2):
                await stage.publish("b", f"{topic}{qos}{number}", topic, qos=qos)
    await stage.connect("a", clean=False)
    await stage.answer("a")
    await stage.answer("a")


@exchange
async def more_messages_wait_than_the_window_holds(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.subscribe("a", ("t", 1))
    await stage.part("a")
    await stage.connect("b")
    for number in range(45):
        await stage.publish("b", str(number), qos=1)
    await stage.connect("a", clean=False)
    for _ in range(3):
        await stage.answer("a")


@exchange
async def a_new_clean_session_does_not_get_what_waited(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.subscribe("a", ("t", 1))
    await stage.part("a")
    await stage.connect("b")
    await stage.publish("b", "lost", qos=1)
    await stage.connect("a")


@exchange
async def messages_are_sent_again(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.subscribe("a", ("t", 2))
    await stage.connect("b")
    for number in range(6):
        await stage.publish("b", str(number), qos=1 if number % 2 else 2)
    await stage.answer("a", 2)  # PUBREC of the first, PUBACK of the second
    await stage.cut("a")
    await stage.publish("b", "6", qos=1)
    await stage.connect("a", clean=False)


@exchange
async def messages_are_sent_again_at_each_connection(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.subscribe("a", ("t", 2))
    await stage.connect("b")
    await stage.publish("b", "once", qos=1)
    await stage.publish("b", "twice", qos=2)
    for _ in range(3):
        await stage.connect("a", clean=False)


@exchange
async def pubrel_is_sent_again(stage: Stage) -> None:
    await stage.connect("a", clean=False)
    await stage.subscribe("a", ("t", 2))
    await stage.connect("b")
    await stage.publish("b", "1", qos=2)
    await stage.publish("b", "2", qos=2)
    await stage.answer("a")
    await stage.part("a")
    await stage.connect("a", clean=False)
    await stage.answer("a")
    await stage.part("a")
    await stage.connect("a", clean=False)


@exchange
async def nothing_is_sent_again_on_the_same_connection(stage: Stage) -> None:
    await stage.connect("a")
    await stage.subscribe("a", ("t", 1))
    await stage.connect("b")
    await stage.publish("b", "1", qos=1)
    await stage.say("a", p.PingReq())
    await stage.subscribe("a", ("u", 1))


@exchange
async def exactly_once_over_two_connections(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 2))
    await stage.connect("a", clean=False)
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2), 7))
    await stage.cut("a")
    await stage.connect("a", clean=False)
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2, dup=True), 7))
    await stage.say("a", p.PubRel(7))
    await stage.say("a", p.PubRel(7))


@exchange
async def a_clean_session_forgets_what_was_not_released(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 2))
    await stage.connect("a", clean=False)
    await stage.say("a", p.Delivery(p.Message("t", b"old", 2), 7))
    await stage.part("a")
    await stage.connect("a")
    await stage.say("a", p.Delivery(p.Message("t", b"new", 2), 7))
    await stage.say("a", p.PubRel(7))


def _takeover(*, first: bool, second: bool) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("watcher")
        await stage.subscribe("watcher", ("will", 1))
        await stage.connect("first", "a", clean=first, will=WILL)
        await stage.subscribe("first", ("t", 1))
        await stage.connect("second", "a", clean=second)
        await stage.wait_closed("first")
        await stage.publish("watcher", "x", qos=1)

    return play


EXCHANGES.update(
    {
        "takeover, both clean": _takeover(first=True, second=True),
        "takeover, the first clean": _takeover(first=True, second=False),
        "takeover, the second clean": _takeover(first=False, second=True),
        "takeover, neither clean": _takeover(first=False, second=False),
    }
)


# The end of a connection


@exchange
async def nothing_follows_disconnect(stage: Stage) -> None:
    await stage.connect("watcher")
    await stage.subscribe("watcher", ("#", 1))
    await stage.connect("a", will=WILL)
    await stage.part("a", p.Message("t", b"too late"), p.PingReq())


@exchange
async def a_will_is_discarded_on_disconnect(stage: Stage) -> None:
    await stage.connect("watcher")
    await stage.subscribe("watcher", ("#", 1))
    await stage.connect("a", will=WILL)
    await stage.part("a")
    await stage.connect("a")
    await stage.say("a", b"\0\0")


def _will(will: p.Will, granted: p.QoS) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("watcher")
        await stage.subscribe("watcher", ("will", granted))
        await stage.connect("a", will=will)
        await stage.cut("a")
        await stage.wait_for("watcher", will.payload.decode())
        await stage.answer("watcher")
        await stage.connect("late")
        await stage.subscribe("late", ("will", 2))

    return play


EXCHANGES.update(
    {
        f"Will at QoS {qos}{', retained' if retain else ''}, granted {granted}": _will(
            p.Will("will", b"gone", qos=qos, retain=retain), granted
        )
        for qos in p.QOS_LEVELS
        for granted in p.QOS_LEVELS
        for retain in (False, True)
    }
)
EXCHANGES["Will without payload"] = _will(p.Will("will", b"", qos=1), 1)
EXCHANGES["Will of 65,535 bytes"] = _will(p.Will("will", bytes(65_535), qos=1), 1)


@exchange
async def a_retained_will_without_payload_clears(stage: Stage) -> None:
    await stage.connect("watcher")
    await stage.publish("watcher", "kept", "will", retain=True)
    await stage.subscribe("watcher", ("will", 1))
    await stage.connect("a", will=p.Will("will", b"", retain=True))
    await stage.cut("a")
    await stage.wait_for("watcher", "")
    await stage.subscribe("watcher", ("will", 1))


@exchange
async def a_will_waits_for_a_client_that_is_away(stage: Stage) -> None:
    await stage.connect("away", clean=False)
    await stage.subscribe("away", ("will", 1))
    await stage.part("away")
    await stage.connect("watcher")
    await stage.subscribe("watcher", ("will", 0))
    await stage.connect("a", clean=False, will=WILL)
    await stage.cut("a")
    await stage.wait_for("watcher", "gone")
    await stage.connect("away", clean=False)


@exchange
async def a_will_is_of_its_connection_not_of_the_session(stage: Stage) -> None:
    await stage.connect("watcher")
    await stage.subscribe("watcher", ("will", 0))
    await stage.connect("a", clean=False, will=WILL)
    await stage.part("a")
    await stage.connect("a", clean=False)
    await stage.say("a", b"\0\0")


@exchange
async def a_will_to_the_client_itself(stage: Stage) -> None:
    await stage.connect("watcher")
    await stage.subscribe("watcher", ("will", 0))
    await stage.connect("a", clean=False, will=WILL)
    await stage.subscribe("a", ("will", 1))
    await stage.cut("a")
    await stage.wait_for("watcher", "gone")
    await stage.connect("a", clean=False)


@exchange
async def a_silent_client_is_disconnected(stage: Stage) -> None:
    await stage.connect("watcher")
    await stage.subscribe("watcher", ("will", 0))
    await stage.connect("a", keep_alive=1, will=WILL)
    await stage.wait_closed("a")


# Messages from the client


def _published(qos: p.QoS, payload: str) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("b")
        await stage.subscribe("b", ("t", 2))
        await stage.connect("a")
        await stage.publish("a", payload, qos=qos)
        await stage.answer("b")
        await stage.answer("b")

    return play


EXCHANGES.update(
    {
        f"a message at QoS {qos} of {size} bytes": _published(qos, size * "x")
        for qos in p.QOS_LEVELS
        for size in (0, 1, 127, 128, 16_383, 2_097_152)
    }
)


def _levels(granted: p.QoS) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("b")
        await stage.subscribe("b", ("t", granted))
        await stage.connect("a")
        for qos in p.QOS_LEVELS:
            await stage.publish("a", f"at {qos}", qos=qos)

    return play


EXCHANGES.update({f"subscribed at QoS {granted}": _levels(granted) for granted in p.QOS_LEVELS})


@exchange
async def a_message_at_qos_2_before_and_after_its_release(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 2))
    await stage.connect("a")
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2), 7))
    await stage.say("a", p.PubRel(7))


@exchange
async def publish_again_before_pubrel(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 2))
    await stage.connect("a")
    for dup in (False, True):
        await stage.begin("a", p.Delivery(p.Message("t", b"x", 2, dup=dup), 7))
    await stage.say("a", p.PubRel(7))
    await stage.publish("a", "another", qos=2)


@exchange
async def publish_twice_again_before_pubrel(stage: Stage) -> None:
    await stage.connect("a")
    for dup in (False, True, True):
        await stage.say("a", p.Delivery(p.Message("t", b"x", 2, dup=dup), 7))
    await stage.say("a", p.PubRel(7))


@exchange
async def another_message_under_the_same_identifier_before_pubrel(stage: Stage) -> None:
    await stage.connect("a")
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2), 7))
    await stage.say("a", p.Delivery(p.Message("t", b"y", 2), 7))


@exchange
async def the_same_message_without_dup_before_pubrel(stage: Stage) -> None:
    await stage.connect("a")
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2), 7))
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2), 7))


@exchange
async def qos_1_under_the_identifier_of_an_unreleased_message(stage: Stage) -> None:
    await stage.connect("a")
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2), 7))
    await stage.say("a", p.Delivery(p.Message("t", b"y", 1), 7))


@exchange
async def subscribe_under_the_identifier_of_an_unreleased_message(stage: Stage) -> None:
    await stage.connect("a")
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2), 7))
    await stage.say("a", p.Subscribe(7, (("t", 1),)))


@exchange
async def qos_1_twice_is_two_messages(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 1))
    await stage.connect("a")
    for dup in (False, True, False):
        await stage.say("a", p.Delivery(p.Message("t", b"x", 1, dup=dup), 7))


@exchange
async def pubrel_twice(stage: Stage) -> None:
    await stage.connect("a")
    await stage.say("a", p.Delivery(p.Message("t", b"x", 2), 7))
    await stage.say("a", p.PubRel(7), p.PubRel(7))


@exchange
async def twenty_unreleased_messages(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 0))
    await stage.connect("a")
    for number in range(1, 21):
        await stage.begin("a", p.Delivery(p.Message("t", b"%d" % number, 2), number))
    await stage.say("a", *(p.PubRel(number) for number in range(1, 21)))


@exchange
async def twenty_two_unreleased_messages(stage: Stage) -> None:
    await stage.connect("a")
    for number in range(1, 23):
        await stage.say("a", p.Delivery(p.Message("t", b"%d" % number, 2), number))


@exchange
async def many_packets_at_once(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("#", 0))
    await stage.connect("a")
    messages = [p.Message("t", b"%d" % number, 1) for number in range(100)]
    await stage.say("a", *(p.Delivery(message, n + 1) for n, message in enumerate(messages)))
    await stage.say("a", *(p.PubRel(number) for number in range(1, 30)), p.PingReq(), p.PingReq())


@exchange
async def packets_byte_by_byte(stage: Stage) -> None:
    await stage.connect("a")
    packets = p.Subscribe(1, (("t", 2),)), p.Delivery(p.Message("t", b"x", 1), 2), p.PingReq()
    for byte in b"".join(map(encode, packets)):
        await stage.send("a", bytes((byte,)))
    await stage.say("a")


@exchange
async def dup_is_not_passed_on(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 2))
    await stage.connect("a")
    for qos in p.QOS_LEVELS[1:]:
        message = p.Message("t", b"x", qos, retain=True, dup=True)
        await stage.begin("a", p.Delivery(message, 7))
        await stage.say("a", p.PubRel(7))
    await stage.connect("late")
    await stage.subscribe("late", ("t", 2))


# Messages to the client


def _window(qos: p.QoS) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("b")
        await stage.subscribe("b", ("t", qos))
        await stage.connect("a")
        for number in range(23):
            await stage.publish("a", str(number), qos=qos)
        await stage.publish("a", "at most once")
        for _ in range(3):
            await stage.answer("b", 1)
        await stage.answer("b")
        await stage.answer("b")
        await stage.answer("b")

    return play


EXCHANGES["the window of messages at QoS 1"] = _window(1)
EXCHANGES["the window of messages at QoS 2"] = _window(2)


def _answered(qos: p.QoS, *answers: type[p.Ack]) -> Exchange:
    """The client answers a message by each of these, whatever it is told in return."""

    async def play(stage: Stage) -> None:
        await stage.connect("b", will=WILL)
        await stage.subscribe("b", ("t", qos))
        await stage.connect("a")
        await stage.subscribe("a", ("will", 0))
        await stage.publish("a", "x", qos=qos)
        [packet_id] = stage.owed("b")
        for answer in answers:
            await stage.say("b", answer(packet_id))

    return play


EXCHANGES.update(
    {
        "PUBREC for QoS 1": _answered(1, p.PubRec),
        "PUBCOMP for QoS 1": _answered(1, p.PubComp),
        "PUBREL for QoS 1": _answered(1, p.PubRel),
        "PUBACK twice": _answered(1, p.PubAck, p.PubAck),
        "PUBREC after PUBACK": _answered(1, p.PubAck, p.PubRec),
        "PUBACK for QoS 2": _answered(2, p.PubAck),
        "PUBCOMP before PUBREC": _answered(2, p.PubComp),
        "PUBREC twice": _answered(2, p.PubRec, p.PubRec),
        "PUBACK after PUBREC": _answered(2, p.PubRec, p.PubAck),
        "PUBCOMP twice": _answered(2, p.PubRec, p.PubComp, p.PubComp),
        "PUBREC after PUBCOMP": _answered(2, p.PubRec, p.PubComp, p.PubRec),
    }
)


@exchange
async def answers_in_another_order(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 1))
    await stage.connect("a")
    for number in range(3):
        await stage.publish("a", str(number), qos=1)
    await stage.say("b", *(p.PubAck(packet_id) for packet_id in reversed(stage.owed("b"))))


@exchange
async def one_receives_what_one_publishes(stage: Stage) -> None:
    await stage.connect("a")
    await stage.subscribe("a", ("t", 2))
    for qos in p.QOS_LEVELS:
        await stage.publish("a", f"at {qos}", qos=qos)


# Subscriptions


@exchange
async def overlapping_filters(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("a/+", 1), ("a/b", 2), ("#", 0))
    await stage.connect("a")
    await stage.publish("a", "x", "a/b", qos=2)
    await stage.publish("a", "y", "a/c", qos=2)
    await stage.publish("a", "z", "d", qos=2)


@exchange
async def overlapping_filters_the_lowest_first(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("#", 0), ("a/+", 1), ("a/b", 2))
    await stage.connect("a")
    await stage.publish("a", "x", "a/b", qos=2)


@exchange
async def overlapping_filters_with_retained_messages(stage: Stage) -> None:
    await stage.connect("a")
    await stage.publish("a", "kept", "a/b", qos=1, retain=True)
    await stage.connect("b")
    await stage.subscribe("b", ("a/+", 1), ("a/b", 2), ("a/b", 0))


@exchange
async def subscribing_again_replaces(stage: Stage) -> None:
    await stage.connect("a")
    await stage.publish("a", "kept", qos=2, retain=True)
    await stage.connect("b")
    for qos in (2, 0, 1):
        await stage.subscribe("b", ("t", p.QOS_LEVELS[qos]))
        await stage.publish("a", f"granted {qos}", qos=2)


@exchange
async def one_filter_twice_in_a_packet(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 2), ("t", 0))
    await stage.connect("a")
    await stage.publish("a", "x", qos=2)


@exchange
async def unsubscribing(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("a/b", 1), ("a/+", 1), ("a/#", 1))
    await stage.connect("a")
    for name in ("nothing", "a/+", "a/b", "a/b", "a/#"):
        await stage.say("b", p.Unsubscribe(9, (name,)))
        await stage.publish("a", f"after {name}", "a/b", qos=1)


@exchange
async def unsubscribing_from_several(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("a", 1), ("b", 1), ("c", 1))
    await stage.say("b", p.Unsubscribe(9, ("a", "nothing", "c", "c")))
    await stage.connect("a")
    for topic in "abc":
        await stage.publish("a", "x", topic)


@exchange
async def unsubscribing_leaves_what_was_sent(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 2))
    await stage.connect("a")
    await stage.publish("a", "x", qos=2)
    await stage.say("b", p.Unsubscribe(9, ("t",)))
    await stage.publish("a", "y", qos=2)
    await stage.answer("b")
    await stage.answer("b")


@exchange
async def unsubscribing_leaves_what_waits(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("t", 1))
    await stage.connect("a")
    for number in range(22):
        await stage.publish("a", str(number), qos=1)
    await stage.say("b", p.Unsubscribe(9, ("t",)))
    await stage.answer("b")


def _matched(*topic_filters: str) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("b")
        for name in topic_filters:
            await stage.subscribe("b", (name, 0))
        await stage.connect("a")
        for topic in ("a", "a/", "/a", "a/b", "a/b/c", "A", "a//b", "/", "é", "e\u0301", "a b"):
            await stage.publish("a", "x", topic)

    return play


EXCHANGES.update(
    {
        f"what {name} matches": _matched(name)
        for name in (
            "#", "+", "a", "a/#", "a/+", "+/a", "/+", "/#", "+/+", "+/#", "a/+/#", "a/b/c/#",
            "+/b/+", "a//b", "a/+/b", "é", "+/+/+", "A", "/", "//",
        )
    }
)  # fmt: skip


@exchange
async def topics_that_begin_with_a_dollar_sign(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("#", 0), ("+/x", 0), ("+/#", 0))
    await stage.connect("a")
    await stage.publish("a", "not matched", "$other/x")
    await stage.publish("a", "nor retained", "$other/x", retain=True)
    await stage.subscribe("b", ("#", 0))
    await stage.subscribe("b", ("$other/#", 0))
    await stage.publish("a", "matched", "$other/x")
    await stage.publish("a", "", "$other/x", retain=True)
    await stage.publish("a", "matched", "a/$other")


@exchange
async def a_dollar_sign_alone(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("$", 0), ("+", 0))
    await stage.connect("a")
    await stage.publish("a", "x", "$")
    await stage.publish("a", "x", "$x")


def _long(topic: str) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("b")
        await stage.subscribe("b", (topic, 1))
        await stage.connect("a")
        await stage.publish("a", "x", topic, qos=1)

    return play


EXCHANGES.update(
    {
        "a topic of 65,535 bytes": _long(65_535 * "x"),
        "a topic of 65,534 bytes of two each": _long(32_767 * "é"),
        "a topic of 200 levels": _long("/".join(200 * "x")),
        "a topic of 300 levels": _long("/".join(300 * "x")),
    }
)


# Retained messages


@exchange
async def retained_messages(stage: Stage) -> None:
    await stage.connect("a")
    await stage.connect("b")
    await stage.subscribe("b", ("t", 2))
    for payload, qos, retain in (
        ("kept", 2, True),
        ("not kept", 1, False),
        ("replaced", 0, True),
        ("replaced again", 1, True),
        ("", 1, False),
        ("", 0, True),
        ("", 1, True),
    ):
        await stage.publish("a", payload, qos=p.QOS_LEVELS[qos], retain=retain)
        await stage.answer("b")
        await stage.answer("b")
        await stage.connect("late")
        await stage.subscribe("late", ("t", 2))


def _retained(published: p.QoS, granted: p.QoS) -> Exchange:
    async def play(stage: Stage) -> None:
        await stage.connect("a")
        await stage.publish("a", "kept", qos=published, retain=True)
        await stage.connect("b")
        await stage.subscribe("b", ("t", granted))

    return play


EXCHANGES.update(
    {
        f"retained at QoS {published}, granted {granted}": _retained(published, granted)
        for published in p.QOS_LEVELS
        for granted in p.QOS_LEVELS
    }
)


@exchange
async def retained_messages_under_wildcards(stage: Stage) -> None:
    await stage.connect("a")
    for topic in ("a", "a/b", "a/b/c", "/a", "b/b"):
        await stage.publish("a", topic, topic, qos=1, retain=True)
    for name in ("#", "+", "a/#", "a/+", "+/b", "/+", "+/+/#", "a/b"):
        await stage.connect("b")
        await stage.subscribe("b", (name, 0))


@exchange
async def retained_messages_are_not_sent_to_a_session_that_returns(stage: Stage) -> None:
    await stage.connect("b", clean=False)
    await stage.subscribe("b", ("t", 1))
    await stage.part("b")
    await stage.connect("a")
    await stage.publish("a", "kept", qos=1, retain=True)
    await stage.connect("b", clean=False)
    await stage.answer("b")
    await stage.part("b")
    await stage.connect("b", clean=False)


@exchange
async def a_retained_message_outlives_its_publisher(stage: Stage) -> None:
    await stage.connect("a")
    await stage.publish("a", "kept", qos=1, retain=True)
    await stage.part("a")
    await stage.connect("b")
    await stage.subscribe("b", ("t", 1))


@exchange
async def more_retained_messages_than_the_window_holds(stage: Stage) -> None:
    await stage.connect("a")
    for number in range(22):
        await stage.publish("a", str(number), f"t/{number:02}", qos=1, retain=True)
    await stage.connect("b")
    await stage.subscribe("b", ("t/#", 1))
    await stage.answer("b")


@exchange
async def a_retained_message_is_sent_again(stage: Stage) -> None:
    await stage.connect("a")
    await stage.publish("a", "kept", qos=1, retain=True)
    await stage.connect("b", clean=False)
    await stage.subscribe("b", ("t", 1))
    await stage.cut("b")
    await stage.connect("b", clean=False)


# Others


@exchange
async def what_others_take_for_a_shared_subscription(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("$share/group/t", 0))
    await stage.connect("a")
    await stage.publish("a", "x")
    await stage.publish("a", "y", "$share/group/t")


@exchange
async def what_belongs_to_the_broker(stage: Stage) -> None:
    await stage.connect("b")
    await stage.subscribe("b", ("$SYS/ours", 1))
    await stage.connect("a")
    await stage.publish("a", "x", "$SYS/ours", qos=1)


@exchange
async def pings(stage: Stage) -> None:
    await stage.connect("a")
    await stage.say("a", p.PingReq())
    await stage.say("a", p.PingReq(), p.PingReq(), p.PingReq())
