"""The application's end of an inbox, acknowledging on the next receive."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import trio

from ._inbox import Inbox
from ._packets import Delivery, Message

CHECKPOINT_EVERY = 64
"""How many messages may be taken from the buffer before others get their turn: a full checkpoint
costs as much as ten messages."""


class MessageChannel(trio.abc.ReceiveChannel[Message]):
    """Messages in the order of their arrival, each acknowledged when the next one is asked for.

    So a message of QoS 1 or 2 that the application did not get to the end of, because it crashed,
    comes again. It is iterated over::

        async for message in client.messages:
            ...

    When the buffer is full the client stops reading, and with it the broker stops sending; at QoS 1
    and 2 the broker also waits when a number of messages, 1 to some hundreds, is unacknowledged.
    There is one message at a time: whichever task asks for the next acknowledges the one before.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._current: Delivery | None = None
        """What the application has, unacknowledged."""
        self._holder: trio.lowlevel.Task | None = None
        """Which task has it."""
        self._storing: Delivery | None = None
        """What the application had last, if that has to be stored."""
        self._taken = 0

    def __repr__(self) -> str:
        return f"<MessageChannel: {len(self._inbox)} messages wait>"

    async def receive(self) -> Message:
        """The next message. Acknowledges the one before.

        Checks for cancellation first, then acknowledges, then waits: cancelled, it loses nothing.
        While messages are buffered it yields to other tasks every 64th time only. On a durable
        session it returns once it is stored that a message at QoS 2 before this one was received,
        so that it never comes again.

        Raises:
            SubscribeError: the broker lost the session, and failed these topic filters when they
                were restored. The next call goes on.
            trio.EndOfChannel: the client ended.
            trio.ClosedResourceError: the channel was closed here.
            trio.BusyResourceError: another task waits in `receive`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        self.acknowledge()
        if self._is_ready():
            self._taken += 1
            if self._taken % CHECKPOINT_EVERY == 0:
                await trio.lowlevel.cancel_shielded_checkpoint()
        while not self._is_ready():
            self._check()
            await self._inbox.wait()
        return self._take()

    def receive_nowait(self) -> Message:
        """The next message, if it is there already. Acknowledges the one before in any case.

        Raises:
            trio.WouldBlock: it is not, or the one before is not stored yet, as `receive` explains.
            SubscribeError, trio.EndOfChannel, trio.ClosedResourceError, trio.BusyResourceError: as
                `receive`.
        """
        self._check()
        self.acknowledge()
        if not self._is_ready():
            raise trio.WouldBlock
        return self._take()

    def acknowledge(self) -> None:
        """Acknowledges the message received last, before the next one is asked for."""
        if self._current is not None:
            current, self._current = self._current, None
            self._holder = None
            self._inbox.release(current)
            self._storing = None if current.released else current

    def acknowledge_own(self) -> None:
        """The same, unless another task has it, which may be in the middle of it."""
        if self._holder is trio.lowlevel.current_task():
            self.acknowledge()

    def close(self) -> None:
        """Acknowledges and discards what is buffered, and whatever comes later.

        So a client that does not want its unclaimed messages is not held up by them.
        """
        self.acknowledge()
        self._inbox.close()

    async def aclose(self) -> None:
        """`close`, and a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the channel. After an exception it puts the message back instead.

        A consumer that failed in the middle of a message leaves it, unacknowledged, to whoever asks
        next.
        """
        if exc_value is None:
            self.close()
        elif self._current is not None:
            current, self._current = self._current, None
            self._inbox.put_back(current)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As a plain ``with``, and a checkpoint where there is no exception for it to replace."""
        self.__exit__(exc_type, exc_value, traceback)
        if exc_value is None:
            await trio.lowlevel.checkpoint()  # noqa: ASYNC102, there is nothing to clean up

    def _is_ready(self) -> bool:
        return bool(self._inbox) and (self._storing is None or self._storing.released)

    def _check(self) -> None:
        if self._inbox.closed:
            raise trio.ClosedResourceError("this channel was closed")
        if self._inbox.ended:
            raise trio.EndOfChannel("the client ended")
        if self._inbox.has_waiter:
            raise trio.BusyResourceError("another task waits for the next message")

    def _take(self) -> Message:
        message = self._inbox.take()
        if isinstance(message, Delivery):
            self._current = message
            self._holder = trio.lowlevel.current_task()
            return message.message
        return message
