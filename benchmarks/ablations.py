"""The paper's Tables 3 to 5 at a small fixed budget: train every row alike, score it, count and price it.

    python -m benchmarks.ablations --photos DIR [--streaks DIR] [--pasted DIR] --out runs/ablations [--steps 300]

In: training data as esdnet.train takes it. Out: <out>/ablations.md and .csv, with the paper's row beside each, and the
training run of each network. A network that two tables share is trained once. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.writing import check_folder, make_folder, write_text
from esdnet.images.crops import middle
from esdnet.networks.esdnet.ablations import BASE, TABLES, Row
from esdnet.networks.esdnet.config import ESDNetConfig

if TYPE_CHECKING:
    import numpy as np

    from esdnet.networks.esdnet.model import ESDNet
    from esdnet.training.data import PairSource
    from esdnet.training.loop import Trainer

COUNTED_SIDE = 256  # the size that the paper counts at
HEADER = (
    "table", "row", "psnr_y", "ssim_y", "firing_rate", "gmacs", "gacs", "energy_uj",
    "paper_psnr", "paper_ssim", "paper_gflops", "paper_energy_uj",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What one trained network reached, and what it did on one image (means over the images counted)."""

    psnr: float
    ssim: float
    firing_rate: float
    macs: float
    acs: float
    energy_uj: float


