"""The rows of a verification as a table on the terminal and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hw_sim.console import open_console
from hw_sim.verification import Row

STYLES = {"holds": "green", "FAILED": "bold red", "not run": "yellow", "reference": ""}


@dataclass(frozen=True)
class Heading:
    """What was verified: image, network, (height, width) of what was executed, steps, torch's device."""

    image: str
    network: str
    size: tuple[int, int]
    steps: int
    device: str


def print_rows(heading: Heading, rows: list[Row]) -> None:
    """The table, what is to be said of each row, and the sum of it."""
    console = open_console()
    console.print(
        f"[bold]{heading.image}[/bold], {heading.size[0]} x {heading.size[1]} pixels of it, through {heading.network},"
        f" T = {heading.steps}; the reference is torch on {heading.device}, float64",
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
    counts = Counter(row.status for row in rows)
    console.print(
        f"{counts['holds']} hold, {counts['FAILED']} failed, {counts['not run']} not run", highlight=False, style="bold"
    )


def to_dict(heading: Heading, rows: list[Row]) -> dict[str, Any]:
    """The JSON form; an infinite PSNR (equal outputs) is null, as is what was not compared."""
    cells = [asdict(row) for row in rows]
    for cell in cells:
        if cell["psnr_db"] is not None and not math.isfinite(cell["psnr_db"]):
            cell["psnr_db"] = None
    return {**asdict(heading), "rows": cells}


def _whole(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _small(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}" if number else "0"


def _db(number: float | None) -> str:
    return "" if number is None else f"{number:.0f} dB" if math.isfinite(number) else "equal"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"
