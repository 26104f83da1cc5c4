"""SpikeSim's dense accounting (Moitra et al., arXiv:2210.12899; ela_spikesim.py, compute_energy): geometry only.

E = executions ceil(Cin/X) ceil(Cout/X) Hout Wout E_cycle, whatever the spikes: each output position takes one cycle of
each crossbar, X rows by X columns. Sparse input costs as much as dense input.
"""

from __future__ import annotations

from math import ceil, prod

from hw_sim.pricing.energy import Conditions, Terms, occurred
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.model import EnergyModel

ENERGIES = ("array", "adc", "mux", "tile_buffer", "temporary_buffer", "subtractor", "h_tree", "fetch", "neuron")
CONSTANTS = {"crossbar": "number", **dict.fromkeys(ENERGIES, "energy")}
REQUIRED = frozenset(CONSTANTS)
TOGETHER: tuple[set[str], ...] = ()


def layer_terms(model: EnergyModel, layer: LayerFacts, conditions: Conditions) -> Terms:
    """Cycles of the crossbars of one convolution, shared between crossbar, buffers and neurons as the source does."""
    if layer.kind == "neuron":
        return Terms()  # inside E_cycle
    if layer.kind == "other":
        return Terms(left_out=occurred(adds=layer.adds, muls=layer.muls))
    if layer.kind == "linear" or layer.groups != 1:
        return Terms(unpriced=occurred(acs=layer.acs, macs=layer.macs))
    size = model.si("crossbar")
    crossbars = ceil(layer.input_shape[0] / size) * ceil(layer.output_shape[0] / size)
    cycles = layer.executions * crossbars * prod(layer.output_shape[1:])
    return Terms({part: cycles * joules for part, joules in cycle_j(model, prod(layer.kernel)).items()})


def cycle_j(model: EnergyModel, taps: int) -> dict[str, float]:
    """One cycle of one processing element by part: X/8 columns at once, K^2 arrays each with X/8 converters."""
    columns = model.si("crossbar") / 8
    arrays = taps * model.si("array") + columns * (model.si("adc") + model.si("mux"))
    buffers = model.si("tile_buffer") + columns * model.si("temporary_buffer") + model.si("fetch")
    return {
        "operations": columns * arrays + columns * 16 * model.si("subtractor"),
        "input_output": buffers + model.si("h_tree"),
        "potentials": model.si("neuron"),
    }


def network_terms(model: EnergyModel, layers: list[LayerFacts], conditions: Conditions) -> Terms:
    """Nothing beside the layers: the source has no static power."""
    return Terms()


def used_constants(model: EnergyModel, conditions: Conditions) -> set[str]:
    """All."""
    return set(model.constants)
