"""What a client counts."""

from __future__ import annotations

import attrs

from ._supervisor import Supervisor


@attrs.frozen
class Statistics:
    """What a client did and holds, at one instant."""

    connects: int
    """Connections that the broker accepted."""
    bytes_read: int
    bytes_written: int
    published_at_most_once: int
    """Messages handed to a connection at QoS 0."""
    confirmed: int
    """Messages that the broker confirmed, at QoS 1 and 2."""
    unconfirmed: int
    """Messages accepted at QoS 1 and 2 that it did not confirm yet."""
    downgrades: int
    """Messages of QoS 2 that the broker confirmed as if of QoS 1, as RabbitMQ does."""
    received: int
    """Messages that arrived for the application."""
    repeated: int
    """PUBLISH packets that the application had or has already, and did not get again."""
    given_up: int
    """Messages at QoS 0 for which there was no room, at QoS 1 and 2 too where the broker keeps no
    session; and all that nobody wanted any more: what came to a closed channel, or was not taken
    when a scope was left."""
    unclaimed: int
    """Messages that no open subscription matched and nobody took in time. `given_up` counts them
    too."""
    unmatched_answers: int
    """Answers of the broker to nothing that was asked."""
    buffered_messages: int
    """Messages that wait for the application, in all channels together."""
    buffered_bytes: int
    """Of payload."""
    most_buffered_messages: int
    """The most that ever waited in one channel."""
    most_buffered_bytes: int
    commits: int
    """Batches of records that a durable session has stored."""


def take_statistics(supervisor: Supervisor) -> Statistics:
    """A snapshot of the counters."""
    session, router = supervisor.session, supervisor.router
    counters, totals = session.counters, router.totals()
    return Statistics(
        connects=supervisor.connects,
        bytes_read=supervisor.bytes_read,
        bytes_written=supervisor.bytes_written,
        published_at_most_once=counters.published_at_most_once,
        confirmed=counters.confirmed,
        unconfirmed=session.unconfirmed,
        downgrades=counters.downgrades,
        received=router.received,
        repeated=session.repeated,
        given_up=totals.given_up,
        unclaimed=router.unclaimed.given_up,
        unmatched_answers=counters.unmatched_answers,
        buffered_messages=totals.messages,
        buffered_bytes=totals.bytes,
        most_buffered_messages=totals.most_messages,
        most_buffered_bytes=totals.most_bytes,
        commits=0 if supervisor.storer is None else supervisor.storer.commits,
    )
