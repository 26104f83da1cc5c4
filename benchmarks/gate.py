"""What a gate is worth: a spike-driven network trained on behind different gates, and at T = 1, 2, 4, spikes priced.

    python -m benchmarks.gate --photos DIR [--streaks DIR] [--pasted DIR] --scored NAME=DIR ... --out runs/gate

In: a trained spike-driven network (--init), training data as esdnet.train takes it, folders of pairs to score on.
Out: gate.json, gate.md and frontier.png in --out, and every run. Run again, it goes on where it stopped.

A veto leaves of the morphological gate what a learnt one, trained behind it, opens too. The oracle's gate is open where
a pixel gained more than 0.015 of white: it is given the clean image, and shows what a perfect gate would be worth. A
seed decides the crops and their rain, so gates are compared within it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import hw_sim
from benchmarks.ablations import budget_parser, open_source, train
from benchmarks.league import scored_folders
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.writing import write_json, write_text
from esdnet.images.files import to_tensor
from esdnet.images.metrics import psnr_y
from esdnet.networks.bundled import find_checkpoint
from esdnet.networks.esdnet.gate import MorphologicalGate
from esdnet.networks.watching import watching
from esdnet.training.losses import RAINY
from hw_sim.pricing.thresholds import spikes_per_synapse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from esdnet.networks.esdnet.model import ESDNet
    from esdnet.training.data import PairSource
    from esdnet.training.loop import Trainer

GATES = {"none": "none", "morphological": "morphological", "veto": "learnt", "learnt": "learnt", "oracle": "none"}
LOWEST_THRESHOLD = 0.15  # published: below it an SNN wins however the ANN is built (Dampfhoffer et al. 2023)
STEPS, PRICE = 2, 0.3  # of the networks that differ in their gates
FRONTIER = tuple(product((1, 2, 4), (0.0, 0.3, 1.0)))  # steps and prices behind a learnt gate


@dataclass(frozen=True)
class Variant:
    """One network and how it is trained."""

    gate: str
    steps: int
    price: float
    seed: int

    @property
    def folder(self) -> str:
        """Of its run."""
        return f"{self.gate}_T{self.steps}_price{self.price:g}_seed{self.seed}"


def build_parser() -> argparse.ArgumentParser:
    parser = budget_parser("gate.py", "What a gate is worth.", steps=400)
    parser.add_argument("--init", default="small_spike_driven", help="the trained network (default: the bundled one)")
    parser.add_argument("--scored", nargs="+", metavar="NAME=DIR", required=True, help="pairs that all are scored on")
    parser.add_argument("--limit", type=int, default=10, help="pairs of each that are scored (default: 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    from esdnet.networks.checkpoint import load_checkpoint

    scored = {name: load_pairs(folder, arguments.limit) for name, folder in scored_folders(arguments.scored).items()}
    trained = load_checkpoint(find_checkpoint(arguments.init))
    if trained.config.gate != "none" or trained.config.refinement != "time_weights":
        raise UserError(f"--init {arguments.init}: expected a spike-driven network without a gate")
    source = open_source(arguments)
    ablation = [Variant(gate, STEPS, PRICE, seed) for seed in arguments.seeds for gate in GATES]
    frontier = [Variant("learnt", steps, price, arguments.seeds[0]) for steps, price in FRONTIER]
    found: dict[Variant, dict[str, Any]] = {}
    for variant in [*ablation, *frontier]:
        if variant not in found:
            print(variant.folder, file=sys.stderr)
            network = train_on(trained, variant, source, arguments)
            found[variant] = {name: measure(network, pairs) for name, pairs in scored.items()}
            rows = [vars(each) | {"scores": scores} for each, scores in found.items()]
            write_json(arguments.out / "gate.json", {"init": arguments.init, "steps": arguments.steps, "runs": rows})
    text = as_markdown(found, list(scored), arguments)
    write_text(arguments.out / "gate.md", text)
    draw(found, list(scored), arguments.seeds[0]).savefig(arguments.out / "frontier.png", dpi=110)
    print(text, end="")
    return 0


def load_pairs(folder: Path, limit: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first pairs of a folder, float64 (H, W, 3)."""
    from esdnet.training.data import PairedFolder

    loaded = (pair.load() for pair in PairedFolder(folder).pairs()[:limit])
    return [(rainy, clean) for rainy, clean in loaded if clean is not None]


def train_on(trained: ESDNet, variant: Variant, source: PairSource, arguments: argparse.Namespace) -> ESDNet:
    """The averaged weights of a run that starts from `trained`, with other steps and behind a gate."""
    from esdnet.networks.esdnet.weight_copy import change_steps

    config = replace(trained.config, steps=variant.steps, gate=GATES[variant.gate])

    def prepare(trainer: Trainer) -> None:
        change_steps(trained, trainer.model)
        trainer.average.module.load_state_dict(trainer.model.state_dict())
        if variant.gate == "oracle":
            know_the_rain(trainer)
        elif variant.gate == "veto":
            for network in (trainer.model, trainer.average.module):
                network.gate = Veto(network.get_submodule("gate"))

    folder, terms = arguments.out / variant.folder, {"firing_price": variant.price}
    trainer = train(config, folder, source, arguments, variant.seed, prepare, optimizer="muon", **terms)
    return trainer.average.module


