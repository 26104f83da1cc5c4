"""What the scripts of a page that compares two runs read: both as a report's page has them, and what belongs together.

In: Comparison. Out: data for JSON.
"""

from __future__ import annotations

from typing import Any

from hw_sim.pricing.all_models import price_all
from hw_sim.report.comparison import Comparison, Report, at_prices
from hw_sim.report.page.layers import blocks_of, layers_of
from hw_sim.report.page.models import tables_of


def comparison_data(found: Comparison) -> dict[str, Any]:
    """`layers`, `prices`: of the first run, and in `other` of the second, row for row under the same models. `pairs`: a
    layer's place in each, None where it is not. `block_pairs`: the places of a block's layers in each."""
    first, second = (_priced(at_prices(run, found.prices)) for run in found.runs)
    places = [{layer["name"]: place for place, layer in enumerate(run["layers"])} for run in (first, second)]
    return {
        **first,
        "other": {"layers": second["layers"], "rows": second["prices"]["rows"]},
        "pairs": [
            {"name": pair.name, "a": places[0].get(pair.name), "b": places[1].get(pair.name)} for pair in found.pairs
        ],
        "block_pairs": _block_pairs(first["layers"], second["layers"]),
        "fires": any(layer["chances"] for run in (first, second) for layer in run["layers"]),
    }


def _priced(report: Report) -> dict[str, Any]:
    return {"layers": layers_of(report), "prices": tables_of(price_all(report, None), report)}


def _block_pairs(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Blocks of one name, in the order of the first network, then those that the second alone has."""
    a, b = ({block["name"]: block["layers"] for block in blocks_of(layers)} for layers in (first, second))
    return [{"name": name, "a": a.get(name, []), "b": b.get(name, [])} for name in {**a, **b}]
