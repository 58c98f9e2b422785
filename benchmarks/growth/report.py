"""From the samples to tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import attrs

from .growths import Growth

Samples = Mapping[int, Sequence[float]]
"""Microseconds for each message, by number."""

NOISE = 0.25
"""An exponent that is larger than its bound by this is pointed out."""


def table(growth: Growth, samples: Samples) -> Iterator[str]:
    """A line for each number."""
    medians = {number: statistics.median(some) for number, some in samples.items()}
    yield f"{growth.name}: {growth.title}"
    speed = "        GB/s" if growth.unit == "byte" else ""
    yield f"{'number':>12}{'µs/message':>12}{'from':>12}{'to':>12}{'ratio':>8}{speed}"
    for number, median in medians.items():
        figures = f"{median:12,.2f}{min(samples[number]):12,.2f}{max(samples[number]):12,.2f}"
        rate = f"{number / median / 1e3:12.3f}" if speed else ""
        yield f"{number:12,}{figures}{median / medians[growth.reference]:8.2f}{rate}"
    yield ""


def constants(found: Mapping[Growth, Samples]) -> Iterator[str]:
    """A line for each growth."""
    yield "at the largest number: the cost of a unit, and the exponent of the time of a message"
    for growth, samples in found.items():
        constant = _constant(growth, samples)
        much = "  more than linear" if constant.is_worse else ""
        yield f"{constant.cost}{constant.exponent:8.2f}{much}  {growth.name}: {growth.title}"


@attrs.frozen
class _Constant:
    cost: str
    exponent: float
    is_worse: bool


def _constant(growth: Growth, samples: Samples) -> _Constant:
    (less, before), (most, last) = [
        (number, statistics.median(some)) for number, some in sorted(samples.items())
    ][-2:]
    exponent = math.log(last / before) / math.log(most / less)
    if growth.unit == "message":
        return _Constant(f"{last:12,.2f} µs/message  ", exponent, exponent > NOISE)
    cost = f"{last / most * 1e3:12,.3f} ns/{growth.unit:<9}"
    return _Constant(cost, exponent, exponent > 1 + NOISE)
