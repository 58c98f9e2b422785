"""`BigMessage`: a message whose payload is read in pieces, or not at all."""

from __future__ import annotations

import io
from typing import NoReturn

import trio

from ._errors import Denied
from ._large_payload import Cursor, Large
from ._packets import Message

PIECE = 65_536
"""Bytes that are read at once, where the caller does not say."""


class BigMessage(Message, trio.abc.ReceiveStream):
    """A message of more than `stream_over` bytes, of which the payload arrives while it is read.

    Read it in pieces, as any `trio.abc.ReceiveStream`, with `await read_all()`, or not at all:
    asking for the next message skips what is left. Until then the client reads no further than a
    little ahead, and memory stays flat; where it has to, as a request awaits its answer, what comes
    goes to a temporary file. ::

        async for message in messages:
            if isinstance(message, trio_mqtt.BigMessage):
                async for piece in message:
                    ...

    It is a `Message`, without `payload`.
    """

    def __init__(self, message: Large) -> None:
        self.topic = message.topic
        self.qos = message.qos
        self.retain = message.retain
        self.dup = message.dup
        self.size = message.size
        """Bytes of payload."""
        self._cursor: Cursor = message.payload_stream.open()
        self._reading = False

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __repr__(self) -> str:
        return f"<BigMessage on {self.topic!r}: {self._cursor.position} of {self.size} bytes read>"

    @property
    def payload(self) -> NoReturn:  # type: ignore[override]  # what is said next
        """Is not here.

        Raises:
            AttributeError: always.
        """
        raise AttributeError("the payload of a BigMessage is read: await message.read_all()")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes of the payload, at least one; none at its end.

        Cancelled, it loses nothing.

        Arguments:
            max_bytes: how many at most.

        Raises:
            ConnectionLost: the connection was lost in the middle. At QoS 1 and 2 the broker sends
                the message again, as a new one.
            Denied: `max_bytes` is less than 1.
            TypeError: `max_bytes` is no `int`.
            trio.ClosedResourceError: the next message was asked for, or this one closed.
            trio.BusyResourceError: another task reads.
        """
        if max_bytes is None:
            max_bytes = PIECE
        if not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes is an int, not {max_bytes!r}")
        if max_bytes < 1:
            raise Denied(f"max_bytes is 1 at least, not {max_bytes}")
        if self._reading:
            raise trio.BusyResourceError("another task reads this message")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._reading = True
        try:
            return await self._cursor.payload.read(self._cursor, max_bytes)
        finally:
            self._reading = False

    async def read_all(self) -> bytes:
        """All of the payload that was not read yet.

        Cancelled, it loses what it had read.

        Raises:
            ConnectionLost, trio.ClosedResourceError, trio.BusyResourceError: as `receive_some`.
        """
        payload = io.BytesIO()  # what it gathers it hands over without a copy
        while piece := await self.receive_some():
            payload.write(piece)
        return payload.getvalue()

    def close(self) -> None:
        """Skips what is left. The message still is to be acknowledged."""
        self._cursor.payload.close(self._cursor)

    async def aclose(self) -> None:
        """`close`, and a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()
