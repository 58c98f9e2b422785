"""The wire that the demo watches and cuts, and the words for what passes there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from trio_mqtt import Message, Will
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.cli._wire import Cut, Sight, Wire
from trio_mqtt.cli._words import describe, explain


class Watched:
    """A client's end of a watched connection, and the broker's."""

    def __init__(self) -> None:
        self.sights: list[Sight] = []
        self.wire = Wire(self._dial, "mqtt://localhost", self.sights.append)
        self._client, self.broker = trio.testing.memory_stream_pair()

    async def _dial(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return self._client

    async def dial(self) -> trio.abc.Stream:
        return await self.wire.dialer()


@pytest.fixture
def watched() -> Watched:
    return Watched()


LETTER = p.Delivery(Message("letters", b"hello", qos=1), 7)
CHAT = Message("chat", b"x" * 200)


def shown(sights: Sequence[Sight]) -> list[tuple[str, bool, bool]]:
    return [(describe(sight.packet), sight.sent, sight.cut) for sight in sights]


def test_wire_is_called_as_the_broker(watched: Watched) -> None:
    assert getattr(watched.wire.dialer, "__qualname__", None) == "mqtt://localhost"


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_wire_reports_and_passes_on(watched: Watched, step: int) -> None:
    stream = await watched.dial()
    sent = encode(CHAT) + encode(p.PingReq())
    for start in range(0, len(sent), step):
        await stream.send_all(memoryview(sent)[start : start + step])
    assert await watched.broker.receive_some() == sent
    answer = encode(p.PingResp()) + encode(CHAT)
    got = b""
    for start in range(0, len(answer), step):
        await watched.broker.send_all(answer[start : start + step])
    while len(got) < len(answer):
        got += await stream.receive_some()
    assert got == answer
    assert [type(sight.packet) for sight in watched.sights] == [
        Message, p.PingReq, p.PingResp, Message,
    ]  # fmt: skip
    assert [sight.sent for sight in watched.sights] == [True, True, False, False]
    await watched.broker.aclose()
    assert await stream.receive_some() == b""
    await stream.aclose()


async def test_wire_gives_as_many_bytes_as_asked_for(watched: Watched) -> None:
    stream = await watched.dial()
    await watched.broker.send_all(encode(p.PubAck(7)))
    assert await stream.receive_some(3) == b"\x40\x02\x00"
    assert await stream.receive_some(3) == b"\x07"


async def test_wire_passes_on_what_it_cannot_read(watched: Watched) -> None:
    stream = await watched.dial()
    for data in (b"\x00\x00", b"\x30\xff\xff\xff\xff\x01 and more"):
        await watched.broker.send_all(data)
        assert await stream.receive_some() == data
        await stream.send_all(data)
        assert await watched.broker.receive_some() == data
    assert not watched.sights


async def test_wire_is_cut_behind_what_is_sent(watched: Watched) -> None:
    stream = await watched.dial()
    watched.wire.cut_at(Cut((p.Delivery,), sent=True))
    await stream.send_all(encode(CHAT))

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError, match="it was cut"):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError, match="it was cut"):
            await stream.send_all(encode(LETTER) + encode(p.Disconnect()))
    assert await watched.broker.receive_some() == encode(CHAT) + encode(LETTER)
    assert await watched.broker.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError, match="it was cut"):
        await stream.wait_send_all_might_not_block()
    assert shown(watched.sights[1:]) == [('PUBLISH 7 letters "hello" QoS 1', True, True)]


async def test_wire_is_cut_before_what_is_received(watched: Watched) -> None:
    stream = await watched.dial()
    watched.wire.cut_at(Cut((p.PubAck, p.PubRec)), Cut((p.PubComp,)))
    await stream.send_all(encode(p.PubRec(1)))  # of these packets, but not received
    first, lost, never = p.PubComp(2), p.PubAck(7), p.PubComp(3)
    await watched.broker.send_all(encode(first) + encode(lost) + encode(never))
    assert await stream.receive_some() == encode(first)
    with pytest.raises(trio.BrokenResourceError, match="it was cut"):
        await stream.receive_some()
    assert shown(watched.sights[1:]) == [("PUBCOMP 2", False, False), ("PUBACK 7", False, True)]


async def test_orders_to_cut_are_followed_in_turn_and_withdrawn() -> None:
    first, second, third = (Watched() for _ in range(3))
    streams = iter((first, second, third))

    async def dial() -> trio.abc.Stream:
        return await next(streams).dial()

    wire = Wire(dial, "name", lambda _: None)
    wire.cut_at(Cut((p.PubRec,)), Cut((p.PubComp,)), Cut((p.PubAck,)))
    for watched, packet in (first, p.PubRec(1)), (second, p.PubComp(1)):
        stream = await wire.dialer()
        await watched.broker.send_all(encode(packet))
        with pytest.raises(trio.BrokenResourceError, match="it was cut"):
            await stream.receive_some()
    wire.cut_at()
    stream = await wire.dialer()
    await third.broker.send_all(encode(p.PubAck(1)))
    assert await stream.receive_some() == encode(p.PubAck(1))


async def test_own_close_is_no_cut(watched: Watched) -> None:
    stream = await watched.dial()
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("last", [p.PubAck(7), p.PubComp(7)])
async def test_wire_settles(
    watched: Watched, sent: bool, last: p.Packet, autojump_clock: trio.testing.MockClock
) -> None:
    await watched.wire.wait_settled()
    watched.wire.saw(LETTER, sent=sent)
    watched.wire.saw(last, sent=sent)  # of the other direction
    with trio.move_on_after(1) as scope:
        await watched.wire.wait_settled()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.wire.wait_settled)
        await trio.testing.wait_all_tasks_blocked()
        watched.wire.saw(last, sent=not sent)


async def test_lost_answer_settles_nothing(
    watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    watched.wire.cut_at(Cut((p.PubAck,)))
    watched.wire.saw(LETTER, sent=True)
    assert watched.wire.saw(p.PubAck(7), sent=False)
    with trio.move_on_after(1) as scope:
        await watched.wire.wait_settled()
    assert scope.cancelled_caught


async def test_lost_session_settles_the_broker_s_exchanges(watched: Watched) -> None:
    watched.wire.saw(LETTER, sent=False)
    watched.wire.saw(p.ConnAck(session_present=False, return_code=0), sent=False)
    await watched.wire.wait_settled()


# The words


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (p.Connect("me", True, 60), "CONNECT I am me, without a session"),
        (
            p.Connect("me", False, 60, Will("t", "w"), "alice", b"s3cret"),
            "CONNECT I am me, user alice, password ****, keep my session",
        ),
        (p.UnsupportedLevel(5), "UNSUPPORTEDLEVEL of protocol level 5"),
        (p.ConnAck(False, 0), "CONNACK welcome, a new session"),
        (p.ConnAck(True, 0), "CONNACK session resumed"),
        (p.ConnAck(False, 5), "CONNACK refused, return code 5"),
        (Message("t", b"m", retain=True), 'PUBLISH t "m" QoS 0 RETAIN'),
        (Message("t", b"\xff" + b"m" * 80), f'PUBLISH t "�{"m" * 56}..." QoS 0'),
        (p.Delivery(Message("t", b"m", 2, dup=True), 5), 'PUBLISH 5 t "m" QoS 2 DUP'),
        (p.PubAck(1), "PUBACK 1"),
        (p.PubRec(1), "PUBREC 1"),
        (p.PubRel(1), "PUBREL 1"),
        (p.PubComp(1), "PUBCOMP 1"),
        (p.Subscribe(1, (("a", 0), ("b/#", 2))), "SUBSCRIBE 1 a (QoS 0), b/# (QoS 2)"),
        (p.SubAck(1, (0, 2, 128)), "SUBACK 1 granted: QoS 0, QoS 2, failed"),
        (p.Unsubscribe(1, ("a", "b")), "UNSUBSCRIBE 1 a, b"),
        (p.UnsubAck(1), "UNSUBACK 1"),
        (p.PingReq(), "PINGREQ"),
        (p.PingResp(), "PINGRESP"),
        (p.Disconnect(), "DISCONNECT"),
    ],
)  # fmt: skip
def test_describe(packet: p.Packet, words: str) -> None:
    assert describe(packet) == words
    meant = isinstance(packet, (p.PubAck, p.PubRec, p.PubRel, p.PubComp))
    assert bool(explain(packet)) is meant
