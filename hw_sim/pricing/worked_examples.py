"""How far a model is from the figures of its source: its worked examples, priced."""

from __future__ import annotations

from hw_sim.pricing.energy import Energy
from hw_sim.pricing.equations import price
from hw_sim.pricing.model import EnergyModel, WorkedExample


def price_example(model: EnergyModel, example: WorkedExample) -> Energy:
    """The example's layers under the model, with the constants and conditions that the example states."""
    return price(model.with_constants(example.constants), list(example.layers), example.conditions)


def deviation(model: EnergyModel, example: WorkedExample) -> float:
    """Relative distance of the model's energy from the example's figure."""
    return price_example(model, example).total_j / example.joules - 1


def reproduces(model: EnergyModel) -> float | None:
    """The largest relative distance from a published figure; None if the source has no figure to reproduce."""
    published = [abs(deviation(model, example)) for example in model.worked_examples if example.published]
    return max(published, default=None)
