"""Doubles of a client, for tests of single functions: no network, no broker, no nursery.

They check what they are given as a client does, and raise `Denied` likewise. What they cannot show
is time: what a broker answers, what is lost with a connection, what waits for what. A test about
those runs a client on `open_broker`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Literal, Self, TypedDict, Unpack

import attrs
import trio

from trio_mqtt import _packets as p
from trio_mqtt._answers import client_closed
from trio_mqtt._bounds import Buffer, Overflow
from trio_mqtt._checks import Checks
from trio_mqtt._connection import Wakeup
from trio_mqtt._errors import InDoubt, MQTTError
from trio_mqtt._exchange import Demand, Exchange
from trio_mqtt._scopes import NOT_SENT
from trio_mqtt._statistics import Statistics
from trio_mqtt._subscription_scope import ScopeOptions, check_filters
from trio_mqtt._transfers import Limits

from ._calls import Call, PublishCall, SubscribeCall, UnsubscribeCall
from ._fixed_messages import FixedChannel, Source


class ClientStub:
    """A client whose calls have fixed results, and which keeps a record of them.

    ::

        async def test_it() -> None:
            client = ClientStub(messages=[Message("meter/set", b"on")], publish=Down("offline"))
            await run_meter(client)
            assert client.calls == [SubscribeCall("meter/set"), PublishCall("meter/is", "on")]

    Arguments:
        messages: what arrives. A scope that opens takes what matches, the others are in
            `ClientStub.messages`. A scope that fails puts back what was not acknowledged.
        endless: whether a channel whose messages were all taken then waits, as with a client that
            goes on. Otherwise it ends, and with it an ``async for``.
        publish: what every call raises that publishes.
        interruptions: what every `Exchange` tells, before it ends.
        confirmation: what every `Exchange` raises in the end. Otherwise it is confirmed.
        subscribe: what `subscribe` raises, and entering a scope.
        granted: the highest QoS that a subscription is granted.
        unsubscribe: what `unsubscribe` raises.
        ping: what `ping` returns, in seconds, or raises.
        online, session_present: what these say until the client is closed.
    """

    def __init__(
        self,
        *,
        messages: Iterable[p.Message] = (),
        endless: bool = False,
        publish: MQTTError | None = None,
        interruptions: Sequence[InDoubt] = (),
        confirmation: MQTTError | None = None,
        subscribe: MQTTError | None = None,
        granted: p.QoS = 2,
        unsubscribe: MQTTError | None = None,
        ping: float | MQTTError = 0.001,
        online: bool = True,
        session_present: bool = False,
    ) -> None:
        self.calls: list[Call] = []
        """What was asked, in order, also when it raised; not what a client denies."""
        self._publish = publish
        self._interruptions = interruptions
        self._confirmation = confirmation
        self._subscribe = subscribe
        self._granted = granted
        self._unsubscribe = unsubscribe
        self._ping = ping
        self._online = online
        self._session_present = session_present
        self._source = Source.of(messages, endless=endless)
        self._channels = [FixedChannel(self._source)]
        self._sources = [self._source]
        self._checks = Checks(Limits())
        self._closed = trio.Event()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.calls)} calls>"

    @property
    def acknowledged(self) -> Sequence[p.Message]:
        """The messages that the application is done with, in that order."""
        return self._source.acknowledged

    # Publishing

    async def publish(
        self, topic: str, payload: p.Payload, *, qos: p.QoS = 0, retain: bool = False
    ) -> None:
        """See `Client.publish`."""
        data = self._checks.publish(topic, payload, qos, retain=retain)
        await self._checkpoint()
        self._ask(PublishCall(topic, data, qos=qos, retain=retain))
        if qos and self._confirmation is not None:
            raise self._confirmation

    def publish_nowait(self, topic: str, payload: p.Payload, *, retain: bool = False) -> None:
        """See `Client.publish_nowait`."""
        data = self._checks.publish(topic, payload, 0, retain=retain)
        self._check_open()
        self._ask(PublishCall(topic, data, retain=retain))

    async def enqueue(
        self, topic: str, payload: p.Payload, *, qos: Literal[1, 2] = 1, retain: bool = False
    ) -> Exchange:
        """See `Client.enqueue`."""
        self._checks.enqueue(topic, payload, qos, retain=retain)
        await self._checkpoint()
        return self.enqueue_nowait(topic, payload, qos=qos, retain=retain)

    def enqueue_nowait(
        self, topic: str, payload: p.Payload, *, qos: Literal[1, 2] = 1, retain: bool = False
    ) -> Exchange:
        """See `Client.enqueue_nowait`."""
        data = self._checks.enqueue(topic, payload, qos, retain=retain)
        self._check_open()
        self._ask(PublishCall(topic, data, qos=qos, retain=retain))
        exchange = Exchange(Demand(Wakeup()))
        for interruption in self._interruptions:
            exchange.interrupt(interruption)
        exchange.settle(self._confirmation)
        return exchange

    async def clear_retained(self, topic: str) -> None:
        """See `Client.clear_retained`."""
        await self.publish(topic, b"", qos=1, retain=True)

    async def flush(self) -> None:
        """See `Client.flush`."""
        await self._checkpoint()

    # Subscribing

    async def subscribe(self, *topic_filters: str, qos: p.QoS = 2) -> tuple[p.QoS, ...]:
        """See `Client.subscribe`."""
        check_filters(topic_filters)
        p.require_qos(qos)
        await self._checkpoint()
        self._ask(SubscribeCall(topic_filters, qos=qos))
        return (p.QOS_LEVELS[min(qos, self._granted)],) * len(topic_filters)

    async def unsubscribe(self, *topic_filters: str) -> None:
        """See `Client.unsubscribe`."""
        check_filters(topic_filters)
        await self._checkpoint()
        self._ask(UnsubscribeCall(topic_filters))

    @property
    def messages(self) -> FixedChannel:
        """The messages that no scope has taken; see `Client.messages`."""
        return self._channels[0]

    @asynccontextmanager
    async def open_subscription(
        self,
        *topic_filters: str,
        qos: p.QoS = 2,
        keep: bool = False,
        buffer: Buffer | None = None,
        overflow: Overflow = "wait",
        strict: bool = False,
    ) -> AsyncGenerator[FixedChannel, None]:
        """See `Client.open_subscription`."""
        check_filters(topic_filters)
        p.require_qos(qos)
        ScopeOptions(keep=keep, buffer=buffer, overflow=overflow, strict=strict)
        await self._checkpoint()
        self._ask(SubscribeCall(topic_filters, qos=qos))
        source = self._source.split(topic_filters)
        channel = FixedChannel(source)
        self._channels.append(channel)
        self._sources.append(source)
        try:
            yield channel
        except BaseException:
            channel.put_back()
            self._source.put_back(*source.entries)
            raise
        finally:
            self._channels.remove(channel)
            self._sources.remove(source)
            channel.close()

    # The connection

    async def ping(self) -> float:
        """See `Client.ping`."""
        await self._checkpoint()
        if isinstance(self._ping, MQTTError):
            raise self._ping
        return self._ping

    @property
    def online(self) -> bool:
        """See `Client.online`."""
        return self._online and not self._closed.is_set()

    async def wait_online(self) -> None:
        """See `Client.wait_online`."""
        await self._checkpoint()
        if not self.online:
            await self._closed.wait()
            self._check_open()

    async def wait_offline(self) -> None:
        """See `Client.wait_offline`."""
        await trio.lowlevel.checkpoint()
        if self.online:
            await self._closed.wait()

    @property
    def session_present(self) -> bool:
        """See `Client.session_present`."""
        return self._session_present

    async def disconnect(self, *, discard: bool = False) -> None:  # noqa: ARG002, there is nothing
        """See `Client.disconnect`."""
        await self._checkpoint()
        for channel in self._channels:
            channel.acknowledge()
        self._close()

    async def aclose(self) -> None:
        """See `Client.aclose`."""
        self._close()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> Statistics:
        """See `Client.statistics`. Of messages it counts those published, and those taken."""
        published = [call for call in self.calls if isinstance(call, PublishCall)]
        at_most_once = sum(not call.qos for call in published)
        nothing = dict.fromkeys((field.name for field in attrs.fields(Statistics)), 0)
        counted = {
            "connects": int(self._online),
            "published_at_most_once": at_most_once,
            "confirmed": len(published) - at_most_once,
            "received": sum(source.received for source in self._sources),
        }
        return Statistics(**nothing | counted)

    # Within

    def _ask(self, call: Call) -> None:
        """Takes note of it, and raises what it is to raise."""
        self.calls.append(call)
        error = self._error(call)
        if error is not None:
            raise error

    def _error(self, call: Call) -> MQTTError | None:
        match call:
            case PublishCall():
                return self._publish
            case SubscribeCall():
                return self._subscribe
            case UnsubscribeCall():
                return self._unsubscribe

    async def _checkpoint(self) -> None:
        with NOT_SENT:
            await trio.lowlevel.checkpoint()
        self._check_open()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise client_closed()

    def _close(self) -> None:
        self._closed.set()
        for source in self._sources:
            source.end()


class _Results(TypedDict, total=False):
    """The arguments of a `ClientStub`."""

    messages: Iterable[p.Message]
    endless: bool
    publish: MQTTError | None
    interruptions: Sequence[InDoubt]
    confirmation: MQTTError | None
    subscribe: MQTTError | None
    granted: p.QoS
    unsubscribe: MQTTError | None
    ping: float | MQTTError
    online: bool
    session_present: bool


class ClientMock(ClientStub):
    """A stub that expects these calls, in this order, and fails the test if others come, or none.

    ::

        async def test_it() -> None:
            with ClientMock(
                PublishCall("meter/kwh", "1.2", qos=1, raises=Down("offline")),
                PublishCall("meter/kwh", "1.2", qos=1),
            ) as client:
                await report(client, 1.2)

    Arguments:
        expected: the calls. Each raises what its `raises` says, or else what the stub does.
        results: as of a `ClientStub`.
    """

    def __init__(self, *expected: Call, **results: Unpack[_Results]) -> None:
        super().__init__(**results)
        self._expected = expected
        self._failure: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raises AssertionError for a call that was not expected, and one that did not come."""
        missing = self._expected[len(self.calls) :]
        if exc_value is None and self._failure is not None:
            raise AssertionError(self._failure)
        if exc_value is None and missing:
            raise AssertionError("these calls are missing:\n" + "\n".join(map(str, missing)))

    def _error(self, call: Call) -> MQTTError | None:
        number = len(self.calls)
        if self._failure is not None:
            raise AssertionError(self._failure)
        if number > len(self._expected):
            self._fail(f"call {number} is one too many:\n{call}")
        expected = self._expected[number - 1]
        if call != expected:
            self._fail(f"call {number} is not the one expected:\n{call}\n{expected}")
        return super()._error(call) if expected.raises is None else expected.raises

    def _fail(self, failure: str) -> None:
        """Also at the end, where the application catches everything."""
        self._failure = failure
        raise AssertionError(failure)
