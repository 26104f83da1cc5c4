"""What each layer and each part of a network costs under one model at every position of a page's sliders.

In: a model, layers, the conditions that the slider of reuse moves through. Out: joules, fixed + price factor * per_ac;
`fixed` is tabled by reuse and size of memory, on which `per_ac` does not hang: the price of an AC is none of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hw_sim.pricing.energy import PART_TITLES, Conditions
from hw_sim.pricing.equations import EQUATIONS, price
from hw_sim.pricing.equations.price_list import words_moved
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.model import EnergyModel
from hw_sim.pricing.scaling import memory_factors, scaled

DIGITS = 7  # of a layer's energy: enough for a sum over layers to show the digits of the total


def _active(layer: LayerFacts) -> int:
    return layer.neuron_updates if layer.active_updates is None else layer.active_updates


OPERATIONS: dict[str, tuple[str, Callable[[LayerFacts], float]]] = {  # constants that price one operation each
    "mac": ("analog MACs", lambda layer: layer.macs),
    "ac": ("spike ACs", lambda layer: layer.acs),
    "sop": ("spike ACs", lambda layer: layer.acs),
    "spike": ("signs (spikes)", lambda layer: layer.events_out if layer.kind == "neuron" else 0),
    "neuron_update": ("neuron updates", lambda layer: layer.neuron_updates),
    "update_active": ("neuron updates, active", _active),
    "update_inactive": ("neuron updates, inactive", lambda layer: layer.neuron_updates - _active(layer)),
    "add": ("element-wise additions", lambda layer: layer.adds),
    "mul": ("element-wise multiplications", lambda layer: layer.muls),
    "memory_word": ("words moved", lambda layer: sum(words_moved(layer).values())),
}


def network_tables(model: EnergyModel, layers: list[LayerFacts], asked: Sequence[Conditions]) -> dict[str, Any]:
    """`ways`: which table a position of reuse reads. `layers`: fixed[way][memory][layer], per_ac[layer]. `parts`: a
    label, operations (None: not of one price), fixed[way][memory], per_ac. Static energy is in neither."""
    ways = list(dict.fromkeys(asked))
    without = scaled(model, 0.0, 1.0)
    sizes = [scaled(model, 1.0, factor) for factor in memory_factors(model)]
    of_layers = _tables(lambda of, way: _layers_j(of, layers, way), model, without, sizes, ways)
    of_parts = _tables(lambda of, way: list(_parts_j(of, layers, way).values()), model, without, sizes, ways)
    counts = {label: round(sum(map(count, layers))) for label, count in OPERATIONS.values()}
    return {
        "ways": [ways.index(conditions) for conditions in asked],
        "layers": {
            "fixed": [[[_short(joules) for joules in size] for size in way] for way in of_layers["fixed"]],
            "per_ac": [_short(joules) for joules in of_layers["per_ac"]],
        },
        "parts": [
            {
                "label": label,
                "operations": counts.get(label),
                "fixed": [[size[place] for size in way] for way in of_parts["fixed"]],
                "per_ac": of_parts["per_ac"][place],
            }
            for place, label in enumerate(_parts_j(model, layers, ways[0]))
        ],
    }


def _tables(
    price: Callable[[EnergyModel, Conditions], list[float]],
    model: EnergyModel, without: EnergyModel, sizes: list[EnergyModel], ways: list[Conditions],
) -> dict[str, Any]:  # fmt: skip
    """A list of energies taken apart: what the price of an AC adds, and the rest for every way and size of memory."""
    per_ac = [whole - rest for whole, rest in zip(price(model, ways[0]), price(without, ways[0]), strict=True)]
    fixed = [[[j - ac for j, ac in zip(price(of, way), per_ac, strict=True)] for of in sizes] for way in ways]
    return {"fixed": fixed, "per_ac": per_ac}


def _layers_j(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> list[float]:
    terms = EQUATIONS[model.equation].layer_terms
    return [sum(terms(model, layer, conditions).joules.values()) for layer in layers]


def _parts_j(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> dict[str, float]:
    """By operation where each constant is the price of one, as the energy with that price less the one without; else by
    the parts that the model states."""
    if model.equation not in ("price_list", "chip"):
        priced = price(model, layers, replace(conditions, step_seconds=None)).parts
        return {PART_TITLES[part]: joules for part, joules in priced.items() if joules is not None}
    used = EQUATIONS[model.equation].used_constants(model, conditions)
    whole = sum(_layers_j(model, layers, conditions))
    rest = {
        name: _layers_j(model.with_constants({name: 0.0}), layers, conditions) for name in OPERATIONS if name in used
    }
    return {OPERATIONS[name][0]: whole - sum(joules) for name, joules in rest.items()}


def _short(joules: float) -> float:
    return float(f"{joules:.{DIGITS}g}")
