"""The application's end of an inbox, acknowledging on the next receive."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import attrs
import trio

from ._big_message import BigMessage
from ._connection import Bells
from ._inbox import Arrival, Inbox
from ._large_payload import Large
from ._packets import Delivery, Message
from ._router import Router

CHECKPOINT_EVERY = 64
"""How many messages may be taken from the buffer before others get their turn: a full checkpoint
costs as much as ten messages."""


@attrs.frozen
class ChannelStatistics:
    """What a channel and its clones did and hold, at one instant."""

    buffered_messages: int
    """Messages that wait for the application."""
    buffered_bytes: int
    """Of payload."""
    most_buffered_messages: int
    most_buffered_bytes: int
    received: int
    """Messages that the application has taken."""
    given_up: int
    """Messages for which there was no room, at QoS 0 or where the broker keeps no session, and all
    that came to a closed channel."""


class _Siblings:
    """A channel and its clones."""

    def __init__(self, router: Router, inbox: Inbox, bells: Bells) -> None:
        self.router = router
        self.inbox = inbox
        self.bells = bells
        self.open: list[MessageChannel] = []
        """Those that are not closed."""


class MessageChannel(trio.abc.ReceiveChannel[Message]):
    """Messages in the order of their arrival, each acknowledged when the next one is asked for.

    So a message of QoS 1 or 2 that the application did not get to the end of, because it crashed,
    comes again. It is iterated over::

        async for message in messages:
            ...

    When the buffer is full the client stops reading, and with it the broker stops sending; at QoS 1
    and 2 the broker also waits when a number of messages, 1 to some hundreds, is unacknowledged.
    There is one message at a time: whichever task asks for the next acknowledges the one before.
    Several workers each have their own, with `clone`.
    """

    def __init__(self, siblings: _Siblings, *, is_clone: bool = False) -> None:
        self._siblings = siblings
        self._inbox = siblings.inbox
        self._is_clone = is_clone
        self._closed = False
        self._receiving = False
        self._current: tuple[int, Delivery] | None = None
        """What the application has, unacknowledged, with the number of its arrival."""
        self._holder: trio.lowlevel.Task | None = None
        """Which task has it."""
        self._big: BigMessage | None = None
        """What the application has, if it is one, also when that was acknowledged early."""
        self._storing: Delivery | None = None
        """What the application had last, if that has to be stored."""
        siblings.open.append(self)

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
            MessagesMissed: on a strict channel, messages may be missing here. The next call goes
                on.
            trio.EndOfChannel: the client ended.
            trio.ClosedResourceError: the channel was closed here.
            trio.BusyResourceError: another task waits in `receive`; use a `clone` for each.
        """
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise trio.EndOfChannel("the client ended") from None

    async def __anext__(self) -> Message:
        """As `receive`, at less cost, and the iteration ends when the client does.

        Raises:
            SubscribeError, MessagesMissed, trio.ClosedResourceError, trio.BusyResourceError: as
                `receive`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._current is not None:
            self.acknowledge()
        if self._big is not None:
            self._close_big()
        inbox = self._inbox
        if (
            inbox.queue
            and not (inbox.ended or self._closed or self._receiving or self._storing)
            and inbox.taken % CHECKPOINT_EVERY
        ):
            number, arrival = inbox.take()
            return arrival if type(arrival) is Message else self._hand_out(number, arrival)
        try:
            return await self._receive_later()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def _receive_later(self) -> Message:
        self._check()
        if self._is_ready():
            self._receiving = True
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._receiving = False
        while not self._is_ready():
            self._check()
            await self._wait()
        return self._take()

    def receive_nowait(self) -> Message:
        """The next message, if it is there already. Acknowledges the one before in any case.

        Raises:
            trio.WouldBlock: it is not, or the one before is not stored yet, as `receive` explains.
            SubscribeError, MessagesMissed, trio.EndOfChannel, trio.ClosedResourceError,
                trio.BusyResourceError: as `receive`.
        """
        self._finish()
        if self._is_ready():
            return self._take()
        self._check()
        raise trio.WouldBlock

    def acknowledge(self) -> None:
        """Acknowledges the message received last, before the next one is asked for.

        A `BigMessage` may be read on; the acknowledgement leaves once all of it has arrived.
        """
        if self._current is not None:
            current = self._current[1]
            self._current = self._holder = None
            self._inbox.release(current)
            if current.message.qos == 2 and not (current.claims or current.released):
                self._storing = current

    def _finish(self) -> None:
        """Acknowledges the message received last, of which nothing more is wanted."""
        self.acknowledge()
        self._close_big()

    def _close_big(self) -> None:
        if self._big is not None:
            self._big.close()
            self._big = None

    def acknowledge_own(self) -> None:
        """The same, unless another task has it, which may be in the middle of it."""
        for channel in list(self._siblings.open):
            if channel._holder is trio.lowlevel.current_task():  # noqa: SLF001, one of its kind
                channel.acknowledge()

    def clone(self) -> Self:
        """Another channel on the same messages: each goes to one of them.

        So workers each have a message that is unacknowledged. In which order they finish is all the
        same: acknowledgements leave in the order in which the messages came [MQTT-4.6.0-2]. Use it
        in a ``with``, so that its message goes to the others if the worker fails::

            async def work(messages: trio_mqtt.MessageChannel) -> None:
                with messages:
                    async for message in messages:
                        ...

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(work, messages.clone())

        Raises:
            trio.ClosedResourceError: this one was closed.
        """
        if self._is_closed():
            raise trio.ClosedResourceError("this channel was closed")
        return type(self)(self._siblings, is_clone=True)

    def statistics(self) -> ChannelStatistics:
        """A snapshot of the counters of this channel and its clones."""
        inbox = self._inbox
        return ChannelStatistics(
            buffered_messages=len(inbox),
            buffered_bytes=inbox.payload_bytes,
            most_buffered_messages=inbox.most_messages,
            most_buffered_bytes=inbox.most_bytes,
            received=inbox.taken,
            given_up=inbox.given_up,
        )

    def close(self) -> None:
        """Acknowledges the message received last, and receives no more.

        When the last of a channel and its clones is closed, what is buffered is acknowledged and
        discarded, and whatever comes later. So a client that does not want what comes to
        `Client.messages` is not held up by it.
        """
        self._finish()
        if self._closed:
            return
        self._end()
        if not (self._siblings.open or self._inbox.closed):
            self._inbox.give_up(self._inbox.close())

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
        """Closes the channel. After an exception it puts the message back before.

        A consumer that failed in the middle of a message leaves it, unacknowledged, to whoever asks
        next: a clone, or the scope itself, whose own channel is not closed by an exception.
        """
        if exc_value is None:
            self.close()
            return
        self.put_back()
        if self._is_clone and not self._closed:
            self._end()
            if not self._siblings.open:
                self._siblings.router.abandon(self._inbox)

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

    def put_back(self) -> None:
        """Leaves the message received last, unacknowledged, to whoever asks next."""
        if self._current is not None:
            current, self._current = self._current, None
            self._holder = None
            self._siblings.router.put_back(self._inbox, current)
        self._close_big()

    def end_scope(self, *, failed: bool) -> None:
        """The scope ends, and with it this channel and its clones. For the scope alone to call.

        What a task has that still runs stays its own, until it is done with it.
        """
        for channel in list(self._siblings.open):
            if channel is self or not channel._is_at_work():  # noqa: SLF001, one of its kind
                if failed:
                    channel.put_back()
                else:
                    channel._finish()  # noqa: SLF001
        self._siblings.open.clear()

    def _is_at_work(self) -> bool:
        """Whether another task has a message, and still runs."""
        holder = self._holder
        if holder is None or holder is trio.lowlevel.current_task():
            return False
        nursery = holder.parent_nursery
        return nursery is not None and holder in nursery.child_tasks

    def _end(self) -> None:
        self._closed = True
        if self in self._siblings.open:
            self._siblings.open.remove(self)
        if self._receiving:
            self._inbox.wake_all()
            self._siblings.bells.stored.unpark_all()

    def _is_closed(self) -> bool:
        return self._closed or self._inbox.closed

    def _is_ready(self) -> bool:
        """Whether the next message may be taken at once."""
        inbox = self._inbox
        if not inbox.queue or inbox.ended or self._closed or self._receiving:
            return False
        return self._storing is None or self._storing.released

    def _check(self) -> None:
        if self._receiving:
            raise trio.BusyResourceError("another task waits for the next message")
        if self._is_closed():
            raise trio.ClosedResourceError("this channel was closed")
        if self._inbox.ended:
            raise trio.EndOfChannel("the client ended")

    async def _wait(self) -> None:
        """Waits for a message, or first for the record of the one before."""
        self._receiving = True
        try:
            if self._storing is not None and not self._storing.released:
                await self._siblings.bells.stored.park()
            else:
                await self._inbox.wait()
        finally:
            self._receiving = False

    def _take(self) -> Message:
        number, arrival = self._inbox.take()
        self._storing = None
        return self._hand_out(number, arrival)

    def _hand_out(self, number: int, arrival: Arrival) -> Message:
        if type(arrival) is not Delivery:
            message = arrival
        else:
            self._current = number, arrival
            self._holder = trio.lowlevel.current_task()
            message = arrival.message
        if type(message) is Large:
            self._big = BigMessage(message)
            return self._big
        return message


def open_channel(router: Router, inbox: Inbox, bells: Bells) -> MessageChannel:
    """The first channel of an inbox."""
    return MessageChannel(_Siblings(router, inbox, bells))
