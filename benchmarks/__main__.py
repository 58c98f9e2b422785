"""The command: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from . import connecting, disk, durable, latency, memory, report, runner, volatile
from .other_ends import ROOT
from .works import Cell, Contender, Work

ALL = (
    volatile.RECEIVE,
    volatile.PUBLISH,
    durable.WORK,
    connecting.WORK,
    latency.WORK,
    memory.WORK,
)
WORKS = {work.name: work for work in ALL}
FSYNC_SECONDS = 1.0
BUILD = ROOT / "build"
"""What git ignores, on the disk that is worked on: a temporary directory is often none."""


def main() -> None:
    """Measures what the command line says, and prints it."""
    arguments = parser().parse_args()
    work = WORKS[arguments.work]
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as directory:
        plan = runner.Plan(
            seconds=arguments.seconds,
            warm_up=arguments.warm_up,
            rounds=arguments.rounds,
            directory=Path(directory),
        )
        found = disk.inspect(plan.directory, FSYNC_SECONDS)
        print(f"{arguments.directory.resolve()}: {found}")
        results = measure(work, chosen_cells(work, arguments), chosen(work, arguments), plan)
    rows = report.rows(work, results)
    print("\n".join(report.table(work, rows)))
    print(", ".join(f"{k} {v}" for k, v in report.environment(results).items()))
    document = {**report.document(work, rows, results), "disk": attrs.asdict(found)}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=1), "utf-8")
    print(f"all samples: {arguments.json}")


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    result = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    option = result.add_argument
    option("work", nargs="?", choices=sorted(WORKS), default="durable")
    option("--seconds", type=float, default=2.0, help="of each measurement (%(default)s)")
    option("--warm-up", type=float, default=0.5, help="seconds before it (%(default)s)")
    option("--rounds", type=int, default=3, help="of all measurements (%(default)s)")
    option("--directory", type=Path, default=BUILD, help="on the disk to measure (%(default)s)")
    option("--qos", type=int, nargs="*", help="only these")
    option("--tasks", type=int, nargs="*", help="only these numbers of tasks")
    option("--sizes", type=int, nargs="*", help="only payloads of so many bytes")
    option("--clients", nargs="*", metavar="NAME", help="only names that contain one of these")
    option("--json", type=Path, default=BUILD / "benchmarks.json", help="(%(default)s)")
    return result


def chosen_cells(work: Work, arguments: argparse.Namespace) -> list[Cell]:
    """Those that were asked for, else all."""
    return [
        cell
        for cell in work.cells
        if (arguments.qos is None or cell.qos in arguments.qos)
        and (arguments.tasks is None or cell.tasks in arguments.tasks)
        and (arguments.sizes is None or cell.payload_size in arguments.sizes)
    ]


def chosen(work: Work, arguments: argparse.Namespace) -> list[Contender]:
    """Those that were asked for, else all."""
    names: list[str] | None = arguments.clients
    return [
        contender
        for contender in work.contenders
        if names is None or any(name in contender.name for name in names)
    ]


def measure(
    work: Work, cells: Sequence[Cell], contenders: Sequence[Contender], plan: runner.Plan
) -> list[runner.Result]:
    """All of it, and shows on standard error how far it got."""
    results: list[runner.Result] = []
    total = len(cells) * len(contenders) * plan.rounds
    for result in runner.run(work, cells, contenders, plan):
        results.append(result)
        first = work.figures[0]
        (value,) = report.values(first, [result])
        figure = f"{first.format(value).strip()} {first.unit}"
        name = result.contender.name
        print(f"{len(results)}/{total} {result.cell}: {name}, {figure}", file=sys.stderr)
    return results


if __name__ == "__main__":
    main()
