"""An MQTT 3.1.1 broker inside the process, for tests and demonstrations."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncGenerator, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import ParamSpec, TypeVar

import trio

from trio_mqtt import _packets as p
from trio_mqtt._errors import ProtocolViolation
from trio_mqtt._topics import require_topic_name

from ._broker_core import RABBITMQ, STANDARD, Core, Grant, Options
from ._broker_link import Link
from ._broker_service import Answer, Record, Service, Watch
from ._broker_session import Raw, Session
from ._nursery import open_background_nursery

_P = ParamSpec("_P")
_T = TypeVar("_T")


class SessionView:
    """A client's session as it is at the broker right now."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def subscriptions(self) -> Mapping[str, p.QoS]:
        """From topic filter to the QoS granted."""
        return MappingProxyType(self._session.subscriptions)

    @property
    def connected(self) -> bool:
        """Whether a network connection serves it."""
        return self._session.connected

    @property
    def in_flight(self) -> int:
        """How many messages were sent to the client and are not yet acknowledged."""
        return len(self._session.in_flight)

    @property
    def queued(self) -> int:
        """How many messages wait for the client to come back, or to acknowledge others."""
        return len(self._session.queue)

    def __repr__(self) -> str:
        return (
            f"<SessionView of {self._session.client_id!r}: {'' if self.connected else 'not '}"
            f"connected, {self.in_flight} in flight, {self.queued} queued>"
        )


