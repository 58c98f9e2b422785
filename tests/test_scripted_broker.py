from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import Down, SubscribeError
from trio_mqtt.testing import ScriptedBroker, packets


async def test_it_says_what_the_test_says() -> None:
    broker = ScriptedBroker()

    async def subscribe() -> None:
        with pytest.raises(SubscribeError):
            await client.subscribe("a")

    async with trio_mqtt.open_client(broker.dialer) as client, trio.open_nursery() as nursery:
        link = await broker.accepted()
        nursery.start_soon(subscribe)
        request = await link.expect(packets.Subscribe)
        await link.send(packets.SubAck(request.packet_id, (0x80,)))


async def test_another_packet_fails_the_test() -> None:
    broker = ScriptedBroker()
    async with trio_mqtt.open_client(broker.dialer):
        link = await broker.next_link()
        with pytest.raises(AssertionError, match=r"Connect\(.*\) came in the place of PingReq"):
            await link.expect(packets.PingReq)
    await link.expect(packets.Disconnect)
    assert await link.next() is None
    with pytest.raises(AssertionError, match="None came in the place of PingReq"):
        await link.expect(packets.PingReq)


async def test_it_may_take_long_to_reach_or_be_unreachable(autojump_clock: MockClock) -> None:
    broker = ScriptedBroker()
    broker.dial_seconds = 3
    async with trio_mqtt.open_client(broker.dialer):
        assert trio.current_time() == pytest.approx(3)
    broker.unreachable = True
    with pytest.raises(Down, match="unreachable, says the test"):
        async with trio_mqtt.open_client(broker.dialer):
            pytest.fail("it was entered")
    assert broker.dials == 2
    assert broker.dialled_at == pytest.approx([0, trio.current_time() - 3])
