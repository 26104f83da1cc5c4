"""The equations of energy models, by name, and the one function that prices a network."""

from __future__ import annotations

from types import ModuleType

from hw_sim.pricing.energy import STATED, Conditions, Energy, add_up
from hw_sim.pricing.equations import chip, lemaire, price_list, spikesim
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.model import GRADES, EnergyModel

EQUATIONS: dict[str, ModuleType] = {
    "price_list": price_list,
    "chip": chip,
    "lemaire2022": lemaire,
    "spikesim": spikesim,
}


def price(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions = STATED) -> Energy:
    """Joules of the network under the model, by part, and what the model leaves without a price."""
    equation = EQUATIONS[model.equation]
    terms = [equation.layer_terms(model, layer, conditions) for layer in layers]
    return add_up([*terms, equation.network_terms(model, layers, conditions)], priced_parts(model, conditions))


def priced_parts(model: EnergyModel, conditions: Conditions) -> list[str]:
    """The parts that the model prices under these conditions."""
    parts = list(model.prices)
    if conditions.everything and model.prices_constant("memory_word"):
        parts += ["weights", "potentials", "input_output"]
    if conditions.step_seconds is not None and model.prices_constant("static_power"):
        parts.append("static")
    return parts


def weakest_grade(model: EnergyModel, conditions: Conditions) -> str:
    """The grade of the weakest number that these conditions use; the last grade where they use none."""
    used = EQUATIONS[model.equation].used_constants(model, conditions)
    grades = [constant.grade for name, constant in model.constants.items() if name in used]
    return max([*grades, *([model.sram.grade] if model.sram else [])], key=GRADES.index, default=GRADES[-1])
