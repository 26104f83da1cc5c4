"""All energy models on a terminal: one row per model and variant, thresholds, and what each model leaves out."""

from __future__ import annotations

import textwrap

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hw_sim.pricing.all_models import AllModels, notes, reproduction_words, standing_words, verdict_words
from hw_sim.pricing.energy import PART_TITLES, PARTS, Energy
from hw_sim.pricing.thresholds import load_thresholds
from hw_sim.pricing.verdicts import ModelRow

TEXT_WIDTH = 120


def print_models(console: Console, found: AllModels) -> None:
    """The table, the thresholds in words, and notes model by model."""
    console.print(model_table(found))
    lines = [
        f"reference: {reference_words(found)}; own layers: the same layers run once as an ANN. A ratio below 1: the"
        " network costs less. '>': something in it has no price. '-': the model does not price this part.",
        *(
            standing_words(standing, [line for line in load_thresholds() if line.quantity == standing.quantity])
            for standing in found.standings
        ),
        *(f"{row.model.name}: {' '.join(notes(row.model, row))}" for row in first_rows(found.rows)),
    ]
    for line in lines:
        console.print(textwrap.fill(f"- {line}", TEXT_WIDTH, subsequent_indent="  "), highlight=False, markup=False)


def reference_words(found: AllModels) -> str:
    """What the reference is, and how much of an image it ran on."""
    if found.reference is None:
        return "none"
    height, width = found.reference.size
    return f"{found.reference.name}, {found.reference.tiles} x {height}x{width} pixels"


def model_table(found: AllModels) -> Table:
    """Energy, its parts, both comparisons, evidence."""
    table = Table(title="Under every published energy model (uJ)", title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.add_column("model", no_wrap=True)
    table.add_column("asked", width=23)
    for title in ("energy", *PART_TITLES.values(), "own layers"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("against them", width=17)
    table.add_column("reference", justify="right", no_wrap=True)
    table.add_column("against it", width=17)
    table.add_column("numbers are", width=11)
    table.add_column("reproduces its source to", width=10)
    for row in found.rows:
        table.add_row(
            row.model.name,
            row.variant,
            at_least(row.energy),
            *(uj(row.energy.parts[part]) for part in PARTS),
            full_price(row.own_ann),
            verdict_words(row.against_own),
            full_price(row.reference),
            verdict_words(row.against_reference),
            row.grade,
            reproduction_words(row),
        )
    return table


def uj(joules: float | None) -> str:
    """Microjoules with three digits or more; `-` where there is no figure."""
    if joules is None:
        return "-"
    return f"{joules * 1e6:,.0f}" if joules >= 1e-4 else f"{joules * 1e6:.3g}"


def at_least(energy: Energy) -> str:
    """The total, with a sign where something has no price in it."""
    return f"> {uj(energy.total_j)}" if energy.unpriced else uj(energy.total_j)


def full_price(ann: Energy | None) -> str:
    """The total of an ANN; a part of it would be no figure to compare with."""
    return "no price" if ann is None or ann.unpriced else uj(ann.total_j)


def first_rows(rows: list[ModelRow]) -> list[ModelRow]:
    """One row of each model: what its notes are about."""
    return list({row.model.name: row for row in reversed(rows)}.values())[::-1]
