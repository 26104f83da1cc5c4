"""Networks of about one size, trained on the same data with the same loss for the same CPU time, then scored alike.

    python -m benchmarks.league --photos DIR [--streaks DIR] [--pasted DIR] --scored NAME=DIR --out runs/league

In: training data as esdnet.train takes it, and folders of pairs (input/ and target/). Out: league.json and league.md in
--out, and the training run of each network: scores, operations, energy under every model, CPU time; of the networks
trained alike, then of the bundled ones as they ship. league_figure.py draws it. Run again, it goes on where it
stopped.

What is planned is steps: each network's CPU time per step is measured first and kept, so that the learning rate ends
where the time does. The CPU time that the training then took is measured as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.writing import check_folder, make_folder, write_json, write_text
from esdnet.networks.architectures import PRESETS, build, preset
from esdnet.training.config import LOSSES, TrainingConfig

if TYPE_CHECKING:
    from esdnet.training.data import PairSource
    from esdnet.training.loop import Trainer

NETWORKS = (
    "small_dual_stage",
    "small_two_unets",
    "small_nafnet",
    "small_released",
    "small_spike_driven",
    "small_gated",
)
WARMED, TIMED = 3, 20  # steps before the time is taken, and steps that it is taken of


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="league.py", description="Networks at equal training, side by side.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table and of all runs")
    parser.add_argument(
        "--networks", nargs="+", metavar="PRESET", default=NETWORKS, help=f"default: {' '.join(NETWORKS)}"
    )
    parser.add_argument("--hours", type=float, default=2.0, help="CPU time of each training (default: 2)")
    parser.add_argument("--data", default="synthetic", help="'synthetic', or a folder of pairs (default: synthetic)")
    parser.add_argument("--photos", type=Path, help="clean photos for synthetic rain")
    parser.add_argument("--streaks", type=Path, help="streak layers for synthetic rain")
    parser.add_argument("--pasted", type=Path, help="folder of pairs whose rain layers are pasted")
    parser.add_argument("--scored", nargs="+", metavar="NAME=DIR", default=(), help="pairs that all are scored on")
    parser.add_argument("--held-out", type=int, default=16, help="images kept for validation (default: 16)")
    parser.add_argument("--loss", choices=tuple(LOSSES), default="log_ssim", help="default: log_ssim")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="muon", help="default: muon")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="bf16: mixed precision")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    import torch

    from esdnet.command.memory import keep_freed_memory
    from esdnet.training.data import open_training_source

    if not arguments.hours > 0:
        raise UserError(f"--hours {arguments.hours}: expected more than 0")
    for name in arguments.networks:
        preset(name)
    scored = scored_folders(arguments.scored)
    check_folder("--out", arguments.out)
    source = open_training_source(
        arguments.data, arguments.photos, arguments.streaks, arguments.pasted, arguments.held_out
    )
    make_folder(arguments.out)
    torch.set_num_threads(1)  # CPU time is then the same on every machine with such a core
    keep_freed_memory()
    rows = []
    for name in arguments.networks:
        print(name, file=sys.stderr)
        trained = train(name, source, arguments)
        rows.append(trained | assess(arguments.out / name / "ema.pt", arguments.out / name, scored))
    shipped = [as_shipped(path, arguments.out / "shipped" / path.stem, scored) for path in bundled()]
    content = {"hours": arguments.hours, "loss": arguments.loss, "optimizer": arguments.optimizer}
    write_json(arguments.out / "league.json", {**content, "networks": rows, "shipped": shipped})
    text = as_markdown(rows, shipped, list(scored))
    write_text(arguments.out / "league.md", text)
    print(text, end="")
    return 0


def bundled() -> list[Path]:
    """The checkpoints that ship."""
    from esdnet.networks.bundled import FOLDER

    return sorted(FOLDER.glob("*.pt"))


def as_shipped(checkpoint: Path, folder: Path, scored: dict[str, Path]) -> dict[str, Any]:
    """A bundled checkpoint's row of the table; what was found of it is kept in `folder`."""
    from esdnet.networks.checkpoint import load_network

    print(f"{checkpoint.stem}, as it ships", file=sys.stderr)
    make_folder(folder)
    parameters = sum(parameter.numel() for parameter in load_network(checkpoint).parameters())
    return {"name": checkpoint.stem, "parameters": parameters} | assess(checkpoint, folder, scored)


def assess(checkpoint: Path, folder: Path, scored: dict[str, Path]) -> dict[str, Any]:
    """Scores and costs of a checkpoint, each found once and kept in `folder`."""
    from benchmarks.league_costs import costs
    from esdnet.networks.checkpoint import load_network

    kept = folder / "costs.json"
    if not kept.exists():
        write_json(kept, costs(load_network(checkpoint)))
    return {"scores": score(checkpoint, folder, scored), "costs": json.loads(kept.read_text())}


def scored_folders(given: list[str]) -> dict[str, Path]:
    """NAME=DIR as name -> folder of pairs. UserError for what is none."""
    from esdnet.training.data import PairedFolder

    folders = {}
    for text in given:
        name, found, folder = text.partition("=")
        if not (name and found):
            raise UserError(f"--scored {text}: expected NAME=DIR")
        PairedFolder(Path(folder), "paired").pairs()
        folders[name] = Path(folder)
    return folders


