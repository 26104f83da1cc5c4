"""Draws what a gate does to the bundled photo in heavy and in light rain: where it is open and where rain is, where
neurons fire, before and after.

python docs/figures/gate.py CHECKPOINT [-o OUT.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from esdnet.command.errors import UserError, report_user_errors
from esdnet.images.files import load_image
from esdnet.images.metrics import psnr_y
from esdnet.networks.bundled import find_checkpoint
from esdnet.networks.checkpoint import load_network
from esdnet.training.losses import RAINY
from esdnet.training.rain import add_rain, light_rain
from export.graph.network import Network
from export.readers.architectures import lower
from hw_sim.backends import simulator
from hw_sim.backends.result import Result
from hw_sim.pricing.from_counts import layer_facts
from hw_sim.pricing.thresholds import spikes_per_synapse

SAMPLE = Path(__file__).resolve().parents[1] / "sample"
SEED = 2  # of the light rain
OPEN_TO_RAIN, OPEN_FOR_NOTHING, MISSED = "#0072b2", "#e69f00", "#cc79a7"  # told apart with every colour vision
MOST = 500  # spikes of a pixel that the scale ends with


def main(argv: list[str] | None = None) -> int:
    """Run, count and draw."""
    parser = argparse.ArgumentParser(description=" ".join((__doc__ or "").split("\n\n")[0].split()))
    parser.add_argument("checkpoint", help="of a gated network, a file or the name of a bundled one")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_suffix(".png"))
    args = parser.parse_args(argv)
    return report_user_errors(lambda: draw(args.checkpoint, args.out))


def draw(checkpoint: str, out: Path) -> int:
    """A row of four pictures for each rain."""
    network = lower(load_network(find_checkpoint(checkpoint)), "network")
    if not network.gates:
        raise UserError(f"{checkpoint}: has no gate, expected a gated network")
    heavy, clean = (load_image(SAMPLE / f"{name}.png") for name in ("rainy", "clean"))
    height, width = clean.shape[:2]
    light = add_rain(clean.astype(np.float32), light_rain(np.random.default_rng(SEED), height, width))
    figure = Figure(figsize=(16, 8 * height / width + 1.7), layout="constrained")
    for row, (name, rainy) in zip(figure.subplots(2, 4), (("heavy", heavy), ("light", light)), strict=True):
        draw_row(row, network, name, rainy, clean)
    figure.savefig(out, dpi=75)
    return 0


def draw_row(row: Sequence[Axes], network: Network, name: str, rainy: np.ndarray, clean: np.ndarray) -> None:
    """One image through the network."""
    result = simulator.run(network, np.float32(rainy.transpose(2, 0, 1)), keep_spikes=False, keep_maps=True)
    derained = result.output.transpose(1, 2, 0).clip(0, 1)
    before, gate, firing, after = row
    show(before, rainy, f"{name} rain: {psnr_y(rainy, clean):.2f} dB")
    draw_gate(gate, result.gates[network.gates[0]][0] > 0, (rainy - clean).max(2) > RAINY, rainy)
    draw_spikes(firing, network, result)
    show(after, derained, f"derained: {psnr_y(derained, clean):.2f} dB")
    for axes in row:
        axes.set_anchor("N")  # level, though one has a colour bar


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    """A picture without ticks."""
    axes.imshow(image)
    axes.set_title(title, fontsize=12)
    axes.set_axis_off()


def draw_gate(axes: Axes, is_open: np.ndarray, rain: np.ndarray, image: np.ndarray) -> None:
    """The gate of the first level, (H, W) of bool, coloured by whether there is rain; the photo in grey elsewhere."""
    shown = np.repeat(image.mean(2, keepdims=True), 3, axis=2)
    parts = ((is_open & rain, OPEN_TO_RAIN, "open, rain"), (is_open & ~rain, OPEN_FOR_NOTHING, "open, dry"),
             (~is_open & rain, MISSED, "shut, rain"))  # fmt: skip
    for where, colour, _ in parts:
        shown[where] = 0.4 * shown[where] + 0.6 * np.array(to_rgb(colour))
    show(axes, shown, f"its gate: {is_open.mean():.1%} open")
    legend = [Patch(color=colour, label=f"{label}: {where.mean():.1%}") for where, colour, label in parts]
    axes.legend(
        handles=legend, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, fontsize=9, frameon=False, columnspacing=1
    )


def draw_spikes(axes: Axes, network: Network, result: Result) -> None:
    """Spikes of all layers and steps, the gate's own too; one of a lower level is shared by the pixels it covers."""
    total = np.zeros(result.executed_size)
    for spikes in result.spike_maps().values():
        side = total.shape[0] // spikes.shape[1]
        total += np.kron(spikes.sum(0), np.ones((side, side))) / side**2
    rate = spikes_per_synapse(layer_facts(network, result.counts, result.executed_size))
    drawn = axes.imshow(np.maximum(total, 1), cmap="inferno", norm=LogNorm(1, MOST))
    axes.set_title(f"{total.sum() / 1e6:.2f} M spikes, {rate:.3f} per synapse", fontsize=12)
    axes.set_axis_off()
    axes.figure.colorbar(drawn, ax=axes, label="spikes of a pixel", location="bottom", shrink=0.7, aspect=40, pad=0.01)


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
