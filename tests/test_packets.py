"""Packets as values, and the arguments that become part of them."""

from __future__ import annotations

import array
import inspect

import attrs
import pytest

from trio_mqtt import _packets as p
from trio_mqtt._errors import Denied
from trio_mqtt._packets import (
    Connect,
    Delivery,
    Message,
    Payload,
    QoS,
    Will,
    payload_bytes,
    require_qos,
)

# Payloads


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", b""),
        (b"\0\xff", b"\0\xff"),
        ("", b""),
        ("20 ℃", b"20 \xe2\x84\x83"),
        ("a\0b", b"a\0b"),
        ("\ufeffa", b"\xef\xbb\xbfa"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[1:3], b"bc"),
        (memoryview(b"abcd")[::2], b"ac"),
        (memoryview(array.array("H", [0x0101, 0x0202])), b"\1\1\2\2"),
    ],
)
def test_a_payload_as_it_travels(payload: Payload, expected: bytes) -> None:
    travelling = payload_bytes(payload)
    assert travelling == expected
    assert type(travelling) is bytes


def test_bytes_are_not_copied() -> None:
    payload = bytes(1000)
    assert payload_bytes(payload) is payload


def test_what_the_caller_can_change_is_copied() -> None:
    buffer = bytearray(b"before")
    copies = [payload_bytes(buffer), payload_bytes(memoryview(buffer))]
    buffer[:] = b"behind"
    assert copies == [b"before", b"before"]


def test_a_surrogate_is_denied() -> None:
    with pytest.raises(Denied, match=r"^the payload's character 2 is a surrogate$") as denied:
        payload_bytes("ab\ud800")
    assert isinstance(denied.value.__cause__, UnicodeEncodeError)


# The parameters of wrong types claim to be of the right ones, for the type checkers.
@pytest.mark.parametrize("wrong", [None, 5, [1, 2], 1.5, True], ids=repr)
def test_a_payload_of_another_type(wrong: Payload) -> None:
    with pytest.raises(
        TypeError, match=f"^a payload is bytes-like or a str, not {type(wrong).__name__}$"
    ):
        payload_bytes(wrong)


# Quality of service


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_quality_of_service_passes(qos: int) -> None:
    require_qos(qos)


@pytest.mark.conformance("MQTT-3.3.1-4")
@pytest.mark.parametrize("qos", [-1, 3, 0x80])
def test_another_quality_of_service_is_denied(qos: int) -> None:
    with pytest.raises(Denied, match=f"^qos is 0, 1 or 2, not {qos}$"):
        require_qos(qos)


# True equals 1, and `publish(topic, payload, True)` surely meant to retain.
@pytest.mark.parametrize("wrong", [True, False, 1.0, "1", b"1", None], ids=repr)
def test_a_quality_of_service_of_another_type(wrong: object) -> None:
    with pytest.raises(TypeError, match=f"^qos is 0, 1 or 2, not {wrong!r}$"):
        require_qos(wrong)


# The Will


def test_a_will_holds_what_travels() -> None:
    will = Will("status", "offline ℃", qos=1, retain=True)
    assert (will.topic, will.payload, will.qos, will.retain) == (
        "status",
        b"offline \xe2\x84\x83",
        1,
        True,
    )


def test_a_will_is_plain_unless_told() -> None:
    will = Will("status", b"")
    assert (will.qos, will.retain) == (0, False)


@pytest.mark.parametrize("name", ["qos", "retain"])
def test_the_options_of_a_will_are_named(name: str) -> None:
    parameter = inspect.signature(Will).parameters[name]
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


def test_a_will_keeps_its_own_copy() -> None:
    buffer = bytearray(b"before")
    will = Will("status", buffer)
    buffer[:] = b"behind"
    assert will.payload == b"before"


