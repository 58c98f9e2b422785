"""The command: ``python -m benchmarks.growth``."""

from __future__ import annotations

import argparse

from benchmarks.report import environment

from . import report
from .growths import GROWTHS
from .runner import measure


def main() -> None:
    """Measures what the command line says, and prints it."""
    names = sorted({growth.name for growth in GROWTHS})
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=3, help="of all of it (%(default)s)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    chosen = [one for one in GROWTHS if not arguments.names or one.name in arguments.names]
    found = measure(chosen, arguments.rounds)
    for growth, samples in found.items():
        print("\n".join(report.table(growth, samples)))
    print("\n".join(report.constants(found)))
    print(", ".join(f"{name} {value}" for name, value in environment([]).items()))


if __name__ == "__main__":
    main()
