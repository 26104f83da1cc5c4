"""`python -m esdnet.evaluate`: scores a checkpoint on a folder of images, each beside the score of the rainy input.

In: a checkpoint and a data set (esdnet.training.data lists the layouts). Out: PSNR and SSIM on Y per image and on
average, or PIQE where there are no targets; a table on stdout, JSON and CSV on request. Outputs are rounded to 8 bits
first, as a saved image is.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from esdnet.command.command_line import program_name
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.jobs import run_jobs
from esdnet.command.writing import check_outputs, write_json, write_text
from esdnet.images.files import from_tensor
from esdnet.images.metrics import psnr_y, ssim_y
from esdnet.images.piqe import piqe
from esdnet.images.tile_choice import check_tile_flags
from esdnet.networks.architectures import LEAST_MULTIPLE
from esdnet.networks.bundled import checkpoint_label, find_checkpoint
from esdnet.networks.derainer import Derainer, add_network_flags, facts
from esdnet.training.data import LAYOUTS, Pair, PairedFolder

IMAGE_BYTES = 300  # a pixel of a whole image: two or three of them in float64, and their local means
METAQA_NOTE = "MetaQA, the paper's other score without targets, is not run: it needs third-party weights"


def build_parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Score a checkpoint on a data set.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--layout", choices=LAYOUTS, default="paired", help="default: paired (input/ and target/)")
    add_network_flags(parser)
    parser.add_argument("--limit", type=int, help="only the first N images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores, and what failed")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the scores per image")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> int:
    """Score what the flags name, print the table and write the files asked for."""
    check_tile_flags(arguments, LEAST_MULTIPLE)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}: expected at least 1")
    checkpoint = find_checkpoint(arguments.checkpoint)
    pairs = PairedFolder(arguments.data, arguments.layout).pairs()[: arguments.limit]
    inputs = [path for pair in pairs for path in (pair.rainy, pair.target) if path is not None]
    check_outputs({"--json": arguments.json, "--csv": arguments.csv}, [checkpoint, *inputs])
    network = Derainer(checkpoint, arguments, [pair.rainy for pair in pairs], IMAGE_BYTES)
    outcome = run_jobs(pairs, lambda pair: score_pair(network, pair), lambda pair: pair.name)
    rows = outcome.results
    report = {
        "checkpoint": checkpoint_label(checkpoint),
        "data": str(arguments.data),
        "layout": arguments.layout,
        "tile": arguments.tile,  # that was asked for; each image says which it had
        "overlap": arguments.overlap,
        "device": network.device,
        "images": rows,
        "mean": {name: sum(row[name] for row in rows) / len(rows) for name in score_names(rows)},
        **outcome.to_dict(),
    }
    if rows:
        _print_table(rows, report["mean"])
    if arguments.json is not None:
        write_json(arguments.json, _finite(report))
    if arguments.csv is not None:
        write_text(arguments.csv, _to_csv(rows))
    return outcome.status


def score_pair(network: Derainer, pair: Pair) -> dict[str, Any]:
    """Derain one image and score it: name, size, what was executed, and the scores of output and input."""
    rainy, clean = pair.load()
    tile, result = network.derain(pair.name, rainy)
    output = np.floor(np.clip(from_tensor(result.output), 0.0, 1.0) * 255.0 + 0.5) / 255.0
    return {"name": pair.name, **facts(rainy, tile, result), **_scores(output, rainy, clean)}


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


def _to_csv(rows: list[dict[str, Any]]) -> str:
    names = ["name", "height", "width", "tile", "tiles", *score_names(rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
