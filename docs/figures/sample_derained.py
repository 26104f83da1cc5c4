"""Draws the bundled photo: rainy, derained by the networks that ship, clean, with PSNR and energy under each.

python docs/figures/sample_derained.py [-o OUT.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from esdnet.images.files import load_image
from esdnet.images.metrics import psnr_y
from esdnet.networks.checkpoint import load_checkpoint
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from hw_sim.pricing.prices import load_prices
from hw_sim.report.energy_report import sum_counts

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {"small_released": "released", "small_spike_driven": "spike-driven"}


def main(argv: list[str] | None = None) -> int:
    """Derain, count and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_suffix(".png"))
    args = parser.parse_args(argv)
    rainy, clean = (load_image(ROOT / "docs" / "sample" / f"{name}.png") for name in ("rainy", "clean"))
    shown = [("rainy", rainy, "")]
    for name, title in NETWORKS.items():
        network = lower(load_checkpoint(ROOT / "esdnet" / "checkpoints" / f"{name}.pt"), name)
        result = simulator.run(network, np.float32(rainy.transpose(2, 0, 1)), keep_spikes=False)
        totals = sum_counts(counts.totals() for counts in result.counts.values())
        energy = load_prices("paper").energy_j(totals) * 1e6
        shown.append((title, result.output.transpose(1, 2, 0).clip(0, 1), f", {energy:,.0f} uJ"))
    shown.append(("clean", clean, ""))
    draw(shown, clean, args.out)
    return 0


def draw(shown: list[tuple[str, np.ndarray, str]], clean: np.ndarray, out: Path) -> None:
    """Two rows of two, each with its title and, where it differs from the clean photo, its PSNR."""
    height, width = clean.shape[:2]
    figure = Figure(figsize=(9, 9 * height / width + 0.6), layout="constrained")
    for axes, (title, image, energy) in zip(figure.subplots(2, 2).flat, shown, strict=True):
        psnr = "" if image is clean else f": {psnr_y(image, clean):.2f} dB"
        axes.imshow(image)
        axes.set_title(f"{title}{psnr}{energy}", fontsize=11)
        axes.set_axis_off()
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
