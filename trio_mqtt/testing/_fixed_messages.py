"""The channels of a double: fixed messages, instead of what a broker sends."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, TypeAlias

import attrs
import trio

from trio_mqtt._channels import ChannelStatistics
from trio_mqtt._packets import Message
from trio_mqtt._topics import matches

_Entry: TypeAlias = tuple[int, Message]
"""A message, and the number by which it keeps its place."""


@attrs.define(eq=False)
class Source:
    """The messages of one channel and its clones."""

    endless: bool
    """Whether who has taken all then waits; otherwise the channel ends."""
    entries: list[_Entry] = attrs.field(factory=list[_Entry])
    acknowledged: list[Message] = attrs.field(factory=list[Message])
    ended: bool = False
    received: int = 0
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @classmethod
    def of(cls, messages: Iterable[Message], *, endless: bool) -> Self:
        """All messages of a double, in this order."""
        return cls(endless, list(enumerate(messages)))

    def split(self, topic_filters: Sequence[str]) -> Source:
        """What matches, as a source of its own. It is no longer here."""
        found = [entry for entry in self.entries if _matches(topic_filters, entry[1].topic)]
        self.entries = [entry for entry in self.entries if entry not in found]
        return Source(self.endless, found, self.acknowledged)

    def put_back(self, *entries: _Entry) -> None:
        """In their places."""
        for entry in entries:
            bisect.insort(self.entries, entry, key=lambda entry: entry[0])
        self.changed.unpark_all()

    def end(self) -> None:
        """The client ended."""
        self.ended = True
        self.changed.unpark_all()


def _matches(topic_filters: Sequence[str], topic: str) -> bool:
    return any(matches(topic_filter, topic) for topic_filter in topic_filters)


class FixedChannel(trio.abc.ReceiveChannel[Message]):
    """As a `MessageChannel`, each of whose calls it has: the next message acknowledges the last."""

    def __init__(self, source: Source, *, is_clone: bool = False) -> None:
        self._source = source
        self._is_clone = is_clone
        self._current: _Entry | None = None
        self._closed = False
        self._receiving = False

    async def receive(self) -> Message:
        """The next message; see `MessageChannel.receive`."""
        await trio.lowlevel.checkpoint()
        self._ask()
        self._receiving = True
        try:
            while not self._source.entries and self._source.endless:
                self._check()
                await self._source.changed.park()
        finally:
            self._receiving = False
        self._check()
        return self._take()

    def receive_nowait(self) -> Message:
        """The next message; see `MessageChannel.receive_nowait`."""
        self._ask()
        if not self._source.entries and self._source.endless:
            raise trio.WouldBlock
        return self._take()

    def _ask(self) -> None:
        if self._receiving:
            raise trio.BusyResourceError("another task waits for the next message")
        self.acknowledge()
        self._check()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        if self._source.ended:
            raise trio.EndOfChannel("the client ended")

    def _take(self) -> Message:
        if not self._source.entries:
            raise trio.EndOfChannel("all messages of the double were taken")
        self._current = self._source.entries.pop(0)
        self._source.received += 1
        return self._current[1]

    def acknowledge(self) -> None:
        """Acknowledges the message received last; see `MessageChannel.acknowledge`."""
        if self._current is not None:
            self._source.acknowledged.append(self._current[1])
            self._current = None

    def clone(self) -> Self:
        """Another channel on the same messages; see `MessageChannel.clone`."""
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        return type(self)(self._source, is_clone=True)

    def statistics(self) -> ChannelStatistics:
        """A snapshot of the counters. What waits now is the most that is known to have waited."""
        waiting = [message for _, message in self._source.entries]
        size = sum(len(message.payload) for message in waiting)
        return ChannelStatistics(
            buffered_messages=len(waiting),
            buffered_bytes=size,
            most_buffered_messages=len(waiting),
            most_buffered_bytes=size,
            received=self._source.received,
            given_up=0,
        )

    def close(self) -> None:
        """Acknowledges the message received last, and receives no more."""
        self.acknowledge()
        self._closed = True
        self._source.changed.unpark_all()

    async def aclose(self) -> None:
        """`close`, and a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def put_back(self) -> None:
        """Leaves the message received last, unacknowledged, to whoever asks next."""
        if self._current is not None:
            entry, self._current = self._current, None
            self._source.put_back(entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the channel; after an exception see `MessageChannel`."""
        if exc_value is None:
            self.close()
            return
        self.put_back()
        self._closed = self._is_clone

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
