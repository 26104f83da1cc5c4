"""Draws loss and validation PSNR of a run from the log.csv that training writes; several logs are stages of one run.

python docs/figures/training_curves.py LOG.csv [LOG.csv ...] -o OUT.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from matplotlib.figure import Figure


def main(argv: list[str] | None = None) -> int:
    """Read the logs in the order given and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args(argv)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    before = 0
    for log in args.logs:
        with log.open(newline="") as file:
            rows = list(csv.DictReader(file))
        steps = [before + int(row["step"]) for row in rows]
        scored = [(step, float(row["psnr_y"])) for step, row in zip(steps, rows, strict=True) if row["psnr_y"]]
        left.plot(steps, [float(row["loss"]) for row in rows], color="#2f6f9f")
        right.plot(*zip(*scored, strict=True), "o-", color="#c1443c")
        before = steps[-1]
        for axes in (left, right):
            axes.axvline(before, color="grey", linewidth=0.8, linestyle=":")
    left.set(xlabel="optimizer step", title="training loss (Charbonnier + 1 - SSIM)")
    right.set(xlabel="optimizer step", title="PSNR on Y of held-out photos, dB")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(args.out, dpi=120)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
