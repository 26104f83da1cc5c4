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
from hw_sim.pricing.equations import price
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.model import EnergyModel
from hw_sim.pricing.verdicts import NO_SPIKES, VARIANTS, Variant, asked_of, macs_saved, no_price_of_ann, variants

AC_FACTORS = tuple(2.0 ** (step / 4) for step in range(-16, 17))  # times the model's own price
MEMORY_FACTORS = tuple(2.0**step for step in range(-10, 5))  # times each layer's own size
STEP_SECONDS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # 0: static power is not priced
AC_PRICE = {"price_list": "ac", "chip": "sop", "lemaire2022": "add"}  # the constant that an accumulation costs


def sensitivity(found: AllModels) -> dict[str, Any]:
    """Axes of the sliders and, row by row, what the energies of network, own layers and reference are made of."""
    sides = {
        "network": found.network.layers,
        "own": as_ann(found.network.layers),
        "reference": found.reference.layers,
    }
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
        "everything": ways[0].network.everything,
        "lower_bound": bool(network.unpriced),
        "ac_to_mac": _ac_to_mac(model),
        "sides": {},
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
    """For every size of memory: joules without the price of an AC, and what that price adds. One where none matters."""
    factors = MEMORY_FACTORS if model.sram else (1.0,)
    return [_fixed_and_per_ac(scaled(model, 1.0, factor), layers, conditions) for factor in factors]


def _fixed_and_per_ac(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> list[float]:
    whole = price(model, layers, conditions).total_j
    without = price(scaled(model, 0.0, 1.0), layers, conditions).total_j
    return [without, whole - without]


def scaled(model: EnergyModel, ac: float, memory: float) -> EnergyModel:
    """The model with its price of an AC and the bytes of every memory times these factors, where it has such."""
    name = AC_PRICE.get(model.equation)
    values = {name: model.constants[name].value * ac} if name in model.constants else {}
    if model.sram:
        values["word"] = model.constants["word"].value * memory
    return model.with_constants(values)


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
