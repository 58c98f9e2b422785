"""The transports, in memory; `tests/integration/test_tls.py` has TLS on a real broker."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, memory_stream_pair

import trio_mqtt
from trio_mqtt import (
    CertificateError,
    Denied,
    Dialer,
    Down,
    NotAuthorized,
    ServerUnavailable,
    tcp_dialer,
    tls_dialer,
    unix_dialer,
)
from trio_mqtt._transport import resolve_broker
from trio_mqtt.testing import Broker, Faults, FaultyDialer, ScriptedBroker, open_broker

from . import certificates
from .certificates import HOST
from .links import Counted

# TLS


class Secure:
    """An in-process broker behind TLS; `dialer` makes connections to it that are yet without."""

    def __init__(self, broker: Broker, nursery: trio.Nursery) -> None:
        self.broker = broker
        self.nursery = nursery
        self.context = certificates.server()
        self.open_streams = 0

    async def dialer(self) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        secured = trio.SSLStream(theirs, self.context, server_side=True, https_compatible=True)
        self.nursery.start_soon(self._relay, secured, await self.broker.dialer())
        self.open_streams += 1
        return Counted(ours, self)

    async def _relay(self, secured: trio.abc.Stream, plain: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            for one, other in ((secured, plain), (plain, secured)):
                nursery.start_soon(self._forward, one, other, nursery.cancel_scope)

    @staticmethod
    async def _forward(
        source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(sink)
        scope.cancel()


@asynccontextmanager
async def secure_broker() -> AsyncGenerator[Secure]:
    async with open_broker() as broker, trio.open_nursery() as nursery:
        yield Secure(broker, nursery)
        nursery.cancel_scope.cancel()


async def enter(dialer: Any, **settings: Any) -> None:
    """Opens a client, makes a round trip, and leaves."""
    async with trio_mqtt.open_client(dialer, **settings) as client:
        await client.ping()


async def test_messages_travel_over_tls(autojump_clock: MockClock) -> None:
    async with secure_broker() as secure:
        dialer = tls_dialer(secure.dialer, HOST, tls=certificates.client())
        async with trio_mqtt.open_client(dialer) as client:
            await client.subscribe("a")
            for size in (0, 1, 100_000):
                await client.publish("a", bytes(size), qos=2)
                assert (await client.messages.receive()).payload == bytes(size)
            assert repr(client).endswith(f"of mqtts://{HOST}: online>")
        assert secure.open_streams == 0


WRONG = {
    "another authority": (certificates.server(by="theirs"), "unable to get local issuer"),
    "another name": (certificates.server("other.test"), f"not valid for '{HOST}'"),
    "expired": (certificates.server(expired=True), "certificate has expired"),
}


@pytest.mark.parametrize("wait_online", [True, False])
@pytest.mark.parametrize(("context", "why"), WRONG.values(), ids=WRONG)
async def test_a_certificate_that_is_not_to_be_trusted_leaves_at_once_and_bare(
    context: ssl.SSLContext, why: str, wait_online: bool, autojump_clock: MockClock
) -> None:
    async with secure_broker() as secure:
        secure.context = context
        dialer = tls_dialer(secure.dialer, HOST, tls=certificates.client())
        with pytest.raises(
            CertificateError, match=f"^mqtts://{HOST} is not to be trusted: .*{why}"
        ):
            async with trio_mqtt.open_client(dialer, wait_online=wait_online):
                await trio.sleep(1)
                pytest.fail("it went on")
        assert trio.current_time() == pytest.approx(0)
        assert secure.open_streams == 0


async def test_a_certificate_that_expires_later_is_a_state(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with secure_broker() as secure:
        dialer = tls_dialer(secure.dialer, HOST, tls=certificates.client())
        async with trio_mqtt.open_client(dialer, client_id="a") as client:
            secure.context = certificates.server(expired=True)
            secure.broker.disconnect_all()
            await client.wait_offline()
            await trio.sleep(30)
            with pytest.raises(Down, match="certificate has expired"):
                await client.ping()
            secure.context = certificates.server()
            await client.wait_online()
    assert "certificate has expired" in caplog.text


@pytest.mark.parametrize(
    "known_by", [None, "theirs"], ids=["no certificate", "one of another authority"]
)
async def test_a_broker_that_asks_for_a_certificate(
    known_by: str | None, autojump_clock: MockClock
) -> None:
    async with secure_broker() as secure:
        secure.context = certificates.server(wants_certificate=True)
        dialer = tls_dialer(secure.dialer, HOST, tls=certificates.client(known_by=known_by))
        with pytest.raises(Down, match=f"mqtts://{HOST} did not accept the connection"):
            await enter(dialer)
        dialer = tls_dialer(secure.dialer, HOST, tls=certificates.client(known_by="ours"))
        await enter(dialer)
        assert secure.open_streams == 0


async def test_the_context_is_asked_for_at_every_attempt(autojump_clock: MockClock) -> None:
    asked: list[float] = []
    failure: OSError | None = None

    async def context() -> ssl.SSLContext:
        asked.append(trio.current_time())
        if failure is not None:
            raise failure
        return certificates.client()

    async with secure_broker() as secure:
        dialer = tls_dialer(secure.dialer, HOST, tls=context)
        async with trio_mqtt.open_client(dialer, client_id="a") as client:
            assert len(asked) == 1
            failure = FileNotFoundError("no such certificate")
            secure.broker.disconnect_all()
            await client.wait_offline()
            await trio.sleep(30)
            with pytest.raises(Down, match="no such certificate"):
                await client.ping()
            failure = None
            await client.wait_online()
            assert len(asked) > 2


async def test_the_systems_certificates_are_the_default_and_read_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []

    def create() -> ssl.SSLContext:
        made.append(context)
        return context

    async with secure_broker() as secure:
        dialer = tls_dialer(secure.dialer, HOST)
        with pytest.raises(CertificateError, match="unable to get local issuer"):
            await enter(dialer)
        context = certificates.client()
        monkeypatch.setattr(ssl, "create_default_context", create)
        dialer = tls_dialer(secure.dialer, HOST)
        await enter(dialer)
        await enter(dialer)
        assert len(made) == 1


async def test_tls_is_a_context_or_a_callable() -> None:
    with pytest.raises(TypeError, match=r"tls is an ssl\.SSLContext or an async callable, not 7"):
        tls_dialer(tcp_dialer("host", 1), "host", tls=7)  # type: ignore[arg-type]


async def test_protocols_are_negotiated(autojump_clock: MockClock) -> None:
    context = certificates.client()
    context.set_alpn_protocols(["mqtt"])
    async with secure_broker() as secure:
        secure.context.set_alpn_protocols(["x", "mqtt"])
        stream: Any = await tls_dialer(secure.dialer, HOST, tls=context)()
        assert stream.selected_alpn_protocol() == "mqtt"
        await trio.aclose_forcefully(stream)


async def test_tls_to_a_port_without(autojump_clock: MockClock) -> None:
    async with open_broker(strict=False) as broker:
        with pytest.raises(Down, match="no TLS there, it seems"):
            await enter(tls_dialer(broker.dialer, HOST, tls=certificates.client()))


async def test_tls_to_something_that_answers_in_its_own_way(autojump_clock: MockClock) -> None:
    scripted = ScriptedBroker()
    scripted.greeting = b"220 mail.test ESMTP\r\n"
    with pytest.raises(Down, match="no TLS there, it seems: wrong version number"):
        await enter(tls_dialer(scripted.dialer, HOST, tls=certificates.client()))


async def test_tls_to_something_that_says_nothing(autojump_clock: MockClock) -> None:
    scripted = ScriptedBroker()
    scripted.greeting = b""
    with pytest.raises(Down, match=f"cannot connect to mqtts://{HOST} within 3 s"):
        await enter(tls_dialer(scripted.dialer, HOST, tls=certificates.client()), pause_timeout=3)
    assert trio.current_time() == pytest.approx(3)


async def test_a_handshake_that_is_cut_anywhere_is_a_failed_attempt(
    autojump_clock: MockClock,
) -> None:
    async with secure_broker() as secure:
        cuts = 0
        for size in range(0, 20_000, 37):
            faulty = FaultyDialer(secure.dialer, Faults(cut_after_bytes=size))
            with suppress(OSError):
                stream = await tls_dialer(faulty, HOST, tls=certificates.client())()
                await trio.aclose_forcefully(stream)
                break
            cuts += 1
            assert secure.open_streams == 0
        assert cuts > 10


async def test_cancelled_in_the_handshake_nothing_is_left_open(autojump_clock: MockClock) -> None:
    async with secure_broker() as secure:
        faulty = FaultyDialer(secure.dialer, Faults(latency=1))
        with trio.move_on_after(0.5) as scope:
            await tls_dialer(faulty, HOST, tls=certificates.client())()
        assert scope.cancelled_caught
        assert secure.open_streams == 0


# Several brokers


class Place:
    """A broker that may be away."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.dialled_at: list[float] = []
        self.is_away = False
        self.hangs = False

    async def dialer(self) -> trio.abc.Stream:
        self.dialled_at.append(trio.current_time())
        if self.hangs:
            await trio.sleep_forever()
        if self.is_away:
            raise OSError("away, says the test")
        return await self.broker.dialer()


