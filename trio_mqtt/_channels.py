"""The bounded buffers between the reader and the application, acknowledging on the next receive.

The reader puts in, the application takes out, and both are synchronous but for the application's
wait on an empty buffer. Two bounds hold. At the first one the reader stops by itself, unless
somebody needs it to go on; at the second, twice as high, what arrives is not put in any more.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

import attrs
import outcome
import trio

from ._connection import Bells
from ._errors import Denied, MQTTError
from ._packets import Delivery, Message
from ._session import Session

HARD_BOUND = 2
"""Times the soft one."""
LOW_WATER = 0.75
"""Of the soft bound: where a reader that stopped goes on."""
CHECKPOINT_EVERY = 64
"""How many messages may be taken from the buffer before others get their turn: a full checkpoint
costs as much as ten messages."""


@attrs.frozen
class Buffer:
    """How much may wait for the application, before the client stops reading.

    Raises:
        Denied: one of them is less than 1.
    """

    messages: int = 1_000
    bytes: int = 64 * 1024 * 1024
    """Of payload."""

    def __attrs_post_init__(self) -> None:
        if self.messages < 1 or self.bytes < 1:
            raise Denied(f"{self} has room for nothing")


class MessageChannel(trio.abc.ReceiveChannel[Message]):
    """Messages in the order of their arrival, each acknowledged when the next one is asked for.

    So a message of QoS 1 or 2 that the application did not get to the end of, because it crashed,
    comes again. It is iterated over::

        async for message in client.messages:
            ...

    When the buffer is full the client stops reading, and with it the broker stops sending; at QoS 1
    and 2 the broker also waits when a number of messages, 1 to some hundreds, is unacknowledged.
    """

    def __init__(self, session: Session, bounds: Buffer, bells: Bells) -> None:
        self._session = session
        self._bounds = bounds
        self._bells = bells
        self._buffer: deque[Message | Delivery | MQTTError] = deque()
        self._bytes = 0
        self._current: Delivery | None = None
        """What the application has, unacknowledged."""
        self._holder: trio.lowlevel.Task | None = None
        """Which task has it."""
        self._waiter: trio.lowlevel.Task | None = None
        self._closed = False
        self._ended = False
        self._taken = 0
        self.stopped = False
        """Whether somebody waits until it is low."""
        self.most_messages = 0
        self.most_bytes = 0
        self.given_up = 0
        """Messages that never got to the application, though it was there."""

    # The reader's side

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return len(self._buffer)

    @property
    def bytes(self) -> int:
        """How many bytes of payload wait."""
        return self._bytes

    def room(self, batch_bytes: int) -> int:
        """How many messages may be put in before the reader has to look again; 0 or less: it stops.

        Arguments:
            batch_bytes: of which size all of them are together, at most.
        """
        if self._bytes >= self._bounds.bytes:
            return 0
        room = self._bounds.messages - len(self._buffer)
        return room if self._bytes + batch_bytes < self._bounds.bytes else min(room, 1)

    def put(self, message: Message | Delivery) -> bool:
        """Takes a message in; False when not even the second bound allows it."""
        if self._closed:
            self._give_up(message)
            return True
        payload = message.payload if isinstance(message, Message) else message.message.payload
        if (
            len(self._buffer) >= self._bounds.messages * HARD_BOUND
            or self._bytes >= self._bounds.bytes * HARD_BOUND
        ):
            return False
        self._buffer.append(message)
        self._bytes += len(payload)
        self.most_messages = max(self.most_messages, len(self._buffer))
        self.most_bytes = max(self.most_bytes, self._bytes)
        self._wake()
        return True

    def put_error(self, error: MQTTError) -> None:
        """Raises `error` in the application, at this place of the stream."""
        self._buffer.append(error)
        self._wake()

    def end(self) -> None:
        """There will be no more, and what waits is not to be had."""
        self._ended = True
        self._wake()

    def _give_up(self, message: Message | Delivery) -> None:
        self.given_up += 1
        if isinstance(message, Delivery):  # [MQTT-4.5.0-2]
            self._release(message)

    def _wake(self) -> None:
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter, outcome.Value(None))
            self._waiter = None

    # The application's side

    async def receive(self) -> Message:
        """The next message. Acknowledges the one before.

        Checks for cancellation first, then acknowledges, then waits: cancelled, it loses nothing.
        While messages are buffered it yields to other tasks every 64th time only.

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
        if self._buffer:
            self._taken += 1
            if self._taken % CHECKPOINT_EVERY == 0:
                await trio.lowlevel.cancel_shielded_checkpoint()
        while not self._buffer:
            self._check()
            await self._wait()
        return self._take()

    def receive_nowait(self) -> Message:
        """The next message, if it is there already. Acknowledges the one before in any case.

        Raises:
            trio.WouldBlock: it is not.
        """
        self._check()
        self.acknowledge()
        if not self._buffer:
            raise trio.WouldBlock
        return self._take()

    def acknowledge(self) -> None:
        """Acknowledges the message received last, before the next one is asked for."""
        if self._current is not None:
            current, self._current = self._current, None
            self._holder = None
            self._release(current)

    def acknowledge_own(self) -> None:
        """The same, unless another task has it, which may be in the middle of it."""
        if self._holder is trio.lowlevel.current_task():
            self.acknowledge()

    def close(self) -> None:
        """Acknowledges and discards what is buffered, and whatever comes later.

        So a client that does not want its unclaimed messages is not held up by them.
        """
        self._closed = True
        self.acknowledge()
        buffer, self._buffer = self._buffer, deque()
        self._bytes = 0
        for entry in buffer:
            if not isinstance(entry, MQTTError):
                self._give_up(entry)
        self._bells.reader.set()
        self._wake()

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
        """Closes the channel. An exception leaves the current message unacknowledged."""
        if exc_value is not None:
            self._current = None
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        if self._ended:
            raise trio.EndOfChannel("the client ended")
        if self._waiter is not None:
            raise trio.BusyResourceError("another task waits for the next message")

    async def _wait(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiter = trio.lowlevel.current_task()
        self._bells.reader.set()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _take(self) -> Message:
        entry = self._buffer.popleft()
        if isinstance(entry, Delivery):
            self._current = entry
            self._holder = trio.lowlevel.current_task()
            entry = entry.message
        if isinstance(entry, Message):
            self._bytes -= len(entry.payload)
        if self.stopped and self.is_low:
            self._bells.reader.set()
        if isinstance(entry, MQTTError):
            raise entry
        return entry

    @property
    def is_low(self) -> bool:
        """Whether enough was taken for a reader that stopped to go on."""
        return (
            len(self._buffer) <= self._bounds.messages * LOW_WATER
            and self._bytes <= self._bounds.bytes * LOW_WATER
        ) or not self._buffer

    def _release(self, delivery: Delivery) -> None:
        self._session.release(delivery)
        self._bells.writer.set()
