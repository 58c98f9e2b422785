"""Kills the programs of `crash_peers.py` at random moments, and starts them again.

What a kill may hit takes from microseconds to some hundred milliseconds. So a moment is a phase
that the program has reached, and a random time after that: mostly while messages flow, and often
enough while it starts, adopts its session and connects. How many kills hit what is in the report.

On loopback hardly a kill would come between a program's last steps and the broker's knowing of
them. So each program has a relay, and before half of the kills nothing passes any more for a while,
in which the program goes on with what it has.
"""

from __future__ import annotations

import random
import signal
import sys
from collections import Counter
from pathlib import Path

import attrs
import trio

from .brokers import HOST
from .crash_ledger import Entry, read_ledger
from .crash_peers import Phase, Role, ledger_path
from .processes import start_process
from .relay import Relay

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Moment:
    """When to kill."""

    phase: Phase
    """That it has to reach first."""
    delay: float
    """Seconds after that."""
    silence: float
    """Seconds after that, without a network."""


_LONGEST_DELAY = {
    Phase.STARTING: 0.3,  # as long as it may take to import everything
    Phase.OPENING: 0.006,
    Phase.CONNECTING: 0.006,
    Phase.CONNECTED: 0.3,
}
_LONGEST_SILENCE = 0.03
_WEIGHTS = {Phase.STARTING: 1, Phase.OPENING: 2, Phase.CONNECTING: 2, Phase.CONNECTED: 5}


def random_moment(source: random.Random) -> Moment:
    """Half of them while messages flow."""
    (phase,) = source.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
    delay = source.uniform(0, _LONGEST_DELAY[phase])
    return Moment(phase, delay, max(0, source.uniform(-_LONGEST_SILENCE, _LONGEST_SILENCE)))


class PeerFailed(Exception):
    """A program ended by itself, and not as it should have. The message has what it said."""


class Peer:
    """One of the two programs, over all its lives."""

    def __init__(self, role: Role, relay: Relay, persistence: str, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.role = role
        self.folder = folder
        self.kills: Counter[Phase] = Counter()
        """By the last phase that was told before."""
        self.pending: list[int] = []
        """How many messages were on their way still, in each life that got as far as to know."""
        self._relay = relay
        self._source = random.Random(f"{seed} {role}")
        self._lives = 0
        self._command = [sys.executable, "-m", "tests.integration.crash_peers"]
        self._command += [role, f"mqtt://{HOST}:{relay.port}", persistence, str(folder)]

    async def be_killed(self) -> None:
        """Lives until a random moment.

        Raises:
            PeerFailed: it ended before that.
        """
        await self._live(random_moment(self._source))

    async def finish(self) -> None:
        """Lives until everything has arrived.

        Raises:
            PeerFailed: it failed.
        """
        await self._live(None)

    async def _live(self, moment: Moment | None) -> None:
        self._lives += 1
        command = [*self._command, str(self._lives), *(["last"] if moment is None else [])]
        async with trio.open_nursery() as nursery:
            process = await start_process(nursery, command, {"PYTHONPATH": str(ROOT)})
            said = _Words(process.stdout)
            errors = _Words(process.stderr)
            nursery.start_soon(errors.read)
            if moment is not None:
                await said.read_until(moment.phase)
                await trio.sleep(moment.delay)
                if moment.silence:
                    self._relay.swallow()
                    await trio.sleep(moment.silence)
                process.kill()
            await said.read()
            status = await process.wait()
        if status != (0 if moment is None else -signal.SIGKILL):
            raise PeerFailed(f"{self.role} {self._lives} ended with {status}:\n{errors.text()}")
        self._learn(said, was_killed=moment is not None)

    def _learn(self, said: _Words, *, was_killed: bool) -> None:
        phase = Phase.STARTING
        for line in said.lines():
            word, *numbers = line.split()
            phase = Phase(word)
            self.pending += map(int, numbers)
        if was_killed:
            self.kills[phase] += 1

    def ledgers(self) -> list[list[Entry]]:
        """One for each life."""
        lives = range(1, self._lives + 1)
        return [read_ledger(ledger_path(self.folder, life)) for life in lives]

    def report(self) -> str:
        """How many kills hit what."""
        hits = ", ".join(f"{self.kills[phase]} {phase}" for phase in Phase)
        left = [count for count in self.pending if count]
        entries = [len(ledger) for ledger in self.ledgers()]
        return (
            f"{self.role}: {self.kills.total()} kills: {hits}; {sum(entries)} entries in"
            f" {sum(map(bool, entries))} lives; {sum(left)} messages pending in {len(left)}"
        )


class _Words:
    """What a process writes."""

    def __init__(self, stream: trio.abc.ReceiveStream | None) -> None:
        assert stream is not None
        self._stream = stream
        self._data = b""

    async def read(self) -> None:
        """Reads to the end."""
        while await self._read_some():
            pass
        await self._stream.aclose()

    async def read_until(self, phase: Phase) -> None:
        """Reads until it says that it got there, or to the end."""
        await trio.lowlevel.checkpoint()
        if phase is not Phase.STARTING:
            while phase.encode() not in self._data and await self._read_some():
                pass

    async def _read_some(self) -> bool:
        data = await self._stream.receive_some()
        self._data += data
        return bool(data)

    def text(self) -> str:
        return self._data.decode()

    def lines(self) -> list[str]:
        """Those that are complete."""
        return self.text().split("\n")[:-1]


async def kill_often(publisher: Peer, subscriber: Peer, kills: int) -> None:
    """Kills both, each on its own, together that many times, and lets them come to an end."""
    # Of what is published before, nobody could tell whether it should have arrived.
    while not subscriber.kills[Phase.CONNECTED]:
        await subscriber.be_killed()

    async def kill(peer: Peer) -> None:
        while publisher.kills.total() + subscriber.kills.total() < kills:
            await peer.be_killed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill, publisher)
        nursery.start_soon(kill, subscriber)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.finish)
        nursery.start_soon(subscriber.finish)
