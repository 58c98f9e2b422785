"""Who holds which topic filter, and what the broker has to be asked for because of that.

A filter is held by scopes and by the application. Each that begins to hold it has SUBSCRIBE sent,
at the highest QoS that any of them asked for. When nobody holds it any more UNSUBSCRIBE is owed:
it goes out at once or on the next connection, until the broker has answered it. In between the
filter is being left, and what it still brings is unwanted.

What has to be sent waits in `_due` and `_owed`, and `_send` sends as much of it as there may be
requests at once. On a new connection everything that the broker may not have is due again, so that
a filter which was asked for gets its answer however many connections that takes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from . import _packets as p
from ._errors import InDoubt, NotSent, ProtocolViolation
from ._outbox import Outbox
from ._packet_ids import PacketIds, impossible
from ._requests import (
    Holding,
    Pending,
    Request,
    Stage,
    SubscribeRequest,
    Transfer,
    UnsubscribeRequest,
)
from ._transfers import MAX_PENDING, Counters
from ._trie import Trie

_BEFORE = -1
"""Stands for a SUBSCRIBE of an earlier holder, for UNSUBSCRIBE to be owed after the next one."""


@attrs.define
class _Filter:
    holders: dict[Holding, p.QoS] = attrs.Factory(dict[Holding, p.QoS])
    granted: int | None = None
    """None while the broker's session is not known to have it."""
    asked: int = 0
    """The number of the latest SUBSCRIBE for it in the broker's session; 0 for none."""
    asked_before: bool = False
    """Whether it followed another one, which counts on if the broker fails it."""
    lost: bool = False
    """Whether the broker may have it no longer, and has not granted it again."""


