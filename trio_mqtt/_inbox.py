"""The bounded buffer between the reader and the application.

The reader puts in, and a `MessageChannel` takes out. Two bounds hold. At the first one the reader
stops by itself, unless somebody needs it to go on; at the second, twice as high, what arrives is
not put in any more.
"""

from __future__ import annotations

from collections import deque

import attrs
import trio

from ._connection import Bells
from ._errors import Denied, MQTTError
from ._packets import Delivery, Message
from ._session import SessionState

HARD_BOUND = 2
"""Times the soft one."""
LOW_WATER = 0.75
"""Of the soft bound: where a reader that stopped goes on."""


@attrs.frozen
class Buffer:
    """How much may wait for the application, before the client stops reading.

    Raises:
        Denied: one of them is less than 1.
        TypeError: one of them is no `int`.
    """

    messages: int = 1_000
    bytes: int = 64 * 1024 * 1024
    """Of payload."""

    def __attrs_post_init__(self) -> None:
        for value in (self.messages, self.bytes):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"a bound is an int, not {value!r}")
        if self.messages < 1 or self.bytes < 1:
            raise Denied(f"{self} has room for nothing")


class Inbox:
    """What arrived, in the order of its arrival, and is not taken yet."""

    def __init__(self, session: SessionState, bounds: Buffer, bells: Bells) -> None:
        self._session = session
        self._bounds = bounds
        self._bells = bells
        self._entries: deque[Message | Delivery | MQTTError] = deque()
        self._bytes = 0
        self._waiter: trio.lowlevel.Task | None = None
        self.closed = False
        """Whether the application wants nothing of it any more."""
        self.ended = False
        """Whether there will be no more, as the client ended."""
        self.awaited_low = False
        """Whether somebody waits until it `is_low`."""
        self.most_messages = 0
        self.most_bytes = 0
        self.taken = 0
        """Messages that the application has taken."""
        self.given_up = 0
        """Messages that never got to the application, though it was there."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def payload_bytes(self) -> int:
        """How many bytes of payload wait."""
        return self._bytes

    # The reader's side

    def room(self, batch_bytes: int) -> int:
        """How many messages may be put in before the reader has to look again; 0 or less: it stops.

        Arguments:
            batch_bytes: of which size all of them are together, at most.
        """
        if self._bytes >= self._bounds.bytes:
            return 0
        room = self._bounds.messages - len(self._entries)
        return room if self._bytes + batch_bytes < self._bounds.bytes else min(room, 1)

    @property
    def is_low(self) -> bool:
        """Whether enough was taken for a reader that stopped to go on."""
        return not self._entries or (
            len(self._entries) <= self._bounds.messages * LOW_WATER
            and self._bytes <= self._bounds.bytes * LOW_WATER
        )

    def put(self, message: Message | Delivery) -> bool:
        """Takes a message in; False when not even the second bound allows it."""
        if self.closed:
            self._give_up(message)
            return True
        if (
            len(self._entries) >= self._bounds.messages * HARD_BOUND
            or self._bytes >= self._bounds.bytes * HARD_BOUND
        ):
            return False
        self._entries.append(message)
        self._bytes += _size(message)
        self.most_messages = max(self.most_messages, len(self._entries))
        self.most_bytes = max(self.most_bytes, self._bytes)
        self.wake()
        return True

    def put_error(self, error: MQTTError) -> None:
        """Has `error` raised in the application, at this place of the stream."""
        self._entries.append(error)
        self.wake()

    def end(self) -> None:
        """There will be no more, and what waits is not to be had."""
        self.ended = True
        self.wake()

    def wake(self) -> None:
        """Has the task that waits look again."""
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter)
            self._waiter = None

    # The application's side

    @property
    def has_waiter(self) -> bool:
        """Whether a task waits for the next message."""
        return self._waiter is not None

    async def wait(self) -> None:
        """Waits for something to happen: a message, an error, the end, something stored."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def take(self) -> Message | Delivery:
        """The next message.

        Raises:
            MQTTError: there was an error in its place.
        """
        entry = self._entries.popleft()
        if not isinstance(entry, MQTTError):
            self._bytes -= _size(entry)
            self.taken += 1
        if self.awaited_low and self.is_low:
            self._bells.reader.set()
        if isinstance(entry, MQTTError):
            raise entry
        return entry

    def put_back(self, delivery: Delivery) -> None:
        """It is the next one again."""
        self._entries.appendleft(delivery)
        self._bytes += _size(delivery)
        self.wake()

    def release(self, delivery: Delivery) -> None:
        """The application is done with it."""
        self._session.release(delivery)
        self._bells.writer.set()
        if not delivery.released:
            self._bells.storer.set()

    def close(self) -> None:
        """Acknowledges and discards what is in it, and whatever comes later."""
        self.closed = True
        entries, self._entries = self._entries, deque()
        self._bytes = 0
        for entry in entries:
            if not isinstance(entry, MQTTError):
                self._give_up(entry)
        self._bells.reader.set()
        self.wake()

    def _give_up(self, message: Message | Delivery) -> None:
        self.given_up += 1
        if isinstance(message, Delivery):  # [MQTT-4.5.0-2]
            self.release(message)


def _size(message: Message | Delivery) -> int:
    payload = message.payload if isinstance(message, Message) else message.message.payload
    return len(payload)
