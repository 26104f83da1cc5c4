"""The search for a spike-driven ESDNet at a short fixed budget: variants trained alike, with several seeds each.

    python -m benchmarks.spike_driven --photos DIR [--streaks DIR] [--pasted DIR] --out runs/search [--steps 400]

In: training data as esdnet.train takes it. A released network is trained first, the teacher of some variants; or it is
given, and decides the size of all.
Out: <out>/search.md and .json: the training loss at the end, PSNR on held-out images, what the first neurons of each
block keep of their input (R2), firing rate, exact counts and energy, as means over the seeds; loss and PSNR with their
spread. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.ablations import budget_parser, count_operations, open_source, train
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.writing import write_json, write_text
from esdnet.networks.esdnet.config import ESDNetConfig, preset

if TYPE_CHECKING:
    import torch

    from esdnet.networks.esdnet.model import ESDNet
    from esdnet.training.data import PairSource
    from esdnet.training.loop import Trainer

RELEASED, SPIKE_DRIVEN = preset("tiny"), preset("tiny_spike_driven")
FIRST_SPIKES = replace(SPIKE_DRIVEN, polarity="on", learn_thresholds=False, attention="mixed")


@dataclass(frozen=True)
class Variant:
    """A network and how it is trained: with the aids of benchmarks.training_aids, and what
    esdnet.training.loop.TrainingConfig adds to the loss."""

    config: ESDNetConfig
    copies_weights: bool = False
    anneals_shortcuts: bool = False
    distillation: float = 0.0
    firing_price: float = 0.0


VARIANTS = {
    "released: analog shortcut, MAU, FRB": Variant(RELEASED),
    "first spikes, MAU": Variant(FIRST_SPIKES),
    "first spikes, static gains, learnt thresholds": Variant(replace(SPIKE_DRIVEN, polarity="on")),
    "ON/OFF, static gains, learnt thresholds": Variant(SPIKE_DRIVEN),
    "ON/OFF, static gains, fixed thresholds": Variant(replace(SPIKE_DRIVEN, learn_thresholds=False)),
    "ON/OFF, no gains, learnt thresholds": Variant(replace(SPIKE_DRIVEN, attention="none")),
    "ON/OFF, MAU, learnt thresholds": Variant(replace(SPIKE_DRIVEN, attention="mixed")),
    "ON/OFF, static gains, annealed shortcuts": Variant(SPIKE_DRIVEN, anneals_shortcuts=True),
    "ON/OFF, static gains, copied weights": Variant(SPIKE_DRIVEN, copies_weights=True),
    "ON/OFF, static gains, distilled": Variant(SPIKE_DRIVEN, distillation=0.1),
    "ON/OFF, static gains, copied weights, annealed": Variant(
        SPIKE_DRIVEN, copies_weights=True, anneals_shortcuts=True
    ),
    "ON/OFF, static gains, copied weights, distilled": Variant(SPIKE_DRIVEN, copies_weights=True, distillation=0.1),
    "ON/OFF, static gains, priced spikes": Variant(SPIKE_DRIVEN, firing_price=0.3),
    "ON/OFF, static gains, dearly priced spikes": Variant(SPIKE_DRIVEN, firing_price=1.0),
    "ON/OFF, static gains, output reads spikes": Variant(replace(SPIKE_DRIVEN, readout="spikes")),
}
TEACHER_SEED = 100  # none of the variants' seeds: it has drawn other rain
LAST_LOSSES = 100  # steps that the final loss is averaged over: it scatters less than PSNR on a few images


@dataclass(frozen=True)
class Found:
    """One trained network. `r2`: mean over the blocks of what a linear decoder recovers of X from its spike counts.
    `loss` is None where a term was added to it, which the others' have not."""

    loss: float | None
    psnr: float
    ssim: float
    r2: float
    firing_rate: float
    macs: float
    acs: float
    energy_uj: float


