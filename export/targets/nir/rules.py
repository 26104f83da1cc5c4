"""NIR's design rules: what a network must be before it may be exported.

In: the network, as torch modules and as a Network, and the size of its images. Out: the violations, each with the node,
what was found, and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from export.graph.nodes import Conv, Neuron, Output
from export.graph.rules import Design, Rule
from export.targets.nir.segments import stock_nodes

# --- rules on snnTorch modules: settings that a layer graph has no field for ------------------------------------------


def neuron_modules_are_plain(model: Any) -> Iterator[str]:
    """snnTorch neurons with zero reset, a decay below 1, unquantised states and spikes of exactly 0 and 1."""
    import snntorch

    for name, module in model.named_modules():
        if not isinstance(module, snntorch.SpikingNeuron):
            continue
        label = f"{name} ({type(module).__name__})"
        if module.reset_mechanism != "zero":
            yield f"{label}: reset {module.reset_mechanism!r}, expected 'zero'; train with reset_mechanism='zero'"
        decay = _largest(getattr(module, "exact_beta", getattr(module, "beta", 0.0)))
        if decay >= 1.0:
            yield f"{label}: beta {decay:g}, expected below 1 (a leak, so a finite tau); lower beta"
        if module.state_quant:
            yield f"{label}: quantised state, which no stock neuron has; set state_quant=False"
        factor = module.graded_spikes_factor.detach()
        if bool((factor != 1.0).any()):
            yield (
                f"{label}: graded spikes (factor {float(factor.flatten()[0]):g}), expected spikes of 0 and 1; "
                "fold the factor into the next convolution's weights"
            )


def _largest(value: Any) -> float:
    return float(value.detach().max()) if hasattr(value, "detach") else float(np.max(value))


# --- rules on the layer graph -----------------------------------------------------------------------------------------


def neurons_reset_to_zero(design: Design) -> Iterator[str]:
    """Reset to 0 where the neuron fired; soft reset and other values are not what every reader computes."""
    for node in design.network.of(Neuron):
        if node.reset != "to":
            yield f"{node.name} (neuron): reset by subtraction of {node.reset_value:g}; train with a reset to zero"
        elif node.reset_value != 0.0:
            yield f"{node.name} (neuron): reset to {node.reset_value:g}, expected 0; train with a reset to zero"


def neurons_leak(design: Design) -> Iterator[str]:
    """A membrane decay in [0, 1): tau = dt / (1 - decay) is positive and finite."""
    for node in design.network.of(Neuron):
        if not 0.0 <= node.membrane_decay < 1.0:
            yield f"{node.name} (neuron): beta {node.membrane_decay:g}, expected in [0, 1); lower beta"


def neurons_hold_no_current(design: Design) -> Iterator[str]:
    """No synaptic current: importers disagree on the order in which current and membrane are updated."""
    for node in design.network.of(Neuron):
        if node.current_decay != 0.0:
            yield f"{node.name} (neuron): current decay {node.current_decay:g}, expected 0; train without it"


def gains_and_biases_are_per_channel(design: Design) -> Iterator[str]:
    """A neuron's gain and bias become a 1x1 convolution, so they may not vary over the pixels."""
    for node in design.network.of(Neuron):
        for field in ("gain", "bias"):
            shape = getattr(node, field).shape
            if any(size != 1 for size in shape[-2:] if len(shape) >= 2) or len(shape) == 1:
                yield f"{node.name} (neuron): {field} of shape {shape} varies over the pixels; make it (C, 1, 1)"


def convolutions_are_not_grouped(design: Design) -> Iterator[str]:
    """nir 1.0.8 writes a grouped Conv2d but cannot read it back. Those that run on the host stay as they are."""
    stock = stock_nodes(design.network)
    for node in design.network.nodes:
        if isinstance(node, Conv) and node.groups != 1 and node.name in stock:
            yield f"{node.name} (conv): groups {node.groups}, expected 1; expand its weight to a dense one with zeros"


def numbers_are_floating(design: Design) -> Iterator[str]:
    """float64 parameters: a quantised network has integer states, which NIR's neurons do not have."""
    for node in design.network.nodes:
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray) and value.dtype != np.float64:
                yield f"{node.name} ({node.kind}): {field} is {value.dtype} (quantised); export the float network"


def parameters_are_finite(design: Design) -> Iterator[str]:
    """No NaN, no infinity."""
    for node in design.network.nodes:
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
                yield f"{node.name} ({node.kind}): {field} holds NaN or infinite values; take an earlier checkpoint"


def levels_divide_the_image(design: Design) -> Iterator[str]:
    """Both sides are multiples of the network's size multiple: an exported graph cannot pad."""
    multiple = design.network.size_multiple
    height, width = design.height, design.width
    if height < 1 or width < 1 or height % multiple or width % multiple:
        up = [max(1, -(-side // multiple)) * multiple for side in (height, width)]
        yield (
            f"{design.network.name} (network): size {height}x{width}, expected multiples of {multiple}; "
            f"use --input-size {up[0]} {up[1]}"
        )


def every_value_is_read(design: Design) -> Iterator[str]:
    """A node that nothing reads has no place in a graph that ends in an Output."""
    for node in design.network.nodes:
        if not design.network.readers[node.name] and not isinstance(node, Output):
            yield f"{node.name} ({node.kind}): its value is never read; remove the node"


def names_fit_into_hdf5(design: Design) -> Iterator[str]:
    """A slash nests HDF5 groups, so that readers see another graph."""
    for node in design.network.nodes:
        if "/" in node.name or node.name in ("", "."):
            yield f"{node.name or '(empty)'} ({node.kind}): not a name that HDF5 can hold; rename it without '/'"


NIR_RULES: tuple[Rule, ...] = (
    neurons_reset_to_zero,
    neurons_leak,
    neurons_hold_no_current,
    gains_and_biases_are_per_channel,
    convolutions_are_not_grouped,
    numbers_are_floating,
    parameters_are_finite,
    levels_divide_the_image,
    every_value_is_read,
    names_fit_into_hdf5,
)
