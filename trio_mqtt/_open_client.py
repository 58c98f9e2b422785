"""`open_client`: the nursery, and what leaves it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import trio

from ._bounds import Buffer
from ._client import Client
from ._codec311 import Codec
from ._dialers import TLS, Dialer
from ._errors import Denied
from ._packets import MAX_PACKET_BYTES, Will
from ._settings import (
    Credential,
    Settings,
    check_client_id,
    check_count,
    check_credentials,
    check_seconds,
)
from ._stored_session import Session
from ._supervisor import Supervisor, without_cancelled
from ._transfers import AT_LEAST_ONCE_WINDOW, EXACTLY_ONCE_WINDOW, MAX_PENDING, Limits
from ._transport import resolve_brokers


@asynccontextmanager
async def open_client(
    broker: str | Dialer | Sequence[str | Dialer],
    *,
    client_id: str | None = None,
    session: Session | None = None,
    clean_session: bool = False,
    username: str | Credential | None = None,
    password: str | bytes | Callable[[], Awaitable[str | bytes]] | None = None,
    tls: TLS | None = None,
    will: Will | None = None,
    keep_alive: int = 60,
    pause_timeout: float = 10,
    at_least_once_max: int = MAX_PENDING,
    exactly_once_max: int = MAX_PENDING,
    at_least_once_window: int = AT_LEAST_ONCE_WINDOW,
    exactly_once_window: int = EXACTLY_ONCE_WINDOW,
    reconnect_wait_min: float = 1,
    reconnect_wait_max: float = 60,
    wait_online: bool = True,
    buffer: Buffer | None = None,
    unclaimed_wait: float = 60,
    stream_over: int | None = None,
) -> AsyncGenerator[Client, None]:
    """Connects to a broker, for as long as the body of ``async with`` runs.

    After the first connect a failure of the network is a state, not an exception: the client
    connects again, for ever. Leaving without an exception waits for unconfirmed messages as long as
    they make progress, and sends DISCONNECT, so that the broker discards the Will. Leaving by an
    exception or by cancellation closes the connection at once, and the broker publishes the Will.
    What the body raises, and what ends the client, leave as they are; both together as one group.

    Arguments:
        broker: ``mqtt://user:password@host:1883/``, of which all but the host may be left out and
            the path is yours; an IPv6 address stands in brackets, and in user name and password
            ``: / ? # @`` are percent-encoded. ``mqtts://`` (port 8883) is over TLS, ``ws://`` (80)
            and ``wss://`` (443) over WebSocket, to the path and the query that follow, with the
            extra ``trio-mqtt[websocket]``; ``mqtt+unix:///path`` over a Unix socket. Or a `Dialer`,
            an async callable that returns a `trio.abc.Stream`. Or a list of brokers, tried in turn
            at every attempt to connect: see below.
        client_id: the identifier of the session, by which the broker keeps it over lost
            connections, though not over the end of this process. Left out, one is generated, and
            the broker is told to keep nothing.
        session: instead of `client_id`, a `volatile_session`, or one that survives the process, by
            `init_session` or `adopt_session`. It serves this client alone.
        clean_session: makes the broker forget what an earlier process left under `client_id`;
            without one there is nothing to forget. A session that was adopted cannot be cleaned.
        username, password: override those of the URL. An async callable is awaited at every
            attempt to connect, of which its `OSError` is the failure.
        tls: an `ssl.SSLContext`, for ``mqtts://`` and ``wss://``: private authorities, a client
            certificate, ALPN. Left out, `ssl.create_default_context()`. An async callable is
            awaited at every attempt to connect, so that certificates may change.
        will: what the broker publishes when the connection is lost, or closed by an exception.
        keep_alive: seconds, 65,535 at most; 0 for none. After one and a half times as long without
            a sign of life the broker closes the connection, and so the client gives one in time.
        pause_timeout: seconds in which something has to move whenever it is due: a byte in the
            middle of a packet, in answer to CONNECT and to PINGREQ; what is written, in pieces of
            64 KiB at most; a connection being dialled. `math.inf` for ever.
        at_least_once_max, exactly_once_max: how many messages are accepted and not confirmed, by
            QoS, 16,384 at most; 0 disables it.
        at_least_once_window, exactly_once_window: how many of these are on the wire at once, 100
            and 19. Mosquitto loses messages with more than 19 of the latter, unless its
            ``max_inflight_messages`` says otherwise.
        reconnect_wait_min, reconnect_wait_max: seconds. The wait before an attempt to reconnect is
            random, up to a bound that doubles from the one to the other while connections fail or
            do not last.
        wait_online: whether to enter only once there is a connection, and to fail if the first
            attempt does.
        buffer: how much may wait for the application, in the channel of a subscription that does
            not say otherwise, and in that of the messages which no open subscription matches.
        unclaimed_wait: seconds that a message is kept back which no open subscription matches and
            `Client.subscribe` did not ask for: from an earlier run's subscription, or of a consumer
            that failed. They count from the connect, or from the failure. Then it is acknowledged
            and given up, with a warning, so that it does not hold up the rest. 0 for none at all,
            `math.inf` for ever.
        stream_over: bytes of a payload above which a message arrives as a `BigMessage`, to be read
            in pieces; None for never.

    Of several brokers each attempt begins with the first; with the next one, if the connection did
    not last for `reconnect_wait_max`. Each has `pause_timeout`. They ought to share their sessions,
    as a cluster does. Where they do not, failing over is as if the broker had lost the session:
    messages at QoS 1 and 2 still arrive, at one broker or the other, perhaps at both.

    Raises:
        Denied: an argument is illegal, or the session served another client.
        TypeError: an argument has another type.
        Down: the first attempt failed, with `wait_online`. A `CertificateError` also without.
        ConnectionRefused: the answer of every broker, before one ever accepted.
        Exception: whatever a dialer, a credential or a persistence of yours raises that is no
            `OSError`.
    """
    brokers = resolve_brokers(broker, tls)
    if will is not None and not isinstance(will, Will):
        raise TypeError(f"a will is a Will, not {type(will).__name__}")
    if buffer is not None and not isinstance(buffer, Buffer):
        raise TypeError(f"a buffer is a Buffer, not {type(buffer).__name__}")
    named = client_id is not None or session is not None
    session = _choose_session(session, client_id, clean_session=clean_session)
    settings = Settings(
        brokers=brokers,
        client_id=session.client_id,
        keep_session=named,
        discard_first=session.discard_due or (named and clean_session),
        username=username,
        password=password,
        will=will,
        keep_alive=check_count("keep_alive", keep_alive, most=65_535),
        pause_timeout=check_seconds("pause_timeout", pause_timeout, endless=True),
        limits=Limits(
            check_count("at_least_once_max", at_least_once_max, most=MAX_PENDING),
            check_count("exactly_once_max", exactly_once_max, most=MAX_PENDING),
            check_count("at_least_once_window", at_least_once_window, least=1, most=MAX_PENDING),
            check_count("exactly_once_window", exactly_once_window, least=1, most=MAX_PENDING),
        ),
        reconnect_wait_min=check_seconds("reconnect_wait_min", reconnect_wait_min),
        reconnect_wait_max=check_seconds("reconnect_wait_max", reconnect_wait_max),
        wait_online=wait_online,
        buffer=Buffer() if buffer is None else buffer,
        stream_over=None
        if stream_over is None
        else check_count("stream_over", stream_over, most=MAX_PACKET_BYTES),
        unclaimed_wait=check_seconds("unclaimed_wait", unclaimed_wait, endless=True, instant=True),
    )
    if reconnect_wait_max < reconnect_wait_min:
        raise Denied("reconnect_wait_max is less than reconnect_wait_min")
    for one in brokers:
        user, secret = settings.credentials(one)
        if not (callable(user) or callable(secret)):
            check_credentials(user, secret)
    session.use()
    errors: list[BaseException] = []
    failures: list[BaseException] = []
    try:
        async with _running(Supervisor(settings, Codec(), session)) as client:
            yield client
    except BaseException as error:  # noqa: ASYNC103, BLE001, raised below
        errors.append(error)
    try:
        await session.end()  # which shields itself
    except BaseException as error:  # noqa: ASYNC103, BLE001, of the application's, raised below
        failures.append(error)
    _raise_all(failures, errors)


def _choose_session(
    session: Session | None, client_id: str | None, *, clean_session: bool
) -> Session:
    if session is None:
        return Session(check_client_id(client_id))
    if not isinstance(session, Session):
        raise TypeError(f"a session is a Session, not {type(session).__name__}")
    if client_id is not None:
        raise Denied("either a session or a client_id")
    if clean_session and session.stored is not None and not session.discard_due:
        raise Denied("a session that was adopted is to be continued, not cleaned")
    return session


@asynccontextmanager
async def _running(supervisor: Supervisor) -> AsyncGenerator[Client, None]:
    """Runs the supervisor beside the body, and sorts out what both of them raise."""
    client = Client(supervisor)
    failures: list[BaseException] = []
    errors: list[BaseException] = []

    @trio.lowlevel.enable_ki_protection
    async def carry() -> None:
        try:
            await supervisor.run()
        except BaseException as error:  # noqa: ASYNC103, BLE001, raised below
            failures.append(error)
            # First of all the body is cancelled, so that it does not trip over the closed client.
            nursery.cancel_scope.cancel()
        finally:
            supervisor.end()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry)
            try:
                if supervisor.settings.wait_online:
                    await supervisor.ready()
                yield client
                if not supervisor.is_ending:
                    # Whichever task of the body had one of these, it has ended.
                    client.messages.end_scope(failed=False)
                    await client.leave()
            except BaseException as error:  # noqa: ASYNC103, BLE001, raised below
                errors.append(error)
            finally:
                supervisor.close()
    except BaseException as error:  # noqa: ASYNC103, BLE001, while the nursery closed
        errors.append(_alone(error))
    _raise_all(failures, errors)


def _alone(error: BaseException) -> BaseException:
    """Without the groups that our nursery wraps around a single one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return _alone(group.exceptions[0]) if len(group.exceptions) == 1 else group


def _raise_all(failures: list[BaseException], errors: list[BaseException]) -> None:
    try:
        _raise_together(failures, errors)
    finally:
        failures.clear()  # a frame that holds its own exception is a cycle
        errors.clear()


def _raise_together(failures: Sequence[BaseException], errors: Sequence[BaseException]) -> None:
    """Raises what ended the client, if anything, and what the body raised, if anything.

    With a failure, a Cancelled in the body is of our making.
    """
    if not failures and len(errors) == 1:
        raise errors[0]
    others = [rest for error in errors if (rest := without_cancelled(error)) is not None]
    told = [*others, *failures]
    if len(told) > 1:
        raise BaseExceptionGroup("the client and its user failed", told)
    if told or errors:
        raise (told or errors)[0]
