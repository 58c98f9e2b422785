"""The in-process broker as tests use it: opening, looking in, and making trouble."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from trio_mqtt import Denied
from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, Record, open_broker
from trio_mqtt.testing._raw_client import RawClient


async def subscribed(
    broker: Broker, topic_filter: str, qos: p.QoS, client_id: str = "raw", *, clean: bool = True
) -> RawClient:
    client = await RawClient.connect(broker.dialer, client_id, clean_session=clean)
    await client.send(p.Subscribe(1, ((topic_filter, qos),)))
    assert await client.receive() == p.SubAck(1, (qos,))
    return client


# Opening and closing


async def test_over_tcp() -> None:
    async with open_broker() as broker:
        first, second = await broker.listen(), await broker.listen()
        assert first != second
        for url in (first, second):
            port = int(url.removeprefix("mqtt://127.0.0.1:"))

            async def dial(port: int = port) -> trio.abc.Stream:
                return await trio.open_tcp_stream("127.0.0.1", port)

            client = await RawClient.connect(dial, url)
            await client.send(p.PingReq())
            assert await client.receive() == p.PingResp()
            await client.send(p.Disconnect())
            assert await client.wait_closed() == []
            await client.stream.aclose()


async def test_leaving_closes_connections(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        silent = RawClient(await broker.dialer())
    assert await client.wait_closed() == []
    assert await silent.wait_closed() == []
    with pytest.raises(ConnectionRefusedError, match="the broker has ended"):
        await broker.dialer()


async def test_the_exception_of_the_body_is_bare(autojump_clock: MockClock) -> None:
    with pytest.raises(KeyError) as caught:
        async with open_broker() as broker:
            await RawClient.connect(broker.dialer)
            raise KeyError
    assert caught.value.__context__ is None


async def test_cancellation_passes(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with open_broker() as broker:
            await RawClient.connect(broker.dialer)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_exception_of_a_hook_is_bare(autojump_clock: MockClock) -> None:
    def answer(_client_id: str, _packet: p.Packet) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with open_broker(answer=answer) as broker:
            client = RawClient(await broker.dialer())
            await client.send(p.Connect("raw", clean_session=True, keep_alive=0))
            await trio.sleep_forever()


async def test_the_exceptions_of_both_are_one_group(autojump_clock: MockClock) -> None:
    def grant(_topic_filter: str, _qos: p.QoS) -> int:
        raise ZeroDivisionError

    with pytest.RaisesGroup(KeyError, ZeroDivisionError):
        async with open_broker(grant=grant) as broker:
            client = await RawClient.connect(broker.dialer)
            await client.send(p.Subscribe(1, (("a", 0),)))
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError


def test_importing_it_leaves_pytest_out() -> None:
    code = "import sys, trio_mqtt.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Looking in


async def test_log(autojump_clock: MockClock) -> None:
    async with open_broker(strict=False) as broker:
        client = RawClient(await broker.dialer())
        await trio.sleep(3)
        connect = p.Connect("raw", True, 0, username="me", password=b"secret")
        await client.send(connect, p.PingReq())
        await client.settle()
        await client.send(p.Connect("another", True, 0))
        await client.wait_closed()
        assert [(record.client_id, record.direction, record.packet) for record in broker.log] == [
            ("raw", "in", connect),
            ("raw", "in", p.PingReq()),
            ("raw", "out", p.ConnAck(False, 0)),
            ("raw", "out", p.PingResp()),
            ("raw", "in", p.Connect("another", True, 0)),
        ]
        assert broker.log[0].time >= 3
        assert "secret" not in repr(broker.log)


async def test_sessions_and_retained(autojump_clock: MockClock) -> None:
    async with open_broker(max_in_flight=2) as broker:
        client = await subscribed(broker, "a/+", 1, clean=False)
        view = broker.sessions["raw"]
        assert view.subscriptions == {"a/+": 1}
        assert view.connected
        for number in range(3):
            broker.publish(f"a/{number}", str(number), qos=2, retain=number == 1)
        assert (view.in_flight, view.queued) == (2, 1)
        assert repr(view) == "<SessionView of 'raw': connected, 2 in flight, 1 queued>"
        await client.send(p.Disconnect())
        await broker.wait_disconnected("raw")
        assert not view.connected
        assert "not connected" in repr(view)
        assert broker.retained == {"a/1": p.Message("a/1", b"1", 2, True)}


async def test_waiting_for_a_client(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        await broker.wait_disconnected("raw")

        async def visit() -> None:
            await trio.sleep(5)
            client = await RawClient.connect(broker.dialer)
            await trio.sleep(5)
            await client.send(p.Subscribe(1, (("a", 0), ("b", 0))))
            await trio.sleep(5)
            await client.stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit)
            start = trio.current_time()
            with trio.move_on_after(1) as scope:
                await broker.wait_subscribed("raw", "b")
            assert scope.cancelled_caught
            await broker.wait_connected("raw")
            assert trio.current_time() - start == pytest.approx(5)
            await broker.wait_subscribed("raw", "b")
            assert trio.current_time() - start == pytest.approx(10)
            await broker.wait_disconnected("raw")
            assert trio.current_time() - start == pytest.approx(15)


# Making trouble


@pytest.mark.conformance("MQTT-3.2.2-4", "MQTT-3.2.2-5", "MQTT-3.1.4-5")
async def test_refuse(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        broker.refuse(3)
        client = RawClient(await broker.dialer())
        subscribe = p.Subscribe(1, (("a", 0),))
        await client.send(p.Connect("raw", False, 0), subscribe, b"\xff\xff")
        assert await client.wait_closed() == [p.ConnAck(False, 3)]
        assert not broker.sessions
        assert not broker.violations
        broker.refuse(None)
        await RawClient.connect(broker.dialer)
        with pytest.raises(ValueError, match="not 0"):
            broker.refuse(0)


async def test_disconnect(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        one = await RawClient.connect(broker.dialer, "one")
        two = await RawClient.connect(broker.dialer, "two")
        early = RawClient(await broker.dialer())
        broker.disconnect("one")
        assert "one" not in broker.sessions
        assert await one.wait_closed() == []
        with pytest.raises(LookupError, match="client 'one' is not connected"):
            broker.disconnect("one")
        broker.disconnect_all()
        assert await two.wait_closed() == []
        assert await early.wait_closed() == []
        with pytest.raises(trio.BrokenResourceError):
            await two.send(p.PingReq())


async def test_what_was_not_sent_is_new_on_the_next_connection(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await subscribed(broker, "#", 2, clean=False)
        broker.publish("a", "first", qos=1)
        assert await client.receive_delivery() == (1, p.Message("a", b"first", 1))
        broker.publish("a", "second", qos=1)
        broker.publish("a", "third", qos=2)
        broker.publish("a", "lost", qos=0)
        broker.disconnect("raw")
        assert await client.wait_closed() == []
        assert (broker.sessions["raw"].in_flight, broker.sessions["raw"].queued) == (1, 2)
        again = await RawClient.connect(broker.dialer, clean_session=False, session_present=True)
        for packet_id, payload, qos, dup in (
            (1, b"first", 1, True),
            (4, b"second", 1, False),
            (5, b"third", 2, False),
        ):
            message = p.Message("a", payload, qos, dup=dup)  # type: ignore[arg-type]
            assert await again.receive_delivery() == (packet_id, message)


@pytest.mark.parametrize("keep_sessions", [False, True])
async def test_crash(keep_sessions: bool, autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        will = p.Will("will", b"gone", qos=1, retain=True)
        client = await RawClient.connect(broker.dialer, clean_session=False, will=will)
        await RawClient.connect(broker.dialer, "clean")
        broker.publish("kept", "here", retain=True)
        broker.crash(keep_sessions=keep_sessions)
        assert await client.wait_closed() == []
        assert set(broker.sessions) == ({"raw"} if keep_sessions else set())
        assert set(broker.retained) == ({"kept"} if keep_sessions else set())
        await RawClient.connect(broker.dialer, clean_session=False, session_present=keep_sessions)


async def test_pause(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer, keep_alive=10)
        broker.pause()
        broker.pause()
        await client.send(p.PingReq())
        late = RawClient(await broker.dialer())
        await late.send(p.Connect("late", True, 0))
        assert await client.settle(3600) == []
        assert await late.settle(3600) == []
        assert "late" not in broker.sessions
        broker.resume()
        assert await client.receive() == p.PingResp()
        assert await late.receive() == p.ConnAck(False, 0)
        start = trio.current_time()
        assert await client.wait_closed() == []
        assert trio.current_time() - start == pytest.approx(15)


async def test_pause_does_not_count_as_silence(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer, keep_alive=10)
        early = RawClient(await broker.dialer())
        await trio.sleep(9)
        broker.pause()
        await trio.sleep(60)
        broker.resume()
        await trio.sleep(9)
        await client.send(p.PingReq())
        assert await client.receive() == p.PingResp()
        await early.send(p.Connect("early", True, 0))
        assert await early.receive() == p.ConnAck(False, 0)


async def test_disconnecting_ends_a_pause_for_the_client(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        client = await RawClient.connect(broker.dialer)
        broker.pause()
        await client.send(p.PingReq())
        await client.settle()
        broker.disconnect_all()
        assert await client.wait_closed() == []


async def test_send(autojump_clock: MockClock) -> None:
    def answer(_client_id: str, _packet: p.Packet) -> Sequence[p.Packet]:
        return []

    async with open_broker(answer=answer) as broker:
        client = RawClient(await broker.dialer())
        await client.send(p.Connect("raw", True, 0))
        await broker.wait_connected("raw")
        broker.send("raw", p.ConnAck(False, 0))
        broker.send("raw", b"\xd0\x00\xb0\x02\x00\x09")
        assert await client.settle() == [p.ConnAck(False, 0), p.PingResp(), p.UnsubAck(9)]
        assert isinstance(broker.log[-1], Record)
        assert broker.log[-1].packet == b"\xd0\x00\xb0\x02\x00\x09"
        with pytest.raises(LookupError, match="client 'nobody' is not connected"):
            broker.send("nobody", b"")


async def test_publish_refuses_what_no_client_could_send(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        with pytest.raises(Denied):
            broker.publish("a/#", "")
        with pytest.raises(Denied):
            broker.publish("a", "", qos=3)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            broker.publish("a", 1)  # type: ignore[arg-type]


async def test_hook_withholds_and_reorders(autojump_clock: MockClock) -> None:
    withheld: list[p.Packet] = []

    def answer(client_id: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        assert client_id == "raw"
        if isinstance(packet, p.SubAck):
            withheld.append(packet)
            return []
        return [packet, *withheld] if isinstance(packet, p.PingResp) else None

    async with open_broker(answer=answer) as broker:
        client = await RawClient.connect(broker.dialer)
        await client.send(p.Subscribe(1, (("a", 0),)), p.PingReq())
        assert await client.settle() == [p.PingResp(), p.SubAck(1, (0,))]


async def test_hook_may_use_the_broker(autojump_clock: MockClock) -> None:
    def answer(_client_id: str, packet: p.Packet) -> None:
        if isinstance(packet, p.PubAck):
            broker.disconnect("raw")

    async with open_broker(answer=answer) as broker:
        client = await RawClient.connect(broker.dialer, clean_session=False)
        message = p.Message("a", b"", 1)
        await client.send(p.Delivery(message, 1), p.Delivery(message, 2))
        assert await client.wait_closed() == []
        assert not broker.sessions["raw"].connected


async def test_a_slow_client_keeps_nobody_waiting() -> None:
    async with open_broker() as broker:
        url = await broker.listen()

        async def dial() -> trio.abc.Stream:
            return await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))

        slow = await RawClient.connect(dial, "slow")
        await slow.send(p.Subscribe(1, (("#", 0),)))
        await slow.receive()
        swift = await subscribed(broker, "#", 0, "swift")
        payload = bytes(1 << 20)
        for _ in range(32):
            broker.publish("a", payload)
            assert await swift.receive_delivery() == (0, p.Message("a", payload))
        broker.disconnect("slow")
        await slow.stream.aclose()
