"""`ClientStub` and `ClientMock`: what they say, and that it is what a client says."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import trio_mqtt
from trio_mqtt import (
    Client,
    ClientClosed,
    ClientLike,
    ClosedInDoubt,
    Denied,
    Down,
    Message,
    MessageChannel,
    MessageChannelLike,
    ResponseLost,
    SubscribeError,
    testing,
)
from trio_mqtt.testing import (
    ClientMock,
    ClientStub,
    FixedChannel,
    PublishCall,
    SubscribeCall,
    UnsubscribeCall,
    open_broker,
)

if TYPE_CHECKING:

    def all_are_alike(
        client: Client, stub: ClientStub, mock: ClientMock
    ) -> tuple[ClientLike, ClientLike, ClientLike]:
        """For the type checkers."""
        return client, stub, mock

    def all_channels_are_alike(
        real: MessageChannel, fixed: FixedChannel
    ) -> tuple[MessageChannelLike, MessageChannelLike]:
        """For the type checkers."""
        return real, fixed


INHERITED = {"__aiter__", "__anext__", "__enter__", "__exit__", "__aenter__", "__aexit__"}
FOR_US_ALONE = {"leave", "acknowledge_own", "end_scope", "put_back"}
"""What of the real classes has no underscore, and is for other modules of the package."""


def public(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_") or name in INHERITED}


def parameters(function: Callable[..., Any]) -> list[tuple[Any, ...]]:
    """All but their types, which the checkers compare."""
    found = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found]


PAIRS = [(ClientLike, Client, ClientStub), (MessageChannelLike, MessageChannel, FixedChannel)]


@pytest.mark.parametrize(("interface", "real", "double"), PAIRS)
def test_the_interface_is_all_of_it(interface: type, real: type, double: type) -> None:
    assert public(real) - FOR_US_ALONE == public(interface) - (INHERITED - public(real))
    for name in public(interface):
        for cls in (real, double):
            expected, found = getattr(interface, name), getattr(cls, name)
            assert isinstance(expected, property) is isinstance(found, property), name
            if not isinstance(expected, property):
                assert parameters(found) == parameters(expected), name


# The same with a client and with its double


@asynccontextmanager
async def real_client(*messages: Message) -> AsyncGenerator[ClientLike]:
    """A client to which the broker sends these."""
    async with open_broker() as broker, trio_mqtt.open_client(broker.dialer) as client:
        await client.subscribe("a/#", "b")
        for message in messages:
            broker.publish(message.topic, message.payload, qos=message.qos)
        await client.ping()
        yield client


@asynccontextmanager
async def stub(*messages: Message) -> AsyncGenerator[ClientLike]:
    yield ClientStub(messages=messages, endless=True)


@asynccontextmanager
async def mock(*messages: Message) -> AsyncGenerator[ClientLike]:
    yield ClientMock(
        *(SubscribeCall("a/#"), SubscribeCall("a/2")) * 2, messages=messages, endless=True
    )


each = pytest.mark.parametrize("opened", [real_client, stub, mock])
ONE, TWO, THREE = (Message("a/1", b"1", 1), Message("a/2", b"2", 1), Message("a/3", b"3", 1))


@each
async def test_what_is_wrong_is_denied(opened: Any) -> None:
    client: ClientLike
    async with opened() as client:
        for topic in ("", "a/#", "\0"):
            with pytest.raises(Denied):
                await client.publish(topic, "")
            with pytest.raises(Denied):
                client.publish_nowait(topic, "")
        with pytest.raises(Denied):
            await client.enqueue("a", "", qos=0)  # type: ignore[arg-type]
        with pytest.raises(Denied):
            client.enqueue_nowait("a", "", qos=3)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await client.publish("a", 1)  # type: ignore[arg-type]
        with pytest.raises(Denied):
            await client.subscribe()
        with pytest.raises(Denied):
            await client.subscribe("a", qos=3)  # type: ignore[arg-type]
        with pytest.raises(Denied):
            await client.unsubscribe("a#")
        with pytest.raises(Denied):
            async with client.open_subscription("a#"):
                pytest.fail("it was entered")
        with pytest.raises(Denied):
            async with client.open_subscription("a", overflow="never"):  # type: ignore[arg-type]
                pytest.fail("it was entered")


@each
async def test_messages_come_one_after_the_other(opened: Any) -> None:
    client: ClientLike
    async with opened(ONE, TWO) as client:
        assert await client.messages.receive() == ONE
        assert client.messages.receive_nowait() == TWO
        with pytest.raises(trio.WouldBlock):
            client.messages.receive_nowait()
        assert client.messages.statistics().received == 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.messages.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await client.messages.receive()
            nursery.cancel_scope.cancel()
        client.messages.close()
        with pytest.raises(trio.ClosedResourceError):
            await client.messages.receive()
        with pytest.raises(trio.ClosedResourceError):
            client.messages.clone()


@each
async def test_a_worker_that_fails_leaves_its_message_to_the_others(opened: Any) -> None:
    client: ClientLike
    async with opened(ONE, TWO) as client:
        clone = client.messages.clone()
        with pytest.raises(KeyError), clone:
            assert await clone.receive() == ONE
            raise KeyError
        with pytest.raises(trio.ClosedResourceError):
            await clone.receive()
        async with client.messages.clone() as second:
            assert await second.receive() == ONE
        assert await client.messages.receive() == TWO


@each
async def test_closing_wakes_who_waits(opened: Any) -> None:
    client: ClientLike
    async with opened() as client, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.messages.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await client.messages.aclose()


@each
async def test_a_scope_takes_what_is_its_own_and_puts_it_back_when_it_fails(opened: Any) -> None:
    client: ClientLike
    other = Message("b", b"", 1)
    async with opened(ONE, TWO, other, THREE) as client:
        if isinstance(client, Client):
            await client.unsubscribe("a/#")  # with which a scope shares, instead of taking
        with pytest.raises(KeyError):
            async with client.open_subscription("a/#") as messages:
                assert await messages.receive() == ONE
                assert await messages.receive() == TWO
                raise KeyError
        async with client.open_subscription("a/2") as messages:
            assert await messages.receive() == TWO
        assert await client.messages.receive() == other
        assert await client.messages.receive() == THREE


@each
async def test_the_end_of_the_client(opened: Any) -> None:
    client: ClientLike
    async with opened(ONE) as client, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.EndOfChannel):
                while True:
                    await client.messages.receive()

        async def wait_offline() -> None:
            await client.wait_offline()
            assert not client.online

        assert client.online
        nursery.start_soon(wait)
        nursery.start_soon(wait_offline)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await client.aclose()
        await client.wait_offline()
        for call in (client.ping, client.flush, client.wait_online, client.disconnect):
            with pytest.raises(ClientClosed):
                await call()
        for closed in (
            client.publish("a", ""),
            client.enqueue("a", ""),
            client.subscribe("a"),
            client.unsubscribe("a"),
        ):
            with pytest.raises(ClientClosed):
                await closed
        with pytest.raises(ClientClosed):
            client.publish_nowait("a", "")
        with pytest.raises(ClientClosed):
            client.enqueue_nowait("a", "")
        with pytest.raises(ClientClosed):
            async with client.open_subscription("a"):
                pytest.fail("it was entered")


@each
async def test_a_call_that_is_cancelled_did_not_happen(opened: Any) -> None:
    client: ClientLike
    async with opened() as client:
        with trio_mqtt.move_on_after(0) as scope:
            await client.publish("a", "")
        assert scope.canceled
        if isinstance(client, ClientStub):
            assert client.calls == []


# What is fixed


async def test_what_was_asked_is_on_record() -> None:
    client = ClientStub(granted=1)
    await client.publish("a", "x")
    client.publish_nowait("a", "y", retain=True)
    await client.enqueue("b", b"z", qos=2)
    client.enqueue_nowait("b", b"z")
    await client.clear_retained("a")
    assert await client.subscribe("c", "d") == (1, 1)
    assert await client.subscribe("c", qos=0) == (0,)
    await client.unsubscribe("c", "d")
    async with client.open_subscription("e", qos=1):
        pass
    assert client.calls == [
        PublishCall("a", "x"),
        PublishCall("a", "y", retain=True),
        PublishCall("b", "z", qos=2),
        PublishCall("b", "z", qos=1),
        PublishCall("a", "", qos=1, retain=True),
        SubscribeCall(["c", "d"]),
        SubscribeCall("c", qos=0),
        UnsubscribeCall(["c", "d"]),
        SubscribeCall("e", qos=1),
    ]
    statistics = client.statistics()
    assert (statistics.published_at_most_once, statistics.confirmed) == (2, 3)


async def test_results_are_those_that_were_fixed() -> None:
    client = ClientStub(
        publish=Down("offline"),
        subscribe=SubscribeError(("c",)),
        unsubscribe=ResponseLost("cut"),
        ping=ResponseLost("cut"),
        session_present=True,
    )
    with pytest.raises(Down):
        await client.publish("a", "")
    with pytest.raises(Down):
        client.publish_nowait("a", "")
    with pytest.raises(Down):
        await client.enqueue("a", "")
    with pytest.raises(SubscribeError):
        await client.subscribe("c")
    with pytest.raises(SubscribeError):
        async with client.open_subscription("c"):
            pytest.fail("it was entered")
    with pytest.raises(ResponseLost):
        await client.unsubscribe("c")
    with pytest.raises(ResponseLost):
        await client.ping()
    assert client.session_present
    assert len(client.calls) == 6
    assert await ClientStub(ping=0.02).ping() == 0.02


async def test_an_exchange_tells_of_its_interruptions_and_ends() -> None:
    cut = ResponseLost("cut")
    exchange = await ClientStub(interruptions=[cut, cut]).enqueue("a", "")
    assert [interruption async for interruption in exchange] == [cut, cut]
    assert exchange.confirmed
    client = ClientStub(confirmation=ClosedInDoubt("it ended"))
    exchange = client.enqueue_nowait("a", "")
    with pytest.raises(ClosedInDoubt):
        await exchange.wait()
    with pytest.raises(ClosedInDoubt):
        await client.publish("a", "", qos=1)
    await client.publish("a", "")


async def test_a_channel_ends_with_its_messages_and_says_what_is_acknowledged() -> None:
    client = ClientStub(messages=[ONE, TWO])
    async for message in client.messages:
        assert message not in client.acknowledged
    assert client.acknowledged == [ONE, TWO]
    with pytest.raises(trio.EndOfChannel):
        client.messages.receive_nowait()


async def test_leaving_a_scope_acknowledges_the_message_at_hand() -> None:
    client = ClientStub(messages=[ONE, TWO])
    async with client.open_subscription("a/#") as messages:
        await messages.receive()
    assert client.acknowledged == [ONE]
    client = ClientStub(messages=[ONE, TWO])
    assert await client.messages.receive() == ONE
    await client.disconnect()
    assert client.acknowledged == [ONE]


async def test_offline(autojump_clock: trio.testing.MockClock) -> None:
    client = ClientStub(online=False)
    await client.wait_offline()
    with trio.move_on_after(60) as scope:
        await client.wait_online()
    assert scope.cancelled_caught


async def test_nothing_is_waited_for_where_all_is_well() -> None:
    client = ClientStub()
    await client.wait_online()
    await client.flush()


# What is expected


async def test_a_mock_takes_what_it_expects() -> None:
    with ClientMock(
        PublishCall("a", "1", qos=1, raises=Down("offline")),
        PublishCall("a", "1", qos=1),
        SubscribeCall("b"),
        UnsubscribeCall("b"),
        messages=[ONE],
    ) as client:
        with pytest.raises(Down):
            await client.publish("a", "1", qos=1)
        await client.publish("a", "1", qos=1)
        await client.subscribe("b")
        await client.unsubscribe("b")
        assert await client.messages.receive() == ONE


async def test_a_mock_says_what_is_missing() -> None:
    with (
        pytest.raises(AssertionError, match=r"missing:\nPublishCall\(topic='b'.*\nSubscribeCall"),
        ClientMock(PublishCall("a", ""), PublishCall("b", ""), SubscribeCall("c")) as client,
    ):
        await client.publish("a", "")


@pytest.mark.parametrize(
    "call",
    [
        PublishCall("a", "2"),
        PublishCall("b", "1"),
        PublishCall("a", "1", qos=1),
        PublishCall("a", "1", retain=True),
        SubscribeCall("a"),
    ],
)
async def test_a_mock_fails_at_a_call_that_is_another(call: Any) -> None:
    wrong = pytest.raises(AssertionError, match="call 1 is not the one expected")
    with wrong, ClientMock(call) as client:
        await client.publish("a", "1")


async def test_a_mock_fails_at_a_call_too_many() -> None:
    with pytest.raises(AssertionError, match="call 1 is one too many"), ClientMock() as client:
        await client.publish("a", "1")


async def test_what_an_application_swallows_fails_in_the_end() -> None:
    wrong = pytest.raises(AssertionError, match="call 1 is not the one expected")
    with wrong, ClientMock(PublishCall("a", "1"), PublishCall("a", "2")) as client:
        for payload in ("2", "2"):
            with pytest.raises(AssertionError):
                await client.publish("a", payload)


async def test_a_test_that_fails_fails_as_itself() -> None:
    with pytest.raises(KeyError), ClientMock(PublishCall("a", "")):
        raise KeyError


async def test_the_example_of_the_page() -> None:
    page = (Path(__file__).parent.parent / "docs" / "testing.md").read_text(encoding="utf-8")
    block = next(
        block for block in page.split("```python\n") if block.startswith("async def report")
    )
    names: dict[str, Any] = {"trio_mqtt": trio_mqtt, **vars(trio_mqtt), **vars(testing)}
    exec(block.split("```")[0], names)  # noqa: S102, it is ours
    await names["test_the_disk_is_full"]()
