"""A price list of the user's own as one more energy model, so that whatever prices by models prices by it too.

In: a report as JSON holds it, with the name of its prices, and they in picojoules. Out: EnergyModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw_sim.pricing.equations import price_list
from hw_sim.pricing.model import Constant, EnergyModel
from hw_sim.pricing.prices import available, load_prices


def own_prices(report: Mapping[str, Any]) -> EnergyModel | None:
    """The prices that a report was made with; None if they ship, and are a model already, or the report has none."""
    name, prices = report.get("prices"), report.get("prices_pj")
    if not isinstance(prices, Mapping) or (name in available() and prices == load_prices(str(name)).to_record()):
        return None
    source = f"the file {name}.toml"
    known = {key: pj for key, pj in prices.items() if key in price_list.CONSTANTS and _is_whole(key, prices)}
    return EnergyModel(
        name=f"{name} (own)",
        title=f"{name} (own prices)",
        equation="price_list",
        question="What does the arithmetic cost at these prices of your own?",
        scope="whatever the file has a price for",
        assumes=(),
        not_priced=(),
        prices=("operations",),
        no_ann="",
        constants={key: Constant(float(pj), "pJ", source, "yours") for key, pj in known.items()},
        choices={},
        sram=None,
        operating_points=(),
        worked_examples=(),
    )


def _is_whole(key: str, prices: Mapping[str, Any]) -> bool:
    """Whether what comes together with a price is there too: alone it prices nothing."""
    return all(group <= prices.keys() for group in price_list.TOGETHER if key in group)
