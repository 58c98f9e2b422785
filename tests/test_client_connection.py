"""A connection that comes and goes: keep-alive, pauses, violations, back-off."""

from __future__ import annotations

import logging
import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import _packets as p
from trio_mqtt import open_client
from trio_mqtt._codec311 import encode
from trio_mqtt.testing import ScriptedBroker, ScriptedLink

from .links import SlowStream, subscribe

# Keep-alive


@pytest.mark.conformance("MQTT-3.1.2-23")
@pytest.mark.parametrize("keep_alive", [1, 10, 60])
async def test_pings_on_schedule(
    scripted: ScriptedBroker, autojump_clock: MockClock, keep_alive: int
) -> None:
    """PITFALLS G4."""
    async with open_client(scripted.dialer, keep_alive=keep_alive):
        link = await scripted.accepted()
        last = trio.current_time()
        for _ in range(10):
            assert await link.next() == p.PingReq()
            assert 0.5 * keep_alive < trio.current_time() - last < keep_alive
            last = trio.current_time()
            await link.send(p.PingResp())


async def test_pings_also_when_only_the_broker_is_silent(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """A connection that is half open swallows what we send for a long time."""
    async with open_client(scripted.dialer, keep_alive=10, pause_timeout=5) as client:
        link = await scripted.accepted()

        async def publish() -> None:
            while True:
                await client.publish("t", b"swallowed")
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            began = trio.current_time()
            await client.wait_offline()
            assert trio.current_time() - began <= 10 + 5
            nursery.cancel_scope.cancel()
        while isinstance(packet := await link.next(), p.Message):
            pass
        assert packet == p.PingReq()


async def test_no_pings_while_both_sides_talk(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, keep_alive=10) as client:
        link = await scripted.accepted()
        for _ in range(20):
            await client.publish("t", b"")
            await link.send(p.Message("t", b""))
            await trio.sleep(2)
            assert isinstance(await link.next(), p.Message)
    assert await link.next() == p.Disconnect()


async def test_no_keep_alive_sends_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, keep_alive=0) as client:
        link = await scripted.accepted()
        await trio.sleep(80_000)
        assert client.online
    assert await link.next() == p.Disconnect()


