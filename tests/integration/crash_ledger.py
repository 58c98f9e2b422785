"""Ledgers of what was accepted and of what arrived, and what two of them together must show.

Each life of a process has a file of its own. A kill may tear a write, though hardly ever one this
short, and so an entry counts once its line is complete: what a torn one was about was not accepted,
or is held, and in neither case does anything depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, Self

import trio_mqtt

QOS_LEVELS: tuple[Literal[1, 2], ...] = (1, 2)


class Number(NamedTuple):
    """What a message says: the life of the publisher, and how many went before it there.

    So no two are the same, and they are in order, without a look at what earlier lives left: a
    message may have been stored that is not in their ledgers.
    """

    life: int
    position: int

    def __str__(self) -> str:
        return f"{self.life}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> Self:
        life, position = text.split(".")
        return cls(int(life), int(position))


class Entry(NamedTuple):
    """One message. At each QoS they are numbered by themselves."""

    qos: trio_mqtt.QoS
    number: Number


class Ledger:
    """One life's. A kill of the process leaves to the system what was written, and so to us."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)

    def enter(self, entry: Entry) -> None:
        self._file.write(f"{entry.qos} {entry.number}\n".encode())

    def close(self) -> None:
        self._file.close()


def read_ledger(path: Path) -> list[Entry]:
    """The entries that are complete; none if the life was too short for a file."""
    if not path.exists():
        return []
    *lines, _ = path.read_text().split("\n")
    return [_parse(line) for line in lines]


def _parse(line: str) -> Entry:
    qos, number = line.split(" ")
    return Entry(1 if qos == "1" else 2, Number.parse(number))


def find_faults(accepted: Sequence[Entry], received: Sequence[Sequence[Entry]]) -> list[str]:
    """What is wrong, in words.

    Arguments:
        accepted: those that the publisher knew to be accepted, in order.
        received: those that the subscriber received, in order, by its lives.
    """
    arrived = {1: _at(1, received), 2: without_held(received)}
    faults: list[str] = []
    for qos in QOS_LEVELS:
        promised = [entry.number for entry in accepted if entry.qos == qos]
        faults += (f"QoS {qos}: {fault}" for fault in _compare(promised, arrived[qos]))
    counts = Counter(arrived[2])
    faults += (f"QoS 2: {number} arrived again" for number in counts if counts[number] > 1)
    return faults


def without_held(received: Sequence[Sequence[Entry]]) -> list[Number]:
    """What arrived at QoS 2, but for the second arrival of a message that was held at a kill.

    Asking for the next one says that it is done with. So it is the last of one life that may be the
    first of the next.
    """
    numbers: list[Number] = []
    held: Number | None = None
    for life in received:
        found = _at(2, [life])
        if found:
            numbers += found[1:] if found[0] == held else found
            held = found[-1]
    return numbers


def _at(qos: int, received: Sequence[Sequence[Entry]]) -> list[Number]:
    return [entry.number for life in received for entry in life if entry.qos == qos]


def _compare(promised: Sequence[Number], arrived: Sequence[Number]) -> Generator[str]:
    known = set(promised)
    firsts = dict.fromkeys(arrived)
    yield from (f"{number} is lost" for number in promised if number not in firsts)
    for number in firsts:
        # One at a time is being stored, so that a kill leaves one of which nobody knows.
        before = Number(number.life, number.position - 1)
        if number not in known and number.position and before not in known:
            yield f"{number} was never published"
    for earlier, later in pairwise(firsts):
        if later < earlier:
            yield f"{later} arrived after {earlier}"