def test_a_will_cannot_be_changed_past_its_checks() -> None:
    will = Will("status", b"")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(will, "topic", "#")  # noqa: B010 - an assignment would not pass the type checkers


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        pytest.param(topic, message, marks=pytest.mark.conformance(*statements))
        for topic, message, *statements in [
            ("", "^topic '' is empty$", "MQTT-4.7.3-1"),
            ("a/#", "^topic 'a/#' contains a wildcard$", "MQTT-3.3.2-2", "MQTT-4.7.1-1"),
            ("+", r"^topic '\+' contains a wildcard$", "MQTT-3.3.2-2", "MQTT-4.7.1-1"),
            ("a\0", r"^topic 'a\\x00' contains U\+0000$", "MQTT-1.5.3-2", "MQTT-3.1.3-10"),
            ("\udc00", r"^topic '\\udc00' contains a surr", "MQTT-1.5.3-1", "MQTT-3.1.3-10"),
        ]
    ],
)
def test_a_will_without_a_legal_topic_is_denied(topic: str, message: str) -> None:
    with pytest.raises(Denied, match=message):
        Will(topic, b"")


def test_the_payload_of_a_will_fits_behind_two_bytes() -> None:
    assert len(Will("status", bytes(65_535)).payload) == 65_535
    with pytest.raises(Denied, match=r"^the Will's payload takes 65536 bytes, of 65,535 at most$"):
        Will("status", bytes(65_536))


def test_the_payload_of_a_will_is_measured_in_bytes() -> None:
    with pytest.raises(Denied, match="takes 65538 bytes"):
        Will("status", "€" * 21_846)


def test_a_surrogate_in_the_payload_of_a_will_is_denied() -> None:
    with pytest.raises(Denied, match="character 0 is a surrogate"):
        Will("status", "\ud800")


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_of_each_quality_of_service(qos: QoS) -> None:
    assert Will("status", b"", qos=qos).qos == qos


@pytest.mark.conformance("MQTT-3.1.2-14")
@pytest.mark.parametrize("qos", [-1, 3])
def test_a_will_of_another_quality_of_service_is_denied(qos: QoS) -> None:
    with pytest.raises(Denied, match=f"^qos is 0, 1 or 2, not {qos}$"):
        Will("status", b"", qos=qos)


@pytest.mark.parametrize(
    ("topic", "payload", "qos", "message"),
    [
        (b"status", b"", 0, "a topic is a str, not bytes"),
        ("status", None, 0, "a payload is bytes-like or a str, not NoneType"),
        ("status", b"", True, "qos is 0, 1 or 2, not True"),
    ],
)
def test_a_will_of_other_types(topic: str, payload: Payload, qos: QoS, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Will(topic, payload, qos=qos)


# Packets


@pytest.mark.parametrize(
    "connect",
    [
        Connect("id", True, 60, username="user", password=b"secret"),
        Connect("id", False, 0, Will("status", b"offline"), "user", b"secret"),
    ],
)
def test_connect_never_shows_its_password(connect: Connect) -> None:
    for shown in (repr(connect), str(connect), f"{[connect]}"):
        assert "secret" not in shown
        assert "user" in shown
    assert connect.password == b"secret"


def test_messages_are_values_and_deliveries_are_not() -> None:
    # The broker's packet 1 of today and its packet 1 of tomorrow are different deliveries.
    assert Message("a", b"b", 1) == Message("a", b"b", 1)
    delivery = Delivery(Message("a", b"b", 1), 1)
    assert delivery != Delivery(Message("a", b"b", 1), 1)
    assert len({delivery, Delivery(Message("a", b"b", 1), 1)}) == 2
    assert not delivery.released


def test_a_long_payload_is_shown_in_part() -> None:
    assert len(repr(p.Message("t", bytes(1000)))) < 500
    assert "(1000 bytes)" in repr(p.Message("t", bytes(1000)))
    assert repr(p.Message("t", b"short")).count("b'short'") == 1


def test_a_message_is_hashed_by_its_value() -> None:
    assert len({p.Message("t", b"x"), p.Message("t", b"x"), p.Message("t", b"y")}) == 2


@pytest.mark.parametrize(("size", "fits"), [(268_435_448, True), (268_435_449, False)])
def test_the_size_of_a_message_is_bounded(size: int, fits: bool) -> None:
    class Huge(bytes):
        """As large as it says, without the memory."""

        def __len__(self) -> int:
            return size

    if fits:
        p.require_size("ttt", Huge())
    else:
        with pytest.raises(Denied, match="268435456 bytes, of 268435455 at most"):
            p.require_size("ttt", Huge())
