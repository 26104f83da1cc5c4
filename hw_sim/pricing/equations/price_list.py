"""A price per operation: E = sum of counts times prices. What a list has no price for is named.

Published alone: MACs, ACs, spikes, updates of neurons. With everything: element-wise work and words moved too, where
the list prices them.
"""

from __future__ import annotations

from hw_sim.pricing.energy import Conditions, Terms, occurred
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.model import EnergyModel

SPIKES_PER_WORD = 32  # bits that travel together
REQUIRED: frozenset[str] = frozenset()
CONSTANTS = dict.fromkeys(("mac", "ac", "spike", "neuron_update", "add", "mul", "memory_word"), "energy")
TOGETHER = ({"add", "mul"},)


def layer_terms(model: EnergyModel, layer: LayerFacts, conditions: Conditions) -> Terms:
    """E = MACs E_mac + ACs E_ac + spikes E_spike + updates E_update; with everything + adds E_add + muls E_mul + words
    E_word."""
    counts = {"mac": layer.macs, "ac": layer.acs, "spike": layer.events_out if layer.kind == "neuron" else 0}
    operations = sum(model.si(name) * count for name, count in counts.items() if model.prices_constant(name))
    unpriced = {
        f"{name}s": count for name, count in counts.items() if name != "spike" and not model.prices_constant(name)
    }
    left_out = occurred(spikes=0 if model.prices_constant("spike") else counts["spike"])
    if model.prices_constant("neuron_update"):
        operations += layer.neuron_updates * model.si("neuron_update")
    joules = {"operations": operations}
    elementwise, words = {"adds": layer.adds, "muls": layer.muls}, words_moved(layer)
    if conditions.everything and model.prices_constant("add"):
        joules["operations"] += layer.adds * model.si("add") + layer.muls * model.si("mul")
    else:
        left_out |= occurred(**elementwise)
    if conditions.everything and model.prices_constant("memory_word"):
        joules |= {part: count * model.si("memory_word") for part, count in words.items()}
    else:
        left_out |= occurred(words=round(sum(words.values())))
    return Terms(joules, unpriced, left_out)


def words_moved(layer: LayerFacts) -> dict[str, float]:
    """Words by part if every operand moves once per execution; a spike is a bit, 32 of them a word."""
    return {
        "weights": (layer.weight_words + layer.bias_words) * layer.executions,
        "potentials": 2 * layer.state_accesses,
        "input_output": layer.activation_words + layer.spike_bits / SPIKES_PER_WORD,
    }


def network_terms(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> Terms:
    """Nothing beside the layers."""
    return Terms()


def used_constants(model: EnergyModel, conditions: Conditions) -> set[str]:
    """MAC, AC, spike and update; with everything the rest too."""
    alone = {"mac", "ac", "spike", "neuron_update"}
    return set(model.constants) if conditions.everything else set(model.constants) & alone