async def test_an_unanswered_ping_ends_the_connection_in_time(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """PITFALLS G4: a half-open connection."""
    async with open_client(scripted.dialer, keep_alive=20, pause_timeout=5) as client:
        link = await scripted.accepted()
        await link.expect(p.PingReq)
        began = trio.current_time()
        await client.wait_offline()
        assert trio.current_time() - began == pytest.approx(5)
        await client.wait_online()


async def test_a_message_that_trickles_in_is_life(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """PITFALLS: only PINGRESP counted as life, so a slow link killed the connection."""
    async with open_client(scripted.dialer, keep_alive=3, pause_timeout=4) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        data = encode(p.Message("t", bytes(60)))
        for position in range(len(data)):
            await link.send_bytes(data[position : position + 1])
            await trio.sleep(3)
        assert len((await client.messages.receive()).payload) == 60
        assert client.statistics().connects == 1


async def test_a_packet_that_stops_in_the_middle_ends_the_connection(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, keep_alive=0, pause_timeout=5) as client:
        link = await scripted.accepted()
        await link.send_bytes(b"\x30")
        began = trio.current_time()
        await client.wait_offline()
        assert trio.current_time() - began == pytest.approx(5)


async def test_what_comes_together_with_its_deadline_counts(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """As when the application kept the thread to itself for longer than `pause_timeout`."""
    async with open_client(scripted.dialer, keep_alive=0, pause_timeout=5) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        data = encode(p.Message("t", b"x"))
        for _ in range(20):  # in whichever order the two tasks have their turn
            await link.send_bytes(data[:1])
            await trio.testing.wait_all_tasks_blocked()
            await link.send_bytes(data[1:])
            autojump_clock.jump(10)
            await client.messages.receive()
            await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().connects == 1


async def test_no_pause_timeout_waits_for_ever(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, keep_alive=10, pause_timeout=math.inf) as client:
        link = await scripted.accepted()
        await link.send_bytes(b"\x30")
        with trio.move_on_after(10_000):
            await client.wait_offline()
        assert client.online
        await client.aclose()


async def test_a_write_that_makes_no_progress_ends_the_connection(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    dials = 0

    async def dialer() -> trio.abc.Stream:
        nonlocal dials
        dials += 1
        if dials > 1:
            raise OSError
        return ours

    async def greet() -> None:
        await theirs.receive_some(1000)
        await theirs.send_all(encode(p.ConnAck(False, 0)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        async with open_client(dialer, keep_alive=0, pause_timeout=5) as client:
            await client.publish("t", b"")
            began = trio.current_time()
            await client.wait_offline()
            assert trio.current_time() - began == pytest.approx(5)
            await client.aclose()


async def test_a_large_message_that_trickles_out_is_no_pause(autojump_clock: MockClock) -> None:
    slow = SlowStream(3)

    async def dialer() -> trio.abc.Stream:
        await slow.link.send(p.ConnAck(False, 0))
        return slow

    async with open_client(dialer, keep_alive=0, pause_timeout=5) as client:
        await client.publish("t", bytes(1_000_000))
        with trio.fail_after(100):
            await client.flush()
        assert client.online
        assert sum(slow.written) > 1_000_000
        assert max(slow.written) == 65_536
        assert client.statistics().bytes_written == sum(slow.written[1:])


async def test_a_ping_behind_a_large_message_is_not_due_before_it_is_written(
    autojump_clock: MockClock,
) -> None:
    """PITFALLS: a large message over a slow link kills the connection."""
    slow = SlowStream(0.1)  # 64 MiB take 102 s

    async def dialer() -> trio.abc.Stream:
        return slow

    async def serve() -> None:
        await slow.link.expect(p.Connect)
        await slow.link.send(p.ConnAck(False, 0))
        while (packet := await slow.link.next()) is not None:
            if isinstance(packet, p.Delivery):
                await slow.link.send(p.PubAck(packet.packet_id))
            elif packet == p.PingReq():
                await slow.link.send(p.PingResp())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_client(dialer, keep_alive=3, pause_timeout=5) as client:
            nursery.start_soon(client.ping)
            await client.publish("t", bytes(64 << 20), qos=1)
            assert client.statistics().connects == 1


async def test_a_ping_that_was_written_late_is_due_then(autojump_clock: MockClock) -> None:
    slow = SlowStream(3)

    async def dialer() -> trio.abc.Stream:
        return slow

    await slow.link.send(p.ConnAck(False, 0))
    async with open_client(dialer, keep_alive=0, pause_timeout=5) as client:
        began = trio.current_time()
        with pytest.raises(trio_mqtt.ResponseLost):
            await client.ping()
        assert trio.current_time() - began == pytest.approx(3 + 5)
        await client.aclose()


async def test_a_stream_that_its_dialer_closes_is_a_lost_connection(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    streams: list[trio.abc.Stream] = []

    async def dialer() -> trio.abc.Stream:
        streams.append(await scripted.dialer())
        return streams[-1]

    async with open_client(dialer, client_id="c") as client:
        await streams[0].aclose()
        await client.wait_offline()
        await client.wait_online()


async def test_the_smallest_messages_do_not_look_like_a_broker_that_does_not_read(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await link.send(p.PingResp())
        for _ in range(209_000):
            client.publish_nowait("a", b"")
        await client.flush()
        assert client.online


# Violations


@pytest.mark.conformance("MQTT-4.8.0-1", "MQTT-2.2.2-2", "MQTT-3.3.1-4", "MQTT-1.5.3-1")
@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00",
        b"\x36\x05\0\1t\0\1",  # QoS 3
        b"\x32\x05\0\1t\0\0",  # packet identifier 0
        b"\x30\x03\0\1\xff",
        b"\x30\x03\0\1#",
        b"\x41\x02\0\1",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x90\x03\0\1\x03",
        b"\xd0\x01\0",
        encode(p.ConnAck(False, 0)),
        encode(p.PingReq()),
        encode(p.Disconnect()),
        encode(p.Connect("c", True, 0)),
    ],
)
async def test_a_violation_closes_the_connection_and_the_session_goes_on(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    data: bytes,
) -> None:
    async with open_client(scripted.dialer, client_id="c") as client:
        link = await scripted.accepted()
        exchange = await client.enqueue("t", b"kept")
        await link.expect(p.Delivery)
        await link.send_bytes(encode(p.Message("t", b"good")) + data)
        assert (await client.messages.receive()).payload == b"good"
        await client.wait_offline()
        assert await link.next() is None
        link = await scripted.accepted()
        delivery = await link.expect(p.Delivery)
        assert delivery.message.dup
        await link.send(p.PubAck(delivery.packet_id))
        await exchange.wait()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


async def test_a_broker_that_sends_and_does_not_read_is_left(
    scripted: ScriptedBroker, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers to it may not fill the memory."""
    ours, theirs = trio.testing.memory_stream_pair()
    hook = ours.send_stream

    class Stuck(trio.abc.SendStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if bytes(data[:1]) == b"\x10":
                await hook.send_all(data)
            else:
                await trio.sleep_forever()

        async def wait_send_all_might_not_block(self) -> None:
            raise NotImplementedError

        async def aclose(self) -> None:
            await hook.aclose()

    async def dialer() -> trio.abc.Stream:
        if scripted.dials:
            raise OSError
        scripted.dials = 1
        await theirs.send_all(encode(p.ConnAck(False, 0)))
        return trio.StapledStream(Stuck(), ours.receive_stream)

    async with open_client(dialer, keep_alive=0, pause_timeout=math.inf, client_id="c") as client:
        await theirs.send_all(encode(p.PubRel(1)) * 430_000)
        with trio.fail_after(10):
            await client.wait_offline()
        await client.aclose()


# Reconnecting


async def test_attempts_back_off_at_random_up_to_a_bound(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.unreachable = True
    async with open_client(scripted.dialer, wait_online=False):
        await trio.sleep(3600)
    waits = [
        after - before
        for before, after in zip(scripted.dialled_at, scripted.dialled_at[1:], strict=False)
    ]
    assert waits[0] <= 1
    assert max(waits) <= 60
    assert max(waits) > 30
    assert len(set(waits)) == len(waits)
    assert 60 < len(waits) < 240


async def test_a_broker_that_accepts_and_kicks_makes_no_tight_loop(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """PITFALLS: two clients with one identifier evict each other in a tight loop."""
    async with open_client(scripted.dialer, client_id="c"):
        began = trio.current_time()
        while trio.current_time() - began < 3600:
            await (await scripted.accepted()).close()
    assert scripted.dials < 250


async def test_a_connection_that_lasted_starts_the_back_off_anew(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, client_id="c", keep_alive=0) as client:
        for _ in range(10):
            await (await scripted.accepted()).close()
        for _ in range(10):
            link = await scripted.accepted()
            await trio.sleep(61)
            began = trio.current_time()
            await link.close()
            await client.wait_offline()
            await client.wait_online()
            assert trio.current_time() - began <= 1


async def test_a_day_of_reconnects_loses_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def confirm_some(link: ScriptedLink, number: int) -> None:
        for _ in range(number):
            packet = await link.next()
            match packet:
                case p.Delivery(message=p.Message(qos=1)):
                    await link.send(p.PubAck(packet.packet_id))
                    confirmed.add(packet.message.payload)
                case p.Delivery():
                    await link.send(p.PubRec(packet.packet_id))
                    confirmed.add(packet.message.payload)
                case p.PubRel():
                    await link.send(p.PubComp(packet.packet_id))
                case _:
                    return

    confirmed: set[bytes] = set()
    async with open_client(scripted.dialer, client_id="c", keep_alive=0) as client:
        exchanges = [
            await client.enqueue("t", str(number).encode(), qos=1 if number % 2 else 2)
            for number in range(300)
        ]
        round_ = 0
        while client.statistics().unconfirmed:
            link = await scripted.accepted()
            with trio.move_on_after(5):
                await confirm_some(link, round_ % 7)
            await link.close()
            await client.wait_offline()
            round_ += 1
        assert all(exchange.confirmed for exchange in exchanges)
    assert confirmed == {str(number).encode() for number in range(300)}


async def test_wait_online_and_wait_offline(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        await client.wait_online()
        link = await scripted.accepted()
        with trio.move_on_after(1):
            await client.wait_offline()
        assert client.online
        await link.close()
        await client.wait_offline()
        assert not client.online
        await client.wait_online()
        assert client.online
        assert client.statistics().connects == 2


async def test_a_broken_stream_is_a_lost_connection(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def broken() -> None:
        raise trio.BrokenResourceError("reset by peer")

    ours.receive_stream.close_hook = None
    await theirs.send_all(encode(p.ConnAck(False, 0)))
    fail = False

    class Breaking(trio.abc.Stream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if fail:
                await broken()
            await ours.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            raise NotImplementedError

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await ours.receive_some(max_bytes)

        async def aclose(self) -> None:
            await ours.aclose()

    async def dialer() -> trio.abc.Stream:
        return Breaking() if not fail else await scripted.dialer()

    async with open_client(dialer) as client:
        fail = True
        with pytest.raises(trio_mqtt.SubmitInterrupted, match="reset by peer"):
            await client.subscribe("t")
        await client.wait_online()
