"""Makes connections that a broker accepts: credentials, dialling, handshake, one broker's after
another's."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio

from . import _packets as p
from ._connection import LOST, Connection
from ._dialers import describe
from ._errors import CertificateError, ConnectionLost, ConnectionRefused, Down, ProtocolViolation
from ._foreign import unprotected
from ._settings import Settings, check_credentials
from ._transport import Address

logger = logging.getLogger("trio_mqtt")


class Connector:
    """Connects one session, anew each time."""

    def __init__(self, settings: Settings, codec: p.Codec) -> None:
        self._settings = settings
        self._codec = codec
        self.broker = settings.brokers[0]
        """The one that is being tried, or that accepted."""
        self._first = 0
        """With which of them the next attempt begins."""
        self._latest = 0
        """Which of them accepted, last of all, and so has the session."""
        self.in_doubt = False
        """Whether a CONNECT got no answer, since the last connection that was accepted."""

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[tuple[Connection, bool], None]:
        """A connection that a broker accepted, and whether it has the session.

        Raises:
            Down: no connection could be made, or no broker accepted it.
            ConnectionRefused: the answer of all of them.
        """
        clean = not self._settings.keep_session
        will = self._settings.will
        async with self._accepted(self._first, clean=clean, will=will) as accepted:
            yield accepted

    async def discard(self) -> None:
        """Makes the latest broker forget the session, by a connection of its own, without Will.

        Raises:
            Down, ConnectionRefused: as `connect`.
        """
        async with self._accepted(self._latest, clean=True, will=None) as (connection, _):
            try:
                await connection.disconnect(self._codec.encode(p.Disconnect()))
            except ConnectionLost as error:
                raise Down(f"the session may not be discarded: {error}") from error

    def lasted(self, *, stable: bool) -> None:
        """The connection ended. After one that did not last it is another broker's turn."""
        self._first = 0 if stable else (self._latest + 1) % len(self._settings.brokers)

    @asynccontextmanager
    async def _accepted(
        self, first: int, *, clean: bool, will: p.Will | None
    ) -> AsyncGenerator[tuple[Connection, bool], None]:
        connection, present = await self._try_all(first, clean=clean, will=will)
        try:
            yield connection, present
        finally:
            await connection.aclose()

    async def _try_all(
        self, first: int, *, clean: bool, will: p.Will | None
    ) -> tuple[Connection, bool]:
        """The first that is accepted, of all brokers in turn."""
        errors: list[ConnectionRefused | Down] = []
        numbered = list(enumerate(self._settings.brokers))
        for number, broker in (*numbered[first:], *numbered[:first]):
            if errors:
                logger.warning("%s", errors[-1])
            self.broker = broker
            try:
                accepted = await self._try(broker, clean=clean, will=will)
            except (ConnectionRefused, Down) as error:
                errors.append(error)
            else:
                self._latest = number
                return accepted
        try:
            raise _together(errors)
        finally:
            errors.clear()  # a frame that holds its own exception is a cycle

    async def _try(
        self, broker: Address, *, clean: bool, will: p.Will | None
    ) -> tuple[Connection, bool]:
        settings = self._settings
        connect = await self._connect_packet(broker, clean=clean, will=will)
        stream = await self._dial(broker)
        decoder = self._codec.new_decoder(settings.stream_over)
        connection = Connection(stream, decoder, settings.pause_timeout)
        encoded = self._codec.encode(connect)
        try:
            return connection, await connection.handshake(encoded, clean_session=clean)
        except ConnectionLost as error:
            self.in_doubt = True
            await connection.aclose()
            is_other = isinstance(error, ProtocolViolation) or not connection.bytes_read
            hint = broker.hint if is_other else ""
            raise Down(f"{broker.name} did not accept the connection: {error}{hint}") from error
        except BaseException:
            await connection.aclose()
            raise

    async def _dial(self, broker: Address) -> trio.abc.Stream:
        name, pause = broker.name, self._settings.pause_timeout
        with trio.move_on_after(pause):
            try:
                return await unprotected(broker.dial)
            except ssl.SSLCertVerificationError as error:
                raise CertificateError(f"{name} is not to be trusted: {_reasons(error)}") from error
            except LOST as error:
                raise Down(f"cannot connect to {name}: {_reasons(error)}") from error
        raise Down(f"cannot connect to {name} within {pause} s")

    async def _connect_packet(
        self, broker: Address, *, clean: bool, will: p.Will | None
    ) -> p.Connect:
        settings = self._settings
        username, password = settings.credentials(broker)
        with trio.move_on_after(settings.pause_timeout) as scope:
            try:
                if callable(username):
                    username = await unprotected(username)
                if callable(password):
                    password = await unprotected(password)
            except OSError as error:
                raise Down(f"no credentials: {describe(error)}") from error
        if scope.cancelled_caught or callable(username) or callable(password):
            raise Down(f"no credentials within {settings.pause_timeout} s")
        check_credentials(username, password)
        if isinstance(password, str):
            password = password.encode()
        return p.Connect(settings.client_id, clean, settings.keep_alive, will, username, password)


def _together(errors: Sequence[ConnectionRefused | Down]) -> ConnectionRefused | Down:
    """What they come to: where people have to mend each of them, the last one of these."""
    final = [error for error in errors if isinstance(error, (ConnectionRefused, CertificateError))]
    if len(final) == len(errors) or len(errors) == 1:
        return errors[-1]
    down = Down("; ".join(map(str, errors)))
    down.__cause__ = errors[-1]
    return down


def _reasons(error: BaseException) -> str:
    """What was said, and by each address of a host that has several."""
    said = describe(error)
    match error.__cause__:
        case BaseExceptionGroup(exceptions=causes):
            reasons = dict.fromkeys(map(describe, causes))
        case cause:
            reasons = {} if cause is None else {describe(cause): None}
    others = [reason for reason in reasons if reason not in said]
    return f"{said} ({', '.join(others)})" if others else said
