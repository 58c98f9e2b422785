"""Runs the growths: for each measurement a peer, and a client, in two processes."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import trio

from benchmarks.other_ends import running_peer

from .growths import Growth

LONGEST = 60.0
"""Seconds that a measurement may take."""


def measure(growths: Sequence[Growth], rounds: int) -> dict[Growth, dict[int, list[float]]]:
    """Every number in every round, each in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.growth.growths"])  # which takes longest to start
    found = {growth: {number: list[float]() for number in growth.numbers} for growth in growths}
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        for turn in range(rounds):
            began = time.perf_counter()
            for growth, samples in found.items():
                for number, some in samples.items():
                    with running_peer() as port:
                        some.append(processes.submit(run, growth, port, number).result())
            took = time.perf_counter() - began
            print(f"round {turn + 1} of {rounds}: {took:.0f} s", file=sys.stderr)
    return found


def run(growth: Growth, port: int, number: int) -> float:
    """One measurement, in this process."""

    async def measure_in_time() -> float:
        with trio.fail_after(LONGEST):
            return await growth.measure(port, number)

    logging.disable()  # lost connections are what is measured
    return trio.run(measure_in_time)