def build_parser() -> argparse.ArgumentParser:
    parser = budget_parser("spike_driven.py", "The search for a spike-driven ESDNet.", steps=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    teacher = parser.add_mutually_exclusive_group()
    teacher.add_argument(
        "--teacher-steps", type=int, default=2000, help="optimizer steps of the teacher (default: 2000)"
    )
    teacher.add_argument("--teacher", type=Path, help="a trained released checkpoint in its place; all are of its size")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        metavar="NAME",
        default=list(VARIANTS),
        help="rows of the table, the others compared to the first (default: all)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    source = open_source(arguments)
    teacher = open_teacher(arguments.teacher) if arguments.teacher else train_teacher(source, arguments)
    found: dict[str, list[Found]] = {name: [] for name in arguments.variants}
    for seed in arguments.seeds:
        for name in arguments.variants:
            print(f"seed {seed}: {name}", file=sys.stderr)
            found[name].append(train_and_measure(name, seed, source, teacher, arguments))
            write_json(arguments.out / "search.json", {n: [asdict(each) for each in f] for n, f in found.items()})
    text = as_markdown(found, teacher.config, arguments)
    write_text(arguments.out / "search.md", text)
    print(text)
    return 0


def open_teacher(path: Path) -> ESDNet:
    """A trained network from a checkpoint. UserError unless it is a released one: others have no counterpart."""
    from esdnet.networks.checkpoint import load_checkpoint

    teacher = load_checkpoint(path)
    if replace(RELEASED, **_size(teacher.config)) != teacher.config:
        raise UserError(f"{path}: a teacher is a released network, found {teacher.config}")
    return teacher


def _size(config: ESDNetConfig) -> dict[str, Any]:
    """What makes one network of an architecture larger than another."""
    return {name: getattr(config, name) for name in ("dim", "encoder_blocks", "decoder_blocks")}


def train_teacher(source: PairSource, arguments: argparse.Namespace) -> ESDNet:
    """The released network that some variants learn from: averaged weights of a run several times as long as theirs."""
    print("teacher", file=sys.stderr)
    longer = argparse.Namespace(**{**vars(arguments), "steps": arguments.teacher_steps})
    return train(RELEASED, arguments.out / "teacher", source, longer, seed=TEACHER_SEED).average.module


def train_and_measure(
    name: str, seed: int, source: PairSource, teacher: ESDNet, arguments: argparse.Namespace
) -> Found:
    """Train one variant with one seed in a folder of its own (or go on there), then score and count it."""
    import torch

    from benchmarks.training_aids import anneal_shortcuts, start_from
    from esdnet.training.validation import validate

    variant = VARIANTS[name]

    def prepare(trainer: Trainer) -> None:
        if variant.copies_weights:
            start_from(teacher, trainer)
        if variant.anneals_shortcuts:
            anneal_shortcuts(trainer)

    folder = arguments.out / f"{re.sub(r'[^a-z]+', '_', name.lower())}_{seed}"
    trainer = train(
        replace(variant.config, **_size(teacher.config)), folder, source, arguments, seed, prepare,
        teacher if variant.distillation else None,
        distillation=variant.distillation, firing_price=variant.firing_price,
    )  # fmt: skip
    network = trainer.average.module
    validation = validate(network, trainer.pairs, torch.device("cpu"))
    rainy = [pair[1] for pair in trainer.pairs[: arguments.counted]]
    loss = None if variant.distillation or variant.firing_price else final_loss(folder / "log.csv")
    r2 = float(np.mean(list(decoded_shares(network, rainy[0]).values())))
    rate, *operations = count_operations(network, name, rainy, arguments.prices)
    return Found(loss, validation.psnr, validation.ssim, r2, rate, *operations)


def final_loss(log: Path) -> float:
    """The mean training loss over the last steps of a run, from its log."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = int(rows[-1]["step"])
    return float(np.mean([float(row["loss"]) for row in rows if int(row["step"]) > last - LAST_LOSSES]))


def decoded_shares(model: ESDNet, image: np.ndarray) -> dict[str, float]:
    """R2 per block: how much of X, summed over the steps, a linear decoder recovers from the spike counts of the
    block's first neurons. One weight per polarity and one offset for each channel; 1 is all of it."""
    import torch

    from esdnet.networks.esdnet.layers import SpikingResidualBlock
    from esdnet.networks.watching import watching

    shares: dict[str, float] = {}

    def decode(name: str, inputs: tuple[torch.Tensor], spikes: torch.Tensor) -> None:
        x, counts = (values[:, 0].sum(0).flatten(1).double() for values in (inputs[0], spikes))
        shares[name] = decoded_share(x.numpy(), counts.reshape(-1, *x.shape).numpy())

    blocks = {name: block for name, block in model.named_modules() if isinstance(block, SpikingResidualBlock)}
    with torch.inference_mode(), watching({name: block.residual[0] for name, block in blocks.items()}, decode):
        model(torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0))
    return shares


