"""All energy models as a page shows them: what each answers and leaves out, thresholds, and the tables of its sliders.

In: AllModels. Out: what the scripts read, and what the templates write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw_sim.pricing.all_models import AllModels, notes, reproduction_words, standing_words
from hw_sim.pricing.counted import layer_of_facts
from hw_sim.pricing.own_prices import own_prices
from hw_sim.pricing.prices import DEFAULT
from hw_sim.pricing.sensitivity import sensitivity
from hw_sim.pricing.thresholds import load_thresholds
from hw_sim.report.model_tables import first_rows, reference_words


def tables_of(found: AllModels, report: Mapping[str, Any]) -> dict[str, Any]:
    """What prices the page: axes and rows of `sensitivity`, and `start`, the row of the prices that the run was made
    with."""
    tables = sensitivity(found)
    of_layer = layer_of_facts(report["layers"], report["facts"])
    own = own_prices(report)
    name = own.name if own else report.get("prices", DEFAULT)
    names = [row["model"] for row in tables["rows"]]
    start = names.index(name) if name in names else names.index(DEFAULT)  # else the report says no more of its prices
    said = {row.model.name: row for row in first_rows(found.rows)}
    for row in tables["rows"]:
        first = said[row["model"]]
        row["layers"] = {
            "fixed": [[_by_layer(size, of_layer) for size in way] for way in row["layers"]["fixed"]],
            "per_ac": _by_layer(row["layers"]["per_ac"], of_layer),
        }
        row |= {"reproduces": reproduction_words(first), "notes": notes(first.model, first)}
    return {**tables, "start": start}


def _by_layer(joules: list[float], of_layer: list[int]) -> list[float]:
    """Sums over what models read of one layer."""
    if of_layer == list(range(len(joules))):
        return joules
    sums = [0.0] * (max(of_layer) + 1)
    for place, energy in zip(of_layer, joules, strict=True):
        sums[place] += energy
    return sums


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
