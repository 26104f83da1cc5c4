"""All energy models as a part of the HTML report, or, of a saved run, as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from esdnet.command.writing import write_text
from hw_sim.pricing.all_models import AllModels, notes, reproduction_words, standing_words, verdict_words
from hw_sim.pricing.energy import PARTS
from hw_sim.pricing.sensitivity import sensitivity
from hw_sim.pricing.thresholds import load_thresholds
from hw_sim.pricing.verdicts import ModelRow
from hw_sim.report.model_tables import PART_TITLES, at_least, first_rows, full_price, uj

TEMPLATES = Path(__file__).parent / "templates"


def open_templates() -> Environment:
    """The templates of all pages: what is undefined is an error, what is text is escaped."""
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)


def write_page(path: Path, report: Mapping[str, Any], found: AllModels) -> None:
    """A page with nothing but the models, for a saved report."""
    page = open_templates().get_template("models_page.html.j2")
    write_text(path, page.render(network=report["network"], image=report.get("image", ""), models=section(found)))


def section(found: AllModels) -> dict[str, Any]:
    """What the template of the models needs."""
    height, width = found.reference.size
    lines = load_thresholds()
    return {
        "reference": f"{found.reference.name}, {found.reference.tiles} x {height}x{width} pixels",
        "titles": ("energy", *PART_TITLES, "own layers", "reference"),
        "rows": [_row(row) for row in found.rows],
        "standings": [
            standing_words(standing, [line for line in lines if line.quantity == standing.quantity])
            for standing in found.standings
        ],
        "sensitivity": sensitivity(found),
        "notes": {row.model.title: notes(row.model, row) for row in first_rows(found.rows)},
    }


def _row(row: ModelRow) -> dict[str, Any]:
    return {
        "title": row.model.title,
        "variant": row.variant,
        "numbers": [
            at_least(row.energy),
            *(uj(row.energy.parts[part]) for part in PARTS),
            full_price(row.own_ann),
            full_price(row.reference),
        ],
        "verdicts": [verdict_words(row.against_own), verdict_words(row.against_reference)],
        "grade": row.grade,
        "reproduces": reproduction_words(row),
    }
