"""The energy report of a folder of images: one JSON file of all, or a table that grows; a later run with the same
settings takes over what either holds.

In: the runs of the images as dictionaries, and how they were made. Out: the file; earlier runs out of one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.errors import UserError
from esdnet.command.table import Table
from esdnet.command.writing import write_json

if TYPE_CHECKING:
    from esdnet.command.jobs import Outcome
    from hw_sim.backends.executor import Source
    from hw_sim.pricing.prices import PriceList

Runs = dict[str, dict[str, Any]]  # by image
OPEN = "open: "  # before a gate's name, in a table


class FolderReport:
    """What is known of the images of a folder: at first what an earlier run has, then more and more.

    `images`: those of the folder, each with the PNG that it becomes or None. Of a table only totals are kept in memory.
    """

    def __init__(self, args: argparse.Namespace, source: Source, images: dict[Path, Path | None]) -> None:
        from hw_sim.pricing.prices import load_prices

        self.args, self.images = args, images
        self.made_with = settings(args, source, load_prices(args.prices))
        self.table: Table | None = None
        if args.table:
            prices = hashlib.sha256(json.dumps(self.made_with.pop("prices_pj")).encode()).hexdigest()
            self.table = Table(args.table, "image", self.made_with | {"prices_sha256": prices})
            self.table.keep(self._wanted())
            self.runs: Runs = {str(row["image"]): _run_of(row) for row in self.table.without_settings()}
        else:
            self.runs = self._take_over(read_earlier(args.json)) if args.skip_existing else {}

    def add(self, run: dict[str, Any]) -> None:
        """An image that is done."""
        self.runs[run["image"]] = run
        if self.table is not None:
            self.table.add(_row_of(run))

    def finish(self, outcome: Outcome[dict[str, Any]]) -> None:
        """Print a summary, and write the report of all if it is one file."""
        from hw_sim.report.energy_report import summary_dict

        ordered = [self.runs[str(path)] for path in self.images if str(path) in self.runs]
        if ordered:
            from hw_sim.report.console import open_console, print_summary

            print_summary(open_console(), ordered)
        if self.args.json:
            summary = summary_dict(ordered)
            write_json(
                self.args.json, {"settings": self.made_with, "runs": ordered, "summary": summary, **outcome.to_dict()}
            )

    def _wanted(self) -> list[str]:
        """Images that an earlier run may have done: not those whose PNG is wanted and not there."""
        return [str(image) for image, png in self.images.items() if png is None or png.exists()]

    def _take_over(self, earlier: dict[str, Any] | None) -> Runs:
        """The runs of an earlier report; UserError, which names the first setting that differs, if it had others."""
        if earlier is None:
            return {}
        path = self.args.json
        for name, value in self.made_with.items():
            found = earlier["settings"].get(name)
            if found != value:
                raise UserError(
                    f"--skip-existing: {path} was made with {name} {found}, found {value}; give another --json"
                )
        wanted = set(self._wanted())
        runs = {run["image"]: run for run in earlier["runs"] if run["image"] in wanted}
        print(f"{len(runs)} of {len(self.images)} images are in {path} already and skipped", file=sys.stderr)
        return runs


def _row_of(run: dict[str, Any]) -> dict[str, Any]:
    """What fits in a table: the run in numbers, and its totals."""
    height, width = run["executed_size"]
    computed = run.get("computed_in", {})
    named = {name: run[name] for name in ("image", "tiles", "seconds", "firing_rate", "spikes_per_synapse")}
    gates = {f"{OPEN}{gate}": part for gate, part in run.get("gates_open", {}).items()}
    size = {
        "executed_height": height,
        "executed_width": width,
        "computed_in_tiles": computed.get("tiles", run["tiles"]),
    }
    return {**named, **gates, **size, **run["totals"]}


def _run_of(row: dict[str, Any]) -> dict[str, Any]:
    """The run that a row of a table is of, as far as a summary asks."""
    if "spikes_per_synapse" not in row:
        raise UserError("--table: an earlier version wrote it and counted less; give another --table")
    names = (
        "image", "tiles", "seconds", "firing_rate", "spikes_per_synapse", "executed_height", "executed_width",
        "computed_in_tiles",
    )  # fmt: skip
    gates = {name.removeprefix(OPEN): part for name, part in row.items() if name.startswith(OPEN)}
    totals = {name: value for name, value in row.items() if name not in names and not name.startswith(OPEN)}
    size = [row["executed_height"], row["executed_width"]]
    return {**row, "gates_open": gates, "executed_size": size, "totals": totals}


def settings(args: argparse.Namespace, source: Source, prices: PriceList) -> dict[str, Any]:
    """All that the runs of a folder have in common: with other settings they would be others."""
    from export.graph.store import network_digest

    return {
        "network": source.label,
        "network_sha256": network_digest(source.network),
        "backend": args.backend,
        "precision": args.precision,
        "prices": prices.name,
        "prices_pj": prices.to_record(),
        "tile": args.tile,  # that was asked for; each run says which it had
        "overlap": args.overlap,
    }


def check_earlier(args: argparse.Namespace) -> None:
    """UserError if the file that --skip-existing goes on with is none, before anything is loaded."""
    if args.skip_existing and args.json:
        read_earlier(args.json)


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
    if any(name not in run for run in content["runs"] for name in ("facts", "spikes_per_synapse")):
        raise UserError(f"--skip-existing: {path}: an earlier version wrote it and counted less; give another --json")
    return content