def decoded_share(x: np.ndarray, counts: np.ndarray) -> float:
    """R2 of x (C, pixels) from counts (polarities, C, pixels), least squares channel by channel."""
    left = 0.0
    for channel, values in enumerate(x):
        design = np.stack([*counts[:, channel], np.ones_like(values)], axis=1)
        weights, *_ = np.linalg.lstsq(design, values, rcond=None)
        left += float(((values - design @ weights) ** 2).sum())
    total = float(((x - x.mean(1, keepdims=True)) ** 2).sum())
    return 1.0 - left / total if total else 1.0


def as_markdown(found: dict[str, list[Found]], size: ESDNetConfig, arguments: argparse.Namespace) -> str:
    """One line per variant: means over the seeds. A seed decides the data too, so that variants are compared within it:
    loss and PSNR less those of the first variant with the same seed, with the largest distance from their mean."""
    first = next(iter(found))
    blocks = "+".join(map(str, size.encoder_blocks + size.decoder_blocks))
    teacher = (
        arguments.teacher.name if arguments.teacher else f"the first variant after {arguments.teacher_steps} steps"
    )
    lines = [
        f"Every network: dim {size.dim}, {blocks} blocks, {arguments.steps} steps of {arguments.batch} crops of "
        f"64x64, peak learning rate {arguments.lr:g}, seeds {', '.join(map(str, arguments.seeds))}. Loss: mean of the "
        f"last {LAST_LOSSES} steps. PSNR on Y of {arguments.held_out} held-out images. Differences are from the first "
        f"row with the same seed, which decides the data too: mean, and the largest distance from it. Operations and "
        f"energy (prices `{arguments.prices}`, exact counts) at 256x256. Copied weights and distillation take from a "
        f"teacher, {teacher}. A loss with a further term is not shown.",
        "",
        "| variant | loss | difference | PSNR | difference | R2 of X | firing rate | GMAC | GAC | energy (uJ) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        cells = [name]
        for key in ("loss", "psnr"):
            values, base = ([getattr(each, key) for each in each_run] for each_run in (runs, found[first]))
            cells += ["-", "-"] if None in values else [
                f"{np.mean(values):{'.4f' if key == 'loss' else '.2f'}}",
                "" if name == first else _with_spread([a - b for a, b in zip(values, base, strict=True)]),
            ]  # fmt: skip
        r2, rate, macs, acs, energy = (
            float(np.mean([getattr(each, key) for each in runs]))
            for key in ("r2", "firing_rate", "macs", "acs", "energy_uj")
        )
        cells += [f"{r2:.2f}", f"{rate:.3f}", f"{macs / 1e9:.3f}", f"{acs / 1e9:.3f}", f"{energy:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _with_spread(values: list[float]) -> str:
    middle = float(np.mean(values))
    spread = f" ± {max(abs(value - middle) for value in values):.3f}" if len(values) > 1 else ""
    return f"{middle:+.3f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
