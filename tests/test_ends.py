"""What requests, scopes and clients raise when they end in the middle of something."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Collection, Mapping

import pytest
import trio
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import ClientClosed, ClosedInDoubt, InDoubt, MQTTError, open_client
from trio_mqtt import _packets as p
from trio_mqtt.testing import ScriptedBroker, open_broker

from .memory_persistence import MemoryPersistence


async def outcome(call: Callable[[], Awaitable[object]], found: list[object]) -> None:
    try:
        found.append(await call())
    except MQTTError as error:
        found.append(error)


@pytest.mark.parametrize("what", ["subscribe", "unsubscribe", "ping"])
async def test_what_ends_the_client_is_the_end_of_a_request_of_an_outer_task(
    scripted: ScriptedBroker, autojump_clock: MockClock, what: str
) -> None:
    persistence = MemoryPersistence()
    session = await trio_mqtt.init_session("c", persistence)
    found: list[object] = []

    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            link = await scripted.next_link()
            await link.expect(p.Connect)
            await link.next()
            link = await scripted.accepted()
            while await link.next() is not None:
                pass

        nursery.start_soon(serve)
        with pytest.raises(ZeroDivisionError):
            async with open_client(scripted.dialer, session=session) as client:
                calls = {
                    "subscribe": lambda: client.subscribe("t"),
                    "unsubscribe": lambda: client.unsubscribe("t"),
                    "ping": client.ping,
                }
                nursery.start_soon(outcome, calls[what], found)
                await trio.sleep(1)
                persistence.failure = ZeroDivisionError()
                await client.enqueue("t", b"")
    assert [type(one) for one in found] == [ClosedInDoubt], found


async def test_what_ends_the_client_before_a_request_is_written(autojump_clock: MockClock) -> None:
    persistence = MemoryPersistence()
    session = await trio_mqtt.init_session("c", persistence)
    found: list[object] = []
    async with open_broker() as broker, trio.open_nursery() as nursery:

        async def dialer() -> trio.abc.Stream:
            return Slow(await broker.dialer())

        with pytest.raises(ZeroDivisionError):
            async with open_client(dialer, session=session) as client:
                await trio.sleep(10)
                await client.publish("t", b"is being written")
                await trio.sleep(0.5)
                nursery.start_soon(outcome, lambda: client.subscribe("t"), found)
                await trio.sleep(1)
                persistence.failure = ZeroDivisionError()
                await client.enqueue("t", b"")
    assert [type(one) for one in found] == [ClientClosed], found


class Slow(trio.abc.Stream):
    """A write arrives at once, and ends some seconds later."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(bytes(data))
        await trio.sleep(3)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._inner.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.parametrize("end", ["cut", "close"])
@pytest.mark.parametrize("what", ["subscribe", "unsubscribe"])
async def test_a_request_of_two_packets_of_which_one_was_answered_is_in_doubt(
    autojump_clock: MockClock, what: str, end: str
) -> None:
    """The broker granted eight filters of nine, so that the request did happen in part."""
    filters = [f"{number}/" + "x" * 10_000 for number in range(9)]
    found: list[object] = []
    async with open_broker() as broker, trio.open_nursery() as nursery:

        async def dialer() -> trio.abc.Stream:
            return Slow(await broker.dialer())

        async with open_client(dialer, client_id="c") as client:
            await trio.sleep(10)
            call = client.subscribe if what == "subscribe" else client.unsubscribe
            nursery.start_soon(outcome, lambda: call(*filters), found)
            await trio.sleep(5)
            answers = [record.packet for record in broker.log if record.direction == "out"]
            assert len(answers) == 2
            if end == "cut":
                broker.disconnect_all()
            else:
                await client.aclose()
            await trio.sleep(1)
            assert isinstance(found[0], InDoubt), found
            await client.aclose()


