"""Times round trips, one after the other."""

from __future__ import annotations

import time

from .job import Sample


class Trips:
    """Those that ended since `start`."""

    def __init__(self) -> None:
        self._began = 0.0
        self._took: list[float] = []

    def start(self) -> None:
        """The warm-up is over."""
        self._took.clear()

    def begin(self) -> None:
        """Now the message is published."""
        self._began = time.perf_counter()

    def end(self) -> None:
        """Now the application has it back."""
        self._took.append(time.perf_counter() - self._began)

    def stop(self, versions: dict[str, str]) -> Sample:
        """How long they took, in microseconds; nothing where none came back."""
        took = sorted(self._took)
        if not took:
            return Sample({}, versions)
        shares = {"median_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}
        figures = {name: took[int(len(took) * share)] * 1e6 for name, share in shares.items()}
        return Sample({**figures, "trips": len(took)}, versions)
