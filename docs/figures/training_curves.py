"""Draws loss and validation PSNR of runs from the log.csv that training writes; several logs are stages of one run.

python docs/figures/training_curves.py --run NAME LOG.csv [LOG.csv ...] [--run ...] -o OUT.png
"""

from __future__ import annotations

import argparse
import csv
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
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, *logs), colour in zip(args.runs, COLOURS, strict=False):
        draw(left, right, name, [Path(log) for log in logs], colour)
    left.set(xlabel="optimizer step", title="training loss (Charbonnier + 1 - SSIM)")
    right.set(xlabel="optimizer step", title="PSNR on Y of held-out photos, dB")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    if len(args.runs) > 1:
        left.legend(frameon=False)
    figure.savefig(args.out, dpi=120)
    return 0


def draw(left: Axes, right: Axes, name: str, logs: list[Path], colour: str) -> None:
    """One run: its stages one after the other, a dotted line at the end of each."""
    before = 0
    for number, log in enumerate(logs):
        with log.open(newline="") as file:
            rows = list(csv.DictReader(file))
        steps = [before + int(row["step"]) for row in rows]
        losses = [float(row["loss"]) for row in rows]
        recent = [losses[max(0, i + 1 - SMOOTHED) : i + 1] for i in range(len(losses))]
        left.plot(steps, losses, color=colour, alpha=0.25)
        left.plot(steps, [sum(r) / len(r) for r in recent], color=colour, label=name if number == 0 else None)
        scored = [(step, float(row["psnr_y"])) for step, row in zip(steps, rows, strict=True) if row["psnr_y"]]
        if scored:
            right.plot(*zip(*scored, strict=True), "o-", color=colour)
        before = steps[-1]
        for axes in (left, right):
            axes.axvline(before, color=colour, linewidth=0.8, linestyle=":")


if __name__ == "__main__":
    raise SystemExit(main())