def train(name: str, source: PairSource, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a network for its time, or go on. Returns its row of the table, without scores."""
    folder, notes = arguments.out / name, arguments.out / f"{name}.json"
    make_folder(folder)
    row = json.loads(notes.read_text()) if notes.exists() else plan(name, source, arguments)
    if row["hours"] != arguments.hours:
        raise UserError(f"{notes}: its training was planned for {row['hours']} hours, found --hours {arguments.hours}")
    write_json(notes, row)
    trainer = open_trainer(name, source, arguments, folder, row["steps"])
    if trainer.last.exists():
        trainer.resume()
    started = time.process_time()
    try:
        finished = trainer.step == row["steps"] or trainer.run()
    finally:
        write_json(notes, row := row | {"cpu_seconds": row["cpu_seconds"] + time.process_time() - started})
    if not finished:
        raise UserError(f"{folder}: stopped at step {trainer.step}; the same command continues")
    return row


def plan(name: str, source: PairSource, arguments: argparse.Namespace) -> dict[str, Any]:
    """How many steps fill the time: those of a trainer that is then thrown away are timed, data included."""
    from esdnet.training.loop import draw_batch

    trainer = open_trainer(name, source, arguments, arguments.out / name, WARMED + TIMED)
    for step in range(WARMED + TIMED):
        if step == WARMED:
            started = time.process_time()
        trainer.train_step(*draw_batch(source, trainer.config, 0, step))
    seconds = (time.process_time() - started) / TIMED
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "hours": arguments.hours,
        "seconds_per_step": seconds,
        "steps": max(1, round(arguments.hours * 3600 / seconds)),
        "cpu_seconds": 0.0,
    }


def open_trainer(name: str, source: PairSource, arguments: argparse.Namespace, folder: Path, steps: int) -> Trainer:
    """The same for every network but for its steps."""
    import torch

    from esdnet.training.loop import Trainer, Worker

    config = TrainingConfig(
        steps=steps, batch=arguments.batch, lr=arguments.lr, warmup=min(100, steps), precision=arguments.precision,
        optimizer=arguments.optimizer, validate_every=max(1, steps // 10), validation_images=arguments.held_out,
        **LOSSES[arguments.loss],
    )  # fmt: skip
    torch.manual_seed(config.seed)
    return Trainer(build(PRESETS[name]).train(), source, config, folder, Worker())


def score(checkpoint: Path, folder: Path, scored: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Mean scores of a checkpoint on each folder of pairs, by esdnet.evaluate; done once, its reports in `folder`."""
    from esdnet import evaluate

    means = {}
    for name, pairs in scored.items():
        report = folder / f"{name}.json"
        if not report.exists():
            flags = ["--data", str(pairs), "--checkpoint", str(checkpoint), "--device", "cpu"]
            if evaluate.main([*flags, "--json", str(report)]):
                raise UserError(f"{pairs}: not all of it was scored")
        means[name] = json.loads(report.read_text())["mean"]
    return means


def as_markdown(rows: list[dict[str, Any]], shipped: list[dict[str, Any]], scored: list[str]) -> str:
    """Two tables of scores and operations, trained alike and as shipped, and one of the energies of all."""
    everyone = [row | {"title": row["name"]} for row in rows]
    everyone += [row | {"title": row["name"] + ", as shipped"} for row in shipped]
    return "\n".join([*_table(rows, scored), "", *_table(shipped, scored), "", *_energies(everyone)]) + "\n"


def _table(rows: list[dict[str, Any]], scored: list[str]) -> list[str]:
    """A line for each network: size, training if it was trained here, PSNR / SSIM, operations, time."""
    trained = all("steps" in row for row in rows)
    titles = ["network", "parameters", *(["steps", "CPU hours"] if trained else []), *scored]
    lines = _head([*titles, "MACs", "ACs", "spikes", "CPU s a megapixel"])
    for row in rows:
        costs = row["costs"]
        cells = [row["name"], f"{row['parameters']:,}"]
        cells += [f"{row['steps']:,}", f"{row['cpu_seconds'] / 3600:.2f}"] if trained else []
        cells += [f"{row['scores'][name]['psnr']:.2f} / {row['scores'][name]['ssim']:.3f}" for name in scored]
        cells += [f"{costs[name]:,}" for name in ("macs", "acs", "spikes")]
        lines.append(f"| {' | '.join([*cells, format(costs['cpu_seconds_per_megapixel'], '.1f')])} |")
    return lines


def _energies(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each model and way of asking, a column for each network: microjoules at 256x256."""
    lines = _head(["model", "asked", *(row["title"] for row in rows)])
    for key in rows[0]["costs"]["energy_uj"] if rows else ():
        model, asked = key.split(", ", 1)
        found = [row["costs"]["energy_uj"][key] for row in rows]
        cells = ["no price" if joules is None else f"{joules:,.0f}" for joules in found]
        lines.append(f"| {' | '.join([f'`{model}`', asked, *cells])} |")
    return lines


def _head(titles: list[str]) -> list[str]:
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


if __name__ == "__main__":
    sys.exit(main())
