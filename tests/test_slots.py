"""Packet identifiers and places: who has one, from when, and until when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_mqtt import Client, Down, PendingLimit, move_on_after, open_client
from trio_mqtt import _packets as p
from trio_mqtt.testing import ScriptedBroker, ScriptedLink

Request = Callable[[Client], Awaitable[object]]
REQUESTS: dict[str, Request] = {
    "publish at QoS 1": lambda client: client.publish("a", b"", qos=1),
    "publish at QoS 2": lambda client: client.publish("a", b"", qos=2),
    "subscribe": lambda client: client.subscribe("a"),
    "unsubscribe": lambda client: client.unsubscribe("a"),
}
requests = pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())


async def packet_id(link: ScriptedLink) -> int:
    """Of the next request."""
    packet = await link.next()
    assert isinstance(packet, (p.Delivery, p.Subscribe, p.Unsubscribe))
    return packet.packet_id


async def abandon(client: Client, link: ScriptedLink, request: Request) -> int:
    """Has it sent and cancelled, and returns its identifier."""
    with move_on_after(1) as scope:
        await request(client)
    assert scope.abandoned
    return await packet_id(link)


def taken(client: Client) -> set[int]:
    """The identifiers that are."""
    return set(client._session._ids.outstanding)  # noqa: SLF001


@requests
async def test_one_that_is_canceled_never_had_an_identifier(
    scripted: ScriptedBroker, autojump_clock: MockClock, request_: Request
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        for _ in range(10):
            with move_on_after(0) as scope:
                await request_(client)
            assert scope.canceled
        assert taken(client) == set()
        assert await abandon(client, link, request_) == 1
        await client.aclose()


@requests
async def test_one_that_is_abandoned_keeps_its_identifier_until_the_answer(
    scripted: ScriptedBroker, autojump_clock: MockClock, request_: Request
) -> None:
    async with open_client(scripted.dialer, keep_alive=0) as client:
        link = await scripted.accepted()
        first = await abandon(client, link, request_)
        await trio.sleep(100)
        client._session._ids.restart(first)  # noqa: SLF001, as if they had gone once round
        second = await abandon(client, link, request_)
        assert taken(client) == {first, second} == {1, 2}
        for name in (first, second):
            await link.send(answer(request_, name))
            await trio.testing.wait_all_tasks_blocked()
        if request_ is REQUESTS["publish at QoS 2"]:
            assert taken(client) == {first, second}
            assert await link.next() == p.PubRel(first)
            assert await link.next() == p.PubRel(second)
            await link.send(p.PubComp(first), p.PubComp(second))
            await trio.testing.wait_all_tasks_blocked()
        assert taken(client) == set()
        statistics = client.statistics()
        assert (statistics.unmatched_answers, statistics.unconfirmed) == (0, 0)


def answer(request: Request, name: int) -> p.Packet:
    """What the broker says first."""
    if request is REQUESTS["publish at QoS 1"]:
        return p.PubAck(name)
    if request is REQUESTS["publish at QoS 2"]:
        return p.PubRec(name)
    if request is REQUESTS["subscribe"]:
        return p.SubAck(name, (2,))
    return p.UnsubAck(name)


@pytest.mark.parametrize("name", ["subscribe", "unsubscribe"])
async def test_or_until_the_end_of_the_connection(
    scripted: ScriptedBroker, autojump_clock: MockClock, name: str
) -> None:
    async with open_client(scripted.dialer, client_id="c", reconnect_wait_max=1) as client:
        link = await scripted.accepted()
        first = await abandon(client, link, REQUESTS[name])
        assert taken(client) == {first}
        await link.close()
        link = await scripted.accepted()
        await client.wait_online()
        assert taken(client) == set()
        await link.send(answer(REQUESTS[name], first))  # too late
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().unmatched_answers == 1
        await client.aclose()


@pytest.mark.parametrize("name", ["publish at QoS 1", "publish at QoS 2"])
async def test_an_accepted_message_keeps_its_identifier_over_connections(
    scripted: ScriptedBroker, autojump_clock: MockClock, name: str
) -> None:
    async with open_client(scripted.dialer, client_id="c", reconnect_wait_max=1) as client:
        link = await scripted.accepted()
        first = await abandon(client, link, REQUESTS[name])
        for _ in range(3):
            await link.close()
            link = await scripted.accepted()
            assert await packet_id(link) == first
            assert taken(client) == {first}
        await client.aclose()


async def test_too_many_requests_at_once_raise_pending_limit_and_it_passes(
    scripted: ScriptedBroker, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_mqtt._subscriptions.MAX_PENDING", 2)
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        names = [await abandon(client, link, REQUESTS["subscribe"]) for _ in range(2)]
        for name in ("subscribe", "unsubscribe"):
            with pytest.raises(PendingLimit):
                await REQUESTS[name](client)
        with pytest.raises(PendingLimit):
            async with client.open_subscription("a"):
                pass
        assert taken(client) == set(names)
        await link.send(p.SubAck(names[0], (2,)))
        await trio.testing.wait_all_tasks_blocked()
        await abandon(client, link, REQUESTS["subscribe"])
        await client.aclose()


async def test_the_calls_that_do_not_wait_say_why_not(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.dial_seconds = 1
    async with open_client(
        scripted.dialer, wait_online=False, at_least_once_max=1, exactly_once_max=1
    ) as client:
        with pytest.raises(Down, match="offline"):
            client.publish_nowait("a", b"")
        client.enqueue_nowait("a", b"", qos=1)
        client.enqueue_nowait("a", b"", qos=2)
        for _ in range(2):
            with pytest.raises(PendingLimit, match="at QoS 1"):
                client.enqueue_nowait("a", b"", qos=1)
            with pytest.raises(PendingLimit, match="at QoS 2"):
                client.enqueue_nowait("a", b"", qos=2)
        assert taken(client) == {1, 2}
        await client.aclose()


async def test_pings_wait_for_their_turn_in_the_order_of_the_calls(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    order: list[int] = []
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()

        async def ping(number: int) -> None:
            with scopes[number]:
                await client.ping()
                order.append(number)

        scopes = [trio.CancelScope() for _ in range(6)]
        for number in range(6):
            nursery.start_soon(ping, number)
            await trio.testing.wait_all_tasks_blocked()
        for number in (0, 3):  # one that was sent, and one that waits
            scopes[number].cancel()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            await link.expect(p.PingReq)
            await link.send(p.PingResp())
            await trio.testing.wait_all_tasks_blocked()
        assert order == [1, 2, 4, 5]
        await client.aclose()
