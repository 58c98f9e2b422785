"""Makes connections that the broker accepts: credentials, dialling, handshake."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from . import _packets as p
from ._connection import LOST, Connection, describe
from ._errors import ConnectionLost, Down
from ._foreign import unprotected
from ._settings import Settings, check_credentials


class Connector:
    """Connects one session, anew each time."""

    def __init__(self, settings: Settings, codec: p.Codec) -> None:
        self._settings = settings
        self._codec = codec
        self.in_doubt = False
        """Whether a CONNECT got no answer, since the last connection that was accepted."""

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[tuple[Connection, bool], None]:
        """A connection that the broker accepted, and whether it has the session.

        Raises:
            Down: no connection could be made, or the broker did not accept it.
            ConnectionRefused: the broker's answer.
        """
        clean = not self._settings.keep_session
        connect = await self._connect_packet(clean=clean, will=self._settings.will)
        async with self._handshake(connect) as (connection, present):
            yield connection, present

    async def discard(self) -> None:
        """Makes the broker forget the session, by a connection of its own, without Will.

        Raises:
            Down, ConnectionRefused: as `connect`.
        """
        connect = await self._connect_packet(clean=True, will=None)
        async with self._handshake(connect) as (connection, _):
            try:
                await connection.disconnect(self._codec.encode(p.Disconnect()))
            except ConnectionLost as error:
                raise Down(f"the session may not be discarded: {error}") from error

    @asynccontextmanager
    async def _handshake(self, connect: p.Connect) -> AsyncGenerator[tuple[Connection, bool], None]:
        stream = await self._dial()
        try:
            connection = Connection(
                stream,
                self._codec.new_decoder(self._settings.stream_over),
                self._settings.pause_timeout,
            )
            try:
                present = await connection.handshake(
                    self._codec.encode(connect), clean_session=connect.clean_session
                )
            except ConnectionLost as error:
                self.in_doubt = True
                name = self._settings.broker.name
                raise Down(f"{name} did not accept the connection: {error}") from error
            yield connection, present
        finally:
            await trio.aclose_forcefully(stream)

    async def _dial(self) -> trio.abc.Stream:
        name, pause = self._settings.broker.name, self._settings.pause_timeout
        with trio.move_on_after(pause):
            try:
                return await unprotected(self._settings.broker.dial)
            except LOST as error:
                raise Down(f"cannot connect to {name}: {_reasons(error)}") from error
        raise Down(f"cannot connect to {name} within {pause} s")

    async def _connect_packet(self, *, clean: bool, will: p.Will | None) -> p.Connect:
        settings = self._settings
        username, password = settings.username, settings.password
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


def _reasons(error: BaseException) -> str:
    """What was said, and by each address of a host that has several."""
    match error.__cause__:
        case None:
            return describe(error)
        case BaseExceptionGroup(exceptions=causes):
            reasons = dict.fromkeys(map(describe, causes))
        case cause:
            reasons = dict.fromkeys((describe(cause),))
    return f"{describe(error)} ({', '.join(reasons)})"
