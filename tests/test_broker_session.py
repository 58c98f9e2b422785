"""What the in-process broker decides, without a network connection."""

from __future__ import annotations

from collections import deque

import pytest

from trio_mqtt import _packets as p
from trio_mqtt.testing._broker_core import STANDARD, Core, Options
from trio_mqtt.testing._broker_session import Outgoing, Session


@pytest.mark.conformance("MQTT-2.3.1-4")
def test_packet_identifiers_wrap_around_those_in_use() -> None:
    session = Session("raw", clean=False, max_in_flight=2)
    outbound = deque[Outgoing]()
    session.attach(outbound)
    session.deliver(p.Message("a", b"", 2))
    outbound.clear()
    for expected in (*range(2, 65_536), 2):
        session.deliver(p.Message("a", b"", 1))
        delivery = outbound.popleft()
        assert isinstance(delivery, p.Delivery)
        assert delivery.packet_id == expected
        session.acknowledged(p.PubAck(expected))


def test_what_was_not_written_keeps_its_place() -> None:
    session = Session("raw", clean=False, max_in_flight=2)
    outbound = deque[Outgoing]()
    session.attach(outbound)
    messages = [p.Message("a", payload, 1) for payload in (b"1", b"2", b"3")]
    for message in messages:
        session.deliver(message)
    outbound.append(p.PingResp())
    session.detach()
    assert list(outbound) == [p.PingResp()]
    assert list(session.queue) == messages
    assert not session.in_flight
    assert not session.connected


@pytest.mark.conformance("MQTT-3.1.4-5")
def test_nothing_comes_from_a_connection_that_is_closing() -> None:
    options = Options(
        users=None,
        max_in_flight=1,
        max_unreleased=1,
        grant=lambda _, qos: qos,
        fail_filters=(),
        habits=STANDARD,
    )
    core = Core(options)
    link = core.open_link()
    core.receive(link, p.UnsupportedLevel(5))
    core.receive(link, p.Connect("raw", True, 0))
    assert list(link.outbound) == [p.ConnAck(False, 1)]
    assert not core.sessions
