"""Lemaire et al., "An Analytical Estimation of Spiking Neural Networks Energy Efficiency", ICONIP 2022.

arXiv:2210.13107. Equation numbers are those of the implementation LEAT-EDGE/qualia-plugin-snn. Where the paper
writes a spike's fan-out as ceil(K/S)^2 Cout (operations) or K^2 Cout (accesses), the exact count of accumulations
stands here. A convolution and its neurons are two layers here and one in the paper; the terms are the same.
"""

from __future__ import annotations

from math import prod

from hw_sim.pricing.energy import Conditions, Terms, occurred
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.model import EnergyModel

CONSTANTS = {"add": "energy", "mul": "energy", "fifo": "number", "word": "number"}
REQUIRED = frozenset(CONSTANTS)
TOGETHER: tuple[set[str], ...] = ()
CHOICES = {"bias_memory": ("with weights", "own"), "address_per_channel": (True, False)}


def layer_terms(model: EnergyModel, layer: LayerFacts, conditions: Conditions) -> Terms:
    """The layer's own rule; work on values that are neither weighted nor a neuron's is outside the paper."""
    if layer.kind == "neuron":
        return Terms(_neuron(model, layer))
    if layer.kind == "other":
        return Terms(left_out=occurred(adds=layer.adds, muls=layer.muls))
    rule = _event_driven if layer.reads == "spike" else _formal
    return Terms(rule(model, layer, conditions))


def network_terms(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> Terms:
    """Nothing beside the layers: no static power."""
    return Terms()


def _event_driven(model: EnergyModel, layer: LayerFacts, conditions: Conditions) -> dict[str, float]:
    """A convolution or matrix that reads spikes.

    ACC = ACs + T outputs for a bias (eq. 1.4, 2.4).  Addressing: ACC per access, 2 MAC per spike of a convolution
    (eq. 16.2, 16.3, 17.2).  Reads: spikes at the FIFO (eq. 5), ACs at the weights, T outputs at the biases (eq. 7, 8);
    potentials read and written once per AC (eq. 9, 10, 14, 15; the neuron's own T outputs are in `_neuron`).
    """
    mac, add = model.si("mul") + model.si("add"), model.si("add")
    biases = layer.outputs * layer.executions if layer.bias_words else 0
    accesses = layer.acs if model.choices["address_per_channel"] else layer.events_in * prod(layer.kernel)
    multiplied = 2 * layer.events_in if layer.kind == "conv" else 0
    return {
        "operations": (layer.acs + biases) * add,
        "addressing": accesses * add + multiplied * mac,
        "weights": _parameters_j(model, layer, conditions, layer.acs, biases),
        "potentials": 2 * layer.acs * _access_j(model, layer.outputs),
        "input_output": layer.events_in * _access_j(model, model.si("fifo")),
    }


def _formal(model: EnergyModel, layer: LayerFacts, conditions: Conditions) -> dict[str, float]:
    """A convolution or matrix that reads analog or graded values, in an ANN or in an SNN.

    MAC = MACs, ACC = outputs for a bias (eq. 1.1, 1.2, 2.1, 2.2).  Addressing: inputs + outputs (+ Cout K^2).
    Reads: an input per MAC of a convolution (eq. 3), each input once for a matrix (eq. 4), a weight per MAC
    (eq. 6.1, 6.2); each output is written once (eq. 11, 12).
    """
    runs = layer.executions
    biases = layer.outputs * runs if layer.bias_words else 0
    kernels = layer.output_shape[0] * prod(layer.kernel) if layer.kind == "conv" else 0
    per_mac = layer.kind == "conv" and conditions.reuse != "operands"
    reads = layer.macs if per_mac else layer.inputs * runs
    return {
        "operations": layer.macs * (model.si("mul") + model.si("add")) + biases * model.si("add"),
        "addressing": (layer.inputs + layer.outputs + kernels) * runs * model.si("add"),
        "weights": _parameters_j(model, layer, conditions, layer.macs, biases),
        "input_output": reads * _access_j(model, layer.inputs) + layer.outputs * runs * _access_j(model, layer.outputs),
    }


def _neuron(model: EnergyModel, layer: LayerFacts) -> dict[str, float]:
    """MAC = updates if the membrane leaks (eq. 1.3, 2.3: T outputs; there is no gate there), ACC = spikes for the reset
    (eq. 1.4); every state is read and written once an update (eq. 9, 10, 14, 15), every spike written to the FIFO
    (eq. 13)."""
    leaks = layer.neuron_updates if layer.leaky else 0
    return {
        "operations": leaks * (model.si("mul") + model.si("add")) + layer.events_out * model.si("add"),
        "potentials": 2 * layer.state_accesses * _access_j(model, layer.state_words),
        "input_output": layer.events_out * _access_j(model, model.si("fifo")),
    }


def _parameters_j(model: EnergyModel, layer: LayerFacts, conditions: Conditions, uses: int, biases: int) -> float:
    """Reading weights `uses` times, or each once per execution if they are reused, and biases `biases` times."""
    if conditions.reuse != "stated":
        uses, biases = layer.weight_words * layer.executions, layer.bias_words * layer.executions
    shared = model.choices["bias_memory"] == "with weights"
    weights = layer.weight_words + (layer.bias_words if shared else 0)
    return uses * _access_j(model, weights) + biases * _access_j(model, weights if shared else layer.bias_words)


def _access_j(model: EnergyModel, words: float) -> float:
    """Joules of one access to a memory of that many words."""
    return model.memory.access_j(words * model.si("word"))


def used_constants(model: EnergyModel, conditions: Conditions) -> set[str]:
    """All."""
    return set(model.constants)
