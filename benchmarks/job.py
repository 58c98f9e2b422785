"""What one client process is asked to do, and what it found: one line of JSON each."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import attrs


@attrs.frozen
class Job:
    """One measurement of one client."""

    work: str
    """What to do: the name of a function of the adapters."""
    store: str
    """Where the client keeps its session: a name that its adapter knows."""
    directory: Path
    """Empty, and on the disk that is to be measured."""
    port: int
    """Of the other end, on 127.0.0.1."""
    qos: int
    tasks: int
    """How many messages are under way at once, each published by a task of its own."""
    seconds: float
    warm_up: float
    """Seconds that are not measured, before those that are."""
    payload_size: int

    @classmethod
    def from_command_line(cls) -> Job:
        """The job of this process."""
        values = json.loads(sys.argv[1])
        values["directory"] = Path(values["directory"])
        return cls(**values)

    def to_json(self) -> str:
        """For the command line of an adapter."""
        return json.dumps({**attrs.asdict(self), "directory": str(self.directory)})

    @property
    def topic_filter(self) -> str:
        """To subscribe to, for the messages of ``receive``."""
        return f"load/{self.tasks}/{self.payload_size}"

    @property
    def once(self) -> str:
        """To subscribe to, for a single message."""
        return f"once/1/{self.payload_size}"

    @property
    def payload(self) -> bytes:
        """Of every message."""
        return b"x" * self.payload_size


SETTLE = 0.2
"""Seconds after which a client that has connected is idle."""
TOPIC = "a/b/c"
"""Of every message: short, and the same one, as from a sensor."""


@attrs.frozen
class Sample:
    """What one client did."""

    figures: dict[str, float]
    """By name: those of the work, which lack where it could not be done, and some beside them."""
    versions: dict[str, str]
    """Of the client and of what it stands on."""

    def leave(self) -> NoReturn:
        """Prints it as the last line of an adapter, and ends that at once.

        How a client ends is not what is measured, and in the middle of a load some take long.
        """
        print(json.dumps(attrs.asdict(self)), flush=True)
        os._exit(0)


class Meter:
    """Counts confirmed messages, and measures from `start` to `stop`.

    The time of the processor is that of the client's process, with all of its threads.
    """

    def __init__(self) -> None:
        self.messages = 0
        self._since = (0, 0.0, 0.0)

    def start(self) -> None:
        """The warm-up is over."""
        self._since = self._now()

    def stop(self, versions: dict[str, str]) -> Sample:
        """What happened since the start."""
        messages, wall, cpu = (
            now - then for now, then in zip(self._now(), self._since, strict=True)
        )
        figures = {
            "rate": messages / wall,
            "cpu_us": cpu / max(messages, 1) * 1e6,
            "cpu_share": cpu / wall,
            "messages": messages,
            "seconds": wall,
        }
        return Sample(figures, versions)

    def _now(self) -> tuple[int, float, float]:
        return self.messages, time.perf_counter(), time.process_time()
