"""`subscribe`, `unsubscribe`, `ping`: requests that await the broker's answer."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import _packets as p
from trio_mqtt import open_client
from trio_mqtt.testing import ScriptedBroker, ScriptedLink


async def answer(link: ScriptedLink, *return_codes: int) -> p.Subscribe:
    subscribe = await link.expect(p.Subscribe)
    await link.send(p.SubAck(subscribe.packet_id, return_codes))
    return subscribe


@pytest.mark.conformance("MQTT-2.3.1-1", "MQTT-3.8.1-1", "MQTT-3.10.1-1")
async def test_subscribe_returns_what_was_granted(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()
        nursery.start_soon(answer, link, 1, 0)
        assert await client.subscribe("a/+", "b", qos=1) == (1, 0)


async def test_subscribe_asks_for_8_filters_at_a_time(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """Clouds close the connection on more."""
    asked: list[tuple[str, p.QoS]] = []

    async def serve(link: ScriptedLink) -> None:
        for codes in ([2] * 8, [1, 0x80, 0]):
            asked.extend((await answer(link, *codes)).requests)

    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        nursery.start_soon(serve, await scripted.accepted())
        filters = [f"t/{i}" for i in range(11)]
        with pytest.raises(trio_mqtt.SubscribeError, match="t/9") as caught:
            await client.subscribe(*filters)
        assert caught.value.topic_filters == ("t/9",)
    assert asked == [(topic_filter, 2) for topic_filter in filters]


async def test_subscribe_error_lists_the_filters_in_request_order(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        nursery.start_soon(answer, await scripted.accepted(), 0x80, 2, 0x80)
        with pytest.raises(trio_mqtt.SubscribeError) as caught:
            await client.subscribe("z", "y", "a")
        assert caught.value.topic_filters == ("z", "a")
        assert str(caught.value) == "the broker failed 'z', 'a'"


@pytest.mark.conformance("MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-3.8.3-1", "MQTT-3.10.3-1")
@pytest.mark.parametrize("topic_filter", ["", "a#/b+", "a/#/b", "#a", "a+", "\0", "\udfff"])
async def test_a_malformed_filter_is_denied_before_a_byte_is_sent(
    scripted: ScriptedBroker, autojump_clock: MockClock, topic_filter: str
) -> None:
    """PITFALLS G5."""
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with pytest.raises(trio_mqtt.Denied):
            await client.subscribe("good", topic_filter)
        with pytest.raises(trio_mqtt.Denied):
            await client.unsubscribe("good", topic_filter)
    assert await link.next() == p.Disconnect()


@pytest.mark.conformance("MQTT-3.8.3-3", "MQTT-3.10.3-2")
async def test_no_filter_is_denied(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with pytest.raises(trio_mqtt.Denied, match="no topic filter"):
            await client.subscribe()
        with pytest.raises(trio_mqtt.Denied, match="no topic filter"):
            await client.unsubscribe()
    assert await link.next() == p.Disconnect()


async def test_a_filter_of_another_type_is_an_error(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    wrong: Any = b"a"
    async with open_client(scripted.dialer) as client:
        with pytest.raises(TypeError, match="topic filter is a str, not bytes"):
            await client.subscribe(wrong)
        with pytest.raises(TypeError, match="qos is 0, 1 or 2"):
            await client.subscribe("a", qos=wrong)


async def test_unsubscribe(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()
        nursery.start_soon(client.unsubscribe, "a", "b")
        unsubscribe = await link.expect(p.Unsubscribe)
        assert unsubscribe.topic_filters == ("a", "b")
        await link.send(p.UnsubAck(unsubscribe.packet_id))


async def test_a_lost_connection_leaves_the_answer_in_doubt(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        errors: list[type[Exception]] = []

        async def expect_loss(request: Any) -> None:
            with pytest.raises(trio_mqtt.InDoubt) as caught:
                await request
            assert isinstance(caught.value.__cause__, trio_mqtt.ConnectionLost)
            errors.append(caught.type)

        async with trio.open_nursery() as nursery:
            for request in (client.subscribe("a"), client.unsubscribe("b"), client.ping()):
                nursery.start_soon(expect_loss, request)
            await trio.testing.wait_all_tasks_blocked()
            await link.close()
        assert errors == [trio_mqtt.ResponseLost] * 3


async def test_requests_wait_for_the_attempt_under_way_and_then_are_down(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.unreachable = True
    async with open_client(scripted.dialer, wait_online=False) as client:
        with pytest.raises(trio_mqtt.Down):
            await client.subscribe("a")
        with pytest.raises(trio_mqtt.Down):
            await client.unsubscribe("a")
        with pytest.raises(trio_mqtt.Down):
            await client.ping()


async def test_an_abandoned_request_keeps_its_identifier_until_the_answer(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()
        with trio.move_on_after(1):
            await client.subscribe("a")
        late = await link.expect(p.Subscribe)
        nursery.start_soon(client.subscribe, "b")
        other = await link.expect(p.Subscribe)
        assert other.packet_id != late.packet_id
        await link.send(p.SubAck(late.packet_id, (0,)), p.SubAck(other.packet_id, (0,)))
    assert client.statistics().unmatched_answers == 0


async def test_ping_measures_the_round_trip_one_at_a_time(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def ping() -> None:
        times.append(await client.ping())

    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()
        nursery.start_soon(ping)
        nursery.start_soon(ping)
        for _ in range(2):
            await link.expect(p.PingReq)
            await trio.sleep(0.5)
            await link.send(p.PingResp())
    assert times == pytest.approx([0.5, 0.5])


async def test_what_was_subscribed_is_restored_after_a_lost_session(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, client_id="c") as client:
        async with trio.open_nursery() as nursery:
            link = await scripted.accepted()
            nursery.start_soon(answer, link, 2, 2)
            await client.subscribe("a", "b")
        await link.close()
        link = await scripted.accepted()
        await answer(link, 2, 0x80)
        await link.send(p.Message("a", b"still"))
        with pytest.raises(trio_mqtt.SubscribeError, match="'b'"):
            await client.messages.receive()
        assert (await client.messages.receive()).payload == b"still"


async def test_too_many_requests_are_denied_before_any_is_sent(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        many = [f"t/{i}" for i in range(16_380 * 8)]
        with trio.move_on_after(1):
            await client.subscribe(*many)
        with pytest.raises(trio_mqtt.PendingLimit):
            await client.subscribe(*many[: 5 * 8])
        for _ in range(16_380):
            await link.expect(p.Subscribe)
    assert await link.next() == p.Disconnect()
