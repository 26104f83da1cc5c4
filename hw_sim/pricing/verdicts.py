"""Under which models does a network cost less than an ANN: one row per model and condition. No average, no rank.

In: the layers of a run, models, and the layers of a reference if there is one. Out: rows, in the order of the models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hw_sim.pricing.ann import as_ann, has_spikes
from hw_sim.pricing.energy import STATED, Conditions, Energy
from hw_sim.pricing.equations import price, weakest_grade
from hw_sim.pricing.equations.chip import chips, operating_point_j
from hw_sim.pricing.layer_facts import LayerFacts, total
from hw_sim.pricing.model import EnergyModel
from hw_sim.pricing.worked_examples import reproduces


@dataclass(frozen=True)
class Variant:
    """How both sides are asked: what a row says of it, the network's conditions, the ANN's."""

    label: str
    network: Conditions = STATED
    ann: Conditions = STATED


AS_STATED = Variant("as its source states it")
EVERYTHING = Conditions(everything=True)
VARIANTS = {
    "price_list": (AS_STATED, Variant("with element-wise work and memory", EVERYTHING, EVERYTHING)),
    "lemaire2022": (
        AS_STATED,
        Variant("each weight read once a step, on both sides", Conditions("weights"), Conditions("weights")),
        Variant("the ANN reads weights and inputs once", STATED, Conditions("operands")),
    ),
}
NO_SPIKES = "No spikes: its own layers as an ANN are the network itself"
BEYOND_PUBLISHED = ("add", "mul", "memory_word")  # constants that only a row with everything uses


@dataclass(frozen=True)
class Verdict:
    """The network beside an ANN. word: "wins" if it costs less, "loses" if not, or "no answer", and then `why`.

    ratio: network / ANN where both are priced. break_even_mac_j: the price of a MAC, on hardware of one's own choice,
    above which the network costs less; only where the model prices no MACs.
    """

    word: str
    ratio: float | None = None
    why: str = ""
    break_even_mac_j: float | None = None

    def to_record(self) -> dict[str, Any]:
        """The verdict as a JSON file has it; the break-even price in picojoules."""
        price = None if self.break_even_mac_j is None else self.break_even_mac_j * 1e12
        return {"word": self.word, "ratio": self.ratio, "why": self.why, "break_even_mac_pj": price}


@dataclass(frozen=True)
class ModelRow:
    """One model under one variant. reproduces: the largest relative distance from its source's figures, or None.

    operating_points: the same synaptic operations at averages that the source prints, joules; never part of `energy`.
    """

    model: EnergyModel
    variant: str
    grade: str
    reproduces: float | None
    energy: Energy
    own_ann: Energy
    against_own: Verdict
    reference: Energy | None
    against_reference: Verdict | None
    operating_points: dict[str, float]
    chips: int

    def to_record(self) -> dict[str, Any]:
        """The row as a JSON file has it; energies in microjoules, the break-even price in picojoules."""
        record = {
            "model": self.model.name,
            "title": self.model.title,
            "variant": self.variant,
            "grade": self.grade,
            "reproduces": self.reproduces,
            **_microjoules("", self.energy),
            "unpriced": self.energy.unpriced,
            "left_out": self.energy.left_out,
            "not_priced": list(self.model.not_priced),
            **_microjoules("own_ann_", self.own_ann),
            "against_own": self.against_own.to_record(),
            "operating_points_uj": {name: joules * 1e6 for name, joules in self.operating_points.items()},
            "chips": self.chips,
        }
        if self.reference is not None and self.against_reference is not None:
            record |= _microjoules("reference_", self.reference)
            record["against_reference"] = self.against_reference.to_record()
        return record


def _microjoules(prefix: str, energy: Energy) -> dict[str, Any]:
    parts = {part: None if joules is None else joules * 1e6 for part, joules in energy.parts.items()}
    return {f"{prefix}energy_uj": energy.total_j * 1e6, f"{prefix}parts_uj": parts}


def judge(
    layers: list[LayerFacts],
    models: list[EnergyModel],
    reference: list[LayerFacts] | None = None,
    step_seconds: float | None = None,
) -> list[ModelRow]:
    """Rows for every model and variant: the network, its own layers once as an ANN, and a reference network."""
    own = as_ann(layers)
    return [
        _row(model, variant, layers, own, reference, step_seconds) for model in models for variant in variants(model)
    ]


def variants(model: EnergyModel) -> list[Variant]:
    """The ways in which a model is asked; a price list without further prices has one."""
    ways = list(VARIANTS.get(model.equation, (AS_STATED,)))
    if model.equation == "price_list" and not any(model.prices_constant(name) for name in BEYOND_PUBLISHED):
        return ways[:1]
    if model.equation == "price_list" and not model.prices_constant("memory_word"):
        ways[1] = replace(ways[1], label="with element-wise work")
    return ways


def asked_of(variant: Variant, layers: list[LayerFacts]) -> Conditions:
    """The conditions that a network is priced under; without spikes it is an ANN."""
    return variant.network if has_spikes(layers) else variant.ann


def _row(
    model: EnergyModel,
    variant: Variant,
    layers: list[LayerFacts],
    own: list[LayerFacts],
    reference: list[LayerFacts] | None,
    step_seconds: float | None,
) -> ModelRow:
    network, ann = (replace(side, step_seconds=step_seconds) for side in (asked_of(variant, layers), variant.ann))
    energy, own_energy = price(model, layers, network), price(model, own, ann)
    other = None if reference is None else price(model, reference, ann)
    return ModelRow(
        model=model,
        variant=variant.label,
        grade=weakest_grade(model, network),
        reproduces=reproduces(model),
        energy=energy,
        own_ann=own_energy,
        against_own=against_own(model, layers, energy, own, own_energy),
        reference=other,
        against_reference=None
        if reference is None or other is None
        else compare(model, layers, energy, reference, other),
        operating_points=operating_point_j(model, layers),
        chips=chips(model, layers),
    )


def against_own(
    model: EnergyModel, layers: list[LayerFacts], energy: Energy, own: list[LayerFacts], own_energy: Energy
) -> Verdict:
    """Beside its own layers run once as an ANN, which a network without spikes is itself."""
    if not has_spikes(layers):
        return Verdict("no answer", why=NO_SPIKES)
    return compare(model, layers, energy, own, own_energy)


def compare(
    model: EnergyModel, layers: list[LayerFacts], energy: Energy, ann: list[LayerFacts], ann_energy: Energy
) -> Verdict:
    """Wins, loses, or why there is no answer. A network whose lower bound reaches a full price has lost."""
    if why := no_price_of_ann(model, ann, ann_energy):
        saved = macs_saved(model, layers, energy, ann)
        return Verdict("no answer", why=why, break_even_mac_j=energy.total_j / saved if saved else None)
    ratio = energy.total_j / ann_energy.total_j
    if energy.unpriced:
        unpriced = f"its {', '.join(energy.unpriced)} have no price"
        return Verdict("loses", ratio, f"though {unpriced}") if ratio >= 1 else Verdict("no answer", why=unpriced)
    return Verdict("wins" if ratio < 1 else "loses", ratio)


def no_price_of_ann(model: EnergyModel, ann: list[LayerFacts], energy: Energy) -> str:
    """Why the model has no full price for the ANN, or ""."""
    if model.no_ann and total(ann, "macs"):
        return model.no_ann
    if energy.unpriced:
        return f"the ANN's {', '.join(energy.unpriced)} have no price"
    return "" if energy.total_j else "the ANN does no work that the model prices"


def macs_saved(model: EnergyModel, layers: list[LayerFacts], energy: Energy, ann: list[LayerFacts]) -> int:
    """MACs that the ANN has more than the network, where a chip prices all its events but no MACs; else 0."""
    if model.equation != "chip" or set(energy.unpriced) - {"macs"} or not energy.total_j:
        return 0
    return max(0, total(ann, "macs") - total(layers, "macs"))
