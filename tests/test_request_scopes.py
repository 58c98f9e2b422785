"""`move_on_after` and its kin: whether the request that was interrupted had been sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import Client, fail_after, fail_at, move_on_after, move_on_at, open_client
from trio_mqtt.testing import ScriptedBroker

from .memory_persistence import MemoryPersistence

Request = Callable[[Client], Awaitable[object]]


async def enter_scope(client: Client) -> None:
    async with client.open_subscription("a"):
        raise AssertionError("it is not answered")


async def sleep(_: Client) -> None:
    await trio.sleep_forever()


REQUESTS: dict[str, Request] = {
    "publish at QoS 1": lambda client: client.publish("a", b"", qos=1),
    "publish at QoS 2": lambda client: client.publish("a", b"", qos=2),
    "clear_retained": lambda client: client.clear_retained("a"),
    "subscribe": lambda client: client.subscribe("a"),
    "unsubscribe": lambda client: client.unsubscribe("a"),
    "ping": lambda client: client.ping(),
    "open_subscription": enter_scope,
}
"""The broker does not answer them."""
AT_MOST_ONCE: dict[str, Request] = {"publish at QoS 0": lambda client: client.publish("a", b"")}
WAITS: dict[str, Request] = {
    "receive": lambda client: client.messages.receive(),
    "wait_offline": lambda client: client.wait_offline(),
    "sleep": sleep,
}


def verdict(scope: trio_mqtt.RequestScope) -> str | None:
    verdicts = {(True, False): "canceled", (False, True): "abandoned", (False, False): None}
    return verdicts[scope.canceled, scope.abandoned]


def by_name(requests: dict[str, Request]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("request_", requests.values(), ids=requests.keys())


@by_name(REQUESTS)
async def test_a_request_that_was_sent_is_abandoned(
    scripted: ScriptedBroker, autojump_clock: MockClock, request_: Request
) -> None:
    async with open_client(scripted.dialer) as client:
        with move_on_after(1) as scope:
            await request_(client)
        assert verdict(scope) == "abandoned"
        assert scope.cancelled_caught
        assert trio.current_time() == 1
        await client.aclose()


@by_name(REQUESTS | AT_MOST_ONCE)
async def test_a_request_in_a_scope_that_was_cancelled_before_is_canceled(
    scripted: ScriptedBroker, autojump_clock: MockClock, request_: Request
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        with move_on_after(1) as scope:
            scope.cancel()
            await request_(client)
        assert verdict(scope) == "canceled"
        await client.aclose()
    assert await link.next() is None  # not a byte was sent


@by_name(
    {
        **AT_MOST_ONCE,
        **{name: REQUESTS[name] for name in ("subscribe", "unsubscribe", "ping")},
        "open_subscription": enter_scope,
    }
)
async def test_a_request_that_waits_for_a_connection_is_canceled(
    scripted: ScriptedBroker, autojump_clock: MockClock, request_: Request
) -> None:
    scripted.dial_seconds = 5
    async with open_client(scripted.dialer, wait_online=False) as client:
        with move_on_after(1) as scope:
            await request_(client)
        assert scope.canceled
        await client.aclose()


async def test_a_request_that_waits_for_its_turn_is_canceled(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with (
        open_client(scripted.dialer, at_least_once_max=1) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.ping)
        await trio.testing.wait_all_tasks_blocked()
        exchange = await client.enqueue("a", b"")
        with move_on_after(1) as scope:
            await client.ping()
        assert scope.canceled
        with move_on_after(1) as scope:
            await client.publish("a", b"", qos=1)
        assert scope.canceled
        with move_on_after(1) as scope:
            await exchange.wait()  # a wait, that is, for a request made before
        assert verdict(scope) is None
        nursery.cancel_scope.cancel()
        await client.aclose()


async def test_a_message_that_is_being_stored_is_abandoned(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    persistence = MemoryPersistence()
    session = await trio_mqtt.init_session("c", persistence)
    async with open_client(scripted.dialer, session=session, wait_online=False) as client:
        await client.wait_online()
        with move_on_after(0) as scope:
            await client.enqueue("a", b"")
        assert scope.canceled
        with move_on_after(1) as scope:
            scope.deadline = trio.current_time()
            await client.enqueue("a", b"")
        assert scope.canceled != scope.abandoned


@by_name(WAITS)
async def test_a_wait_is_no_request(
    scripted: ScriptedBroker, autojump_clock: MockClock, request_: Request
) -> None:
    async with open_client(scripted.dialer) as client:
        with move_on_after(1) as scope:
            await request_(client)
        assert scope.cancelled_caught
        assert verdict(scope) is None
        with pytest.raises(trio.TooSlowError) as caught, fail_after(1):
            await request_(client)
        assert caught.type is trio.TooSlowError
        await client.aclose()


async def test_what_ends_in_time_is_nothing_of_the_kind(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        with move_on_after(1) as scope, fail_after(2):
            await client.publish("a", b"")
        assert verdict(scope) is None
        assert not scope.cancelled_caught
        with pytest.raises(KeyError), fail_at(trio.current_time() + 1):
            raise KeyError


async def test_fail_after_raises_what_became_of_the_request(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        with pytest.raises(trio_mqtt.RequestAbandoned), fail_after(1):
            await client.ping()
        with pytest.raises(trio_mqtt.RequestCanceled), fail_at(trio.current_time()):
            await client.subscribe("a")
        assert issubclass(trio_mqtt.RequestAbandoned, trio.TooSlowError | trio_mqtt.InDoubt)
        assert issubclass(trio_mqtt.RequestCanceled, trio.TooSlowError | trio_mqtt.NotSent)
        await client.aclose()


async def test_an_outer_scope_that_interrupts_is_told_of_by_both(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        with trio.move_on_after(1) as plain, move_on_at(50) as outer, fail_after(90) as inner:
            await client.ping()
        assert plain.cancelled_caught
        assert inner.abandoned
        assert outer.abandoned
        assert not inner.cancelled_caught
        assert not outer.cancelled_caught
        await client.aclose()


async def test_of_several_requests_one_that_was_abandoned_decides(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        with move_on_after(1) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.subscribe, "a")
                for _ in range(2):  # of which one waits for its turn
                    nursery.start_soon(client.ping)
        assert scope.abandoned
        await client.aclose()


async def test_a_clean_up_that_is_cancelled_too_does_not_hide_the_request(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        with move_on_after(1) as scope:
            try:
                await client.subscribe("a")
            finally:
                await client.unsubscribe("a")  # noqa: ASYNC102, that is the test
        assert scope.abandoned
        await client.aclose()


async def test_an_error_in_place_of_the_cancellation_does_not_hide_it_either(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        scope = move_on_after(1)
        with pytest.raises(KeyError), scope:
            try:
                await client.ping()
            finally:
                raise KeyError
        assert scope.abandoned
        await client.aclose()


async def test_what_was_interrupted_before_the_scope_does_not_count(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        with trio.move_on_after(1):
            try:
                await client.ping()
            except trio.Cancelled:
                with pytest.raises(trio.Cancelled), move_on_after(1) as scope:
                    await trio.lowlevel.checkpoint()  # noqa: ASYNC102, that is the test
                assert verdict(scope) is None
                raise
        await client.aclose()


async def test_a_body_that_catches_the_interruption_and_goes_on_is_told_of_the_last(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        with move_on_after(1) as scope:
            with trio.move_on_after(0.1):
                await client.subscribe("a")
            await trio.sleep(0.1)
        assert verdict(scope) is None
        await client.aclose()


async def test_it_has_what_a_cancel_scope_has(autojump_clock: MockClock) -> None:
    scope = move_on_after(3, shield=True)
    assert scope.is_relative
    assert scope.relative_deadline == 3
    scope.relative_deadline = 4
    with scope:
        assert not scope.is_relative
        assert scope.deadline == 4
        assert scope.shield
        scope.shield = False
        scope.deadline = 2
        assert repr(scope).startswith("<RequestScope: no request interrupted, <trio.CancelScope")
        assert not scope.cancel_called
        await trio.sleep_forever()
    assert scope.cancel_called
    assert scope.cancelled_caught
    assert trio.current_time() == 2
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match=r"seconds|timeout|deadline|non-negative|NaN"):
            move_on_after(wrong)
        with pytest.raises(ValueError, match=r"seconds|timeout|deadline|non-negative|NaN"):
            fail_after(wrong)
    with pytest.raises(ValueError, match=r"deadline|NaN"):
        move_on_at(float("nan"))
    with pytest.raises(ValueError, match=r"deadline|NaN"):
        fail_at(float("nan"))