def know_the_rain(trainer: Trainer) -> None:
    """Put an oracle before a network and its average; it is told before every step where it rains."""
    oracle = Oracle()
    trainer.model.gate = trainer.average.module.gate = oracle
    train_step = trainer.train_step

    def told(rainy: torch.Tensor, clean: torch.Tensor) -> float:
        oracle.tell(rainy, clean)
        return train_step(rainy, clean)

    trainer.train_step = told  # type: ignore[method-assign]
    trainer.pairs = []  # nobody would tell it of the images that a run is validated on


class Veto(nn.Module):
    """A morphological gate, shut where a learnt one is."""

    def __init__(self, learnt: nn.Module) -> None:
        super().__init__()
        self.learnt, self.morphological = learnt, MorphologicalGate()

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) and features (T, N, C, H, W) -> (N, 1, H, W)."""
        opened: torch.Tensor = self.morphological(image, features)
        return opened * self.learnt(image, features)


class Oracle(nn.Module):
    """A gate that knows the clean image: open where a channel gained RAINY of white."""

    def __init__(self) -> None:
        super().__init__()
        self.gained = torch.zeros(0)

    def tell(self, rainy: torch.Tensor, clean: torch.Tensor) -> None:
        """Of the images (N, 3, H, W) that come next."""
        self.gained = (rainy - clean).amax(1, keepdim=True)

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W); nothing is looked at. Padding is dry. Compared here, so that it is counted as spikes."""
        height, width = image.shape[-2:]
        padded = F.pad(self.gained, (0, width - self.gained.shape[-1], 0, height - self.gained.shape[-2]))
        return (padded > RAINY).to(image.dtype)


def measure(network: ESDNet, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Means over the pairs: PSNR on Y of outputs in 8 bits, spikes per synapse and inference, the share left open."""
    rows, opened = [], [1.0]
    for rainy, clean in pairs:
        x, y = (to_tensor(image, torch.float32) for image in (rainy, clean))
        if isinstance(network.gate, Oracle):
            network.gate.tell(x, y)
        gates = {} if network.gate is None else {"gate": network.gate}
        with watching(gates, lambda name, inputs, out: opened.append(float(out.mean()))):
            report = hw_sim.count(network.eval(), x)
        output = np.floor(report.output[0].permute(1, 2, 0).numpy().clip(0, 1) * 255 + 0.5) / 255
        synapses = spikes_per_synapse([layer.facts for layer in report.layers])
        rows.append((psnr_y(output, clean), synapses, opened[-1]))
    return dict(zip(("psnr", "spikes_per_synapse", "open"), map(float, np.mean(rows, axis=0)), strict=True))


def as_markdown(found: dict[Variant, dict[str, Any]], scored: list[str], arguments: argparse.Namespace) -> str:
    """A table of the gates, means over the seeds, PSNR less that of the same seed without one; one of the frontier."""
    lines = [
        f"{arguments.init}, trained on for {arguments.steps} steps (Muon, learning rate {arguments.lr:g}, batch "
        f"{arguments.batch}); the first {arguments.limit} pairs of each set.",
        "",
        *_head(["gate", *(f"{name}: dB | against none | spikes per synapse | open" for name in scored)]),
    ]
    for gate in GATES:
        runs = [Variant(gate, STEPS, PRICE, seed) for seed in arguments.seeds]
        cells = [gate]
        for name in scored:
            psnr, spikes, opened = (
                np.array([found[run][name][key] for run in runs]) for key in ("psnr", "spikes_per_synapse", "open")
            )
            more = psnr - [found[replace(run, gate="none")][name]["psnr"] for run in runs]
            cells += [f"{psnr.mean():.2f}", f"{more.mean():+.2f} ({more.min():+.2f} to {more.max():+.2f})"]
            cells += [f"{spikes.mean():.3f}", f"{opened.mean():.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_head(["T", "price", *(f"{name}: dB | spikes per synapse" for name in scored)])]
    for steps, price in FRONTIER:
        scores = found[Variant("learnt", steps, price, arguments.seeds[0])]
        cells = [cell for name in scored for cell in (f"{scores[name]['psnr']:.2f}",
                 f"{scores[name]['spikes_per_synapse']:.3f}")]  # fmt: skip
        lines.append(f"| {steps} | {price:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _head(titles: list[str]) -> list[str]:
    line = f"| {' | '.join(titles)} |"
    return [line, "|" + "---|" * (line.count("|") - 1)]


def draw(found: dict[Variant, dict[str, Any]], scored: list[str], seed: int) -> Figure:
    """PSNR against spikes per synapse behind a learnt gate, a line for each T from price to price, a panel for each
    set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(scored), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(scored), squeeze=False)[0], scored, strict=True):
        for steps in sorted({steps for steps, _ in FRONTIER}):
            runs = [found[Variant("learnt", *point, seed)][name] for point in FRONTIER if point[0] == steps]
            points = [(scores["spikes_per_synapse"], scores["psnr"]) for scores in runs]
            label = f"T = {steps}" + (": binary, no dynamics" if steps == 1 else "")
            axes.plot(*zip(*points, strict=True), "o-", label=label)
        axes.axvline(LOWEST_THRESHOLD, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel="spikes per synapse and inference", title=f"{name}: PSNR, dB")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
