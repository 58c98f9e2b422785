"""How much memory this process has resident, and how many files it may have open."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from pathlib import Path

from .job import Sample
from .works import MIB

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""As proc(5) has it: the peak becomes what is resident now."""
FILES = 8192
"""What 1,000 clients may have open, some of them several for each."""


class Growth:
    """What is resident beyond what was when this was made."""

    def __init__(self) -> None:
        gc.collect()
        with suppress(OSError):  # where there is no /proc, or it may not be written
            CLEAR.write_text(RESET_PEAK, "ascii")
        self._before = resident("VmRSS")

    def now(self, clients: int, versions: dict[str, str]) -> Sample:
        """For each of so many clients."""
        gc.collect()
        return self._sample("VmRSS", clients, versions)

    def peak(self, payload_size: int, versions: dict[str, str]) -> Sample:
        """The most it was since, also in payloads."""
        sample = self._sample("VmHWM", 1, versions)
        if "mib" in sample.figures:
            sample.figures["payloads"] = sample.figures["mib"] * MIB / payload_size
        return sample

    def _sample(self, name: str, count: int, versions: dict[str, str]) -> Sample:
        after = resident(name)
        if self._before is None or after is None:
            return Sample({}, versions)
        return Sample({"mib": (after - self._before) / count / MIB}, versions)


def resident(name: str) -> int | None:
    """In bytes: VmRSS, or the peak, VmHWM. Without /proc the peak for both, on Windows None."""
    if STATUS.exists():
        lines = STATUS.read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415, not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def allow_files() -> None:
    """Has the system allow as many open files, if it does so without being asked twice."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415, not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = FILES if hard == unlimited else min(FILES, hard)
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
