"""The bounded buffer of one scope, between the reader and the application.

The router puts in, and `MessageChannel`s take out. Each entry has the number of its arrival, so
that what comes back from a consumer that failed goes to its old place. Two bounds hold. At the
first one the inbox is full, and the reader stops, unless somebody needs it to go on; at the second,
twice as high, nothing is put in any more. Entries that yield, at QoS 0 where the application said
so, never stop the reader: they are given up at the first bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias, final

import attrs
import trio

from ._bounds import Buffer, Overflow
from ._connection import Bells, Wakeup
from ._errors import MessagesMissed, MQTTError
from ._exchange import Demand
from ._large_payload import Large
from ._packets import Delivery, Message, Streamed, message_of
from ._session import SessionState

HARD_BOUND = 2
"""Times the soft one."""
LOW_WATER = 0.75
"""Of the soft bound: where a reader that stopped goes on."""

Arrival: TypeAlias = Message | Delivery
Entry: TypeAlias = tuple[int, Arrival]
"""The number of the arrival, and what arrived."""


@final
@attrs.frozen
class Failure:
    """What is raised in the application, between two messages."""

    error: MQTTError


_Place: TypeAlias = tuple[int, Arrival | Failure, int]
"""In the queue: the same, or a failure behind it, and how many bytes that is."""


class Full:
    """What the reader has to stop for: the inboxes that are full."""

    def __init__(self, reader: Wakeup) -> None:
        self._reader = reader
        self.inboxes: set[Inbox] = set()

    def add(self, inbox: Inbox) -> None:
        self.inboxes.add(inbox)

    def discard(self, inbox: Inbox) -> None:
        """It is no longer full, or no longer there."""
        self.inboxes.discard(inbox)
        self._reader.set()


class Claims:
    """What the application is done with, once everybody who got it is."""

    def __init__(self, session: SessionState, bells: Bells) -> None:
        self._session = session
        self._bells = bells

    def release(self, delivery: Delivery) -> None:
        """One of them is done with it."""
        delivery.claims -= 1
        if not delivery.claims:
            message = delivery.message
            if type(message) is Large and message.payload_stream.is_missed:
                delivery.released = True  # it comes again, as a new one
                return
            self._session.release(delivery)
            self._bells.writer.set()
            if not delivery.released:
                self._bells.storer.set()


class Inbox:
    """What arrived for one scope, in the order of its arrival, and is not taken yet."""

    def __init__(
        self,
        bounds: Buffer,
        full: Full,
        demand: Demand,
        claims: Claims,
        *,
        overflow: Overflow = "wait",
        strict: bool = False,
        opened_at: int = 0,
    ) -> None:
        self._bounds = bounds
        self._full = full
        self._demand = demand
        self._claims = claims
        self.release = claims.release
        """The application is done with a delivery: a hop less for each message."""
        self._overflow = overflow
        self._is_special = self._drops = overflow != "wait"
        """Whether it drops, or is closed; whether it drops."""
        self._strict = strict
        self.opened_at = opened_at
        """The number of the first arrival that it gets by itself."""
        self._earlier: set[int] = set()
        """The arrivals before it was opened that it got all the same."""
        self.queue: deque[_Place] = deque()
        """What waits to be taken: messages, and failures between them."""
        self._failures = 0
        """How many of those are failures."""
        self._bytes = 0
        self._shares: dict[int, int] = {}
        """By number of the arrival, how many more came back of it than the one that waits."""
        self._yielding: dict[int, int] = {}
        """By number of the arrival, the size of what gives way."""
        self._yielding_bytes = 0
        self._is_full = False
        self._low = int(bounds.messages * LOW_WATER)
        """How many messages are few enough for a reader that stopped to go on."""
        self._waiters: dict[trio.lowlevel.Task, None] = {}
        self.closed = False
        """Whether the application wants nothing of it any more."""
        self.ended = False
        """Whether there will be no more, as the client ended."""
        self.most_messages = 0
        self.most_bytes = 0
        self._mark = self._bytes_mark = 0
        """Beyond which there is more in it than ever, or as much as it may hold."""
        self.taken = 0
        """Messages that the application has taken."""
        self.given_up = 0
        """Messages that never got to the application, though it was there."""

    def __len__(self) -> int:
        return len(self.queue) - self._failures

    @property
    def payload_bytes(self) -> int:
        """How many bytes of payload wait."""
        return self._bytes

    # The router's side

    def had(self, number: int) -> bool:
        """Whether it got this arrival."""
        return number >= self.opened_at or number in self._earlier

    @property
    def has_room(self) -> bool:
        """Whether the second bound allows one more that does not yield."""
        return (
            len(self) - len(self._yielding) < self._bounds.messages * HARD_BOUND
            and self._bytes - self._yielding_bytes < self._bounds.bytes * HARD_BOUND
        )

    @property
    def is_low(self) -> bool:
        """Whether enough was taken for a reader that stopped to go on."""
        messages = len(self) - len(self._yielding)
        return not messages or (
            messages <= self._low
            and self._bytes - self._yielding_bytes <= self._bounds.bytes * LOW_WATER
        )

    def put(self, number: int, arrival: Arrival, size: int, *, yields: bool = False) -> None:
        """Takes in what arrived last, or gives it up, or something that yields to it.

        It is given up where the second bound allows no more.

        Arguments:
            number: of the arrival.
            arrival: what arrived.
            size: as `payload_size` says.
            yields: whether it is to yield, as at QoS 0 also without this where the inbox drops.
        """
        special = self._is_full or self._is_special or self._yielding or yields
        if special and not self._make_way(number, arrival, size, yields=yields):
            return
        queue = self.queue
        queue.append((number, arrival, size))
        self._bytes += size
        if len(queue) > self._mark or self._bytes > self._bytes_mark:
            self._note_growth()
        if self._waiters:
            self.wake_one()

    def _make_way(self, number: int, arrival: Arrival, size: int, *, yields: bool) -> bool:
        """Gives up what yields, as far as there is need; False if that is the arrival itself."""
        if self.closed:
            self._give_up(arrival)
            return False
        at_most_once = isinstance(arrival, Message)
        yields = yields or (self._drops and at_most_once)
        if self._overflow != "drop_newest":
            while self._yielding and self._is_at_bound():
                self._give_up_yielding()
        if self._is_at_bound() if yields else not self.has_room:
            self._give_up(arrival)
            self._missed(len(self.queue), 1, number)
            return False
        if yields:
            self._note_yielding(number, size)
        return True

    def insert(self, entries: Iterable[Entry], *, yield_: bool = False) -> None:
        """Takes in what arrived earlier, each in its place, whatever the bounds.

        Arguments:
            yield_: whether that at QoS 0 gives way here.
        """
        entries = list(entries)
        if not entries:
            return
        ordered: list[_Place] = list(self.queue)
        present = {number for number, _ in self.entries()}
        for number, arrival in entries:
            if number in present:
                self._shares[number] = self._shares.get(number, 0) + 1
                continue
            present.add(number)
            size = payload_size(arrival)
            ordered.append((number, arrival, size))
            if number < self.opened_at:
                self._earlier.add(number)
            if isinstance(arrival, Message) and (yield_ or self._drops):
                self._note_yielding(number, size)
            self._bytes += size
        ordered.sort(key=_order)
        self.queue = deque(ordered)
        self._note_growth()
        while self._yielding and self._is_beyond_bound():
            self._give_up_yielding(newest=self._overflow == "drop_newest")
        for _ in range(min(len(self.queue), len(self._waiters))):
            self.wake_one()

    def remove(self, wanted: set[int], *, whole: bool = True) -> list[Entry]:
        """Takes these arrivals out of it: all shares of each, or one."""
        removed: list[Entry] = []
        kept: deque[_Place] = deque()
        for place in self.queue:
            number, item, size = place
            if number not in wanted or type(item) is Failure:
                kept.append(place)
                continue
            more = self._shares.pop(number, 0)
            removed.append((number, item))
            if more and not whole:
                kept.append(place)
                self._shares[number] = more - 1
            else:
                removed += [(number, item)] * more
                self._uncount(number, size)
        self.queue = kept
        self._relieve()
        return removed

    def entries(self) -> list[Entry]:
        """What waits."""
        return [(number, item) for number, item, _ in self.queue if type(item) is not Failure]

    def no_longer_yields(self, numbers: Iterable[int]) -> None:
        """These count from now on, as somebody wants them."""
        for number in numbers:
            self._yielding_bytes -= self._yielding.pop(number, 0)
        self._note_full()

    def put_error(self, number: int, error: MQTTError) -> None:
        """Has `error` raised in the application, at this place of the stream."""
        self.queue.append((number, Failure(error), 0))
        self._failures += 1
        self.wake_one()

    def session_lost(self, number: int) -> None:
        """The broker lost the session, and with it what it may have had for us.

        Arguments:
            number: of the latest arrival.
        """
        self._missed(len(self.queue), 0, number, session_lost=True)

    def lose(self, number: int) -> None:
        """The rest of this arrival did not come. At QoS 1 and 2 the broker will send it again."""
        for entry in self.remove({number}):
            if isinstance(entry[1], Message):
                self._give_up(entry[1])
                self._missed(len(self.queue), 1, number)
            elif isinstance(entry[1].message, Large):
                entry[1].message.payload_stream.give_up()

    def miss(self, number: int, delivery: Delivery) -> None:
        """The application took it, was not done with it, and nobody can have it now."""
        self.given_up += 1
        self._claims.release(delivery)
        later = (index for index, (other, *_) in enumerate(self.queue) if other > number)
        self._missed(next(later, len(self.queue)), 1, number)

    def end(self) -> None:
        """There will be no more, and what waits is not to be had."""
        self.ended = True
        self.wake_all()

    def close(self) -> list[Entry]:
        """Nobody will take anything out of it any more. Returns what was in it."""
        entries = self.remove({number for number, _ in self.entries()})
        self.closed = self._is_special = True
        self.queue.clear()
        self._failures = 0
        self._full.discard(self)
        self.wake_all()
        return entries

    def give_up(self, arrivals: Iterable[Entry]) -> None:
        """The application will not get these."""
        for _, arrival in arrivals:
            self._give_up(arrival)

    # The application's side

    @property
    def waiters(self) -> int:
        """How many tasks wait for the next message."""
        return len(self._waiters)

    async def wait(self) -> None:
        """Waits for something to happen: a message, an error, the end."""
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._waiters[task]
            self._demand.end()
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiters[task] = None
        self._demand.begin()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake_one(self) -> None:
        """There is one thing more to take."""
        if self._waiters:
            task = next(iter(self._waiters))
            del self._waiters[task]
            self._demand.end()
            trio.lowlevel.reschedule(task)

    def wake_all(self) -> None:
        """Has all that wait look again."""
        while self._waiters:
            self.wake_one()

    def take(self) -> Entry:
        """The next message.

        Raises:
            MQTTError: there was an error in its place.
        """
        number, item, size = self.queue.popleft()
        if type(item) is Failure:
            self._failures -= 1
            raise item.error
        self._bytes -= size
        self.taken += 1
        if self._yielding:
            self._yielding_bytes -= self._yielding.pop(number, 0)
        if self._shares:
            self._unite(number, item)
        if self._is_full and (len(self.queue) <= self._low or self._yielding):
            self._relieve()
        return number, item

    def _unite(self, number: int, arrival: Arrival) -> None:
        """What came back in several shares is taken as one."""
        more = self._shares.pop(number, 0)
        if isinstance(arrival, Delivery):
            arrival.claims -= more
        message = message_of(arrival)
        if isinstance(message, Large):
            for _ in range(more):
                message.payload_stream.give_up()

    # Counting

    def _note_growth(self) -> None:
        """There is more in it than ever, perhaps, or as much as it may hold."""
        bounds = self._bounds
        self.most_messages = max(self.most_messages, len(self))
        self.most_bytes = max(self.most_bytes, self._bytes)
        self._mark = min(self.most_messages, bounds.messages - 1)
        self._bytes_mark = min(self.most_bytes, bounds.bytes - 1)
        self._note_full()

    def _uncount(self, number: int, size: int) -> None:
        self._bytes -= size
        if self._yielding:
            self._yielding_bytes -= self._yielding.pop(number, 0)

    def _note_yielding(self, number: int, size: int) -> None:
        self._yielding[number] = size
        self._yielding_bytes += size

    def _is_at_bound(self) -> bool:
        return len(self) >= self._bounds.messages or self._bytes >= self._bounds.bytes

    def _is_beyond_bound(self) -> bool:
        bounds = self._bounds
        return len(self) > bounds.messages or (self._bytes > bounds.bytes and len(self) > 1)

    def _note_full(self) -> None:
        bounds = self._bounds
        if (
            len(self) - len(self._yielding) >= bounds.messages
            or self._bytes - self._yielding_bytes >= bounds.bytes
        ):
            self._is_full = True
            self._full.add(self)

    def _relieve(self) -> None:
        if self._is_full and self.is_low:
            self._is_full = False
            self._full.discard(self)

    def _give_up(self, arrival: Arrival) -> None:
        self.given_up += 1
        message = message_of(arrival)
        if isinstance(message, Large):
            message.payload_stream.give_up()
        if isinstance(arrival, Delivery):  # [MQTT-4.5.0-2]
            self._claims.release(arrival)

    def _give_up_yielding(self, *, newest: bool = False) -> None:
        """Gives up the oldest that yields, or the newest."""
        places = range(len(self.queue))
        for index in reversed(places) if newest else places:
            number, item, size = self.queue[index]
            if number in self._yielding and isinstance(item, Message):
                break
        else:
            raise AssertionError("what yields is in the buffer")
        del self.queue[index]
        self._uncount(number, size)
        self._give_up(item)
        self._missed(index, 1, number)

    def _missed(
        self, index: int, given_up: int, number: int, *, session_lost: bool = False
    ) -> None:
        """A strict channel says so, once for all that is missing at one place.

        Arguments:
            index: in the buffer.
            given_up: how many messages.
            number: of the arrival, for what is inserted later to find its place.
        """
        if not self._strict or self.closed:
            return
        entries = self.queue
        for place in (index - 1, index):
            item = entries[place][1] if 0 <= place < len(entries) else None
            if isinstance(item, Failure) and isinstance(item.error, MessagesMissed):
                given_up += item.error.given_up
                session_lost = session_lost or item.error.session_lost
                merged = MessagesMissed(given_up, session_lost=session_lost)
                entries[place] = (entries[place][0], Failure(merged), 0)
                return
        self._failures += 1
        missed = MessagesMissed(given_up, session_lost=session_lost)
        entries.insert(index, (number, Failure(missed), 0))
        self.wake_one()


def payload_size(arrival: Arrival) -> int:
    """Bytes of payload, of which not all need be here."""
    message = arrival.message if type(arrival) is Delivery else arrival
    if type(message) is Message:
        return len(message.payload)
    assert isinstance(message, Streamed)
    return message.size


def _order(place: _Place) -> tuple[int, bool]:
    """An error stands behind the arrival that it followed."""
    return place[0], type(place[1]) is Failure
