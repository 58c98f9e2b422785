"""What no scope matches: it waits in `Client.messages` for whoever claims it, and not for ever.

Acknowledgements keep their order, so that one message which nobody wants would hold up all that
follow. What matches a filter of `subscribe` is the application's, and stays. The rest is of a
subscription that an earlier run left behind, or of a consumer that failed. It is kept back for a
while, in case its scope is about to open, and then acknowledged and given up. An application that
does receive from `Client.messages` goes on to get it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import NoReturn

import trio

from ._connection import Wakeup
from ._inbox import Arrival, Entry, Inbox, payload_size
from ._packets import Message, message_of
from ._topics import matches, routed_filter
from ._trie import Trie

logger = logging.getLogger("trio_mqtt")

REDELIVERY = 1.0
"""Seconds that a broker has, after a connect, to send again what is overdue: only then can it be
acknowledged."""
_MOST_WARNINGS = 1_000
"""As many topics are warned of, so that to remember them takes bounded memory."""


class Unclaimed:
    """The inbox of `Client.messages`, and how long what is in it is kept back.

    Arguments:
        inbox: what is to be managed.
        wait: seconds.
    """

    def __init__(self, inbox: Inbox, wait: float) -> None:
        self.inbox = inbox
        self._wait = wait
        self._until = -math.inf
        """When what arrives is no longer kept back, in Trio's time."""
        self._deadlines: dict[int, float] = {}
        """Of arrivals that nobody asked for, some of which may have been taken since."""
        self._orphans: dict[str, float] = {}
        """Until when what matches the filters of consumers that failed is kept back."""
        self._orphaned: Trie[str] = Trie()
        self._sweep_at = 0
        """How many of them there are when those that are overdue are removed."""
        self._taken = 0
        self._used_until = -math.inf
        self._online = False
        self._bell = Wakeup()
        self._warned: set[str] = set()
        self.given_up = 0
        """Messages that nobody took in time."""

    def connected(self, *, anew: bool) -> None:
        """A connection begins.

        Arguments:
            anew: whether the application is to have time again to open its scopes.
        """
        now = trio.current_time()
        if anew:
            self._until = now + self._wait
        soon = now + REDELIVERY
        for number, deadline in self._deadlines.items():
            if deadline < soon:
                self._deadlines[number] = soon
        self._online = True
        self._bell.set()

    def disconnected(self) -> None:
        """The connection ended, and nothing can be acknowledged."""
        self._online = False

    def put(self, number: int, arrival: Arrival) -> None:
        """Takes in what arrived and nobody asked for."""
        topic = message_of(arrival).topic
        now = trio.current_time()
        self._note_use(now)
        deadline = max(self._until, self._used_until, self._orphan_deadline(topic, now))
        if deadline <= now and not self.inbox.closed:
            self._give_up((number, arrival))
            return
        self._keep_back(number, deadline)
        size = payload_size(arrival)
        self.inbox.put(number, arrival, size, yields=isinstance(arrival, Message))

    def insert(self, entries: Sequence[Entry], *, wanted: bool) -> None:
        """Takes in, in its place, what another inbox gave away.

        Arguments:
            wanted: whether it is the application's, and stays.
        """
        if self.inbox.closed:
            self.inbox.give_up(entries)
            return
        if not wanted:
            for number, _ in entries:
                self._keep_back(number, trio.current_time() + self._wait)
        self.inbox.insert(entries, yield_=not wanted)

    def claim(self, topic_filters: Sequence[str]) -> list[Entry]:
        """Takes out what matches the filters of a scope that opens."""
        for topic_filter in topic_filters:
            if self._orphans.pop(topic_filter, None) is not None:
                self._orphaned.discard(topic_filter, topic_filter)
        return self.inbox.remove(self._matching(topic_filters), whole=False)

    def adopt(self, topic_filters: Sequence[str]) -> None:
        """What matches these is the application's from now on."""
        numbers = self._matching(topic_filters)
        for number in numbers:
            self._deadlines.pop(number, None)
        self.inbox.no_longer_yields(numbers)

    def orphan(self, topic_filters: Iterable[str]) -> None:
        """A consumer of these failed, and may be about to come back."""
        now = trio.current_time()
        if len(self._orphans) >= self._sweep_at:
            for topic_filter, deadline in list(self._orphans.items()):
                if deadline <= now:
                    del self._orphans[topic_filter]
                    self._orphaned.discard(topic_filter, topic_filter)
            self._sweep_at = 2 * len(self._orphans) + 100
        for topic_filter in topic_filters:
            self._orphans[topic_filter] = now + self._wait
            self._orphaned.add(topic_filter, topic_filter)

    async def expire(self) -> NoReturn:
        """Gives up what is overdue, while there is a connection, until it is cancelled."""
        while True:
            due = min(self._deadlines.values(), default=math.inf) if self._online else math.inf
            if due <= trio.current_time():
                self._give_up_overdue()
                await trio.lowlevel.checkpoint()
            else:
                with trio.CancelScope(deadline=due):
                    await self._bell.wait()
                await trio.lowlevel.checkpoint_if_cancelled()

    def _give_up_overdue(self) -> None:
        now = trio.current_time()
        self._note_use(now)
        waiting = dict(self.inbox.entries())
        overdue: set[int] = set()
        for number, deadline in list(self._deadlines.items()):
            if number not in waiting:
                del self._deadlines[number]
            elif self._used_until > now:
                self._deadlines[number] = max(deadline, self._used_until)
            elif deadline <= now:
                del self._deadlines[number]
                overdue.add(number)
        for entry in self.inbox.remove(overdue):
            self._give_up(entry)

    def _keep_back(self, number: int, deadline: float) -> None:
        if len(self._deadlines) > 2 * len(self.inbox) + 100:  # most of them were taken
            waiting = dict(self.inbox.entries())
            self._deadlines = {n: due for n, due in self._deadlines.items() if n in waiting}
        self._deadlines[number] = deadline
        self._bell.set()

    def _note_use(self, now: float) -> None:
        """The application receives from here, and goes on to get what comes."""
        if self.inbox.waiters or self.inbox.taken > self._taken:
            self._used_until = now + self._wait
        self._taken = self.inbox.taken

    def _orphan_deadline(self, topic: str, now: float) -> float:
        if not self._orphans:
            return -math.inf
        return max((self._orphans[name] for name in self._orphaned.match(topic)), default=now)

    def _matching(self, topic_filters: Sequence[str]) -> set[int]:
        filters = [routed_filter(topic_filter) for topic_filter in topic_filters]
        return {
            number
            for number, arrival in self.inbox.entries()
            if any(matches(topic_filter, message_of(arrival).topic) for topic_filter in filters)
        }

    def _give_up(self, entry: Entry) -> None:
        self.given_up += 1
        self.inbox.give_up([entry])
        topic = message_of(entry[1]).topic
        if topic not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(topic)
            logger.warning(
                "nobody took a message on %r for %s s: acknowledged and given up, like those to "
                "come. Unsubscribe from it, or receive it from Client.messages",
                topic,
                self._wait,
            )
