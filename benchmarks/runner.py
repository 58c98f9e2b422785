"""Runs a work: for each measurement the other end, and a client, in two processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from .job import Job, Sample
from .other_ends import ROOT
from .works import Cell, Contender, Work

START_MOST = 20.0
"""Seconds beside those of the job that a client may take to start and to end."""


@attrs.frozen
class Plan:
    """How much is measured."""

    seconds: float
    warm_up: float
    rounds: int
    directory: Path
    """On the disk that is measured."""


@attrs.frozen
class Result:
    """One contender in one cell."""

    cell: Cell
    contender: Contender
    sample: Sample


def run(
    work: Work, cells: Sequence[Cell], contenders: Sequence[Contender], plan: Plan
) -> Iterator[Result]:
    """Yields the results as they come. The contenders take turns, another one first each time."""
    for turn in range(plan.rounds):
        first = turn % len(contenders)
        for cell in cells:
            for contender in (*contenders[first:], *contenders[:first]):
                yield Result(cell, contender, measure(work, cell, contender, plan))


def measure(work: Work, cell: Cell, contender: Contender, plan: Plan) -> Sample:
    """One process of one client. One that does not come to its end did nothing."""
    with (
        tempfile.TemporaryDirectory(dir=plan.directory) as directory,
        tempfile.TemporaryDirectory(dir=plan.directory) as others,
        work.other_end(Path(others)) as port,
    ):
        job = Job(
            work=cell.does or work.name,
            store=contender.store,
            directory=Path(directory),
            port=port,
            qos=cell.qos or 0,
            tasks=cell.tasks,
            seconds=plan.seconds,
            warm_up=plan.warm_up,
            payload_size=cell.payload_size,
        )
        try:
            process = subprocess.run(  # noqa: S603, modules of our own
                [sys.executable, "-m", f"benchmarks.clients.{contender.adapter}", job.to_json()],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                timeout=plan.warm_up + plan.seconds + START_MOST,
                check=True,
            )
        except subprocess.TimeoutExpired:
            return Sample(figures={}, versions={})
    return Sample(**json.loads(process.stdout.splitlines()[-1]))
