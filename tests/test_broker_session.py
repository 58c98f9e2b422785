"""What the in-process broker's sessions hold, and how they end."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from trio.testing import MockClock

from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, open_broker
from trio_mqtt.testing._broker_core import STANDARD, Core, Options
from trio_mqtt.testing._broker_session import Outgoing, Session
from trio_mqtt.testing._raw_client import RawClient


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


# Expiry


async def visit(broker: Broker, client_id: str = "raw", *, present: bool) -> None:
    """Connects to a session of CleanSession 0, and leaves."""
    client = await RawClient.connect(
        broker.dialer, client_id, clean_session=False, session_present=present
    )
    await client.send(p.Disconnect())
    await broker.wait_disconnected(client_id)


async def test_a_session_expires(autojump_clock: MockClock) -> None:
    async with open_broker(session_expiry=60) as broker:
        await visit(broker, present=False)
        await trio.sleep(59)
        assert not broker.sessions["raw"].connected
        await trio.sleep(2)
        assert broker.sessions == {}
        await visit(broker, present=False)


async def test_a_session_that_is_visited_in_time_stays(autojump_clock: MockClock) -> None:
    async with open_broker(session_expiry=60) as broker:
        await visit(broker, present=False)
        for _ in range(3):
            await trio.sleep(59)
            await visit(broker, present=True)
        await trio.sleep(61)
        assert broker.sessions == {}


async def test_a_visit_within_one_read_counts(autojump_clock: MockClock) -> None:
    async with open_broker(session_expiry=60) as broker:
        await visit(broker, present=False)
        await trio.sleep(59)
        client = RawClient(await broker.dialer())
        await client.send(p.Connect("raw", False, 0), p.Disconnect())
        assert await client.wait_closed() == [p.ConnAck(True, 0)]
        await trio.sleep(59)
        assert list(broker.sessions) == ["raw"]
        await trio.sleep(2)
        assert broker.sessions == {}


@pytest.mark.conformance("MQTT-4.1.0-1")
async def test_a_session_in_use_does_not_expire(autojump_clock: MockClock) -> None:
    async with open_broker(session_expiry=60) as broker:
        await visit(broker, present=False)
        await trio.sleep(30)
        client = await RawClient.connect(broker.dialer, clean_session=False, session_present=True)
        await trio.sleep(3600)
        assert broker.sessions["raw"].connected
        await client.stream.aclose()  # as the network would
        await trio.sleep(59)
        assert list(broker.sessions) == ["raw"]
        await trio.sleep(2)
        assert broker.sessions == {}


async def test_each_session_expires_at_its_own_time(autojump_clock: MockClock) -> None:
    async with open_broker(session_expiry=60) as broker:
        for client_id in ("first", "second", "third"):
            await visit(broker, client_id, present=False)
            await trio.sleep(10)
        await visit(broker, "first", present=True)
        for left in (["first", "second", "third"], ["first", "third"], ["first"], []):
            await trio.sleep(35 if len(left) == 3 else 10)
            assert sorted(broker.sessions) == left


async def test_a_session_that_took_the_place_of_another_has_its_own_time(
    autojump_clock: MockClock,
) -> None:
    async with open_broker(session_expiry=60) as broker:
        await visit(broker, present=False)
        await trio.sleep(30)
        broker.crash(keep_sessions=False)
        await visit(broker, present=False)
        await trio.sleep(59)
        assert list(broker.sessions) == ["raw"]
        await trio.sleep(2)
        assert broker.sessions == {}


async def test_what_waited_goes_with_the_session(autojump_clock: MockClock) -> None:
    async with open_broker(session_expiry=0.5) as broker:
        client = await RawClient.connect(broker.dialer, clean_session=False)
        await client.send(p.Subscribe(1, (("a", 1),)), p.Disconnect())
        await broker.wait_disconnected("raw")
        broker.publish("a", "lost", qos=1)
        assert broker.sessions["raw"].queued == 1
        await trio.sleep(1)
        client = await RawClient.connect(broker.dialer, clean_session=False)
        assert await client.settle() == []


async def test_sessions_do_not_expire_unless_told_to(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        await visit(broker, present=False)
        await trio.sleep(100 * 365 * 86_400)
        await visit(broker, present=True)
