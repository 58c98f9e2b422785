"""Draws what the works have measured: ``python -m benchmarks.plot FROM TO``.

FROM is a directory with the JSON of the works `receive`, `publish` and `durable`, as the session
`bench` leaves it in ``build``, and TO the picture. A panel for each cell of small messages has a
bar for each client, as long as its median, with a line from its slowest round to its fastest.
"""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

WORKS = ("receive", "publish", "durable")
SIZE = 64
"""Bytes of payload of the cells that are drawn."""
OURS, OTHER = "#1f6f8b", "#b8c4cc"
LEFT_OUT = ("the peer itself", "in memory")
"""Who is no client, or does not do the work."""
COLUMNS = 4


def main() -> None:
    """Draws what the command line says."""
    parser = argparse.ArgumentParser("python -m benchmarks.plot", description=__doc__)
    parser.add_argument("source", type=Path, metavar="FROM")
    parser.add_argument("target", type=Path, metavar="TO")
    arguments = parser.parse_args()
    mpl.rcParams["svg.hashsalt"] = "trio_mqtt"  # so that the same numbers are the same file
    mpl.rcParams["svg.fonttype"] = "none"
    panels = list(read(arguments.source))
    rows = -(-len(panels) // COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(3.4 * COLUMNS, 2.3 * rows), squeeze=False)
    places = list(grid.flat)
    for (title, bars), axes in zip(panels, places, strict=False):
        draw(axes, title, bars)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(arguments.target, metadata={"Date": None})


def read(source: Path) -> Iterator[tuple[str, Sequence[dict[str, Any]]]]:
    """A title, and the rows, of each panel."""
    for work in WORKS:
        document = json.loads((source / f"{work}.json").read_text("utf-8"))
        by_cell: dict[str, list[dict[str, Any]]] = {}
        for row in document["rows"]:
            cell = row["cell"]
            drawn = not any(part in row["contender"] for part in LEFT_OUT)
            if cell["payload_size"] == SIZE and drawn and row["rate"]:
                by_cell.setdefault(f"{work}, {cell_name(cell)}", []).append(row)
        yield from by_cell.items()


def cell_name(cell: dict[str, Any]) -> str:
    """As in the tables."""
    if not cell["tasks"] or not cell["qos"]:
        return f"QoS {cell['qos']}"
    return f"QoS {cell['qos']}, {cell['tasks']} {cell['unit']}{'s' * (cell['tasks'] > 1)}"


def draw(axes: Axes, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A bar for each row, the first one on top."""
    names = [row["contender"] for row in rows]
    rates = [row["rate"] / 1_000 for row in rows]
    spread = (
        [(row["rate"] - row["least"]) / 1_000 for row in rows],
        [(row["most"] - row["rate"]) / 1_000 for row in rows],
    )
    colors = [OURS if "trio_mqtt" in name else OTHER for name in names]
    axes.barh(names, rates, xerr=spread, color=colors, ecolor="#555555", error_kw={"lw": 0.8})
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("thousand messages per second", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
