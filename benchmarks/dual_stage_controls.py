"""Does each part of the dual-stage network earn its place? Controls trained for equal steps, several seeds each.

    python -m benchmarks.dual_stage_controls --photos DIR [--streaks DIR] [--pasted DIR] --scored NAME=DIR --out runs/x

In: training data as esdnet.train takes it, folders of pairs (input/ and target/). Out: controls.json and controls.md in
--out, and every run. Run again, it goes on where it stopped: seed by seed, so that a table is there early.

A seed decides the weights, the crops and their rain alike, so that a control differs from the network of the same seed
in the part that it leaves out, and the differences of pairs say more than those of means.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.league import score, scored_folders
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.writing import check_folder, make_folder, write_json, write_text
from esdnet.networks.architectures import PRESETS, build
from esdnet.training.config import LOSSES, TrainingConfig

if TYPE_CHECKING:
    from esdnet.training.data import PairSource

CONTROLS: dict[str, dict[str, Any]] = {  # what each of them changes of the preset
    "clustered": {},
    "windows of the image": {"order": "windows"},
    "raster order": {"order": "raster"},
    "random order": {"order": "random"},
    "no mask": {"masked": False},
    "one stage": {"stages": 1},
    "no attention": {"attentions": 0},
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dual_stage_controls.py", description="Controls of the dual-stage network.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table and of all runs")
    parser.add_argument("--preset", default="tiny_dual_stage", help="the network (default: tiny_dual_stage)")
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps of each run (default: 4000)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each control (default: 3)")
    parser.add_argument("--photos", type=Path, required=True, help="clean photos for synthetic rain")
    parser.add_argument("--streaks", type=Path, help="streak layers for synthetic rain")
    parser.add_argument("--pasted", type=Path, help="folder of pairs whose rain layers are pasted")
    parser.add_argument("--scored", nargs="+", metavar="NAME=DIR", required=True, help="pairs that all are scored on")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    import torch

    from esdnet.command.memory import keep_freed_memory
    from esdnet.training.data import open_training_source

    scored = scored_folders(arguments.scored)
    check_folder("--out", arguments.out)
    source = open_training_source("synthetic", arguments.photos, arguments.streaks, arguments.pasted, 16)
    make_folder(arguments.out)
    torch.set_num_threads(1)
    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for control, changed in CONTROLS.items():
            print(f"seed {seed}: {control}", file=sys.stderr)
            folder = arguments.out / f"{control.replace(' ', '_')}_{seed}"
            train(replace(PRESETS[arguments.preset], **changed), source, arguments.steps, seed, folder)
            rows.append({"control": control, "seed": seed, "scores": score(folder / "ema.pt", folder, scored)})
            write_json(
                arguments.out / "controls.json", {"preset": arguments.preset, "steps": arguments.steps, "runs": rows}
            )
            write_text(arguments.out / "controls.md", as_markdown(rows, list(scored)))
    print(as_markdown(rows, list(scored)), end="")
    return 0


def train(network: Any, source: PairSource, steps: int, seed: int, folder: Path) -> None:
    """Train a network to the end, or go on."""
    import torch

    from esdnet.training.loop import Trainer, Worker

    make_folder(folder)
    config = TrainingConfig(
        steps=steps, batch=4, lr=2e-3, precision="bf16", seed=seed, validate_every=steps, save_every=500,
        log_weight=LOSSES["log_ssim"]["log_weight"], l1_weight=LOSSES["log_ssim"]["l1_weight"],
    )  # fmt: skip
    torch.manual_seed(seed)
    trainer = Trainer(build(network).train(), source, config, folder, Worker())
    if trainer.last.exists():
        trainer.resume()
    if trainer.step < steps and not trainer.run():
        raise UserError(f"{folder}: stopped at step {trainer.step}; the same command continues")


def as_markdown(rows: list[dict[str, Any]], scored: list[str]) -> str:
    """A line for each control: mean PSNR over its seeds, and the mean and the range of what it lies above the first."""
    first = next(iter(CONTROLS))
    titles = ["network", *(f"{name}: dB | against {first}" for name in scored)]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * (1 + 2 * len(scored))]
    found = {(row["control"], row["seed"]): row["scores"] for row in rows}
    for control in CONTROLS:
        seeds = [seed for seed in range(len(rows)) if (control, seed) in found]
        cells = [control]
        for name in scored if seeds else ():
            values = np.array([found[control, seed][name]["psnr"] for seed in seeds])
            above = values - [found[first, seed][name]["psnr"] for seed in seeds]
            cells += [f"{values.mean():.2f}", f"{above.mean():+.2f} ({above.min():+.2f} to {above.max():+.2f})"]
        if seeds:
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
