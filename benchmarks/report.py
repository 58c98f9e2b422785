"""From results to a table and to JSON."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import fill

import attrs

from .runner import Result
from .works import Cell, Contender, Figure, Work

WIDTH = 100
"""Of the notes, in characters."""


@attrs.frozen
class Row:
    """One contender in one cell, over all rounds."""

    cell: Cell
    contender: Contender
    medians: tuple[float, ...]
    """Of the work's figures, infinite where a small one would be good and there is none."""
    least: float
    """Of the first figure."""
    most: float
    ratio: float | None
    """Of the first figure to the reference's; None if one of the two has none."""


def rows(work: Work, results: Sequence[Result]) -> list[Row]:
    """In the order of the cells, and of the work's contenders."""
    medians = {
        key: statistics.median(values(work.figures[0], some))
        for key, some in _groups(work, results)
    }
    return [
        _row(work, key, some, medians.get((key[0], work.reference)))
        for key, some in _groups(work, results)
    ]


def values(figure: Figure, results: Sequence[Result]) -> list[float]:
    """One of each result."""
    return [result.sample.figures.get(figure.name, figure.worst) for result in results]


def _groups(
    work: Work, results: Sequence[Result]
) -> Iterator[tuple[tuple[Cell, Contender], list[Result]]]:
    def place(result: Result) -> tuple[int, int]:
        return work.cells.index(result.cell), work.contenders.index(result.contender)

    for (at, who), some in groupby(sorted(results, key=place), key=place):
        yield (work.cells[at], work.contenders[who]), list(some)


def _row(
    work: Work, key: tuple[Cell, Contender], results: list[Result], reference: float | None
) -> Row:
    first, *_ = columns = [values(figure, results) for figure in work.figures]
    medians = tuple(map(statistics.median, columns))
    known = reference and math.isfinite(reference) and math.isfinite(medians[0])
    return Row(
        *key,
        medians=medians,
        least=min(first),
        most=max(first),
        ratio=medians[0] / reference if reference and known else None,
    )


def table(work: Work, all_rows: Sequence[Row]) -> Iterator[str]:
    """The lines of it, with the notes below."""
    noted = [contender for contender in work.contenders if contender.note]
    names = [contender.name for contender in work.contenders]
    width = max(map(len, (*names, *(str(row.cell) for row in all_rows)))) + 4
    first, *others = work.figures
    titles = [(first, first.unit), (first, "from"), (first, "to"), *((f, f.unit) for f in others)]
    head = "".join(f"{title:>{figure.width}}" for figure, title in titles)
    direction = "" if first.more_is_better else ", less is better"
    yield work.title
    for cell, some in groupby(all_rows, key=lambda row: row.cell):
        yield ""
        yield f"{cell!s:<{width}}{head}   ratio to {work.reference.name}{direction}"
        for row in some:
            number = f" [{noted.index(row.contender) + 1}]" if row.contender in noted else ""
            yield f"{row.contender.name + number:<{width}}{_figures(work, row)}"
    yield ""
    for position, contender in enumerate(noted, start=1):
        yield fill(f"[{position}] {contender.note}", WIDTH, subsequent_indent="    ")


def _figures(work: Work, row: Row) -> str:
    (first, *others), (median, *more) = work.figures, row.medians
    texts = [first.format(value) for value in (median, row.least, row.most)]
    texts += [figure.format(value) for figure, value in zip(others, more, strict=True)]
    return "".join(texts) + ("" if row.ratio is None else f"{row.ratio:8.2f}")


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
        "rows": [_row_document(work, row) for row in all_rows],
        "samples": [
            {**attrs.asdict(result), "contender": result.contender.name} for result in results
        ],
    }


def _row_document(work: Work, row: Row) -> dict[str, object]:
    names = [figure.name for figure in work.figures]
    numbers = {**dict(zip(names, row.medians, strict=True)), "least": row.least, "most": row.most}
    return {
        "cell": attrs.asdict(row.cell),
        "contender": row.contender.name,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "ratio": row.ratio,
    }
