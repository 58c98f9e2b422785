"""From results to a table and to JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import fill

import attrs

from .runner import Result
from .works import Cell, Contender, Work

WIDTH = 100
"""Of the notes, in characters."""


@attrs.frozen
class Row:
    """One contender in one cell, over all rounds."""

    cell: Cell
    contender: Contender
    rate: float
    """Messages per second, the median."""
    slowest: float
    fastest: float
    cpu_us: float
    """Microseconds of processor time for each message, the median."""
    cpu_share: float
    """Of one processor, the median."""
    ratio: float | None
    """To the reference; None if that was not measured."""


def rows(work: Work, results: Sequence[Result]) -> list[Row]:
    """In the order of the cells, and of the work's contenders."""
    medians = {
        key: statistics.median(result.sample.rate for result in some)
        for key, some in _groups(work, results)
    }
    return [
        _row(key, some, medians.get((key[0], work.reference)))
        for key, some in _groups(work, results)
    ]


def _groups(
    work: Work, results: Sequence[Result]
) -> Iterator[tuple[tuple[Cell, Contender], list[Result]]]:
    def place(result: Result) -> tuple[int, int]:
        return work.cells.index(result.cell), work.contenders.index(result.contender)

    for (at, who), some in groupby(sorted(results, key=place), key=place):
        yield (work.cells[at], work.contenders[who]), list(some)


def _row(key: tuple[Cell, Contender], results: list[Result], reference: float | None) -> Row:
    samples = [result.sample for result in results]
    rates = [sample.rate for sample in samples]
    rate = statistics.median(rates)
    return Row(
        *key,
        rate=rate,
        slowest=min(rates),
        fastest=max(rates),
        cpu_us=statistics.median(sample.cpu / max(sample.messages, 1) for sample in samples) * 1e6,
        cpu_share=statistics.median(sample.cpu / sample.wall for sample in samples),
        ratio=rate / reference if reference else None,
    )


def table(work: Work, all_rows: Sequence[Row]) -> Iterator[str]:
    """The lines of it, with the notes below."""
    noted = [contender for contender in work.contenders if contender.note]
    width = max(len(contender.name) for contender in work.contenders) + 4
    head = f"{'msg/s':>10}{'from':>10}{'to':>10}{'µs CPU':>9}{'CPU':>6}"
    yield work.title
    for cell, some in groupby(all_rows, key=lambda row: row.cell):
        yield ""
        yield f"{cell!s:<{width}}{head}   ratio to {work.reference.name}"
        for row in some:
            number = f" [{noted.index(row.contender) + 1}]" if row.contender in noted else ""
            yield f"{row.contender.name + number:<{width}}{_figures(row)}"
    yield ""
    for position, contender in enumerate(noted, start=1):
        yield fill(f"[{position}] {contender.note}", WIDTH, subsequent_indent="    ")


def _figures(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:8.2f}"
    rates = f"{row.rate:10,.0f}{row.slowest:10,.0f}{row.fastest:10,.0f}"
    return f"{rates}{row.cpu_us:9.1f}{row.cpu_share:6.0%}{ratio}"


def environment(results: Sequence[Result]) -> dict[str, str]:
    """What the numbers were measured with."""
    versions = {
        "Python": platform.python_version(),
        "system": platform.platform(),
        "processors": str(os.cpu_count()),
    }
    for result in results:
        versions.update(result.sample.versions)
    return versions


def document(work: Work, all_rows: Sequence[Row], results: Sequence[Result]) -> dict[str, object]:
    """All of it, for JSON."""
    return {
        "work": work.name,
        "environment": environment(results),
        "rows": [{**attrs.asdict(row), "contender": row.contender.name} for row in all_rows],
        "samples": [
            {**attrs.asdict(result), "contender": result.contender.name} for result in results
        ],
    }
