"""``--trace``: each packet in a line, with its time and its direction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from trio_mqtt import _packets as p
from trio_mqtt.testing import Record

from ._output import say
from ._wire import Report, Sight
from ._words import describe


def tracer() -> Report:
    """Shows on standard error what a client and its broker say to each other."""

    def report(sight: Sight) -> None:
        _show("sends" if sight.sent else "gets", sight.packet)

    return report


def broker_tracer() -> Callable[[Record], None]:
    """Shows on standard error what a broker and its clients say to each other."""

    def report(record: Record) -> None:
        assert not isinstance(record.packet, bytes)  # which only tests send
        who = printable(record.client_id) or "somebody"
        _show(f"{who} sends" if record.direction == "in" else f"{who} gets", record.packet)

    return report


def printable(text: str) -> str:
    """Without control characters, or others could take over the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _show(what: str, packet: p.Packet) -> None:
    now = datetime.now(tz=UTC).astimezone()
    say(f"{now:%H:%M:%S}.{now.microsecond // 1000:03} {what} {printable(describe(packet))}")