def build_parser() -> argparse.ArgumentParser:
    parser = budget_parser("ablations.py", "The paper's ablations at a small fixed budget.", steps=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", type=int, nargs="+", choices=sorted(TABLES), default=sorted(TABLES))
    return parser


def budget_parser(program: str, description: str, steps: int) -> argparse.ArgumentParser:
    """The flags of a command that trains many small networks alike: data, budget, prices."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables and of all runs")
    parser.add_argument("--data", default="synthetic", help="'synthetic', or a folder of pairs (default: synthetic)")
    parser.add_argument("--photos", type=Path, help="clean photos for synthetic rain")
    parser.add_argument("--streaks", type=Path, help="streak layers for synthetic rain")
    parser.add_argument("--pasted", type=Path, help="folder of pairs whose rain layers are pasted")
    parser.add_argument("--held-out", type=int, default=8, help="images kept for scoring (default: 8)")
    parser.add_argument("--counted", type=int, default=2, help="of these, how many are counted (default: 2)")
    parser.add_argument("--steps", type=int, default=steps, help=f"optimizer steps of every network (default: {steps})")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="bf16: mixed precision")
    parser.add_argument("--prices", default="paper", help="a list of hw_sim/pricing/lists (default: paper)")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    source = open_source(arguments)
    rows = [(number, row) for number in arguments.tables for row in TABLES[number].rows]
    measured: dict[ESDNetConfig, Measured] = {}
    for number, row in rows:
        if row.config not in measured:
            print(f"Table {number}: {row.name}", file=sys.stderr)
            measured[row.config] = train_and_measure(row, source, arguments)
    write_text(arguments.out / "ablations.csv", as_csv(rows, measured))
    text = as_markdown(rows, measured, arguments)
    write_text(arguments.out / "ablations.md", text)
    print(text)
    return 0


def open_source(arguments: argparse.Namespace) -> PairSource:
    """The training data, once --out can be written; torch on one thread, so that all train alike on every machine."""
    import torch

    from esdnet.command.memory import keep_freed_memory
    from esdnet.training.data import open_training_source

    check_folder("--out", arguments.out)
    make_folder(arguments.out)
    torch.set_num_threads(1)
    keep_freed_memory()
    return open_training_source(
        arguments.data, arguments.photos, arguments.streaks, arguments.pasted, arguments.held_out
    )


def train(
    network: ESDNetConfig,
    folder: Path,
    source: PairSource,
    arguments: argparse.Namespace,
    seed: int,
    prepare: Callable[[Trainer], None] = lambda trainer: None,
    teacher: ESDNet | None = None,
    **terms: float,
) -> Trainer:
    """Train a network to the end in a folder of its own, or go on there. `prepare` is called with what is to train;
    `terms` are those of TrainingConfig that add to the loss."""
    import torch

    from esdnet.networks.esdnet.model import ESDNet
    from esdnet.training.loop import Trainer, TrainingConfig, Worker

    folder.mkdir(exist_ok=True)
    config = TrainingConfig(
        steps=arguments.steps, batch=arguments.batch, lr=arguments.lr, seed=seed,
        warmup=min(50, arguments.steps), validate_every=arguments.steps, validation_images=arguments.held_out,
        precision=arguments.precision, **terms,
    )  # fmt: skip
    torch.manual_seed(seed)
    trainer = Trainer(ESDNet(network).train(), source, config, folder, Worker(), teacher)
    prepare(trainer)
    if trainer.last.exists():
        trainer.resume()
    if not trainer.run():
        raise UserError(f"{folder}: stopped at step {trainer.step}; the same command continues")
    return trainer


def train_and_measure(row: Row, source: PairSource, arguments: argparse.Namespace) -> Measured:
    """Train one row, then score and count its averaged weights."""
    import torch

    from esdnet.training.validation import validate

    folder = arguments.out / re.sub(r"\W+", "_", row.name).strip("_").lower()
    trainer = train(row.config, folder, source, arguments, arguments.seed)
    network = trainer.average.module
    validation = validate(network, trainer.pairs, torch.device("cpu"))
    rainy = [pair[1] for pair in trainer.pairs[: arguments.counted]]
    return Measured(validation.psnr, validation.ssim, *count_operations(network, row.name, rainy, arguments.prices))


def count_operations(model, name: str, images: list[np.ndarray], prices_name: str) -> tuple[float, float, float, float]:
    """Firing rate, MACs, ACs and energy (uJ) of the simulated network, means over the middles of (H, W, 3) images."""
    from export.readers.esdnet import lower
    from hw_sim.backends import simulator
    from hw_sim.pricing.prices import load_prices
    from hw_sim.report.energy_report import sum_counts

    network, prices = lower(model, name), load_prices(prices_name)
    totals = []
    for image in images:
        sides = [min(COUNTED_SIDE, size - size % network.size_multiple) for size in image.shape[:2]]
        part = image[middle(image.shape[:2], sides)].transpose(2, 0, 1)
        result = simulator.run(network, part, keep_spikes=False)
        totals.append(sum_counts(counts.totals() for counts in result.counts.values()))
    every = sum_counts(totals)
    rate = every["spikes"] / every["neuron_updates"] if every["neuron_updates"] else 0.0
    energy = sum(prices.energy_j(each) for each in totals) * 1e6
    return rate, every["macs"] / len(images), every["acs"] / len(images), energy / len(images)


def cells(number: int, row: Row, found: Measured) -> list[str]:
    """One line of the table, as text; what the paper does not print is empty."""
    paper = row.paper
    return [
        str(number), row.name, f"{found.psnr:.2f}", f"{found.ssim:.4f}", f"{found.firing_rate:.3f}",
        f"{found.macs / 1e9:.3f}", f"{found.acs / 1e9:.3f}", f"{found.energy_uj:.0f}",
        f"{paper.psnr:.2f}", f"{paper.ssim:.4f}",
        "" if paper.flops_g is None else f"{paper.flops_g:.3f}",
        "" if paper.energy_uj is None else f"{paper.energy_uj:.0f}",
    ]  # fmt: skip


def as_csv(rows: list[tuple[int, Row]], measured: dict[ESDNetConfig, Measured]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(cells(number, row, measured[row.config]) for number, row in rows)
    return text.getvalue()


def as_markdown(
    rows: list[tuple[int, Row]], measured: dict[ESDNetConfig, Measured], arguments: argparse.Namespace
) -> str:
    """The tables with what must be said beside them."""
    lines = [
        f"Every network: dim {BASE.dim}, one block a level, {arguments.steps} steps of {arguments.batch} crops of "
        f"64x64, peak learning rate {arguments.lr:g}, seed {arguments.seed}, one run. PSNR and SSIM on Y of "
        f"{arguments.held_out} held-out images; operations and energy (prices `{arguments.prices}`, exact counts) on "
        f"the middle {COUNTED_SIDE}x{COUNTED_SIDE} of {arguments.counted} of them.",
        "",
        "**At this budget the tables show that the machinery works, not who wins**: the paper trains networks six "
        "times as wide for 1000 epochs, and here every row is one short run of one seed. The paper's FLOPs and "
        "energies come from a counter that did not see most convolutions.",
    ]
    for number in sorted({number for number, _ in rows}):
        lines += ["", f"### Table {number}: {TABLES[number].title.lower()}", ""]
        lines += [
            "| | PSNR | SSIM | firing rate | GMAC | GAC | energy (uJ) | paper: PSNR | SSIM | GFLOP | energy (uJ) |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        selected = [row for table, row in rows if table == number]
        lines += ["| " + " | ".join(cells(number, row, measured[row.config])[1:]) + " |" for row in selected]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
