"""`python -m esdnet.evaluate`: scores a checkpoint on a folder of images, each beside the score of the rainy input.

In: a checkpoint and a data set (esdnet.training.data lists the layouts). Out: PSNR and SSIM on Y per image and on
average, or PIQE where there are no targets; a table on stdout, JSON and CSV on request. Outputs are rounded to 8 bits
first, as a saved image is.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esdnet.command.command_line import program_name
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.jobs import run_jobs
from esdnet.command.table import Table, add_table_flags, check_table
from esdnet.command.workers import absolute, add_worker_flags, open_workers
from esdnet.command.writing import check_outputs, write_json
from esdnet.images.metrics import psnr_y, ssim_y
from esdnet.images.photo import image_size, photo_of
from esdnet.images.piqe import piqe
from esdnet.images.tile_choice import check_tile_flags
from esdnet.networks.architectures import LEAST_MULTIPLE
from esdnet.networks.bundled import checkpoint_label, find_checkpoint
from esdnet.networks.derainer import Derainer, Setup, add_network_flags, derain_photo
from esdnet.training.data import LAYOUTS, Pair, PairedFolder

IMAGE_BYTES = 300  # a pixel of a whole image: two or three of them in float64, and their local means
METAQA_NOTE = "MetaQA, the paper's other score without targets, is not run: it needs third-party weights"


def build_parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Score a checkpoint on a data set.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--layout", choices=LAYOUTS, default="paired", help="default: paired (input/ and target/)")
    add_network_flags(parser)
    add_worker_flags(parser)
    parser.add_argument("--limit", type=int, help="only the first N images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores, and what failed")
    add_table_flags(parser, "image")
    parser.add_argument("--skip-existing", action="store_true", help="take over the images that --table holds already")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> int:
    """Score what the flags name, print the table and write the files asked for."""
    checkpoint, pairs = _check(arguments)
    with open_workers(arguments) as workers:
        network = Derainer(checkpoint, arguments, [pair.rainy for pair in pairs], IMAGE_BYTES, workers)
        table = _open_table(arguments, network)
        left = [pair for pair in pairs if table is None or pair.name not in table.rows]

        def task(pair: Pair) -> ToScore:
            return ToScore(network.setup, pair, network.tile(pair.name, image_size(pair.rainy)))

        outcome = run_jobs(
            left, score_pair, lambda pair: pair.name, workers=workers, task=task,
            done=lambda row: None if table is None else table.add(_flat(row)),
        )  # fmt: skip
    found = {row["name"]: row for row in (table.without_settings() if table else [])}
    found |= {row["name"]: row for row in outcome.results}
    rows = [found[pair.name] for pair in pairs if pair.name in found]
    report = {
        "checkpoint": checkpoint_label(checkpoint),
        "data": str(arguments.data),
        "layout": arguments.layout,
        "tile": arguments.tile,  # that was asked for; each image says which it had
        "overlap": network.setup.overlap,
        "device": network.setup.device,
        "images": rows,
        "mean": {name: sum(row[name] for row in rows) / len(rows) for name in score_names(rows)},
        **outcome.to_dict(),
    }
    if rows:
        _print_table(rows, report["mean"])
    if arguments.json is not None:
        write_json(arguments.json, _finite(report))
    return outcome.status


def _check(arguments: argparse.Namespace) -> tuple[Path, list[Pair]]:
    """What the flags name, the checkpoint and the pairs; UserError for what cannot be."""
    check_tile_flags(arguments, LEAST_MULTIPLE)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}: expected at least 1")
    if arguments.skip_existing and arguments.table is None:
        raise UserError("--skip-existing: takes over what --table FILE holds; give both")
    absolute(arguments, "data")
    checkpoint = find_checkpoint(arguments.checkpoint)
    pairs = PairedFolder(arguments.data, arguments.layout).pairs()[: arguments.limit]
    inputs = [path for pair in pairs for path in (pair.rainy, pair.target) if path is not None]
    check_outputs({"--json": arguments.json, "--table": arguments.table}, [checkpoint, *inputs])
    check_table(arguments.table, arguments.skip_existing)
    return checkpoint, pairs


def _open_table(arguments: argparse.Namespace, network: Derainer) -> Table | None:
    if arguments.table is None:
        return None
    setup = network.setup
    made_with = {
        "checkpoint": network.label, "sha256": setup.sha256, "data": arguments.data, "layout": arguments.layout,
        "asked_tile": arguments.tile, "overlap": setup.overlap,
    }  # fmt: skip
    return Table(arguments.table, "name", made_with)


@dataclass(frozen=True)
class ToScore:
    """An image to derain and score, and all that must be known of how."""

    setup: Setup
    pair: Pair
    tile: int


def score_pair(given: ToScore) -> dict[str, Any]:
    """Derain one image and score it: name, size, what was executed, and the scores of output and input."""
    rainy, clean = given.pair.load()
    derained = derain_photo(given.setup, given.pair.name, photo_of(rainy), given.tile)
    return {"name": given.pair.name, **derained.facts, **_scores(np.asarray(derained.image) / 255.0, rainy, clean)}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """What fits in a table."""
    return {name: value for name, value in row.items() if not isinstance(value, list)}


def score_names(rows: list[dict[str, Any]]) -> list[str]:
    """The columns of rows that are scores."""
    return [name for name in (rows[0] if rows else ()) if name.split("_")[-1] in ("psnr", "ssim", "piqe")]


def _scores(output: np.ndarray, rainy: np.ndarray, clean: np.ndarray | None) -> dict[str, float]:
    if clean is None:
        return {"piqe": piqe(output), "input_piqe": piqe(rainy)}
    return {
        "psnr": psnr_y(output, clean),
        "ssim": ssim_y(output, clean),
        "input_psnr": psnr_y(rainy, clean),
        "input_ssim": ssim_y(rainy, clean),
    }


def _print_table(rows: list[dict[str, Any]], mean: dict[str, float]) -> None:
    names = list(mean)
    print(f"{'image':<24}" + "".join(f"{name:>12}" for name in names))
    for row in [*rows, {"name": f"mean of {len(rows)}", **mean}]:
        print(f"{row['name']:<24}" + "".join(f"{row[name]:>12.4f}" for name in names))
    if "piqe" in mean:
        print(f"PIQE: 0 is best, 100 worst. {METAQA_NOTE}.")


def _finite(value: Any) -> Any:
    """JSON has no infinity: the PSNR of equal images becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    from esdnet.evaluate import main as command  # what other processes are given must have a name there

    sys.exit(command())