@asynccontextmanager
async def two(**settings: Any) -> AsyncGenerator[tuple[Place, Place]]:
    async with open_broker(**settings) as first, open_broker(**settings) as second:
        yield Place(first), Place(second)


async def test_the_next_broker_is_tried_where_one_fails(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with two() as (first, second):
        first.is_away = True
        async with trio_mqtt.open_client([first.dialer, second.dialer], client_id="a"):
            assert trio.current_time() == 0
            assert "a" in second.broker.sessions
    assert "cannot connect to Place.dialer: away, says the test" in caplog.text


async def test_each_broker_has_its_pause_timeout(autojump_clock: MockClock) -> None:
    async with two() as (first, second):
        first.hangs = True
        await enter([first.dialer, second.dialer], pause_timeout=3)
        assert second.dialled_at == pytest.approx([3])


async def test_when_every_broker_refuses_that_leaves_bare(autojump_clock: MockClock) -> None:
    async with two() as (first, second):
        first.broker.refuse(5)
        second.broker.refuse(3)
        with pytest.raises(ServerUnavailable):
            await enter([first.dialer, second.dialer], wait_online=False)
        second.broker.refuse(None)
        await enter([first.dialer, second.dialer])
        second.broker.refuse(5)
        with pytest.raises(NotAuthorized):
            await enter([first.dialer, second.dialer])


async def test_where_one_refuses_and_another_fails_all_is_said(autojump_clock: MockClock) -> None:
    async with two() as (first, second):
        first.broker.refuse(5)
        second.is_away = True
        with pytest.raises(Down, match=r"not authorized; cannot connect to Place\.dialer: away"):
            await enter([first.dialer, second.dialer])
        async with trio_mqtt.open_client([first.dialer, second.dialer], wait_online=False) as it:
            await trio.sleep(10)
            first.broker.refuse(None)
            await it.wait_online()


async def test_a_connection_that_lasted_makes_the_first_one_first_again(
    autojump_clock: MockClock,
) -> None:
    async with two() as (first, second):
        first.is_away = True
        async with trio_mqtt.open_client(
            [first.dialer, second.dialer], client_id="a", reconnect_wait_max=60
        ) as client:
            first.is_away = False
            await trio.sleep(61)
            second.broker.disconnect_all()
            await client.wait_offline()
            await client.wait_online()
            assert first.broker.sessions["a"].connected


async def test_a_connection_that_lasted_is_tried_again_at_the_same_place(
    autojump_clock: MockClock,
) -> None:
    async with two() as (first, second):
        async with trio_mqtt.open_client(
            [first.dialer, second.dialer], client_id="a", reconnect_wait_max=60
        ) as client:
            await trio.sleep(61)
            first.broker.disconnect_all()
            await client.wait_offline()
            await client.wait_online()
            assert first.broker.sessions["a"].connected
        assert second.dialled_at == []


async def test_what_is_discarded_is_the_session_of_the_latest_broker(
    autojump_clock: MockClock,
) -> None:
    async with two() as (first, second):
        first.is_away = True
        async with trio_mqtt.open_client([first.dialer, second.dialer], client_id="a") as client:
            first.is_away = False
            await client.disconnect(discard=True)
        assert second.broker.sessions == {}
        assert first.dialled_at == [0]


async def test_each_url_has_its_credentials_unless_the_arguments_say_otherwise() -> None:
    def url_for(user: str, url: str) -> str:
        return url.replace("//", f"//{user}@")

    async with open_broker(users={"alice": "1"}) as one, open_broker(users={"bob": "2"}) as other:
        plain = [await one.listen(), await other.listen()]
        await enter([url_for("alice:x", plain[0]), url_for("bob:2", plain[1])])
        await enter([url_for("alice:x", url) for url in plain], username="bob", password="2")
        await enter([url_for("x", plain[0]), url_for("bob", plain[1])], password="2")
        with pytest.raises(NotAuthorized):
            await enter(url_for("alice:1", plain[0]), username="alice")
        with pytest.raises(Denied, match="password without user name"):
            await enter([url_for("alice:1", plain[0]), plain[1]], password="2")


async def test_a_broker_that_accepts_and_kicks_is_left_and_makes_no_tight_loop(
    autojump_clock: MockClock,
) -> None:
    async with two() as (first, second):
        async with trio_mqtt.open_client(
            [first.dialer, second.dialer], client_id="a", reconnect_wait_max=60
        ) as client:
            first.broker.disconnect_all()
            await client.wait_offline()
            await client.wait_online()
            assert second.broker.sessions["a"].connected
            for _ in range(100):
                first.broker.disconnect_all()
                second.broker.disconnect_all()
                await client.wait_offline()
                await client.wait_online()
        tries = len(first.dialled_at) + len(second.dialled_at)
        assert abs(len(first.dialled_at) - len(second.dialled_at)) <= 1
        assert trio.current_time() > tries * 20


async def test_messages_go_on_at_the_other_broker(autojump_clock: MockClock) -> None:
    got: set[bytes] = set()

    async def receive(broker: Broker) -> None:
        async with (
            trio_mqtt.open_client(broker.dialer, client_id="to") as client,
            client.open_subscription("a") as messages,
        ):
            async for message in messages:
                got.add(message.payload)

    async with two() as (first, second), trio.open_nursery() as nursery:
        for place in (first, second):
            nursery.start_soon(receive, place.broker)
            await place.broker.wait_subscribed("to", "a")
        async with trio_mqtt.open_client(
            [first.dialer, second.dialer], client_id="from", reconnect_wait_max=1
        ) as client:
            for number in range(1000):
                if number % 100 == 50:
                    first.is_away = not first.is_away
                    for place in (first, second):
                        with suppress(LookupError):
                            place.broker.disconnect("from")
                await client.enqueue("a", f"{number}", qos=1)
                await trio.sleep(0.01)
            assert client.statistics().connects > 2
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert got == {b"%d" % number for number in range(1000)}


async def test_no_broker_is_denied() -> None:
    with pytest.raises(Denied, match="no broker"):
        await enter([])
    with pytest.raises(TypeError, match="not int"):
        await enter(["mqtt://host", 7])


async def test_tls_is_for_somebody() -> None:
    context = certificates.client()
    dialer = tcp_dialer("host", 1883)
    for broker in ("mqtt://host", dialer, ["ws://host", "mqtt+unix:///run/x"]):
        with pytest.raises(Denied, match="tls is for URLs that begin with mqtts:// or wss://"):
            await enter(broker, tls=context)


async def test_the_certificate_may_be_for_another_name(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with secure_broker() as secure:

        async def open_tcp_stream(*_: object) -> trio.abc.Stream:
            return await secure.dialer()

        monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
        context = certificates.client()
        await enter(resolve_broker("mqtts://elsewhere", context, server_hostname=HOST).dial)
        with pytest.raises(
            CertificateError, match=r"mqtts://elsewhere .*not valid for 'elsewhere'"
        ):
            await enter("mqtts://elsewhere", tls=context)


# Unix sockets, and hosts


async def test_a_system_without_unix_sockets_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(Denied, match="this system has no Unix sockets"):
        unix_dialer("/run/x")
    with pytest.raises(Denied, match="this system has no Unix sockets"):
        await enter("mqtt+unix:///run/x")


@pytest.mark.parametrize(
    ("dialer", "name"),
    [
        (lambda: tcp_dialer("host", 1883), "mqtt://host:1883"),
        (lambda: tcp_dialer("::1", 1883), "mqtt://[::1]:1883"),
        (lambda: tls_dialer(tcp_dialer("x", 1), "::1"), "mqtts://[::1]"),
        (lambda: unix_dialer("/run/mqtt"), "mqtt+unix:///run/mqtt"),
    ],
)
def test_a_dialer_has_a_name_for_messages(dialer: Callable[[], Dialer], name: str) -> None:
    assert dialer().__qualname__ == name


async def test_a_host_that_cannot_be_is_denied() -> None:
    with pytest.raises(Denied, match="no name of a host"):
        tcp_dialer("x" * 64, 1883)


async def test_what_dialers_of_the_application_raise_leaves_as_it_is() -> None:
    async def broken() -> trio.abc.Stream:
        raise KeyError

    with pytest.raises(KeyError):
        await enter(tls_dialer(broken, HOST, tls=certificates.client()))