class Subscriptions:
    """Those of one session."""

    def __init__(self, codec: p.Codec, ids: PacketIds, counters: Counters) -> None:
        self._codec = codec
        self._ids = ids
        self._counters = counters
        self._filters: dict[str, _Filter] = {}
        self._due: dict[str, None] = {}
        """What to send SUBSCRIBE for, in order."""
        self._owed: dict[str, None] = {}
        """What to send UNSUBSCRIBE for, in order."""
        self._being_left: Counter[str] = Counter()
        """Filters that are owed, or whose UNSUBSCRIBE is not answered, and how often."""
        self._answered: list[str] = []
        """Filters whose UNSUBACK came behind messages that may still have to be matched."""
        self._routes: Trie[Holding] = Trie()
        self._dotted_routes: Trie[Holding] = Trie()
        """The filters that have a dot, with a slash in its place."""
        self._number = 0
        self._requests = 0
        self.application = Holding((), is_scope=False)
        """Holds what was granted to `subscribe`."""
        self.leaving = Holding((), is_scope=False)
        """Holds, in `match`, what is being left."""
        self.version = 0
        """Changes with what `match` says."""
        self.settled: list[Pending] = []
        """What was answered, to be taken."""
        self.refused: list[tuple[Holding, str]] = []
        """Filters that the broker failed when they were restored, by whom they were held."""

    @property
    def room(self) -> int:
        """How many more of SUBSCRIBE and UNSUBSCRIBE may await their answer."""
        return MAX_PENDING - self._requests

    def match(self, topic: str) -> list[Holding]:
        """Who wants the messages of a topic.

        At RabbitMQ what was published to "a.b" arrives on "a/b". So where nobody wants that, it is
        for those who asked for "a.b".
        """
        return self._routes.match(topic) or self._dotted_routes.match(topic)

    # The application

    def subscribe(self, requests: Sequence[tuple[str, p.QoS]], outbox: Outbox) -> SubscribeRequest:
        """Sends SUBSCRIBE for the application, while attached."""
        holding = Holding(tuple(name for name, _ in requests), is_scope=False)
        for topic_filter, qos in requests:
            self._hold(topic_filter, holding, qos)
        return self._subscribe(holding.topic_filters, outbox, holding=holding)

    def unsubscribe(self, topic_filters: Sequence[str], outbox: Outbox) -> list[UnsubscribeRequest]:
        """The application wants these no longer: sends UNSUBSCRIBE for what no scope holds."""
        free: list[str] = []
        for topic_filter in dict.fromkeys(topic_filters):
            entry = self._filters.get(topic_filter, _Filter())
            for holding in list(entry.holders):
                if not holding.is_scope:
                    self._drop(topic_filter, holding)
            if topic_filter not in self._filters:
                free.append(topic_filter)
        return [self._unsubscribe(some, outbox, owed=False) for some in p.in_packets(free)]

    # Scopes

    def hold(self, holding: Holding, outbox: Outbox | None) -> None:
        """A scope begins to hold its filters. It is settled once the broker answered for each."""
        holding.since = self._number
        for topic_filter in holding.topic_filters:
            self._hold(topic_filter, holding, holding.qos)
            self._due[topic_filter] = None
        self.send(outbox)

    def was_asked(self, holding: Holding) -> bool:
        """Whether SUBSCRIBE was sent for any of its filters since it began."""
        entries = (self._filters.get(topic_filter) for topic_filter in holding.topic_filters)
        return any(entry is not None and entry.asked > holding.since for entry in entries)

    def release(
        self, holding: Holding, outbox: Outbox | None, *, unsubscribe: bool
    ) -> list[UnsubscribeRequest]:
        """A scope ends. Returns what is sent at once, where nobody else holds its filters.

        Arguments:
            unsubscribe: whether the broker is to stop collecting what nobody holds.
        """
        for topic_filter in holding.topic_filters:
            entry = self._filters.get(topic_filter)
            if entry is not None and holding in entry.holders:
                self._drop(topic_filter, holding)
                if unsubscribe and not entry.holders and entry.asked:
                    self._owed[topic_filter] = None
                    self._leave(topic_filter)
        return self.send(outbox)

    def keep(self, holding: Holding) -> None:
        """A scope ends, and its filters are the application's from now on."""
        for topic_filter in holding.topic_filters:
            entry = self._filters.get(topic_filter)
            if entry is not None and holding in entry.holders:
                self._hold(topic_filter, self.application, entry.holders[holding])
                self._drop(topic_filter, holding)

    # Connections

    def attach(self, outbox: Outbox, *, present: bool, in_doubt: bool) -> None:
        """Sends what the broker may not have, given its session present flag.

        On a session that it kept these are the filters that it did not answer for, and those
        granted at QoS 0, which RabbitMQ does not keep.
        """
        if not present:
            for topic_filter in self._owed:
                self._left(topic_filter)
            self._owed.clear()
        for topic_filter, entry in self._filters.items():
            if not present or in_doubt:
                entry.granted = None
            if not present:
                entry.asked = 0
            if not entry.granted:
                entry.lost = True
                self._due[topic_filter] = None
        self.send(outbox)

    def detach(self, outbox: Outbox, reason: str) -> list[tuple[Pending, NotSent | InDoubt]]:
        """The connection ended. Returns the requests that are over, and how."""
        lost: list[tuple[Pending, NotSent | InDoubt]] = []
        for packet_id, request in list(self._ids.outstanding.items()):
            if isinstance(request, Transfer):
                continue
            del self._ids.outstanding[packet_id]
            lost.append((request, request.lost(outbox, reason)))
            if isinstance(request, SubscribeRequest):
                if request.holding is not None:
                    for topic_filter in request.holding.unanswered:
                        self._drop(topic_filter, request.holding)
            else:
                self._on_lost_unsubscribe(request)
        self._requests = 0
        return lost

    def _on_lost_unsubscribe(self, request: UnsubscribeRequest) -> None:
        for topic_filter in request.packet.topic_filters:
            entry = self._filters.get(topic_filter)
            if request.owed and entry is None and topic_filter not in self._owed:
                self._owed[topic_filter] = None
                continue
            self._left(topic_filter)
            if entry is not None:
                entry.asked = entry.asked or _BEFORE

    def send(self, outbox: Outbox | None) -> list[UnsubscribeRequest]:
        """Sends what is to be sent, as far as there is room. Returns what unsubscribes."""
        sent: list[UnsubscribeRequest] = []
        if outbox is None:
            return sent
        while self._owed and self.room > 0:
            sent.append(self._unsubscribe(_take(self._owed), outbox, owed=True))
        while self._due and self.room > 0:
            self._subscribe(_take(self._due), outbox)
        return sent

    # Answers

    def on_suback(self, answer: p.SubAck, outbox: Outbox) -> None:
        """Takes in SUBACK.

        Raises:
            ProtocolViolation: it answers something else, or not all of the filters.
        """
        match self._ids.outstanding.get(answer.packet_id):
            case SubscribeRequest() as request:
                pass
            case None | Transfer(stage=Stage.WAITING):
                self._counters.unmatched_answers += 1
                return
            case other:
                raise impossible(answer, other)
        asked, got = len(request.packet.requests), len(answer.return_codes)
        if asked != got:  # [MQTT-3.8.4-5]
            raise ProtocolViolation(f"SUBACK with {got} return codes for {asked} topic filters")
        request.return_codes = answer.return_codes
        self._end(answer.packet_id, request, outbox)
        for (topic_filter, _), code in zip(
            request.packet.requests, answer.return_codes, strict=True
        ):
            entry = self._filters.get(topic_filter)
            if entry is not None:
                self._on_return_code(request, topic_filter, entry, code)
        self.send(outbox)

    def _on_return_code(
        self, request: SubscribeRequest, topic_filter: str, entry: _Filter, code: int
    ) -> None:
        failed = code == p.FAILED
        if entry.asked == request.number:
            entry.granted = None if failed else code
            if failed:
                entry.asked = _BEFORE if entry.asked_before else 0
        entry.lost = entry.lost and failed
        for holding, qos in list(entry.holders.items()):
            if holding is request.holding:
                holding.unanswered.discard(topic_filter)
                if failed:
                    self._drop(topic_filter, self.application)
                else:
                    self._hold(topic_filter, self.application, qos)
                self._drop(topic_filter, holding)
            elif topic_filter in holding.unanswered:
                if holding.is_scope and request.number > holding.since:
                    self._answer(topic_filter, holding, failed=failed)
            elif failed and entry.lost:
                self._drop(topic_filter, holding)
                self.refused.append((holding, topic_filter))
        if failed and not entry.holders and entry.asked:
            self._owed[topic_filter] = None
            self._leave(topic_filter)

    def _answer(self, topic_filter: str, holding: Holding, *, failed: bool) -> None:
        holding.unanswered.discard(topic_filter)
        if failed:
            holding.failed.append(topic_filter)
            self._drop(topic_filter, holding)
        if not holding.unanswered:
            self.settled.append(holding)

    def forget_left(self) -> None:
        """What came before the latest UNSUBACK was matched, and so all that is unwanted."""
        answered, self._answered = self._answered, []
        for topic_filter in answered:
            self._left(topic_filter)

    def on_unsuback(self, answer: p.UnsubAck, outbox: Outbox) -> None:
        """Takes in UNSUBACK.

        Raises:
            ProtocolViolation: it answers something else.
        """
        match self._ids.outstanding.get(answer.packet_id):
            case UnsubscribeRequest() as request:
                self._answered += request.packet.topic_filters
                self._end(answer.packet_id, request, outbox)
            case None | Transfer(stage=Stage.WAITING):
                self._counters.unmatched_answers += 1
            case other:
                raise impossible(answer, other)

    def _end(self, packet_id: int, request: Request, outbox: Outbox) -> None:
        del self._ids.outstanding[packet_id]
        self._requests -= 1
        self.settled.append(request)
        self.send(outbox)

    # One filter

    def _hold(self, topic_filter: str, holding: Holding, qos: p.QoS) -> None:
        entry = self._filters.get(topic_filter)
        if entry is None:
            entry = self._filters[topic_filter] = _Filter()
        entry.holders[holding] = max(qos, entry.holders.get(holding, 0))
        if topic_filter in self._owed:
            del self._owed[topic_filter]
            self._left(topic_filter)
            entry.asked = _BEFORE
        self._add_route(topic_filter, holding)

    def _drop(self, topic_filter: str, holding: Holding) -> None:
        entry = self._filters.get(topic_filter)
        if entry is None or entry.holders.pop(holding, None) is None:
            return
        self._discard_route(topic_filter, holding)
        if not entry.holders:
            del self._filters[topic_filter]
            self._due.pop(topic_filter, None)

    def _add_route(self, topic_filter: str, holding: Holding) -> None:
        self._routes.add(topic_filter, holding)
        if "." in topic_filter:
            self._dotted_routes.add(topic_filter.replace(".", "/"), holding)
        self.version += 1

    def _discard_route(self, topic_filter: str, holding: Holding) -> None:
        self._routes.discard(topic_filter, holding)
        if "." in topic_filter:
            self._dotted_routes.discard(topic_filter.replace(".", "/"), holding)
        self.version += 1

    def _leave(self, topic_filter: str) -> None:
        self._being_left[topic_filter] += 1
        self._add_route(topic_filter, self.leaving)

    def _left(self, topic_filter: str) -> None:
        self._being_left[topic_filter] -= 1
        if not self._being_left[topic_filter]:
            del self._being_left[topic_filter]
            self._discard_route(topic_filter, self.leaving)

    def _subscribe(
        self,
        topic_filters: Sequence[str],
        outbox: Outbox,
        *,
        holding: Holding | None = None,
    ) -> SubscribeRequest:
        self._number += 1
        asked: list[tuple[str, p.QoS]] = []
        for topic_filter in topic_filters:
            entry = self._filters[topic_filter]
            entry.asked_before = bool(entry.asked)
            entry.asked = self._number
            entry.granted = None
            asked.append((topic_filter, max(entry.holders.values())))
        packet = p.Subscribe(self._ids.take(), tuple(asked))
        request = SubscribeRequest(packet, self._number, holding)
        self._submit(request, outbox)
        return request

    def _unsubscribe(
        self, topic_filters: Iterable[str], outbox: Outbox, *, owed: bool
    ) -> UnsubscribeRequest:
        packet = p.Unsubscribe(self._ids.take(), tuple(topic_filters))
        if not owed:
            for topic_filter in packet.topic_filters:
                self._leave(topic_filter)
        request = UnsubscribeRequest(packet, owed)
        self._submit(request, outbox)
        return request

    def _submit(self, request: Request, outbox: Outbox) -> None:
        self._ids.outstanding[request.packet.packet_id] = request
        self._requests += 1
        request.sent_as(self._codec.encode(request.packet), outbox)


def _take(waiting: dict[str, None]) -> list[str]:
    """The first of them, as many as go into a packet."""
    some = list(itertools.islice(waiting, p.MAX_TOPIC_FILTERS))
    for name in some:
        del waiting[name]
    return some
