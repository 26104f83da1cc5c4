"""Loihi's limits: what the integers of a network must keep to, so that chip, Lava and simulator hold the same values.

In: an integer network, and the largest sums measured on the calibration images. Out: nothing, or one DesignRuleError
that lists every violation with the node, its value and the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from export.graph.loihi import BIAS_LIMIT, CURRENT_LIMIT, THRESHOLD_BITS
from export.graph.network import Network
from export.graph.rules import enforce
from export.integer.calibrate import quantize_on_images
from export.integer.network import IntegerNetwork, largest_sum
from export.integer.operations import IntegerConv, IntegerNeuron, Operation
from export.integer.run import run_integer

BIAS_LOW, BIAS_HIGH = -BIAS_LIMIT - 1, BIAS_LIMIT  # bias_mant, used with bias_exp 6
DECAY_HIGH = 4095  # du, dv: 12 bits
SUM_BITS = 18  # |a| < 2^17: a << 6 wraps beyond


@dataclass(frozen=True)
class Integers:
    """An integer network, and for each convolution that only neurons read the largest |sum| seen (node -> value)."""

    integer: IntegerNetwork
    measured: Mapping[str, int]


Rule = Callable[[Integers], Iterator[str]]


def thresholds_fit(found: Integers) -> Iterator[str]:
    """vth has 17 bits without sign."""
    for neuron in _neurons(found):
        lowest, highest = int(neuron.threshold.min()), int(neuron.threshold.max())
        if lowest < 0 or highest >= 2**THRESHOLD_BITS:
            value = lowest if lowest < 0 else highest
            need = "is below 0" if lowest < 0 else f"needs {value.bit_length()} bits"
            yield (
                f"{neuron.name} (LIF): threshold {value} {need}, Loihi has {THRESHOLD_BITS} without sign; "
                "the threshold and the weights before it are too far apart: train on, or scale them"
            )


def biases_fit(found: Integers) -> Iterator[str]:
    """bias_mant has 13 bits with sign."""
    for neuron in _neurons(found):
        extreme = int(neuron.bias.reshape(-1)[np.abs(neuron.bias).argmax()])
        if not BIAS_LOW <= extreme <= BIAS_HIGH:
            yield (
                f"{neuron.name} (LIF): bias {extreme} needs {abs(extreme).bit_length() + 1} bits, Loihi has 13; "
                "the weights before it are too small beside the bias: train on, or scale them"
            )


def decays_fit(found: Integers) -> Iterator[str]:
    """du and dv have 12 bits without sign."""
    for neuron in _neurons(found):
        for label, value in (("dv", neuron.membrane_decay), ("du", neuron.current_decay)):
            if not 0 <= value <= DECAY_HIGH:
                yield f"{neuron.name} (LIF): {label} {value}, Loihi has 0 to {DECAY_HIGH}; choose a decay inside (0, 1)"


def sums_fit(found: Integers) -> Iterator[str]:
    """What a layer adds up in a step stays below 2^17: by its weights alone, or else on the calibration images."""
    for operation in found.integer.operations:
        if not isinstance(operation, IntegerConv) or operation.rescale is not None:
            continue
        worst = worst_sum(found.integer, operation)
        largest = min(worst, found.measured.get(operation.name, worst))
        if largest > CURRENT_LIMIT:
            yield (
                f"{operation.name} (conv): sums up to {largest} need {largest.bit_length() + 1} bits, Loihi has "
                f"{SUM_BITS}; make the layer narrower, or its weights smaller"
            )


LOIHI_RULES: tuple[Rule, ...] = (thresholds_fit, biases_fit, decays_fit, sums_fit)


def check_loihi_limits(integer: IntegerNetwork, images: Sequence[NDArray[np.uint8]]) -> None:
    """DesignRuleError with all violations. Sums are measured only where their worst case would be too large."""
    found = Integers(integer, _measure_sums(integer, images))
    enforce("Loihi", [violation for rule in LOIHI_RULES for violation in rule(found)])


def quantize_for_loihi(network: Network, images: Sequence[NDArray[np.uint8]]) -> IntegerNetwork:
    """The integer network, calibrated on these 8-bit images (C, H, W), within Loihi's limits, or a DesignRuleError."""
    integer = quantize_on_images(network, images)
    check_loihi_limits(integer, images)
    return integer


def headroom_line(integer: IntegerNetwork) -> str:
    """How near the network comes to Loihi's limits: the worst sum over all inputs, the largest bias and threshold."""
    neurons = _neurons(Integers(integer, {}))
    bias = max((int(np.abs(neuron.bias).max()) for neuron in neurons), default=0)
    threshold = max((int(neuron.threshold.max()) for neuron in neurons), default=0)
    read_by_neurons = [o for o in integer.operations if isinstance(o, IntegerConv) and o.rescale is None]
    total = max((worst_sum(integer, operation) for operation in read_by_neurons), default=0)
    return (
        f"largest sum that an input can cause: {total:,} of {CURRENT_LIMIT:,}; largest bias {bias:,} of {BIAS_HIGH:,}, "
        f"threshold {threshold:,} of {2**THRESHOLD_BITS - 1:,}"
    )


def worst_sum(integer: IntegerNetwork, conv: IntegerConv) -> int:
    """The largest |sum| over all inputs of spikes."""
    return largest_sum(conv, integer.by_name[conv.node.inputs[0]].output)


def _neurons(found: Integers) -> list[IntegerNeuron]:
    return [operation for operation in found.integer.operations if isinstance(operation, IntegerNeuron)]


def _measure_sums(integer: IntegerNetwork, images: Sequence[NDArray[np.uint8]]) -> dict[str, int]:
    """The largest |sum| on the images, of the layers whose worst case is above the limit."""
    suspects = {
        operation.name
        for operation in integer.operations
        if isinstance(operation, IntegerConv) and operation.rescale is None
        if worst_sum(integer, operation) > CURRENT_LIMIT
    }
    measured = dict.fromkeys(suspects, 0)

    def observe(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> None:
        if operation.name in suspects:
            measured[operation.name] = max(measured[operation.name], int(value.abs().max()))

    for image in images if suspects else ():
        run_integer(integer, image, observe)
    return measured
