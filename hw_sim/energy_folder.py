"""The energy report of a folder of images: one JSON file, which a later run with the same settings takes over.

In: the runs of the images as dictionaries, and how they were made. Out: the file; earlier runs out of one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.errors import UserError
from esdnet.command.writing import write_json

if TYPE_CHECKING:
    from esdnet.command.jobs import Outcome
    from hw_sim.backends.executor import Source
    from hw_sim.pricing.prices import PriceList


def settings(args: argparse.Namespace, source: Source, prices: PriceList) -> dict[str, Any]:
    """All that the runs of a folder have in common: with other settings they would be others."""
    from export.graph.store import network_digest

    return {
        "network": source.label,
        "network_sha256": network_digest(source.network),
        "backend": args.backend,
        "precision": args.precision,
        "prices": prices.name,
        "prices_pj": {name: price.energy_j * 1e12 for name, price in prices.prices.items()},
        "tile": args.tile,  # that was asked for; each run says which it had
        "overlap": args.overlap,
    }


def read_earlier(path: Path) -> dict[str, Any] | None:
    """The report of a folder at `path`, None if there is none yet; UserError if it is something else."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--skip-existing: {path}: cannot be read as a report: {error}") from error
    if not isinstance(content, dict) or not {"settings", "runs"} <= content.keys():
        raise UserError(f"--skip-existing: {path}: is not a report of a folder; give another --json")
    if any("facts" not in run for run in content["runs"]):
        raise UserError(f"--skip-existing: {path}: an earlier version wrote it and counted less; give another --json")
    return content


def take_over(
    earlier: dict[str, Any] | None,
    path: Path,
    made_with: dict[str, Any],
    images: list[Path],
    pngs: dict[Path, Path],
) -> dict[str, dict[str, Any]]:
    """The earlier runs of `images`, by image, but for those whose PNG is wanted and not there.

    UserError, which names the first that differs, if the earlier report was made with other settings.
    """
    if earlier is None:
        return {}
    for name, value in made_with.items():
        found = earlier["settings"].get(name)
        if found != value:
            raise UserError(f"--skip-existing: {path} was made with {name} {found}, found {value}; give another --json")
    wanted = {str(image) for image in images if image not in pngs or pngs[image].exists()}
    runs = {run["image"]: run for run in earlier["runs"] if run["image"] in wanted}
    print(f"{len(runs)} of {len(images)} images are in {path} already and skipped", file=sys.stderr)
    return runs


def write_folder_report(
    path: Path, made_with: dict[str, Any], runs: list[dict[str, Any]], outcome: Outcome[dict[str, Any]]
) -> None:
    """Runs, their summary, and what failed or was not run."""
    from hw_sim.report.energy_report import summary_dict

    write_json(path, {"settings": made_with, "runs": runs, "summary": summary_dict(runs), **outcome.to_dict()})
