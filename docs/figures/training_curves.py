"""Draws loss and validation PSNR of a run from the log.csv that training writes; several logs are stages of one run.

Of several runs the loss alone: the rain on validation images depends on a run's seed.

python docs/figures/training_curves.py --run NAME LOG.csv [LOG.csv ...] [--run ...] -o OUT.png
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#2f6f9f", "#c1443c", "#4d8c57")
SMOOTHED = 5  # log lines that the loss is averaged over


def main(argv: list[str] | None = None) -> int:
    """Read the logs in the order given and write the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", nargs="+", action="append", required=True, metavar="NAME LOG", dest="runs")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args(argv)
    compared = len(args.runs) > 1
    figure = Figure(figsize=(6, 3.4) if compared else (9, 3.4), layout="constrained")
    panels = figure.subplots(1, 1 if compared else 2, squeeze=False)[0]
    for (name, *logs), colour in zip(args.runs, cycle(COLOURS), strict=False):
        draw(panels, name, [Path(log) for log in logs], colour)
    titles = ("training loss", "PSNR on Y of held-out photos, dB")
    for axes, title in zip(panels, titles, strict=False):
        axes.set(xlabel="optimizer step", title=title)
        axes.spines[["top", "right"]].set_visible(False)
    if compared:
        panels[0].legend(frameon=False)
    figure.savefig(args.out, dpi=120)
    return 0


def draw(panels: Sequence[Axes], name: str, logs: list[Path], colour: str) -> None:
    """One run: its stages one after the other, a dotted line at the end of each."""
    before = 0
    for number, log in enumerate(logs):
        with log.open(newline="") as file:
            rows = list(csv.DictReader(file))
        steps = [before + int(row["step"]) for row in rows]
        losses = [float(row["loss"]) for row in rows]
        recent = [losses[max(0, i + 1 - SMOOTHED) : i + 1] for i in range(len(losses))]
        panels[0].plot(steps, losses, color=colour, alpha=0.25)
        panels[0].plot(steps, [sum(r) / len(r) for r in recent], color=colour, label=name if number == 0 else None)
        scored = [(step, float(row["psnr_y"])) for step, row in zip(steps, rows, strict=True) if row["psnr_y"]]
        if scored and len(panels) > 1:
            panels[1].plot(*zip(*scored, strict=True), "o-", color=colour)
        before = steps[-1]
        for axes in panels:
            axes.axvline(before, color=colour, linewidth=0.8, linestyle=":")


if __name__ == "__main__":
    raise SystemExit(main())
