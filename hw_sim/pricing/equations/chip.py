"""A neuromorphic chip: a marginal energy per event, and static power that is priced apart, if a time is given.

E = SOPs E_sop + spikes E_spike + active updates E_active + inactive updates E_inactive
  + chips (P_static + P_idle f) time.  Power P = P_leak + P_idle f + E_sop r is ODIN's own form (Frenkel 2019, eq. 2).
"""

from __future__ import annotations

from math import ceil

from hw_sim.pricing.energy import Conditions, Terms, occurred
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.model import EnergyModel

REQUIRED = frozenset({"sop"})
CONSTANTS = {
    **dict.fromkeys(("sop", "spike", "update_active", "update_inactive"), "energy"),
    "static_power": "power",
    "idle_power": "energy per cycle",
    "clock": "frequency",
    "neurons_per_chip": "number",
}
TOGETHER = ({"update_active", "update_inactive"}, {"idle_power", "clock"})


def layer_terms(model: EnergyModel, layer: LayerFacts, conditions: Conditions) -> Terms:
    """Events of one layer times their energies. MACs have no price on such a chip."""
    joules = layer.acs * model.si("sop")
    unpriced, left_out = occurred(macs=layer.macs), {}
    if layer.kind == "neuron":
        if model.prices_constant("spike"):
            joules += layer.events_out * model.si("spike")
        if model.prices_constant("update_active"):
            active = layer.neuron_updates if layer.active_updates is None else layer.active_updates  # else the dearer
            inactive = layer.neuron_updates - active
            joules += active * model.si("update_active") + inactive * model.si("update_inactive")
    else:
        left_out = occurred(adds=layer.adds, muls=layer.muls)
    return Terms({"operations": joules}, unpriced, left_out)


def network_terms(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> Terms:
    """Static power of as many chips as the neurons need, over the time of the run, if a step's seconds are given."""
    if conditions.step_seconds is None or not model.prices_constant("static_power"):
        return Terms()
    seconds = conditions.step_seconds * max((layer.executions for layer in layers), default=0)
    return Terms({"static": chips(model, layers) * static_w(model) * seconds})


def static_w(model: EnergyModel) -> float:
    """Watts of one chip that does nothing: leakage, and what its clock costs."""
    idle = model.si("idle_power") * model.si("clock") if model.prices_constant("idle_power") else 0.0
    return model.si("static_power") + idle


def chips(model: EnergyModel, layers: list[LayerFacts]) -> int:
    """How many chips hold the neurons (synapses and routing not considered); 1 where no capacity is known."""
    if not model.prices_constant("neurons_per_chip"):
        return 1
    neurons = sum(layer.outputs for layer in layers if layer.kind == "neuron")
    return max(1, ceil(neurons / model.si("neurons_per_chip")))


def operating_point_j(model: EnergyModel, layers: list[LayerFacts]) -> dict[str, float]:
    """The same synaptic operations at the averages that the source prints, by operating point: never in a total."""
    sops = sum(layer.acs for layer in layers)
    return {point.name: sops * point.joules for point in model.operating_points}


def used_constants(model: EnergyModel, conditions: Conditions) -> set[str]:
    """Energies of events; powers and capacity only if a time is given."""
    powers = {"static_power", "idle_power", "clock", "neurons_per_chip"}
    return set(model.constants) - (powers if conditions.step_seconds is None else set())
