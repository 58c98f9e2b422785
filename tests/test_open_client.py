"""`open_client`: arguments, the handshake, and what leaves the block."""

from __future__ import annotations

import math
import signal
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_mqtt
from trio_mqtt import Client, Will, open_client
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.testing import ScriptedBroker, ScriptedLink, open_broker

from .links import SlowStream
from .memory_persistence import MemoryPersistence


async def enter(*arguments: Any, **options: Any) -> None:
    async with open_client(*arguments, **options):
        raise AssertionError("it was entered")


# Arguments


@pytest.mark.conformance("MQTT-3.1.3-4", "MQTT-3.1.3-7", "MQTT-3.1.3-11", "MQTT-3.1.2-22")
@pytest.mark.parametrize(
    "options",
    [
        {"client_id": ""},
        {"client_id": "\0"},
        {"client_id": "x" * 65_536},
        {"username": "\ud800"},
        {"password": "alone"},
        {"username": "u", "password": "\ud800"},
        {"username": "u", "password": b"x" * 65_536},
        {"keep_alive": -1},
        {"keep_alive": 65_536},
        {"pause_timeout": 0},
        {"pause_timeout": math.nan},
        {"at_least_once_max": 16_385},
        {"exactly_once_max": -1},
        {"at_least_once_window": 0},
        {"exactly_once_window": 16_385},
        {"reconnect_wait_min": 0},
        {"reconnect_wait_min": 2, "reconnect_wait_max": 1},
        {"reconnect_wait_min": math.nan},
        {"reconnect_wait_max": math.inf},
    ],
    ids=",".join,
)
async def test_an_illegal_argument_is_denied_before_anything_is_dialled(
    scripted: ScriptedBroker, options: dict[str, Any]
) -> None:
    with pytest.raises(trio_mqtt.Denied) as caught:
        await enter(scripted.dialer, **options)
    assert scripted.dials == 0
    assert "alone" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"client_id": b"c"},
        {"username": 7},
        {"username": "u", "password": 7},
        {"keep_alive": 1.5},
        {"keep_alive": True},
        {"pause_timeout": "1"},
        {"at_least_once_max": None},
        {"will": "will"},
        {"buffer": 7},
    ],
    ids=",".join,
)
async def test_an_argument_of_another_type_is_an_error(
    scripted: ScriptedBroker, options: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        await enter(scripted.dialer, **options)
    assert scripted.dials == 0


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("mqttx://host", "begins with mqtt://.* unlike that of host"),
        ("localhost", "begins with mqtt://"),
        ("localhost:1883", "begins with mqtt://"),
        ("http://user:secret@host", "begins with mqtt://"),
        ("mqtts://", "no host"),
        ("ws:///path", "no host"),
        ("ws://host/?user=sec@ret", "malformed"),
        ("mqtt://host/?user=secret", "malformed"),
        ("mqtts://user:pass@host/sec@ret", "malformed"),
        ("mqtt+unix://tmp/socket", "three slashes"),
        ("mqtt+unix://user:secret@", "three slashes"),
        ("mqtt+unix:///", "three slashes"),
        ("mqtt://", "no host"),
        ("mqtt://user:secret@:1883", "no host"),
        ("mqtt://user:secret@host:99999", "malformed"),
        ("mqtt://user:secret@host:x", "malformed"),
        ("mqtt://user:secret@[::1", "malformed"),
        ("mqtt://user:secret#more@host", "percent-encode"),
        ("mqtt://user:secret?more@host", "percent-encode"),
        ("mqtt://user:secret/more@host", "percent-encode"),
        ("mqtt://user:12/secret@host", "percent-encode"),
        ("user:secret@host", "begins with mqtt://|malformed"),
    ],
)
async def test_a_bad_url_is_denied_and_its_password_not_shown(url: str, match: str) -> None:
    with pytest.raises(trio_mqtt.Denied, match=match) as caught:
        await enter(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in f"{error} {error!r} {vars(error)} {error.args}"
        error = error.__cause__ or error.__context__


async def test_a_broker_is_a_url_or_a_dialer() -> None:
    with pytest.raises(TypeError, match="a URL or a dialer, not int"):
        await enter(7)


# The handshake


@pytest.mark.conformance("MQTT-3.1.0-1", "MQTT-3.1.3-3", "MQTT-3.1.3-5", "MQTT-3.1.2-6")
async def test_a_generated_identifier_asks_for_a_clean_session_at_every_connect(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer):
        link = await scripted.next_link()
        first = await link.expect(p.Connect)
        await link.close()
        second = await (await scripted.next_link()).expect(p.Connect)
    assert first == second
    assert first.clean_session
    assert first.client_id.isalnum()
    assert len(first.client_id) == 23
    assert (first.keep_alive, first.will, first.username, first.password) == (60, None, None, None)


@pytest.mark.conformance("MQTT-3.1.2-4", "MQTT-3.1.3-2")
async def test_a_chosen_identifier_keeps_its_session(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    will = Will("w", "gone", qos=1, retain=True)
    async with open_client(
        scripted.dialer, client_id="c", will=will, username="u", password="pw", keep_alive=7
    ) as client:
        connect = await (await scripted.next_link()).expect(p.Connect)
        assert not client.session_present
    assert connect == p.Connect("c", False, 7, will, "u", b"pw")


async def test_a_clean_start_discards_the_session_and_then_keeps_one(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """A plain CONNECT with CleanSession 1 would lose the session with the first connection."""
    async with open_client(
        scripted.dialer, client_id="c", clean_session=True, will=Will("w", b"gone")
    ):
        link = await scripted.next_link()
        discard = await link.expect(p.Connect)
        assert (discard.clean_session, discard.will) == (True, None)
        assert await link.next() == p.Disconnect()
        assert await link.next() is None
        for _ in range(2):
            link = await scripted.next_link()
            connect = await link.expect(p.Connect)
            assert not connect.clean_session
            assert connect.will is not None
            await link.close()


async def test_session_present_is_told(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    scripted.greeting = encode(p.ConnAck(True, 0))
    async with open_client(scripted.dialer, client_id="c") as client:
        assert client.session_present


async def test_credentials_may_be_awaited_at_every_attempt(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        return f"token {asked}"

    async def user() -> str:
        return "u"

    async with open_client(scripted.dialer, username=user, password=token):
        for number in (1, 2):
            link = await scripted.next_link()
            connect = await link.expect(p.Connect)
            assert (connect.username, connect.password) == ("u", f"token {number}".encode())
            await link.close()


async def test_credentials_that_cannot_be_had_now_fail_the_attempt(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """A token's server may be down for a while."""
    asked = 0

    async def token() -> bytes:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise ConnectionRefusedError("no token today")
        if asked == 3:
            await trio.sleep_forever()
        return b"token"

    async with open_client(scripted.dialer, username="u", password=token) as client:
        await (await scripted.accepted()).close()
        await client.wait_offline()
        with pytest.raises(trio_mqtt.Down, match="no credentials: no token today"):
            await client.ping()
        began = trio.current_time()
        await client.wait_online()
        assert asked == 4
        assert trio.current_time() - began >= 10


async def test_a_bad_credential_from_a_callable_ends_the_client(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def token() -> str:
        return "\0" * 65_536

    with pytest.raises(trio_mqtt.Denied, match="65536 bytes") as caught:
        await enter(scripted.dialer, username="u", password=token)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1, trio_mqtt.UnacceptableProtocolVersion),
        (2, trio_mqtt.IdentifierRejected),
        (3, trio_mqtt.ServerUnavailable),
        (4, trio_mqtt.BadCredentials),
        (5, trio_mqtt.NotAuthorized),
    ],
)
@pytest.mark.parametrize("wait_online", [True, False])
async def test_a_refusal_of_the_first_connect_ends_the_client_bare(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    code: int,
    error: type[trio_mqtt.ConnectionRefused],
    wait_online: bool,
) -> None:
    scripted.greeting = encode(p.ConnAck(False, code))
    with pytest.raises(error, match=f"return code {code}") as caught:
        async with open_client(scripted.dialer, wait_online=wait_online):
            await trio.sleep_forever()
    assert caught.value.code == code
    assert isinstance(caught.value, trio_mqtt.ConnectionRefused)
    assert scripted.dials == 1


async def test_a_refusal_also_interrupts_a_request(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.greeting = encode(p.ConnAck(False, 5))
    with pytest.raises(trio_mqtt.NotAuthorized):
        async with open_client(scripted.dialer, wait_online=False) as client:
            await client.publish("t", b"", qos=1)


async def test_a_refusal_after_the_first_connect_is_tried_again_later(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """A broker's user database may be down for a while."""
    async with open_client(scripted.dialer, reconnect_wait_max=300) as client:
        link = await scripted.accepted()
        scripted.greeting = encode(p.ConnAck(False, 5))
        await link.close()
        await client.wait_offline()
        await scripted.next_link()
        with pytest.raises(trio_mqtt.Down, match="return code 5"):
            await client.ping()
        scripted.greeting = encode(p.ConnAck(False, 0))
        began = trio.current_time()
        await client.wait_online()
        assert trio.current_time() - began == pytest.approx(300, abs=1)


async def test_a_first_attempt_that_fails_is_raised_bare(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.unreachable = True
    with pytest.raises(trio_mqtt.Down, match="unreachable, says the test") as caught:
        await enter(scripted.dialer)
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_dial_that_takes_too_long_is_given_up(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.dial_seconds = 11
    with pytest.raises(trio_mqtt.Down, match="within 10 s"):
        await enter(scripted.dialer)


async def test_a_broker_that_never_answers_is_given_up(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.greeting = b""
    with pytest.raises(trio_mqtt.Down, match="nothing came for 10 s"):
        await enter(scripted.dialer)


async def test_a_slow_answer_is_waited_for_as_long_as_it_moves(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.greeting = b""

    async def answer() -> None:
        link = await scripted.next_link()
        for byte in encode(p.ConnAck(False, 0)):
            await trio.sleep(9)
            await link.send_bytes(bytes((byte,)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with open_client(scripted.dialer) as client:
            assert client.online


@pytest.mark.conformance("MQTT-3.2.0-1", "MQTT-3.2.2-1", "MQTT-3.2.2-4", "MQTT-4.8.0-1")
@pytest.mark.parametrize(
    "greeting",
    [
        encode(p.PingResp()),
        encode(p.Message("t", b"")),
        encode(p.ConnAck(True, 0)),  # of a session that was to be clean
        b"\x20\x02\x01\x05",
        b"\x20\x02\x00\x06",
        b"\x21\x02\x00\x00",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
async def test_anything_else_than_connack_is_a_violation(
    scripted: ScriptedBroker, autojump_clock: MockClock, greeting: bytes
) -> None:
    scripted.greeting = greeting
    with pytest.raises(trio_mqtt.Down, match="did not accept the connection") as caught:
        await enter(scripted.dialer)
    assert isinstance(caught.value.__cause__, trio_mqtt.ProtocolViolation)


async def test_what_comes_together_with_connack_is_received(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.greeting += encode(p.Message("t", b"early"))
    async with open_client(scripted.dialer) as client:
        assert (await client.messages.receive()).payload == b"early"


# What leaves the block


class Custom(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        KeyError("mine"),
        Custom(),
        StopAsyncIteration(),
        StopIteration(),
        GeneratorExit(),
        KeyboardInterrupt(),
        SystemExit(3),
        ExceptionGroup("g", [OSError()]),
    ],
)
async def test_what_the_body_raises_leaves_as_it_was(
    scripted: ScriptedBroker, autojump_clock: MockClock, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_client(scripted.dialer):
            link = await scripted.accepted()
            raise error
    assert caught.value is error
    assert await link.next() is None  # the connection was closed at once, so the Will is published


@pytest.mark.parametrize("in_a_scope", [False, True])
async def test_it_leaves_with_its_cause_its_context_and_the_line_that_raised_it(
    autojump_clock: MockClock, in_a_scope: bool
) -> None:
    async def fail(client: Client) -> None:
        try:
            raise OSError("context")
        except OSError as context:
            contexts.append(context)
            raise error from cause

    contexts: list[BaseException] = []
    error, cause = KeyError(), ValueError("cause")
    async with open_broker() as broker:
        with pytest.raises(KeyError) as caught:
            async with open_client(broker.dialer) as client:
                if in_a_scope:
                    async with client.open_subscription("t"):
                        await fail(client)
                await fail(client)
    assert caught.value is error
    assert error.__cause__ is cause
    assert [error.__context__] == contexts
    frames = traceback.extract_tb(error.__traceback__)
    assert [frame.name for frame in frames][-1] == "fail"
    assert frames[-1].line == "raise error from cause"


async def test_what_ends_the_client_leaves_its_scopes_bare(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    failing: Callable[[], Awaitable[trio.abc.Stream]],
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_client(failing, client_id="c") as client:
            link = await scripted.accepted()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_subscribe, link)
                async with client.open_subscription("t") as messages:
                    await link.close()
                    await messages.receive()


async def answer_subscribe(link: ScriptedLink) -> None:
    await link.send(p.SubAck((await link.expect(p.Subscribe)).packet_id, (2,)))


class Unreleasable(MemoryPersistence):
    """A persistence that cannot be let go of, in a way that is no `OSError`."""

    async def close(self) -> None:
        await super().close()
        raise ZeroDivisionError


async def test_a_persistence_that_fails_at_the_end_leaves_bare_or_together_with_the_body(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        session = await trio_mqtt.init_session("c", Unreleasable())
        with pytest.raises(ZeroDivisionError):
            async with open_client(broker.dialer, session=session):
                pass
        session = await trio_mqtt.init_session("c", Unreleasable())
        with pytest.RaisesGroup(KeyError, ZeroDivisionError):
            async with open_client(broker.dialer, session=session):
                raise KeyError


async def test_an_outer_cancellation_passes_and_closes_at_once(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(5) as scope:
        async with open_client(scripted.dialer):
            link = await scripted.accepted()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await link.next() is None


async def test_a_cancellation_while_entering_passes(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.greeting = b""
    with trio.move_on_after(5) as scope:
        await enter(scripted.dialer)
    assert scope.cancelled_caught


async def test_a_dialer_that_fails_in_its_own_way_ends_the_client_bare(
    autojump_clock: MockClock,
) -> None:
    async def dialer() -> trio.abc.Stream:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await enter(dialer)


async def test_a_keyboard_interrupt_that_a_dialer_wrapped_leaves_bare(
    autojump_clock: MockClock,
) -> None:
    """Trio's own `open_tcp_stream` has a nursery inside."""

    async def dialer() -> trio.abc.Stream:
        raise BaseExceptionGroup("nursery", [KeyboardInterrupt()])

    with pytest.raises(KeyboardInterrupt):
        await enter(dialer)

    async def other() -> trio.abc.Stream:
        raise BaseExceptionGroup("nursery", [KeyboardInterrupt(), KeyError()])

    with pytest.RaisesGroup(KeyboardInterrupt, KeyError):
        await enter(other)


@pytest.fixture
def failing(scripted: ScriptedBroker) -> Callable[[], Awaitable[trio.abc.Stream]]:
    """Dials once, and fails in its own way after that."""

    async def dialer() -> trio.abc.Stream:
        if scripted.dials:
            raise ZeroDivisionError
        return await scripted.dialer()

    return dialer


async def test_what_ends_the_client_cancels_the_body_and_leaves_bare(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    failing: Callable[[], Awaitable[trio.abc.Stream]],
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_client(failing) as client:
            await (await scripted.accepted()).close()
            async for _ in client.messages:
                raise AssertionError
            await trio.sleep_forever()


async def test_both_together_leave_as_one_group_without_cancelled(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    failing: Callable[[], Awaitable[trio.abc.Stream]],
) -> None:
    with pytest.RaisesGroup(KeyError, ZeroDivisionError):
        async with open_client(failing):
            await (await scripted.accepted()).close()
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError


async def test_the_cancelled_in_a_group_of_the_body_is_left_out(
    scripted: ScriptedBroker,
    autojump_clock: MockClock,
    failing: Callable[[], Awaitable[trio.abc.Stream]],
) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError

    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError), ZeroDivisionError):
        async with open_client(failing), trio.open_nursery() as nursery:
            await (await scripted.accepted()).close()
            nursery.start_soon(fail)
            await trio.sleep_forever()


def test_keyboard_interrupt_reaches_the_body() -> None:
    scripted = ScriptedBroker()
    links: list[ScriptedLink] = []

    async def main() -> None:
        async with open_client(scripted.dialer):
            links.append(await scripted.accepted())
            # While the client's tasks have the turn: they are protected from it.
            trio.lowlevel.current_trio_token().run_sync_soon(signal.raise_signal, signal.SIGINT)
            try:
                await trio.sleep_forever()
            finally:
                reached.append(True)

    reached: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert reached == [True]


# Leaving


@pytest.mark.conformance("MQTT-3.14.4-1", "MQTT-3.14.4-2")
async def test_leaving_sends_disconnect_behind_all_else_and_closes(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await client.publish("t", b"last")
    assert await link.next() == p.Message("t", b"last")
    assert await link.next() == p.Disconnect()
    assert await link.next() is None


async def test_leaving_waits_for_confirmations_as_long_as_they_come(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def confirm(link: ScriptedLink) -> None:
        for _ in range(5):
            delivery = await link.expect(p.Delivery)
            await trio.sleep(9)
            await link.send(p.PubAck(delivery.packet_id))

    async with trio.open_nursery() as nursery:
        async with open_client(scripted.dialer, at_least_once_window=1) as client:
            link = await scripted.accepted()
            exchanges = [await client.enqueue("t", b"") for _ in range(5)]
            nursery.start_soon(confirm, link)
        assert all(exchange.confirmed for exchange in exchanges)
    assert await link.next() == p.Disconnect()


async def test_leaving_gives_up_confirmations_that_do_not_come(
    scripted: ScriptedBroker, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    began = trio.current_time()
    async with open_client(scripted.dialer, keep_alive=0) as client:
        link = await scripted.accepted()
        exchange = await client.enqueue("t", b"")
    assert 10 <= trio.current_time() - began <= 13
    with pytest.raises(trio_mqtt.ClosedInDoubt):
        await exchange.wait()
    assert not exchange.confirmed
    await link.expect(p.Delivery)
    assert await link.next() == p.Disconnect()
    assert "closed with 1 unconfirmed messages" in caplog.text


async def test_leaving_may_be_cancelled_while_it_waits_for_confirmations(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(3) as scope:
        async with open_client(scripted.dialer) as client:
            link = await scripted.accepted()
            await client.enqueue("t", b"")
    assert scope.cancelled_caught
    await link.expect(p.Delivery)
    assert await link.next() is None


async def test_disconnect_is_sent_though_the_body_was_cancelled_right_then(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    """Shielded, and bounded."""
    with trio.CancelScope() as scope:
        async with open_client(scripted.dialer):
            link = await scripted.accepted()
            scope.cancel()
    assert await link.next() == p.Disconnect()


async def test_leaving_offline_takes_no_time(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    scripted.unreachable = True
    began = trio.current_time()
    async with open_client(scripted.dialer, wait_online=False):
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == began


async def test_leaving_a_broker_that_does_not_read_is_bounded(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def dialer() -> trio.abc.Stream:
        return ours

    async def greet() -> None:
        await theirs.receive_some(1000)
        await theirs.send_all(encode(p.ConnAck(False, 0)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        began = trio.current_time()
        async with open_client(dialer) as client:
            await client.publish("t", b"unread")
        assert trio.current_time() - began <= 13


async def test_disconnect_by_hand(scripted: ScriptedBroker, autojump_clock: MockClock) -> None:
    async with open_client(scripted.dialer) as client:
        link = await scripted.accepted()
        await client.disconnect()
        assert await link.next() == p.Disconnect()
        assert await link.next() is None
        assert not client.online
        with pytest.raises(trio_mqtt.ClientClosed):
            await client.disconnect()
        await client.wait_offline()
        await client.aclose()
    assert scripted.dials == 1


async def test_disconnect_can_discard_the_session(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, client_id="c", will=Will("w", b"")) as client:
        link = await scripted.accepted()
        await client.disconnect(discard=True)
        assert await link.next() == p.Disconnect()
        link = await scripted.next_link()
        connect = await link.expect(p.Connect)
        assert (connect.client_id, connect.clean_session, connect.will) == ("c", True, None)
        assert await link.next() == p.Disconnect()


async def test_a_session_that_cannot_be_discarded_is_told(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, client_id="c") as client:
        scripted.unreachable = True
        with pytest.raises(trio_mqtt.Down):
            await client.disconnect(discard=True)
        with pytest.raises(trio_mqtt.ClientClosed):
            await client.publish("t", b"")


async def test_a_dialer_that_shields_itself_does_not_keep_aclose(
    autojump_clock: MockClock,
) -> None:
    """PITFALLS, the prototype's third: waiting inside a shielded step hung without a way out."""

    async def dialer() -> trio.abc.Stream:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)
        raise OSError

    began = trio.current_time()
    async with open_client(dialer, wait_online=False, pause_timeout=math.inf) as client:
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        assert trio.current_time() - began <= 10
        with pytest.raises(trio_mqtt.ClientClosed):
            await client.publish("t", b"", qos=1)


async def test_aclose_ends_everything_at_once(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, at_least_once_max=1) as client:
        link = await scripted.accepted()
        errors: list[type[BaseException]] = []

        async def expect_error(request: Awaitable[object]) -> None:
            with pytest.raises((trio_mqtt.MQTTError, trio.EndOfChannel)) as caught:
                await request
            errors.append(caught.type)

        async with trio.open_nursery() as nursery:
            for request in (
                client.publish("t", b"", qos=1),
                client.publish("t", b"", qos=1),  # waits for room
                client.subscribe("t"),
                client.messages.receive(),
                client.ping(),
                client.ping(),  # waits its turn
            ):
                nursery.start_soon(expect_error, request)
                await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            await client.aclose()
        assert trio.current_time() == began
        assert sorted(errors, key=str) == sorted(
            [
                trio_mqtt.ClosedInDoubt,
                trio_mqtt.ClientClosed,
                trio_mqtt.ClosedInDoubt,
                trio.EndOfChannel,
                trio_mqtt.ClosedInDoubt,
                trio_mqtt.ClientClosed,
            ],
            key=str,
        )
    while (packet := await link.next()) is not None:
        assert not isinstance(packet, p.Disconnect)


async def test_each_waiter_gets_an_exception_of_its_own(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        exchange = await client.enqueue("t", b"")
        await client.aclose()
    errors: list[BaseException] = []
    for _ in range(3):
        with pytest.raises(trio_mqtt.ClosedInDoubt) as caught:
            await exchange.wait()
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3


async def test_after_the_end_every_call_raises_client_closed(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer) as client:
        pass
    for request in (
        client.publish("t", b""),
        client.publish("t", b"", qos=1),
        client.enqueue("t", b""),
        client.flush(),
        client.subscribe("t"),
        client.unsubscribe("t"),
        client.ping(),
        client.wait_online(),
        client.clear_retained("t"),
        client.disconnect(),
    ):
        with pytest.raises(trio_mqtt.ClientClosed):
            await request
    with pytest.raises(trio_mqtt.ClientClosed):
        client.publish_nowait("t", b"")
    with pytest.raises(trio_mqtt.ClientClosed):
        client.enqueue_nowait("t", b"")
    assert not client.online
    assert client.statistics().connects == 1


async def test_leaving_is_not_cut_short_by_other_answers(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def serve(link: ScriptedLink) -> None:
        delivery = await link.expect(p.Delivery)
        for _ in range(5):
            await link.expect(p.PingReq)
            await link.send(p.PingResp())
        await link.send(p.PubAck(delivery.packet_id))

    async with trio.open_nursery() as nursery:
        async with open_client(scripted.dialer, keep_alive=1) as client:
            nursery.start_soon(serve, await scripted.accepted())
            exchange = await client.enqueue("t", b"")
        assert exchange.confirmed


async def test_leaving_waits_for_a_pubrec_as_well(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def serve(link: ScriptedLink) -> None:
        delivery = await link.expect(p.Delivery)
        await trio.sleep(8)
        await link.send(p.PubRec(delivery.packet_id))
        await trio.sleep(8)
        await link.send(p.PubComp(delivery.packet_id))

    async with trio.open_nursery() as nursery:
        async with open_client(scripted.dialer, keep_alive=0) as client:
            nursery.start_soon(serve, await scripted.accepted())
            exchange = await client.enqueue("t", b"", qos=2)
        assert exchange.confirmed


@pytest.mark.parametrize("qos", [0, 1])
async def test_leaving_waits_for_a_large_message_on_a_slow_link(
    autojump_clock: MockClock, qos: p.QoS
) -> None:
    """64 KiB take a second, so 4 MiB take longer than a minute."""
    slow = SlowStream(1)
    got: list[p.Served | None] = []

    async def serve(link: ScriptedLink) -> None:
        await link.expect(p.Connect)
        await link.send(p.ConnAck(False, 0))
        while (packet := await link.next()) is not None:
            got.append(packet)
            if isinstance(packet, p.Delivery):
                await link.send(p.PubAck(packet.packet_id))

    async def dialer() -> trio.abc.Stream:
        return slow

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, slow.link)
        async with open_client(dialer, keep_alive=0) as client:
            if qos:
                await client.enqueue("t", bytes(4 << 20))
            else:
                await client.publish("t", bytes(4 << 20))
    assert [type(packet) for packet in got] == [
        p.Delivery if qos else p.Message,
        p.Disconnect,
    ]


@pytest.mark.parametrize("number", range(28))
async def test_leaving_ends_though_the_broker_answers_pings_alone(
    scripted: ScriptedBroker, autojump_clock: MockClock, number: int
) -> None:
    async def serve(link: ScriptedLink) -> None:
        while (packet := await link.next()) is not None:
            if packet == p.PingReq():
                await link.send(p.PingResp())

    async with trio.open_nursery() as nursery:
        async with open_client(scripted.dialer, keep_alive=1) as client:
            nursery.start_soon(serve, await scripted.accepted())
            await client.enqueue("t", b"")
            await trio.sleep(number / 20)
            began = trio.current_time()
        assert trio.current_time() - began < 14


async def test_leaving_does_not_wait_for_what_others_go_on_to_publish(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async def serve(link: ScriptedLink) -> None:
        while (packet := await link.next()) is not None:
            if isinstance(packet, p.Delivery):
                await trio.sleep(0.03)
                await link.send(p.PubAck(packet.packet_id))

    async def publish(client: trio_mqtt.Client) -> None:
        while True:
            try:
                await client.publish("t", b"", qos=1)
            except (trio_mqtt.ClientClosed, trio_mqtt.ClosedInDoubt):
                return

    async with (
        trio.open_nursery() as nursery,
        open_client(scripted.dialer, keep_alive=0) as client,
    ):
        nursery.start_soon(serve, await scripted.accepted())
        nursery.start_soon(publish, client)
        nursery.start_soon(publish, client)
        exchange = await client.enqueue("t", b"")
        began = trio.current_time()
        await client.disconnect()
        assert exchange.confirmed
        assert trio.current_time() - began < 5


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "é\0"])
async def test_what_is_no_name_of_a_host_is_not_sent(host: str) -> None:
    with pytest.raises(trio_mqtt.NotSent, match="no name of a host"):
        await enter(f"mqtt://{host}")


async def test_what_a_client_is_and_holds_can_be_seen(
    scripted: ScriptedBroker, autojump_clock: MockClock
) -> None:
    async with open_client(scripted.dialer, client_id="c", username="u", password="pw") as client:
        link = await scripted.accepted()
        assert repr(client) == "<Client 'c' of ScriptedBroker.dialer: online>"
        await link.send(p.Message("t", b""))
        await trio.testing.wait_all_tasks_blocked()
        assert repr(client.messages) == "<MessageChannel: 1 messages wait>"
    assert repr(client) == "<Client 'c' of ScriptedBroker.dialer: closed>"