class Broker:
    """A broker that runs: see `open_broker`. What is not async acts at once."""

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        self._service = service
        self._core = service.core
        self._nursery = nursery

    # What clients connect to

    async def dialer(self) -> trio.abc.Stream:
        """A new network connection, in memory. It is the `Dialer` to open a client with.

        Raises:
            ConnectionRefusedError: the broker has ended.
        """
        if self._service.ended:
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError("the broker has ended")
        from trio.testing import memory_stream_pair  # noqa: PLC0415  # imports pytest if it can

        client, server = memory_stream_pair()
        await self._nursery.start(self._service.serve, server)
        return client

    async def listen(
        self, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> str:
        """Serves a TCP port as well, until the broker ends. Returns its URL.

        Arguments:
            host: an address or a name of this machine. Others reach it by "0.0.0.0" and "::",
                which stand for all of its addresses.
            port: 0 takes one that is free.
            tls: for TLS, with a certificate.

        Raises:
            OSError: the port is in use, or the machine has no such address.
        """

        async def serve(stream: trio.abc.Stream) -> None:
            if tls is not None:
                stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
            await self._service.serve(stream)

        listeners = await trio.open_tcp_listeners(port, host=host)
        port = listeners[0].socket.getsockname()[1]
        await self._nursery.start(trio.serve_listeners, serve, listeners)
        scheme = "mqtt" if tls is None else "mqtts"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    # What happened

    @property
    def log(self) -> Sequence[Record]:
        """Every packet so far. One to a client is here once it is on its way."""
        return self._service.log

    @property
    def violations(self) -> Sequence[tuple[str, ProtocolViolation]]:
        """What clients did against the specification, each with the client's identifier."""
        return self._core.violations

    @property
    def sessions(self) -> Mapping[str, SessionView]:
        """The sessions that there are now, by client identifier."""
        return {name: SessionView(session) for name, session in self._core.sessions.items()}

    @property
    def retained(self) -> Mapping[str, p.Message]:
        """The retained messages, by topic."""
        return MappingProxyType(self._core.retained)

    async def wait_connected(self, client_id: str) -> None:
        """Waits until the broker has accepted this client's CONNECT."""
        await self._service.wait_until(lambda: self._core.link_of(client_id) is not None)

    async def wait_disconnected(self, client_id: str) -> None:
        """Waits until this client is not connected, as it is before it ever was."""
        await self._service.wait_until(lambda: self._core.link_of(client_id) is None)

    async def wait_subscribed(self, client_id: str, topic_filter: str) -> None:
        """Waits until this client has a subscription with exactly this filter."""
        await self._service.wait_until(
            lambda: (
                (session := self._core.sessions.get(client_id)) is not None
                and topic_filter in session.subscriptions
            )
        )

    # What the test has happen

    def publish(
        self, topic: str, payload: p.Payload, *, qos: p.QoS = 0, retain: bool = False
    ) -> None:
        """Routes a message as if a client had sent it.

        Raises:
            Denied: the topic, the payload or the QoS is illegal.
            TypeError: one of them has another type.
        """
        require_topic_name(topic)
        p.require_qos(qos)
        self._core.route(p.Message(topic, p.payload_bytes(payload), qos, retain))
        self._service.settle()

    def send(self, client_id: str, packet: p.Packet | bytes) -> None:
        """Sends this to a client as it is, whatever its session says, past the `answer` hook.

        Raises:
            LookupError: the client is not connected.
        """
        self._link(client_id).outbound.append(Raw(packet))
        self._service.settle()

    def refuse(self, code: int | None) -> None:
        """Answers CONNECT with this return code from now on. None ends that."""
        if code is not None and not 0 < code < 256:
            raise ValueError(f"a return code that refuses is 1 to 255, not {code}")
        self._core.refusal = code

    def disconnect(self, client_id: str) -> None:
        """Cuts this client's network connection, as if the network had failed.

        Raises:
            LookupError: the client is not connected.
        """
        self._core.cut(self._link(client_id))
        self._service.settle()

    def disconnect_all(self) -> None:
        """Cuts all network connections, as if the network had failed."""
        self._cut_all(publish_wills=True)

    def crash(self, *, keep_sessions: bool) -> None:
        """Stops and starts again: cuts all connections, and publishes no Will.

        Sessions and retained messages are lost, unless they are to be kept.
        """
        self._cut_all(publish_wills=False)
        if not keep_sessions:
            self._core.forget()
        self._service.settle()

    def pause(self) -> None:
        """Stands still, until `resume`: connections stay open, nobody reads them or answers."""
        self._service.pause()

    def resume(self) -> None:
        """Goes on where `pause` found it."""
        self._service.resume()

    def _cut_all(self, *, publish_wills: bool) -> None:
        for link in list(self._core.links):
            self._core.cut(link, publish_will=publish_wills)
        self._service.settle()

    def _link(self, client_id: str) -> Link:
        link = self._core.link_of(client_id)
        if link is None:
            raise LookupError(f"client {client_id!r} is not connected")
        return link


@asynccontextmanager
async def open_broker(
    *,
    users: Mapping[str, str] | None = None,
    max_in_flight: int = 20,
    max_unreleased: int = 20,
    grant: Grant | None = None,
    max_qos: p.QoS = 2,
    fail_filters: Container[str] = (),
    session_expiry: float | None = None,
    answer: Answer | None = None,
    watch: Watch | None = None,
    rabbitmq: bool = False,
    strict: bool = True,
) -> AsyncGenerator[Broker, None]:
    """Runs an MQTT 3.1.1 broker in this process, until the block is left.

    Args:
        users: everybody's password; others are refused with return code 5. None lets all in.
        max_in_flight: how many unacknowledged messages a client gets; further ones wait.
        max_unreleased: how many messages at QoS 2 a client may have published and not released
            (PUBREL). One more is a violation, and closes the connection. Mosquitto lets that one
            pass, and closes it on the next.
        grant: from a topic filter and its QoS to SUBACK's code; by default `max_qos` at most.
        fail_filters: topic filters to answer with 0x80.
        session_expiry: seconds by Trio's clock after which a session of CleanSession 0 ends whose
            client is away. None keeps it for as long as the broker runs.
        answer: called with a client identifier and a packet that is about to be sent. Returns what
            is sent instead: nothing withholds it, for later perhaps. None lets it pass.
        watch: called with the `Record` of each packet, which `Broker.log` then does not keep: for a
            broker that runs for long.
        rabbitmq: has the habits of RabbitMQ 3.10.
        strict: fails the test, as it leaves the block, if a client violated the specification.

    Exceptions of the body come out bare; so does that of a hook, which ends the body.

    Raises:
        AssertionError: a client violated the specification, if `strict`.
    """
    options = Options(
        users=users,
        max_in_flight=max_in_flight,
        max_unreleased=max_unreleased,
        grant=_unprotected(grant) if grant else lambda _, qos: min(qos, max_qos),
        fail_filters=fail_filters,
        habits=RABBITMQ if rabbitmq else STANDARD,
    )
    service = Service(
        Core(options),
        _unprotected(answer) if answer else None,
        watch=_unprotected(watch) if watch else None,
        session_expiry=math.inf if session_expiry is None else session_expiry,
    )
    async with open_background_nursery() as nursery:
        nursery.start_soon(service.expire_sessions)
        try:
            yield Broker(service, nursery)
        finally:
            service.ended = True
    if strict and service.core.violations:
        said = [f"client {name!r}: {violation}" for name, violation in service.core.violations]
        raise AssertionError("\n".join(["violations of the specification:", *said]))


def _unprotected(hook: Callable[_P, _T]) -> Callable[_P, _T]:
    """`hook`, such that Control-C may interrupt it, although it runs in a background task."""

    @trio.lowlevel.disable_ki_protection
    def unprotected(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return hook(*args, **kwargs)

    return unprotected
