"""All energy models as a page shows them: what each answers and leaves out, thresholds, and the tables of its sliders.

In: AllModels. Out: what the scripts read, and what the templates write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw_sim.pricing.all_models import AllModels, notes, reproduction_words, standing_words
from hw_sim.pricing.own_prices import own_prices
from hw_sim.pricing.prices import DEFAULT
from hw_sim.pricing.sensitivity import sensitivity
from hw_sim.pricing.thresholds import load_thresholds
from hw_sim.report.model_tables import first_rows, reference_words


def tables_of(found: AllModels, report: Mapping[str, Any]) -> dict[str, Any]:
    """What prices the page: axes and rows of `sensitivity`, and `start`, the row of the prices that the run was made
    with."""
    tables = sensitivity(found)
    own = own_prices(report)
    name = own.name if own else report.get("prices", DEFAULT)
    names = [row["model"] for row in tables["rows"]]
    start = names.index(name) if name in names else names.index(DEFAULT)  # else the report says no more of its prices
    said = {row.model.name: row for row in first_rows(found.rows)}
    for row in tables["rows"]:
        first = said[row["model"]]
        row |= {"reproduces": reproduction_words(first), "notes": notes(first.model, first)}
    return {**tables, "start": start}


def section(found: AllModels) -> dict[str, Any]:
    """What the template of the models writes."""
    lines = load_thresholds()
    return {
        "reference": reference_words(found),
        "has_reference": found.reference is not None,
        "standings": [
            standing_words(standing, [line for line in lines if line.quantity == standing.quantity])
            for standing in found.standings
        ],
        "notes": {row.model.title: notes(row.model, row) for row in first_rows(found.rows)},
    }
