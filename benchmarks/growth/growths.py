"""What is measured: growths, each of them the time of a message by a number."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

import attrs

from . import publishing, receiving, resending


@attrs.frozen
class Growth:
    """The time of a message, by the number of something."""

    name: str
    """By which it is chosen; others may have the same."""
    title: str
    numbers: tuple[int, ...]
    reference: int
    """By whose time the others are divided."""
    measure: Callable[[int, int], Awaitable[float]]
    """Given the port of the peer and the number, returns how many microseconds a message took."""
    unit: Literal["message", "byte", "character", "level"] = "message"
    """What has a constant cost; if it is no message, then the number is how many make one."""


LEVELS: tuple[Literal[0, 1], ...] = (0, 1)
SIZES = (64, 1024, 64 * 1024, 1024**2, 16 * 1024**2)
LENGTHS = (10, 1_000, 10_000, 60_000)
DEPTHS = (3, 100, 1_000, 10_000)
PENDING = (16, 256, 4_096, 16_384)
RESENT: tuple[tuple[str, resending.Levels], ...] = (
    ("at QoS 1", (1,)),
    ("at QoS 2 after PUBREC", (2,)),
    ("at both", (1, 2)),
)

GROWTHS = (
    *(
        Growth(
            "scopes",
            f"receiving at QoS {qos}, by open subscription scopes",
            (1, 10, 1_000, 10_000),
            10,
            partial(receiving.by_scopes, qos=qos),
        )
        for qos in LEVELS
    ),
    *(
        Growth(
            "filters",
            f"receiving at QoS {qos} on {topics:,} topics, by topic filters of `subscribe`",
            (1, 100, 10_000),
            100,
            partial(receiving.by_filters, qos=qos, topics=topics),
        )
        for qos in LEVELS
        for topics in (1_000, 5_000)
    ),
    *(
        Growth(
            "filters",
            f"receiving at QoS 1 on {topics:,} topics, by topic filters of one scope",
            (1, 100, 1_000),
            100,
            partial(receiving.by_filters, qos=1, topics=topics, in_scope=True),
        )
        for topics in (1_000, 5_000)
    ),
    *(
        Growth(
            "in_flight",
            f"publishing at QoS {qos}, by messages in flight",
            (1, 10, 100, 1_000, 10_000),
            100,
            partial(publishing.by_in_flight, qos=qos),
        )
        for qos in publishing.LEVELS
    ),
    *(
        Growth(
            "resends",
            f"sending again {which}, by messages in flight, {where}",
            PENDING,
            256,
            partial(measure, levels=levels),
        )
        for which, levels in RESENT
        for where, measure in (
            ("in memory", resending.volatile),
            ("in SQLite", resending.durable),
        )
    ),
    Growth(
        "resends",
        "adopting from SQLite, by messages at QoS 1, without a connection",
        PENDING,
        256,
        partial(resending.adopting, levels=(1,)),
    ),
    *(
        Growth(
            "payload",
            f"{doing} at QoS {qos}, by bytes of payload",
            SIZES,
            1024,
            partial(measure, qos=qos),
            unit="byte",
        )
        for doing, measure in (
            ("receiving", receiving.by_payload),
            ("publishing", publishing.by_payload),
        )
        for qos in LEVELS
    ),
    *(
        Growth(
            "topic",
            f"{doing} at QoS 1, by characters of the topic",
            LENGTHS,
            10,
            partial(measure, qos=1),
            unit="character",
        )
        for doing, measure in (
            ("receiving", receiving.by_topic),
            ("publishing", publishing.by_topic),
        )
    ),
    *(
        Growth(
            "topic",
            f"{doing} at QoS 1, by levels of the topic",
            DEPTHS,
            100,
            partial(measure, qos=1),
            unit="level",
        )
        for doing, measure in (
            ("receiving", receiving.by_levels),
            ("publishing", publishing.by_levels),
        )
    ),
    *(
        Growth(
            "queued",
            f"enqueueing offline and connecting, at QoS {qos}, by messages",
            (1, *PENDING),
            256,
            partial(publishing.by_queued, qos=qos),
        )
        for qos in publishing.LEVELS
    ),
    Growth(
        "ends",
        "leaving the client, by messages at QoS 1 that it waits for",
        PENDING,
        256,
        publishing.by_left_open,
    ),
    Growth(
        "ends",
        "`flush`, by messages at QoS 1 that it waits for",
        PENDING,
        256,
        partial(publishing.by_left_open, flush=True),
    ),
    Growth(
        "ends",
        "cancelling scopes, by scopes (each counts as a message)",
        (10, 100, 1_000, 5_000),
        100,
        receiving.by_ended_scopes,
    ),
    Growth(
        "tasks",
        "publishing at QoS 1, by tasks that wait for room",
        (100, 1_000, 10_000),
        1_000,
        publishing.by_tasks,
    ),
)
