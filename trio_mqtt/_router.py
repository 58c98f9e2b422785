"""Gives what arrives to the scopes that match it, and to `Client.messages` what none does.

A message that several scopes match is put into the inbox of each, and acknowledged when all of them
are done with it. What an inbox has no room for at QoS 1 and 2 is given back to the broker: it stays
unanswered on this connection, which therefore has to end, and so does all that follows it to the
same inboxes, for the sake of order. Where the broker keeps no session it would lose that instead,
and all that is on its way: there the message alone is given up.
"""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Iterable

import trio

from ._bounds import Buffer, Overflow
from ._connection import Bells
from ._errors import ConnectionLost, SubscribeError
from ._exchange import Demand
from ._inbox import Arrival, Claims, Entry, Full, Inbox
from ._large_payload import Large, LargePayload
from ._packets import Delivery, Message, Streamed, message_of
from ._requests import Holding, UnsubscribeRequest
from ._session import SessionState
from ._unclaimed import Unclaimed

_CACHED_TOPICS = 1_000
_CACHED_TOPIC_LENGTH = 256


class Router:
    """The inboxes of one client."""

    def __init__(
        self,
        session: SessionState,
        bounds: Buffer,
        unclaimed_wait: float,
        demand: Demand,
        bells: Bells,
        *,
        keeps_session: bool,
    ) -> None:
        self._session = session
        self._keeps_session = keeps_session
        """Whether the broker sends again what is given back to it."""
        self._subscriptions = session.subscriptions
        self._bounds = bounds
        self._demand = demand
        self._claims = Claims(session, bells)
        self._full = Full(bells.reader)
        self._bells = bells
        self._inboxes: dict[Holding, Inbox] = {}
        """Of the scopes that are open, in the order of their opening."""
        self._arrived: deque[Arrival] = deque()
        """What is not given to anybody yet, as an inbox is full."""
        self._number = 0
        """Of the latest arrival."""
        self._given_back = 0
        self._routes: dict[str, tuple[Inbox, ...]] = {}
        self._version = -1
        self._streaming: tuple[int, LargePayload] | None = None
        """The number and the payload of the message that is arriving."""
        self._payloads: weakref.WeakSet[LargePayload] = weakref.WeakSet()
        """Of the large messages that somebody has or may still take."""
        self._overflow = trio.Event()
        self._overflowed: set[Inbox] = set()
        """What had no room, of those that are open."""
        self._behind: set[Inbox] = set()
        """What must get nothing more at QoS 1 and 2 on this connection, for the sake of order: what
        had no room, and what may have come into the place of that."""
        self._past = Totals()
        self.unclaimed = Unclaimed(self._new_inbox(), unclaimed_wait)

    # A connection

    def begin(self) -> None:
        """A new connection begins."""
        self.unclaimed.connected(anew=not self.has_overflowed)
        self._overflow = trio.Event()
        self._overflowed.clear()
        self._behind.clear()

    def end_connection(self, reason: str) -> None:
        """The connection ended. What waits is given to whom it was for, as far as there is room."""
        self.unclaimed.disconnected()
        self._take_arrived()
        while self._arrived:
            self._route(self._arrived.popleft())
        self._grow()
        if self._streaming is not None:
            number, payload = self._streaming
            self._streaming = None
            payload.lose(ConnectionLost(reason))
            for inbox in (self.unclaimed.inbox, *self._inboxes.values()):
                inbox.lose(number)

    def end(self) -> None:
        """The client ended."""
        for payload in self._payloads:
            payload.end()
        self.unclaimed.inbox.end()
        for inbox in self._inboxes.values():
            inbox.end()

    def session_lost(self) -> None:
        """The broker lost the session, and strict channels are to say so."""
        self.unclaimed.inbox.session_lost(self._number)
        for inbox in self._inboxes.values():
            inbox.session_lost(self._number)

    @property
    def has_overflowed(self) -> bool:
        """Whether messages on this connection were given back to the broker."""
        return self._overflow.is_set()

    async def wait_overflow(self) -> None:
        """Waits until messages had to be given back to the broker."""
        await self._overflow.wait()

    @property
    def overflow_waiters(self) -> int:
        """How many tasks wait for what was given back, which this connection will not bring."""
        return sum(inbox.waiters for inbox in self._behind)

    @property
    def is_low(self) -> bool:
        """Whether there is room again for what was given back."""
        return all(inbox.is_low for inbox in self._overflowed)

    # Arrivals

    @property
    def received(self) -> int:
        """How many messages arrived for the application."""
        return self._number - self._given_back

    @property
    def is_full(self) -> bool:
        """Whether the reader has to stop; no longer on a connection that is to end anyhow."""
        return bool(self._full.inboxes) and not self.has_overflowed

    @property
    def is_ahead(self) -> bool:
        """Whether the reader has to stop for those who read a large message."""
        return self._streaming is not None and self._streaming[1].is_ahead

    async def spool(self) -> None:
        """Has what arrived of a large message wait in a file.

        Raises:
            ConnectionLost: it cannot.
        """
        assert self._streaming is not None
        await self._streaming[1].spool()

    def take_in(self) -> None:
        """Gives away what arrived, until an inbox is full."""
        self._take_arrived()
        arrived, full = self._arrived, self._full.inboxes
        while arrived and (not full or self.has_overflowed):
            self._route(arrived.popleft())
        self._grow()
        if not arrived:
            self._subscriptions.forget_left()

    def _grow(self) -> None:
        """Hands on what arrived of a large message."""
        if self._streaming is not None:
            payload = self._streaming[1]
            if payload.is_complete:
                self._streaming = None
            payload.grow()

    def press_on(self) -> bool:
        """Gives away one more, though an inbox is full; False if there is none."""
        self._take_arrived()
        if self._arrived:
            self._route(self._arrived.popleft())
            self._grow()
            return True
        return False

    def _take_arrived(self) -> None:
        session = self._session
        if session.arrived:
            self._arrived.extend(session.arrived)
            session.arrived = []
        if self._subscriptions.refused:
            self._tell_refused()
        if self._version != self._subscriptions.version:
            self._version = self._subscriptions.version
            self._routes.clear()

    def _tell_refused(self) -> None:
        """Filters that the broker failed when they were restored."""
        refused: dict[Inbox, list[str]] = {}
        for holding, topic_filter in self._subscriptions.refused:
            inbox = self._inboxes.get(holding, self.unclaimed.inbox)
            refused.setdefault(inbox, []).append(topic_filter)
        self._subscriptions.refused.clear()
        for inbox, topic_filters in refused.items():
            inbox.put_error(self._number, SubscribeError(tuple(topic_filters)))

    def _route(self, arrival: Arrival) -> None:
        self._number = number = self._number + 1
        message = arrival.message if type(arrival) is Delivery else arrival
        inboxes = self._routes.get(message.topic)
        if inboxes is None:
            inboxes = self._find_route(message.topic)
        if type(arrival) is Delivery:
            if (self._behind or self._full.inboxes) and self._gives_back(arrival, inboxes):
                return
            arrival.claims = len(inboxes) or 1
        size = len(message.payload)
        if type(message) is Streamed:
            arrival, size = self._ready_to_stream(arrival, message, len(inboxes) or 1), message.size
        for inbox in inboxes:
            inbox.put(number, arrival, size)
        if not inboxes:
            self._route_unwanted(message.topic, arrival)

    def _ready_to_stream(self, arrival: Arrival, message: Streamed, shares: int) -> Arrival:
        """The same, with the payload where its readers find it."""
        self._grow()  # the end of the one before may have come with it
        payload = LargePayload(message.body, shares, self._demand)
        self._streaming = (self._number, payload)
        self._payloads.add(payload)
        large = Large(
            message.topic,
            b"",
            message.qos,
            message.retain,
            message.dup,
            body=message.body,
            payload_stream=payload,
        )
        if isinstance(arrival, Message):
            return large
        arrival.message = large
        return arrival

    def _find_route(self, topic: str) -> tuple[Inbox, ...]:
        """The inboxes of the scopes that match, else the application's; none if it is unwanted."""
        holdings = self._subscriptions.match(topic)
        scopes = (self._inboxes[holding] for holding in holdings if holding in self._inboxes)
        inboxes = tuple(scopes)
        if not inboxes and self._is_applications(holdings):
            inboxes = (self.unclaimed.inbox,)
        if len(topic) <= _CACHED_TOPIC_LENGTH:
            if len(self._routes) >= _CACHED_TOPICS:
                self._routes.clear()
            self._routes[topic] = inboxes
        return inboxes

    def _is_applications(self, holdings: Iterable[Holding]) -> bool:
        """Whether `subscribe` asked for it."""
        leaving = self._subscriptions.leaving
        return any(holding is not leaving and not holding.is_scope for holding in holdings)

    def _route_unwanted(self, topic: str, arrival: Arrival) -> None:
        if self._subscriptions.leaving in self._subscriptions.match(topic):
            self.unclaimed.inbox.give_up([(self._number, arrival)])  # what was on its way
        else:
            self.unclaimed.put(self._number, arrival)

    def _gives_back(self, delivery: Delivery, inboxes: tuple[Inbox, ...]) -> bool:
        """Gives it back to the broker if one of these has no room; it will be sent again."""
        concerned = inboxes or (self.unclaimed.inbox,)
        if not self._keeps_session or all(
            inbox.has_room and inbox not in self._behind for inbox in concerned
        ):
            return False
        self._session.give_back(delivery)
        if isinstance(delivery.message, Streamed):
            delivery.message.body.discard()
        self._given_back += 1
        self._overflowed.update(concerned)
        self._behind.update(concerned)
        self._overflow.set()
        return True

    # Scopes

    def open(
        self, holding: Holding, bounds: Buffer | None, overflow: Overflow, *, strict: bool
    ) -> Inbox:
        """An inbox for a scope, with what waits for it in `Client.messages`."""
        inbox = self._new_inbox(bounds, overflow, strict=strict)
        self._inboxes[holding] = inbox
        if self.has_overflowed:
            self._behind.add(inbox)
        self._routes.clear()
        inbox.insert(self.unclaimed.claim(holding.topic_filters))
        self._session.hold(holding)
        self._bells.writer.set()
        return inbox

    def close(
        self, holding: Holding, *, failed: bool, unsubscribe: bool
    ) -> list[UnsubscribeRequest]:
        """A scope ends. What nobody took goes where it belongs now. Returns what is sent.

        Arguments:
            failed: whether its consumer is to find it again.
            unsubscribe: whether the broker is to stop collecting, where nobody else holds a filter.
        """
        inbox = self._inboxes.pop(holding)
        self._routes.clear()
        self._overflowed.discard(inbox)
        if inbox in self._behind:
            self._behind.remove(inbox)
            self._behind.add(self.unclaimed.inbox)
        requests = self._session.let_go(holding, unsubscribe=unsubscribe)
        self._bells.writer.set()
        self._bells.reader.set()
        if failed:
            self.unclaimed.orphan(holding.topic_filters)
        self._pass_on(inbox.close(), inbox, failed=failed)
        self._past.add(inbox)
        return requests

    def put_back(self, inbox: Inbox, entry: Entry) -> None:
        """A consumer failed in the middle of a message: somebody else is to get it.

        Of a large one the beginning may be gone. Then the broker has to send it again, if it can.
        """
        arrival = entry[1]
        if isinstance(arrival, Delivery) and isinstance(arrival.message, Large):
            payload = arrival.message.payload_stream
            if not payload.is_whole:
                if payload.is_lost:
                    self._session.give_back(arrival)
                elif self._keeps_session:
                    self._session.give_back(arrival)
                    self._behind.add(inbox)
                    self._overflow.set()
                    self._give_back_behind(entry[0], inbox)
                else:
                    inbox.miss(entry[0], arrival)
                return
            payload.put_back()
        if inbox.closed:
            self._pass_on([entry], inbox, failed=True)
        else:
            inbox.insert([entry])

    def _give_back_behind(self, number: int, inbox: Inbox) -> None:
        """What waits behind it would come before it: the broker sends that again too, in order.

        What other scopes have as well stays, as they would get it twice, and so does what the
        broker forgot.
        """
        behind = {
            other
            for other, arrival in inbox.entries()
            if other > number
            and isinstance(arrival, Delivery)
            and arrival.claims == 1
            and self._session.holds(arrival)
        }
        for _, arrival in inbox.remove(behind):
            assert isinstance(arrival, Delivery)
            self._session.give_back(arrival)
            if isinstance(arrival.message, Large):
                arrival.message.payload_stream.give_up()
            self._given_back += 1

    def abandon(self, inbox: Inbox) -> None:
        """The last consumer of a scope failed, and nobody can take anything out of it any more."""
        if inbox is not self.unclaimed.inbox and not inbox.closed:
            self._pass_on(inbox.close(), inbox, failed=True)

    def _pass_on(self, entries: Iterable[Entry], inbox: Inbox, *, failed: bool) -> None:
        """To the next scope that matches and did not get it, else to `Client.messages`.

        Of a scope that ended well the application's filters alone take it over, where no other
        scope got it; else it is acknowledged, since nobody wants it any more.
        """
        heirs: dict[Inbox, list[Entry]] = {}
        wanted: list[Entry] = []
        orphaned: list[Entry] = []
        for number, arrival in entries:
            holdings = self._subscriptions.match(message_of(arrival).topic)
            scopes = [self._inboxes[holding] for holding in holdings if holding in self._inboxes]
            heir = min(
                (scope for scope in scopes if not (scope.closed or scope.had(number))),
                key=lambda scope: scope.opened_at,
                default=None,
            )
            if heir is not None:
                heirs.setdefault(heir, []).append((number, arrival))
            elif self._is_applications(holdings) and (failed or not scopes):
                wanted.append((number, arrival))
            elif failed:
                orphaned.append((number, arrival))
            else:
                inbox.give_up([(number, arrival)])
        for heir, some in heirs.items():
            heir.insert(some)
        self.unclaimed.insert(wanted, wanted=True)
        self.unclaimed.insert(orphaned, wanted=False)

    def _new_inbox(
        self, bounds: Buffer | None = None, overflow: Overflow = "wait", *, strict: bool = False
    ) -> Inbox:
        return Inbox(
            self._bounds if bounds is None else bounds,
            self._full,
            self._demand,
            self._claims,
            overflow=overflow,
            strict=strict,
            opened_at=self._number + 1,
        )

    def totals(self) -> Totals:
        """What the inboxes held and hold, also those of scopes that ended."""
        totals = copy.copy(self._past)
        for inbox in (self.unclaimed.inbox, *self._inboxes.values()):
            totals.add(inbox)
        return totals


class Totals:
    """Counts over inboxes."""

    def __init__(self) -> None:
        self.messages = self.bytes = 0
        self.most_messages = self.most_bytes = 0
        self.taken = self.given_up = 0

    def add(self, inbox: Inbox) -> None:
        """Counts it in."""
        self.messages += len(inbox)
        self.bytes += inbox.payload_bytes
        self.most_messages = max(self.most_messages, inbox.most_messages)
        self.most_bytes = max(self.most_bytes, inbox.most_bytes)
        self.taken += inbox.taken
        self.given_up += inbox.given_up
