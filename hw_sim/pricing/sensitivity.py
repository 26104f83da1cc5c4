"""How verdicts move with the price of an addition, the size of memories, reuse and the time of a step.

In: AllModels. Out: tables from which a page computes every position of its sliders. An energy is linear in the price of
an AC and in time; by size of memory and by reuse it is tabled. So no equation is written a second time, in JavaScript.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hw_sim.pricing.all_models import AllModels
from hw_sim.pricing.ann import as_ann, has_spikes
from hw_sim.pricing.energy import Conditions
from hw_sim.pricing.equations import price, weakest_grade
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.layer_prices import network_tables
from hw_sim.pricing.model import EnergyModel
from hw_sim.pricing.scaling import AC_FACTORS, MEMORY_FACTORS, memory_factors, scaled
from hw_sim.pricing.verdicts import NO_SPIKES, VARIANTS, Variant, asked_of, macs_saved, no_price_of_ann, variants

STEP_SECONDS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # 0: static power is not priced


def sensitivity(found: AllModels) -> dict[str, Any]:
    """Axes of the sliders and, row by row, what energies are made of: those of network, own layers and reference, and
    those of the network's parts and layers."""
    sides = {"network": found.network.layers, "own": as_ann(found.network.layers)}
    if found.reference is not None:
        sides["reference"] = found.reference.layers
    return {"axes": _axes(found.step_seconds), "rows": [_row(*row, sides) for row in _asked(found)]}


def _axes(step_seconds: float | None) -> list[dict[str, Any]]:
    """Names, positions and where each slider starts: as the report prices it."""
    times = sorted({*STEP_SECONDS, step_seconds or 0.0})
    return [
        _axis("ac", "price of an addition", AC_FACTORS, 1.0, [f"{factor:.3g} x" for factor in AC_FACTORS]),
        _axis("sram", "size of memories", MEMORY_FACTORS, 1.0, [f"{factor:g} x" for factor in MEMORY_FACTORS]),
        _axis("reuse", "reuse", (0, 1, 2), 0, [way.label for way in VARIANTS["lemaire2022"]]),
        _axis(
            "time", "time of a step", times, step_seconds or 0.0,
            [f"{seconds:g} s" if seconds else "static power not priced" for seconds in times],
        ),
    ]  # fmt: skip


def _axis(name: str, label: str, values: Any, start: float, labels: list[str]) -> dict[str, Any]:
    at = list(values).index(start)
    if name in ("ac", "sram"):
        labels[at] = "as stated"
    return {"name": name, "label": label, "positions": list(values), "labels": labels, "start": at}


def _asked(found: AllModels) -> list[tuple[EnergyModel, list[Variant]]]:
    """Models with the ways that the slider of reuse moves through; a list with everything priced has its own row."""
    rows: list[tuple[EnergyModel, list[Variant]]] = []
    for model in {row.model.name: row.model for row in found.rows}.values():
        ways = variants(model)
        rows += [(model, ways)] if model.equation == "lemaire2022" else [(model, [way]) for way in ways]
    return rows


def _row(model: EnergyModel, ways: list[Variant], sides: dict[str, list[LayerFacts]]) -> dict[str, Any]:
    network = price(model, sides["network"], ways[0].network)
    record: dict[str, Any] = {
        "model": model.name,
        "title": model.title if len(ways) > 1 or not ways[0].network.everything else f"{model.title}, {ways[0].label}",
        "grade": weakest_grade(model, ways[0].network),
        "everything": ways[0].network.everything,
        "lower_bound": bool(network.unpriced),
        "ac_to_mac": _ac_to_mac(model),
        "sides": {},
        **network_tables(model, sides["network"], [asked_of(way, sides["network"]) for way in ways]),
    }
    for side, layers in sides.items():
        asked = [asked_of(way, layers) if side == "network" else way.ann for way in ways]
        record["sides"][side] = {
            "energies": [_by_memory(model, layers, conditions) for conditions in asked],
            "per_second": _per_second(model, layers, asked[0]),
        }
        if side != "network":
            energy = price(model, layers, asked[0])
            itself = side == "own" and not has_spikes(sides["network"])
            record["sides"][side] |= {
                "no_answer": NO_SPIKES if itself else no_price_of_ann(model, layers, energy),
                "unpriced": bool(energy.unpriced),
                "saved_macs": macs_saved(model, sides["network"], network, layers),
            }
    return record


def _by_memory(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> list[list[float]]:
    """For every size of memory, or one where none matters: joules without the price of an AC, and what that price adds,
    the same for all."""
    per_ac = price(model, layers, conditions).total_j - price(scaled(model, 0.0, 1.0), layers, conditions).total_j
    sizes = [scaled(model, 1.0, factor) for factor in memory_factors(model)]
    return [[price(size, layers, conditions).total_j - per_ac, per_ac] for size in sizes]


def _per_second(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> float:
    """Static joules for each second that a step takes."""
    return price(model, layers, replace(conditions, step_seconds=1.0)).parts["static"] or 0.0


def _ac_to_mac(model: EnergyModel) -> dict[str, float] | None:
    """Prices of AC and MAC in pJ; `mac_per_ac`: what the price of an addition adds to that of a MAC."""
    if model.equation == "lemaire2022":
        add = model.constants["add"].value
        return {"ac": add, "mac": model.constants["mul"].value, "mac_per_ac": add}
    if model.equation == "price_list" and {"ac", "mac"} <= model.constants.keys():
        return {"ac": model.constants["ac"].value, "mac": model.constants["mac"].value, "mac_per_ac": 0.0}
    return None
