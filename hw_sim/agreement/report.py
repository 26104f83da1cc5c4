"""The rows of a verification as a table on the terminal and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from export.graph.near_ties import NearTies, describe_near_ties
from hw_sim.agreement.judge import SILENT, Row
from hw_sim.report.console import open_console

STYLES = {
    "holds": "green", "FAILED": "bold red", "proves nothing": "bold red", "not run": "yellow", "reference": "",
}  # fmt: skip


@dataclass(frozen=True)
class Heading:
    """What was verified: image or array, network, (height, width) of what was executed, steps, torch's device, and what
    all are held against."""

    image: str
    network: str
    size: tuple[int, int]
    steps: int
    device: str
    reference: str = "torch"


def print_rows(heading: Heading, rows: list[Row], near_ties: Sequence[NearTies]) -> None:
    """The table, what is to be said of each row, the reference's near-ties, and the sum of it."""
    console = open_console()
    pixels = f", {heading.size[0]} x {heading.size[1]} pixels of it," if heading.reference == "torch" else ""
    console.print(
        f"[bold]{heading.image}[/bold]{pixels} through {heading.network}, T = {heading.steps};"
        f" the reference is {heading.reference} on {heading.device}, float64",
        highlight=False,
    )
    table = Table(box=SIMPLE_HEAD)
    for column in ("backend", "precision"):
        table.add_column(column, no_wrap=True)
    for column in ("spikes that differ", "first: node, step, number", "max difference", "PSNR", "time", "verdict"):
        table.add_column(column, justify="left" if column.startswith(("first", "verdict")) else "right")
    for row in rows:
        numbers = (_whole(row.mismatches), row.first, _small(row.max_difference), _db(row.psnr_db), _time(row.seconds))
        table.add_row(row.backend, row.precision, *numbers, row.status, style=STYLES[row.status])
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"- {row.backend}, {row.precision}: {row.status}: {row.note}", highlight=False, markup=False)
    for line in describe_near_ties(near_ties) or ["none"] * (heading.reference == "torch"):
        console.print(f"- near-ties of torch in float64: {line}", highlight=False, markup=False)
    console.print(summary(rows), highlight=False, style="bold")


def summary(rows: list[Row]) -> str:
    """How many rows hold, failed, proved nothing; and which were not run, by name."""
    named = {
        status: [f"{row.backend} {row.precision}" for row in rows if row.status == status]
        for status in ("holds", "FAILED", "proves nothing", "not run")
    }
    parts = [f"{len(named['holds'])} hold, {len(named['FAILED'])} failed"]
    if named["proves nothing"]:
        parts.append(f"{len(named['proves nothing'])} prove nothing: {SILENT}")
    parts.append(f"{len(named['not run'])} not run" + (": " if named["not run"] else "") + ", ".join(named["not run"]))
    return ", ".join(parts)


def exit_status(rows: list[Row]) -> int:
    """0 if every row that ran holds; 1 if one failed, or proves nothing."""
    return 1 if any(row.status in ("FAILED", "proves nothing") for row in rows) else 0


def to_dict(heading: Heading, rows: list[Row], near_ties: Sequence[NearTies]) -> dict[str, Any]:
    """The JSON form; an infinite PSNR (equal outputs) is null, as is what was not compared."""
    cells = [asdict(row) for row in rows]
    for cell in cells:
        if cell["psnr_db"] is not None and not math.isfinite(cell["psnr_db"]):
            cell["psnr_db"] = None
    ties = [
        {"neuron": tie.neuron, "step": step, "membranes": count, "nearest": nearest}
        for tie in near_ties
        for step, (count, nearest) in tie.by_step().items()
    ]
    return {**asdict(heading), "rows": cells, "near_ties": ties, "summary": summary(rows)}


def _whole(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _small(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}" if number else "0"


def _db(number: float | None) -> str:
    return "" if number is None else f"{number:.0f} dB" if math.isfinite(number) else "equal"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"
