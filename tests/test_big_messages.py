"""`BigMessage`: payloads that are read in pieces, as they arrive."""

from __future__ import annotations

import tempfile
from typing import IO

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import BigMessage, Buffer, MessagesMissed, open_client
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.testing import ScriptedBroker, ScriptedLink

from .links import subscribe
from .memory_persistence import MemoryPersistence
from .scope_peer import Failed, drain, peered

PRESENT = encode(p.ConnAck(True, 0))
SIZE = 1_000_000
PAYLOAD = bytes(range(250)) * (SIZE // 250)


def packet(
    qos: p.QoS = 0,
    payload: bytes = PAYLOAD,
    packet_id: int = 1,
    topic: str = "t",
    *,
    dup: bool = False,
) -> bytes:
    message = p.Message(topic, payload, qos, False, dup)
    return encode(message if qos == 0 else p.Delivery(message, packet_id))


async def big(channel: trio_mqtt.MessageChannel) -> BigMessage:
    message = await channel.receive()
    assert isinstance(message, BigMessage)
    return message


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_it_arrives_with_its_first_byte_and_is_read_in_pieces(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    data = packet(qos)
    async with open_client(scripted.dialer, stream_over=1000) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(data[:100])
        message = await big(client.messages)
        assert (message.topic, message.size, message.qos) == ("t", SIZE, qos)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.send_bytes, data[100:] + packet(0, b"next"))
            pieces = [piece async for piece in message]
        assert b"".join(pieces) == PAYLOAD
        assert max(map(len, pieces)) <= 65_536
        assert (await client.messages.receive()).payload == b"next"
        if qos:
            assert await link.next() == (p.PubAck if qos == 1 else p.PubRec)(1)


async def test_read_all_and_max_bytes(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    async with open_client(scripted.dialer, stream_over=10) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(packet(0, b"x" * 10) + packet(0, b"0123456789a"))
        assert (await client.messages.receive()).payload == b"x" * 10
        message = await big(client.messages)
        assert await message.receive_some(4) == b"0123"
        assert repr(message) == "<BigMessage on 't': 4 of 11 bytes read>"
        assert await message.read_all() == b"456789a"
        assert await message.receive_some() == b""
        with pytest.raises(AttributeError, match="read_all"):
            message.payload  # noqa: B018
        with pytest.raises(trio_mqtt.Denied):
            await message.receive_some(0)
        wrong: object = "1"
        with pytest.raises(TypeError):
            await message.receive_some(wrong)  # type: ignore[arg-type]  # that is the test
        assert message == message
        assert message != 1
        assert {message: 1}[message] == 1


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_is_not_read_is_skipped_and_answered_behind_its_last_byte(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    data = packet(qos)
    async with open_client(scripted.dialer, stream_over=1000) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(data[:-1])
        message = await big(client.messages)
        with trio.move_on_after(1):
            await client.messages.receive()
        with pytest.raises(trio.ClosedResourceError):
            await message.receive_some()
        with trio.move_on_after(1) as scope:
            await link.next()
        assert scope.cancelled_caught, "answered before its last byte came"
        await link.send_bytes(data[-1:] + packet(0, b"next"))
        assert (await client.messages.receive()).payload == b"next"
        if qos:
            assert await link.next() == (p.PubAck if qos == 1 else p.PubRec)(1)


async def test_the_reader_stops_a_little_ahead_of_who_reads(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, stream_over=1000, keep_alive=10) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(packet() + packet())
        message = await big(client.messages)
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().bytes_read < 400_000
        for _ in range(5):  # nothing is due while it stalls, and keep-alive goes on
            assert await link.next() == p.PingReq()
            await link.send(p.PingResp())
        assert await message.read_all() == PAYLOAD
        assert await (await big(client.messages)).read_all() == PAYLOAD
        assert client.statistics().connects == 1


async def test_the_reader_rests_beside_one_that_fills_the_buffer_and_that_nobody_took(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """It span, without a checkpoint, once."""
    async with open_client(
        scripted.dialer, stream_over=1000, buffer=Buffer(bytes=SIZE // 2)
    ) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(packet())
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().bytes_read < SIZE // 2
        assert await (await big(client.messages)).read_all() == PAYLOAD


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_connection_lost_in_the_middle_raises_and_the_redelivery_is_a_new_message(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with open_client(scripted.dialer, client_id="c", stream_over=1000) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(packet(qos)[:100_000])
        message = await big(client.messages)
        await link.close()
        with pytest.raises(trio_mqtt.ConnectionLost, match="in the middle of a message"):
            await message.read_all()
        scripted.greeting = PRESENT
        link = await scripted.accepted()
        await link.send_bytes(packet(qos, dup=qos > 0))
        again = await big(client.messages)
        assert again.dup is (qos > 0)
        assert await again.read_all() == PAYLOAD
        client.messages.acknowledge()
        if qos:
            assert await link.next() == (p.PubAck if qos == 1 else p.PubRec)(1)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_one_that_nobody_took_and_that_breaks_off_does_not_arrive(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with open_client(scripted.dialer, client_id="c", stream_over=1000) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(packet(qos)[:10_000])
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().buffered_messages == 1
        await link.close()
        await client.wait_offline()
        assert client.statistics().buffered_messages == 0
        assert client.statistics().given_up == (qos == 0)


@pytest.mark.conformance("MQTT-4.3.3-2")
async def test_a_duplicate_at_qos_2_is_skipped(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, client_id="c", stream_over=1000) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(packet(2))
        message = await big(client.messages)
        assert len(await message.read_all()) == SIZE
        await link.send_bytes(packet(2, dup=True))  # while the application has it
        await trio.testing.wait_all_tasks_blocked()
        client.messages.acknowledge()
        assert [await link.next() for _ in range(2)] == [p.PubRec(1)] * 2
        await link.send_bytes(packet(2, dup=True)[:-1])  # and when it is done with it
        with trio.move_on_after(1) as scope:
            await link.next()
        assert scope.cancelled_caught
        await link.send_bytes(packet(2, dup=True)[-1:] + packet(0, b"next"))
        assert await link.next() == p.PubRec(1)
        assert (await client.messages.receive()).payload == b"next"
        assert client.statistics().repeated == 2


async def test_scopes_that_overlap_share_one(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, stream_over=1000) as client:
        link = await scripted.accepted()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_subscriptions, link)
            async with client.open_subscription("t") as one, client.open_subscription("#") as two:
                await link.send_bytes(packet())
                first, second = await big(one), await big(two)
                read: list[bytes] = []

                async def read_all(message: BigMessage) -> None:
                    read.append(await message.read_all())

                async with trio.open_nursery() as readers:
                    readers.start_soon(read_all, first)
                    readers.start_soon(read_all, second)
                assert read == [PAYLOAD, PAYLOAD]
                await link.send_bytes(packet())
                first, second = await big(one), await big(two)
                first.close()
                assert await second.read_all() == PAYLOAD
            nursery.cancel_scope.cancel()


async def answer_subscriptions(link: ScriptedLink) -> None:
    while (request := await link.next()) is not None:
        if isinstance(request, p.Subscribe):
            await link.send(p.SubAck(request.packet_id, (2,) * len(request.requests)))
        if isinstance(request, p.Unsubscribe):
            await link.send(p.UnsubAck(request.packet_id))


async def test_two_tasks_may_not_read_one(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, stream_over=1000) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(packet()[:2000])
        message = await big(client.messages)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(message.read_all)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await message.receive_some()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_consumer_that_fails_before_it_read_leaves_it_to_the_next(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with open_client(scripted.dialer, client_id="c", stream_over=1000) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        await link.send_bytes(packet(qos))
        with pytest.raises(KeyError), client.messages:
            await big(client.messages)
            raise KeyError
        assert await (await big(client.messages)).read_all() == PAYLOAD
        client.messages.acknowledge()
        assert await link.next() == (p.PubAck if qos == 1 else p.PubRec)(1)
        assert client.statistics().connects == 1


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_consumer_that_fails_in_its_middle_has_the_broker_send_it_again(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with open_client(scripted.dialer, client_id="c", stream_over=1000) as client:
        link = await scripted.accepted()
        await subscribe(client, link)
        scripted.greeting = PRESENT
        await link.send_bytes(packet(qos))
        with pytest.raises(KeyError), client.messages:
            await (await big(client.messages)).receive_some()
            raise KeyError
        link = await scripted.accepted()
        await link.send_bytes(packet(qos, dup=True))
        assert await (await big(client.messages)).read_all() == PAYLOAD


# Where the reader has to go on, on a real clock, as a thread writes the file


async def confirm(link: ScriptedLink) -> None:
    """Confirms what is published at QoS 1."""
    while (request := await link.next()) is not None:
        if isinstance(request, p.Delivery):
            await link.send(p.PubAck(request.packet_id))


async def test_a_request_in_its_middle_is_answered_behind_it(scripted: ScriptedBroker) -> None:
    with trio.fail_after(20):
        async with (
            open_client(scripted.dialer, stream_over=1000) as client,
            trio.open_nursery() as nursery,
        ):
            link = await scripted.accepted()
            await subscribe(client, link)
            await link.send_bytes(packet(0, PAYLOAD * 4) + packet(0, b"next"))
            nursery.start_soon(confirm, link)
            message = await big(client.messages)
            head = await message.receive_some(1000)
            await client.publish("a", b"", qos=1)
            assert head + await message.read_all() == PAYLOAD * 4
            assert (await client.messages.receive()).payload == b"next"
            nursery.cancel_scope.cancel()


async def test_scopes_share_the_file_too_and_it_is_gone_in_the_end(
    scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[object] = []

    def note(*_: object) -> object:
        files.append(opened := temporary_file())
        return opened

    temporary_file = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", note)
    with trio.fail_after(20):
        async with open_client(scripted.dialer, stream_over=1000) as client:
            link = await scripted.accepted()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_all, link)
                async with (
                    client.open_subscription("t") as one,
                    client.open_subscription("#") as two,
                ):
                    await link.send_bytes(packet(0, PAYLOAD * 4))
                    first, second = await big(one), await big(two)
                    await first.receive_some(1)
                    await client.publish("a", b"", qos=1)
                    assert len(await first.read_all()) == SIZE * 4 - 1
                    assert await second.read_all() == PAYLOAD * 4
                    assert len(files) == 1
                [file] = files
                assert getattr(file, "closed")  # noqa: B009
                nursery.cancel_scope.cancel()


async def answer_all(link: ScriptedLink) -> None:
    while (request := await link.next()) is not None:
        match request:
            case p.Subscribe():
                await link.send(p.SubAck(request.packet_id, (2,) * len(request.requests)))
            case p.Unsubscribe():
                await link.send(p.UnsubAck(request.packet_id))
            case p.Delivery():
                await link.send(p.PubAck(request.packet_id))
            case _:
                pass


async def test_a_file_that_cannot_be_written_ends_the_connection(
    scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> object:
        raise OSError("no space, says the test")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with trio.fail_after(20):
        async with open_client(
            scripted.dialer, stream_over=1000, client_id="c", reconnect_wait_min=0.01
        ) as client:
            link = await scripted.accepted()
            await subscribe(client, link)
            await link.send_bytes(packet(1, PAYLOAD * 4))
            message = await big(client.messages)
            exchange = await client.enqueue("a", b"")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.wait)
                await client.wait_offline()
                with pytest.raises(trio_mqtt.ConnectionLost, match="no space"):
                    await message.read_all()
                nursery.cancel_scope.cancel()
            await client.aclose()


# What a hostile tester found


SMALLER = PAYLOAD[:100_000]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The temporary files that were opened."""
    opened: list[IO[bytes]] = []
    temporary_file = tempfile.TemporaryFile

    def note() -> IO[bytes]:
        opened.append(temporary_file())
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", note)
    return opened


@pytest.mark.parametrize("qos", [1, 2])
async def test_one_that_was_closed_before_its_consumer_failed_is_sent_again(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with (
        peered(scripted, client_id="c", stream_over=1000) as (client, peer),
        client.open_subscription("t") as messages,
    ):
        scripted.greeting = PRESENT
        await peer.send_bytes(packet(qos, SMALLER))
        with pytest.raises(Failed), messages:
            async with await big(messages):
                raise Failed
        await client.wait_offline()
        await client.wait_online()
        await peer.send_bytes(packet(qos, SMALLER, dup=True))
        assert await (await big(messages)).read_all() == SMALLER


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_is_taken_for_two_scopes_that_failed_is_let_go_for_both(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with peered(scripted, client_id="c", stream_over=1000) as (client, peer):
        with pytest.raises(Failed):
            async with client.open_subscription("t"), client.open_subscription("#"):
                await peer.send_bytes(packet(qos)[:-1])
                raise Failed
        (await big(client.messages)).close()
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().bytes_read > SIZE  # nothing holds up the reader


async def test_a_release_that_is_stored_over_a_reconnect_does_not_block_what_follows(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    store = MemoryPersistence()
    session = await trio_mqtt.init_session("c", store)
    async with (
        peered(scripted, session=session, stream_over=1000) as (client, peer),
        client.open_subscription("t") as messages,
    ):
        await peer.send_bytes(packet(2)[:2000])
        store.commit_seconds = 20
        await big(messages)
        messages.acknowledge()
        await peer.cut(PRESENT)
        await client.wait_online()
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_bytes(packet(2, dup=True) + packet(2, b"next", 2))
        await trio.sleep(100)
        assert drain(messages) == ["next"]
        await trio.sleep(100)
        assert await peer.taken(p.PubRec) == [p.PubRec(1), p.PubRec(2)]


async def test_a_repetition_that_is_arriving_is_answered_behind_its_last_byte(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        peered(scripted, client_id="c", stream_over=1000) as (client, peer),
        client.open_subscription("t") as messages,
    ):
        await peer.send_bytes(packet(2, SMALLER))
        await (await big(messages)).read_all()
        await peer.cut(PRESENT)
        await client.wait_online()
        await trio.testing.wait_all_tasks_blocked()
        again = packet(2, SMALLER, dup=True)
        await peer.send_bytes(again[:2000])
        messages.acknowledge()
        assert await peer.taken(p.PubRec) == []
        await peer.send_bytes(again[2000:])
        assert await peer.taken(p.PubRec) == [p.PubRec(1)]


@pytest.mark.parametrize("qos", [1, 2])
async def test_where_the_broker_keeps_no_session_one_that_failed_in_the_middle_is_given_up(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with (
        peered(scripted, stream_over=1000) as (client, peer),
        client.open_subscription("t", strict=True) as messages,
    ):
        await peer.send_bytes(packet(qos, SMALLER) + packet(qos, b"2", 2))
        with pytest.raises(Failed), messages.clone() as own:
            await (await big(own)).receive_some()
            raise Failed
        with pytest.raises(MessagesMissed) as missed:
            await messages.receive()
        assert missed.value.given_up == 1
        assert (await messages.receive()).payload == b"2"
        messages.acknowledge()
        answer = p.PubAck if qos == 1 else p.PubRec
        assert await peer.taken(answer) == [answer(1), answer(2)]
        statistics = client.statistics()
        assert (statistics.connects, statistics.given_up) == (1, 1)


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_waits_behind_one_that_has_to_be_sent_again_keeps_its_place(
    scripted: ScriptedBroker, autojump_clock: MockClock, qos: p.QoS
) -> None:
    async with (
        peered(scripted, client_id="c", stream_over=1000) as (client, peer),
        client.open_subscription("t") as messages,
    ):
        scripted.greeting = PRESENT
        behind = packet(qos, b"2", 2) + packet(qos, b"3", 3)
        await peer.send_bytes(packet(qos, SMALLER) + behind)
        with pytest.raises(Failed), messages:
            await (await big(messages)).receive_some()
            raise Failed
        await client.wait_offline()
        await client.wait_online()
        await peer.send_bytes(packet(qos, SMALLER, dup=True) + behind)
        assert await (await big(messages)).read_all() == SMALLER
        assert drain(messages) == ["2", "3"]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_file_of_one_that_nobody_took_and_that_breaks_off_is_closed(
    scripted: ScriptedBroker, files: list[IO[bytes]], qos: p.QoS
) -> None:
    with trio.fail_after(20):
        async with (
            peered(scripted, client_id="c", stream_over=1000, reconnect_wait_min=0.01) as (
                client,
                peer,
            ),
            client.open_subscription("t"),
            trio.open_nursery() as nursery,
        ):
            peer.silent = (p.Delivery,)
            exchange = await client.enqueue("a", b"")
            nursery.start_soon(exchange.wait)
            await peer.send_bytes(packet(qos, PAYLOAD * 4)[:3_000_000])
            # Threads write and close the file, and tell nobody.
            while not files or client.statistics().bytes_read < 3_000_000:  # noqa: ASYNC110
                await trio.sleep(0.001)  # which gives them a turn
            peer.silent = ()
            await peer.cut(PRESENT)
            while not files[0].closed:  # noqa: ASYNC110
                await trio.sleep(0.001)  # which gives them a turn
            assert len(files) == 1
            nursery.cancel_scope.cancel()