async def test_disconnect_says_that_the_client_was_closed_meanwhile(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    found: list[object] = []
    async with trio.open_nursery() as nursery, open_client(scripted.dialer) as client:
        await client.enqueue("t", b"")
        nursery.start_soon(outcome, client.disconnect, found)
        await trio.sleep(1)
        await client.aclose()
        await trio.sleep(1)
    assert [type(one) for one in found] == [ClientClosed], found


async def test_entering_a_scope_offline_and_closing_sent_nothing(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.unreachable = True
    found: list[object] = []
    async with (
        trio.open_nursery() as nursery,
        open_client(scripted.dialer, wait_online=False) as client,
    ):
        nursery.start_soon(outcome, lambda: client.open_subscription("t").__aenter__(), found)
        await trio.sleep(5)
        await client.aclose()
        await trio.sleep(1)
    assert [type(one) for one in found] == [ClientClosed], found


@pytest.mark.parametrize("body_fails", [False, True])
def test_a_keyboard_interrupt_while_the_client_ends_is_not_lost(body_fails: bool) -> None:
    """It comes while the last commit runs, when the body is over."""

    async def interrupt() -> None:
        await trio.sleep(5)
        signal.raise_signal(
            signal.SIGINT
        )  # in a system task, so that Trio hands it to the main one

    async def main() -> None:
        persistence = MemoryPersistence()
        async with open_broker() as broker:
            session = await trio_mqtt.init_session("c", persistence)
            async with open_client(broker.dialer, session=session) as client:
                await trio.sleep(1)
                persistence.commit_seconds = 8
                client.enqueue_nowait("t", b"")
                trio.lowlevel.spawn_system_task(interrupt)
                if body_fails:
                    raise KeyError
                client._supervisor.close()  # noqa: SLF001, as what ends the client would

    async def run() -> None:
        if body_fails:
            with pytest.RaisesGroup(KeyError, KeyboardInterrupt):
                await main()
        else:
            with pytest.raises(KeyboardInterrupt):
                await main()

    trio.run(run, clock=MockClock(autojump_threshold=0))


class Interrupted(MemoryPersistence):
    async def close(self) -> None:
        await super().close()
        raise KeyboardInterrupt


async def test_an_interrupted_release_does_not_hide_what_the_body_raised(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        session = await trio_mqtt.init_session("c", Interrupted())
        with pytest.RaisesGroup(KeyError, KeyboardInterrupt):
            async with open_client(broker.dialer, session=session):
                raise KeyError


class Unsure(MemoryPersistence):
    """The second commit fails after it has stored everything, as where fsync does."""

    unsure = False

    async def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        await super().commit(saves, deletes)
        if self.unsure and any(map(self.is_publish, saves.values())):
            self.unsure = False
            raise OSError("maybe")
        self.unsure = bool(self.commit_seconds)

    @staticmethod
    def is_publish(value: bytes) -> bool:
        return b"second" in value


async def test_what_could_not_be_stored_at_the_end_is_not_sent_by_the_next_life(
    autojump_clock: MockClock,
) -> None:
    persistence = Unsure()
    async with open_broker() as broker:
        session = await trio_mqtt.init_session("c", persistence)
        async with open_client(broker.dialer, session=session) as client:
            persistence.commit_seconds = 1
            client.enqueue_nowait("t", b"first")
            await trio.sleep(0.5)
            exchange = client.enqueue_nowait("t", b"second")
            await client.aclose()
            with pytest.raises(trio_mqtt.PersistenceError):
                await exchange.wait()
        session = await trio_mqtt.adopt_session(persistence)
        messages = [pending.message for pending in session.pending]
        assert [message.payload for message in messages if message] == [b"first"]
        await session.aclose()


def test_a_scope_is_cancelled_with_a_reason_as_trio_has_it() -> None:
    trio_mqtt.move_on_after(1).cancel("why")


async def test_the_verdict_on_requests_in_nurseries(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, at_least_once_max=1) as client:
        for _ in range(2):
            with trio_mqtt.move_on_after(1) as scope:
                async with trio.open_nursery() as n:
                    n.start_soon(client.subscribe, "t")
                    async with trio.open_nursery() as n2:
                        n2.start_soon(client.ping)
                        n2.start_soon(client.ping)
                        await trio.sleep_forever()
            assert scope.abandoned
            with pytest.raises(trio_mqtt.RequestAbandoned), trio_mqtt.fail_after(1):
                async with trio.open_nursery() as n:
                    n.start_soon(client.subscribe, "t")
                    await trio.sleep_forever()
        scope = trio_mqtt.fail_after(1)
        with pytest.RaisesGroup(ValueError), scope:
            async with trio.open_nursery() as n:
                n.start_soon(client.subscribe, "t")
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError
        assert scope.abandoned
        await client.aclose()


async def test_disconnect_in_a_cancelled_scope(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        with trio_mqtt.move_on_after(0) as scope:
            await client.disconnect()
        assert scope.cancelled_caught
        assert client.online
