"""The disk that durable sessions are measured on: what it is, and how often it syncs."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import attrs

BLOCK = 4096
MOUNTS = Path("/proc/self/mounts")
VOLATILE = frozenset({"tmpfs", "ramfs"})


@attrs.frozen
class Disk:
    """For orientation beside the results."""

    file_system: str
    fsyncs: float
    """Per second: 4 KiB appended and synced, one after the other."""
    median_us: float
    """Microseconds that one of them takes."""

    def __str__(self) -> str:
        warning = " - NOT A DISK: nothing is durable here" if self.file_system in VOLATILE else ""
        rate = f"{self.fsyncs:,.0f} times a second write and fsync of 4 KiB"
        return f"{self.file_system}, {rate} ({self.median_us:,.0f} µs in the median){warning}"


def inspect(directory: Path, seconds: float) -> Disk:
    """Syncs for as long, in a file that it removes."""
    path = directory / "fsync"
    took: list[float] = []
    with path.open("wb", buffering=0) as file:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            file.write(bytes(BLOCK))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    path.unlink()
    return Disk(file_system(directory), len(took) / sum(took), statistics.median(took) * 1e6)


def file_system(directory: Path) -> str:
    """Its type, as far as the operating system tells."""
    if not MOUNTS.exists():
        return "unknown"
    found = {
        Path(mount): kind
        for _, mount, kind, *_ in map(str.split, MOUNTS.read_text("utf-8").splitlines())
    }
    path = directory.resolve()
    return next(found[parent] for parent in (path, *path.parents) if parent in found)
