"""PSNR against energy of the league's networks, a panel for each energy model, with the Pareto front.

    python -m benchmarks.league_figure LEAGUE.json --score NAME -o OUT.png

In: league.json as benchmarks/league.py writes it. Out: a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

ASKED = (
    "paper, as its source states it",
    "horowitz_fp32, with element-wise work and memory",
    "horowitz_int8, with element-wise work and memory",
    "lemaire2022, as its source states it",
    "lemaire2022, the ANN reads weights and inputs once",
    "lemaire2022_qualia, as its source states it",
)
COLOURS = {"dual_stage": "#c1443c", "two_unets": "#d98b3a", "nafnet": "#8a5a9e", "released": "#7f7f7f",
           "spike_driven": "#2f6f9f", "gated": "#2f8f5f"}  # fmt: skip
MARKERS = {"networks": "o", "shipped": "^"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="league_figure.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("league", type=Path, help="league.json of benchmarks/league.py")
    parser.add_argument("--score", required=True, help="the scored set whose PSNR is drawn")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args(argv)
    content = json.loads(args.league.read_text(encoding="utf-8"))
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, asked in zip(figure.subplots(2, 3, sharey=True).flat, ASKED, strict=True):
        draw(axes, content, asked, args.score)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.supylabel(f"PSNR on {args.score}, dB")
    figure.savefig(args.out, dpi=110)
    return 0


def draw(axes: Axes, content: dict[str, Any], asked: str, score: str) -> None:
    """One energy model: every network that it has a price for, and those that none is both cheaper and better than."""
    points = []
    for group, marker in MARKERS.items():
        for row in content[group]:
            energy = row["costs"]["energy_uj"][asked]
            if energy is not None:
                points.append((energy, row["scores"][score]["psnr"]))
                label = row["name"] + (", as shipped" if group == "shipped" else "")
                colour = COLOURS.get(row["name"].partition("_")[2], "black")
                axes.plot(*points[-1], marker, color=colour, markersize=9, label=label)
    front = sorted(point for point in points if not any(beats(other, point) for other in points))
    axes.plot(*zip(*front, strict=True), color="black", linewidth=0.8, linestyle=":", zorder=0)
    model, way = asked.split(", ", 1)
    axes.set(xscale="log", xlabel="uJ at 256x256", title=f"{model}\n{way}")
    axes.spines[["top", "right"]].set_visible(False)


def beats(other: tuple[float, float], point: tuple[float, float]) -> bool:
    """Whether `other`, (energy, PSNR), is better in one and no worse in the other."""
    return other != point and other[0] <= point[0] and other[1] >= point[1]


if __name__ == "__main__":
    raise SystemExit(main())
