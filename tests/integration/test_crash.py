"""Durable sessions over the death of their processes, by SIGKILL at random moments."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio

from trio_mqtt import adopt_session

from .brokers import Mosquitto
from .crash import Peer, kill_often
from .crash_ledger import Entry, Ledger, Number, find_faults, read_ledger
from .crash_peers import BOTH, PERSISTENCES
from .relay import open_relay

KILLS = int(os.environ.get("TRIO_MQTT_KILLS", "20"))
"""For each pair of persistences, of both programs together."""
SEED = int(os.environ.get("TRIO_MQTT_SEED", random.SystemRandom().randrange(1_000_000)))
"""It repeats the moments. What they hit is the system's business."""


@pytest.mark.mosquitto
@pytest.mark.parametrize(
    ("publishers", "subscribers"), [("SQLite", "FileSystem"), ("FileSystem", "SQLite")]
)
async def test_what_was_accepted_arrives_whenever_processes_are_killed(
    persistent_mosquitto: Mosquitto, tmp_path: Path, publishers: str, subscribers: str
) -> None:
    port = persistent_mosquitto.port
    async with open_relay(port) as before, open_relay(port) as behind:
        publisher = Peer("publisher", before, publishers, tmp_path / "publisher", SEED)
        subscriber = Peer("subscriber", behind, subscribers, tmp_path / "subscriber", SEED)
        try:
            with trio.fail_after(60 + 2 * KILLS):
                await kill_often(publisher, subscriber, KILLS)
        finally:
            # pytest shows it when the test fails, and with -rP.
            print(f"TRIO_MQTT_SEED={SEED} TRIO_MQTT_KILLS={KILLS}")  # noqa: T201
            print(publisher.report(), subscriber.report(), sep="\n")  # noqa: T201
    accepted = [entry for ledger in publisher.ledgers() for entry in ledger]
    assert not find_faults(accepted, subscriber.ledgers())
    session = await adopt_session(PERSISTENCES[publishers](publisher.folder / BOTH))
    await session.aclose()
    assert not session.pending
    assert any(publisher.pending), "no kill interrupted anything"


# The check itself


def entries(text: str) -> list[Entry]:
    """``2/1.0`` is the first message at QoS 2 of the publisher's first life."""
    pairs = [word.split("/") for word in text.split()]
    return [Entry(1 if qos == "1" else 2, Number.parse(number)) for qos, number in pairs]


@pytest.mark.parametrize(
    ("accepted", "received", "faults"),
    [
        ("1/1.0 2/1.0 1/2.0", ["1/1.0 2/1.0 1/2.0"], []),
        ("1/1.9 1/1.10 1/2.0", ["1/1.9 1/1.10 1/2.0"], []),
        ("", [], []),
        ("1/1.0", [], ["QoS 1: 1.0 is lost"]),
        ("1/1.0 2/1.0", ["1/1.0"], ["QoS 2: 1.0 is lost"]),
        ("2/1.0 2/1.1 2/1.2", ["2/1.0 2/1.2"], ["QoS 2: 1.1 is lost"]),
        ("1/1.0 2/1.1", ["1/1.0 1/1.1 2/1.1 2/1.2 2/2.0"], []),
        ("1/1.0", ["1/1.0 1/1.2"], ["QoS 1: 1.2 was never published"]),
        ("1/1.0 1/1.1", ["1/1.0 1/1.1", "1/1.0 1/1.1"], []),
        ("1/1.0 1/1.1", ["1/1.1 1/1.0"], ["QoS 1: 1.0 arrived after 1.1"]),
        ("2/1.9 2/2.0", ["2/2.0 2/1.9"], ["QoS 2: 1.9 arrived after 2.0"]),
        ("2/1.0 2/1.1", ["2/1.0 2/1.0 2/1.1"], ["QoS 2: 1.0 arrived again"]),
        ("2/1.0 2/1.1", ["2/1.0 2/1.1", "2/1.0"], ["QoS 2: 1.0 arrived again"]),
    ],
)
def test_the_check_finds(accepted: str, received: Sequence[str], faults: list[str]) -> None:
    assert find_faults(entries(accepted), [entries(life) for life in received]) == faults


@pytest.mark.parametrize(
    ("received", "is_well"),
    [
        (["2/1.0 2/1.1", "2/1.1 2/1.2"], True),
        (["2/1.0 2/1.1", "2/1.1", "2/1.1 2/1.2"], True),
        (["2/1.0 2/1.1", "", "2/1.1 2/1.2"], True),
        (["1/1.0 2/1.0 2/1.1", "1/1.0 2/1.1 2/1.2"], True),
        (["2/1.0 2/1.1 1/1.0", "1/1.1", "2/1.1 2/1.2"], True),
        (["2/1.0 2/1.1", "2/1.1 2/1.1 2/1.2"], False),
        (["2/1.0 2/1.1", "2/1.1 2/1.2", "2/1.1"], False),
        (["2/1.0 2/1.1", "2/1.0 2/1.2"], False),
    ],
)
def test_the_check_lets_pass_what_was_held_at_a_kill(
    received: Sequence[str], *, is_well: bool
) -> None:
    """The last message of a life of the subscriber, and only that."""
    accepted = entries("1/1.0 2/1.0 2/1.1 2/1.2")
    faults = find_faults(accepted, [entries("1/1.0"), *map(entries, received)])
    assert (not faults) is is_well


def test_an_entry_counts_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    assert read_ledger(path) == []
    with closing(Ledger(path)) as ledger:
        assert read_ledger(path) == []
        for entry in entries("1/3.0 2/3.0 1/3.1"):
            ledger.enter(entry)
    assert read_ledger(path) == entries("1/3.0 2/3.0 1/3.1")
    path.write_bytes(path.read_bytes()[:-1])
    assert read_ledger(path) == entries("1/3.0 2/3.0")
