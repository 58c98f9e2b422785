"""The examples that the Go client's documentation has too: each error scenario that it handles."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import Client, Dialer, init_session, open_client
from trio_mqtt import _packets as p
from trio_mqtt.testing import ScriptedBroker, ScriptedLink, open_broker

from .memory_persistence import MemoryPersistence

EXAMPLES = Path(__file__).parent.parent / "examples"
Lines = Callable[[], list[str]]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """What was printed since the last call."""

    def read() -> list[str]:
        return capsys.readouterr().out.splitlines()

    return read


# The critical publish

critical = load("critical")


@asynccontextmanager
async def alerting(client: Client) -> AsyncGenerator[None]:
    """The alert is being sent, beside."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(critical.send_alert, client)
        await trio.testing.wait_all_tasks_blocked()
        yield


async def acknowledge(link: ScriptedLink) -> None:
    alert = await link.expect(p.Delivery)
    assert alert.message.payload == "🍸🆘".encode()
    await link.send(p.PubAck(alert.packet_id))


async def test_an_alert_is_acknowledged(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        async with alerting(client):
            assert lines() == ["alert submitted..."]
            await acknowledge(link)
    assert lines() == ["alert acknowledged"]


async def test_an_alert_is_held_up_by_others(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    async with open_client(scripted.dialer, at_least_once_max=1) as client:
        link = await scripted.accepted()
        await client.enqueue("other", b"")
        async with alerting(client):
            await trio.sleep(0.3)
            assert lines() == 2 * [
                "alert submission hold-up: too many messages at QoS 1 are unconfirmed"
            ]
            await link.send(p.PubAck((await link.expect(p.Delivery)).packet_id))
            await acknowledge(link)
    assert lines() == ["alert submitted...", "alert acknowledged"]


async def test_an_alert_is_blocked_on_the_persistence(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    store = MemoryPersistence()
    session = await init_session("c", store)
    async with open_client(scripted.dialer, session=session, wait_online=False) as client:
        await scripted.accepted()  # to have the session discarded
        await client.wait_online()
        link = await scripted.accepted()
        store.failure = OSError("disk full")
        async with alerting(client):
            await trio.sleep(1)
            assert lines() == [
                "alert submission blocked on persistence malfunction: not stored: disk full"
            ]
            store.failure = None
            await acknowledge(link)
    assert lines() == ["alert submitted...", "alert acknowledged"]


async def test_an_alert_is_interrupted(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    async with open_client(scripted.dialer, client_id="c") as client:
        link = await scripted.accepted()
        async with alerting(client):
            await link.expect(p.Delivery)
            await link.close()
            link = await scripted.accepted()
            await acknowledge(link)
    _, interrupted, acknowledged = lines()
    assert interrupted == "alert transfer interrupted: the broker closed the connection"
    assert acknowledged == "alert acknowledged"


async def test_an_alert_is_suspended_by_the_end_of_the_client(
    autojump_clock: MockClock, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is under way; and before, it is not sent."""
    clients: list[Client] = []
    async with open_broker(answer=lambda _, packet: () if _is_puback(packet) else None) as broker:

        async def send_alert(client: Client) -> None:
            clients.append(client)
            await send(client)

        send = critical.send_alert
        monkeypatch.setattr(critical, "send_alert", send_alert)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(critical.main, broker.dialer)
            await trio.testing.wait_all_tasks_blocked()
            await clients[0].aclose()
        *_, suspended = lines()
        assert suspended == (
            "alert exchange suspended: the client was closed before the broker answered"
        )

        async def send_too_late(client: Client) -> None:
            await client.aclose()
            await send(client)

        monkeypatch.setattr(critical, "send_alert", send_too_late)
        await critical.main(broker.dialer)
        assert lines() == ["alert not sent: the client was closed"]


def _is_suback(packet: p.Packet) -> bool:
    return isinstance(packet, p.SubAck)


def _is_puback(packet: p.Packet) -> bool:
    return isinstance(packet, p.PubAck)


async def test_an_alert_is_denied(
    autojump_clock: MockClock, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_without_qos_1(broker: Dialer, **settings: Any) -> Any:
        return open_client(broker, at_least_once_max=0, **settings)

    monkeypatch.setattr(trio_mqtt, "open_client", open_without_qos_1)
    async with open_broker() as broker:
        await critical.main(broker.dialer)
    (line,) = lines()
    assert line.startswith("alert not sent: ")


# The sticky subscribe

sticky = load("sticky")


@asynccontextmanager
async def subscribing(scripted: ScriptedBroker) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sticky.main, scripted.dialer)
        await trio.testing.wait_all_tasks_blocked()
        yield


async def grant(link: ScriptedLink, code: int = 2) -> None:
    await link.send(p.SubAck((await link.expect(p.Subscribe)).packet_id, (code,)))


async def test_a_subscription_is_confirmed(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    async with subscribing(scripted):
        await grant(await scripted.accepted())
    assert lines() == ["subscribe confirmed by broker"]


async def test_a_subscription_is_failed_by_the_broker(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    async with subscribing(scripted):
        await grant(await scripted.accepted(), 0x80)
    assert lines() == ["subscribe failed by broker: the broker failed 'demo/+'"]


async def test_a_subscription_is_retried_on_a_new_connection(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    async with subscribing(scripted):
        link = await scripted.accepted()
        await link.expect(p.Subscribe)
        await link.close()
        await grant(await scripted.accepted())
    assert lines() == [
        "subscribe delay: the broker closed the connection",
        "subscribe retry with new connection",
        "subscribe confirmed by broker",
    ]


async def test_a_subscription_is_retried_once_the_service_is_up(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    scripted.unreachable = True
    async with subscribing(scripted):
        (down,) = lines()
        assert down.startswith("subscribe delay: offline: cannot connect to ")
        scripted.unreachable = False
        await grant(await scripted.accepted())
    assert lines() == ["subscribe retry with new connection", "subscribe confirmed by broker"]


async def test_a_subscription_runs_out_of_time(
    scripted: ScriptedBroker, autojump_clock: MockClock, lines: Lines
) -> None:
    async with open_broker(answer=lambda _, packet: () if _is_suback(packet) else None) as broker:
        await sticky.main(broker.dialer)
    assert lines() == ["subscribe state unknown due to timeout"]
    scripted.dial_seconds = 100
    async with open_client(scripted.dialer, wait_online=False, pause_timeout=200) as client:
        with pytest.raises(trio_mqtt.RequestCanceled):
            await sticky.subscribe(client)
        await client.aclose()
    scripted.dial_seconds = 0
    scripted.unreachable = True
    async with subscribing(scripted):
        await trio.sleep(61)
    assert lines()[-1] == "subscribe timeout"


async def test_a_subscription_is_held_up_by_others(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trio_mqtt._subscriptions.MAX_PENDING", 1)
    async with open_client(scripted.dialer) as client, trio.open_nursery() as nursery:
        link = await scripted.accepted()
        nursery.start_soon(client.subscribe, "other")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(sticky.subscribe, client)
        await trio.testing.wait_all_tasks_blocked()
        assert lines() == ["subscribe hold-up due to an excessive number of pending requests"]
        for _ in range(2):
            await grant(link)
    assert lines() == ["subscribe confirmed by broker"]


@pytest.mark.parametrize("delay", [0, 1])
async def test_a_subscription_ends_with_the_client(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    delay: float,
) -> None:
    subscribe = sticky.subscribe

    async def subscribe_while_it_closes(client: Client) -> None:
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await trio.sleep(delay)
                await client.aclose()

            nursery.start_soon(close)
            await trio.sleep(0.5)
            with pytest.raises((trio_mqtt.ClientClosed, trio_mqtt.ClosedInDoubt)) as caught:
                await subscribe(client)
        raise caught.value

    monkeypatch.setattr(sticky, "subscribe", subscribe_while_it_closes)
    async with subscribing(scripted):
        pass
    assert lines() == [
        "subscribe state unknown: the client was closed before the broker answered"
        if delay
        else "no subscribe: the client was closed"
    ]


# The set-up

receiver = load("receiver")


async def test_what_is_received_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="receiver")
    async with open_broker() as broker, trio.open_nursery() as nursery:
        nursery.start_soon(receiver.main, broker.dialer)
        await broker.wait_subscribed("demo-client", "demo/#")
        broker.publish("demo/a", "small", qos=1)
        broker.publish("demo/b", bytes(100_000), qos=2)
        broker.disconnect_all()  # it connects again by itself
        await broker.wait_disconnected("demo-client")
        await broker.wait_connected("demo-client")
        broker.publish("demo/c", "after", qos=1)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert "'demo/a': b'small'" in caplog.messages
    assert "'demo/b': 100000 byte message omitted" in caplog.messages
    assert "'demo/c': b'after'" in caplog.messages
    assert any("lost: the broker closed the connection" in text for text in caplog.messages)


async def test_a_refusal_ends_the_setup_and_later_it_is_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_broker() as broker:
        broker.refuse(5)
        with pytest.raises(SystemExit, match=r"exit on broken setup: .*5: not authorized"):
            await receiver.main(broker.dialer)
        broker.refuse(None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.main, broker.dialer)
            await broker.wait_subscribed("demo-client", "demo/#")
            broker.refuse(3)
            broker.disconnect_all()
            await trio.sleep(30)
            broker.refuse(None)
            await broker.wait_connected("demo-client")
            nursery.cancel_scope.cancel()
    assert any("3: server unavailable" in text for text in caplog.messages)


async def test_a_broken_setup_ends_it(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    scripted.unreachable = True
    with pytest.raises(SystemExit, match="exit on broken setup: cannot connect"):
        await receiver.main(scripted.dialer)
    with pytest.raises(SystemExit, match="exit on broken setup: "):
        await receiver.main("http://localhost")


async def test_the_end_of_the_client_ends_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = receiver.receive

    async def receive_while_it_closes(client: Client) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, client)
            await broker.wait_subscribed("demo-client", "demo/#")
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose()

    monkeypatch.setattr(receiver, "receive", receive_while_it_closes)
    async with open_broker() as broker:
        with trio.fail_after(10):
            await receiver.main(broker.dialer)
    async with open_broker(fail_filters=("demo/#",)) as broker:
        monkeypatch.setattr(receiver, "receive", receive)
        with pytest.raises(SystemExit, match="terminated: the broker failed 'demo/#'"):
            await receiver.main(broker.dialer)
