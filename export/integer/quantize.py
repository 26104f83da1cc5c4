"""Quantisation: a Network becomes an IntegerNetwork with 8-bit weights, by rules that need no training.

In: the Network and the range of every value on calibration images. Out: the integer operations, their constants and
shifts. Weights take the step of least squared error, one per output channel, or one per layer where a neuron reads the
sums as they are: Lava-DL's neurons have one threshold a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph import loihi
from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array
from export.integer import operations as ops
from export.integer.formats import STREAM_BITS, Formats, QuantizationError, Ranges, is_raw
from export.integer.network import IntegerNetwork
from export.integer.operations import Format, IntArray, Operation, Rescale

MULTIPLIER_BITS = 16
WHOLE = 1e-9  # how near to a whole number float64 leaves a ratio of scales that is one
FEW = 16  # a multiplier below this is made exact, by the step of its row
BIAS_BITS = 45  # of a bias in units of its layer's sums: its product with a multiplier stays far below 2^63
CLIPPING = np.linspace(1.0, 0.5, 26)  # shares of the largest weight that the range may end at


def quantize(network: Network, ranges: Ranges | None) -> IntegerNetwork:
    """The integer network. Without `ranges` every shared scale is 2^-14 in 28 bits: the network that measures them."""
    _check_finite(network)
    formats = Formats(network, ranges)
    operations = tuple(quantize_node(node, formats) for node in network.nodes)
    nodes = tuple(operation.node for operation in operations)
    return IntegerNetwork(replace(network, nodes=nodes), operations)


def _check_finite(network: Network) -> None:
    for node in network.nodes:
        for key, value in vars(node).items():
            if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                what = {"weight": "weights", "bias": "biases"}.get(key, key)
                raise QuantizationError(
                    f"{node.name} ({node.kind}): NaN or infinite {what}; take an earlier checkpoint"
                )


# --- weights ----------------------------------------------------------------------------------------------------------


def weight_steps(weight: Array) -> Array:
    """The step of 8-bit weights with the least squared error, for each row of (N, K); 1/127 for a row of zeros.

    It may clip the largest weights, if that serves the others.
    """
    largest = np.abs(weight).max(1)
    full = np.where(largest > 0, largest, loihi.WEIGHT_LIMIT) / loihi.WEIGHT_LIMIT
    binary = 2.0 ** np.ceil(np.log2(full))  # holds weights exactly that are multiples of a power of two
    best, least = full, np.full(len(weight), np.inf)
    for steps in (*(full * clipped for clipped in CLIPPING), binary):
        error = np.square(round_weight(weight, steps[:, None]) * steps[:, None] - weight).sum(1)
        best, least = np.where(error < least, steps, best), np.minimum(error, least)
    return np.asarray(best)


def align_step(weight: Array, step: float, threshold: float) -> float:
    """A step close to `step` in which the threshold is a whole number and half of the smallest fraction of a membrane.

    Then v > whole is H >= threshold for every membrane, not only for whole ones. Weights that the step holds exactly
    keep it.
    """
    whole = round(threshold / step)
    if whole < 1 or np.array_equal(round_weight(weight, step) * step, weight):
        return step
    return threshold / (whole + 0.5 / 2**loihi.CURRENT_SHIFT)


def round_weight(weight: Array, step: float | Array) -> Array:
    """Weights in units of `step`, rounded and clipped to 8 bits, still float64."""
    whole = weight / step
    return np.clip(np.rint(whole, out=whole), -loihi.WEIGHT_LIMIT, loihi.WEIGHT_LIMIT, out=whole)


def _quantize_rows(node: g.Conv | g.Linear, source: Format, output: Format) -> tuple[NDArray[np.int8], Array]:
    """int8 weight (O, ...) and its steps (O,).

    A row is dead if it cannot move its output by half a unit, whatever it reads: zeros, with the step of the others. No
    step is so fine that the row's bias would leave 45 bits. Multipliers share the layer's shift, so that those of small
    rows have few bits: a step is made such that a small multiplier is exact, for it scales the row's bias too.
    """
    rows = node.weight.reshape(len(node.weight), -1)
    unit = output.scale / source.scale
    living = np.abs(rows).sum(1) * source.high >= unit / 2
    rows = np.where(living[:, None], rows, 0.0)
    bias = np.zeros(len(rows)) if node.bias is None else np.abs(node.bias)
    steps = np.maximum(np.where(living, weight_steps(rows), 0.0), bias / source.scale * 2.0**-BIAS_BITS)
    coarsest = float(steps.max()) if living.any() else unit
    steps = np.where(living, steps, coarsest)
    grain = unit * 2.0 ** (math.floor(math.log2(coarsest / unit)) + 1 - MULTIPLIER_BITS)  # the step with multiplier 1
    steps = np.where(steps < FEW * grain, np.ceil(steps / grain) * grain, steps)
    return round_weight(rows, steps[:, None]).reshape(node.weight.shape).astype(np.int8), steps


def _quantize_layer(node: g.Conv, neurons: Sequence[g.Neuron]) -> tuple[NDArray[np.int8], float]:
    """int8 weight and its one step, for a convolution that these neurons alone read; aligned to their one threshold.

    The layer is dead if it cannot move a membrane by half of the finest unit that has room for these thresholds and
    biases on Loihi, whatever spikes it reads: zeros, in that unit.
    """
    weight = node.weight
    thresholds = {float(value) for neuron in neurons for value in neuron.threshold.reshape(-1)}
    largest_bias = max(float(np.abs(_summed_bias(node, neuron)).max()) for neuron in neurons)
    finest = max(max(map(abs, thresholds)) / (2**loihi.THRESHOLD_BITS - 1), largest_bias / loihi.BIAS_LIMIT)
    if np.abs(weight).reshape(len(weight), -1).sum(1).max() < finest / 2:
        return np.zeros(weight.shape, np.int8), finest
    step = float(weight_steps(weight.reshape(1, -1))[0])
    if len(thresholds) == 1:
        step = align_step(weight, step, thresholds.pop())
    return round_weight(weight, step).astype(np.int8), step


def _summed_bias(source: g.Node, neuron: g.Neuron) -> Array:
    """A neuron's bias and that of the convolution whose sums it reads as they are."""
    if isinstance(source, g.Conv) and source.bias is not None:
        return np.asarray(neuron.bias + source.bias[:, None, None])
    return neuron.bias


def rescale_by(
    ratio: Array | float, shape: tuple[int, ...] = (), reference: float | None = None, largest: float = math.inf
) -> Rescale:
    """Multipliers and one shift for these ratios of scales; exact for powers of two.

    The `reference`, by default the largest ratio, gets a multiplier of 16 bits. A ratio that makes less than a half of
    `largest`, the largest integer to be rescaled, is 0.
    """
    ratios = np.asarray(ratio, np.float64).reshape(shape)
    ratios = np.where(np.abs(ratios) < 0.5 / largest, 0.0, ratios)
    reference = float(np.abs(ratios).max()) if reference is None else reference
    shift = max(0, MULTIPLIER_BITS - 1 - math.floor(math.log2(reference)) if reference else 0)
    multiplier = np.rint(ratios * 2.0**shift).astype(np.int64)
    while shift and not np.any(multiplier % 2):
        multiplier, shift = multiplier // 2, shift - 1
    return Rescale(np.asarray(multiplier), shift)


def _whole(values: Array, name: str) -> IntArray:
    whole = np.rint(values)
    if np.abs(whole).max(initial=0.0) >= 2**53:
        raise QuantizationError(
            f"{name}: bias {np.abs(whole).max():g} in units of its sums, expected below 2^53; its weights are too small"
            " beside it: train on, or scale them"
        )
    return np.asarray(whole.astype(np.int64))


# --- one rule per kind ------------------------------------------------------------------------------------------------


@singledispatch
def quantize_node(node: g.Node, formats: Formats) -> Operation:
    """The integer operation of one node; a kind without a rule is refused."""
    raise QuantizationError(f"{node.name}: no integer rule for kind {node.kind}; add one to export/integer/quantize.py")


@quantize_node.register
def _(node: g.Input, formats: Formats) -> Operation:
    return ops.IntegerInput(node=node, output=ops.PIXEL)


@quantize_node.register
def _(node: g.Repeat, formats: Formats) -> Operation:
    return ops.IntegerRepeat(node=node, output=formats.of(node.name))


@quantize_node.register
def _(node: g.Conv, formats: Formats) -> Operation:
    source = formats.of(node.inputs[0])
    if is_raw(formats.network, node):
        readers = [formats.network[name] for name in formats.network.readers[node.name]]
        weight, step = _quantize_layer(node, [reader for reader in readers if isinstance(reader, g.Neuron)])
        steps, bias, rescale = np.full(len(weight), step), None, None
        formats.raw_scales[node.name] = step * source.scale
        output = formats.of(node.name)
    else:
        output = formats.of(node.name)
        weight, steps = _quantize_rows(node, source, output)
        rescale = rescale_by(steps * source.scale / output.scale, (-1, 1, 1))
        bias = None if node.bias is None else _whole(node.bias / (steps * source.scale), node.name)
    quantized = replace(node, weight=weight * steps.reshape(-1, 1, 1, 1))
    return ops.IntegerConv(node=quantized, output=output, weight=weight, weight_step=steps, bias=bias, rescale=rescale)


@quantize_node.register
def _(node: g.Linear, formats: Formats) -> Operation:
    source, output = formats.of(node.inputs[0]), formats.of(node.name)
    weight, steps = _quantize_rows(node, source, output)
    shape = (-1, 1, 1, 1) if node.axis == "T" else (-1, 1, 1)
    rescale = rescale_by(steps * source.scale / output.scale, shape)
    bias = None if node.bias is None else _whole(node.bias / (steps * source.scale), node.name)
    quantized = replace(node, weight=weight * steps[:, None])
    return ops.IntegerLinear(
        node=quantized, output=output, weight=weight, weight_step=steps, bias=bias, rescale=rescale
    )


@quantize_node.register
def _(node: g.Neuron, formats: Formats) -> Operation:
    if node.reset != "to" or node.reset_value != 0.0:
        raise QuantizationError(
            f"{node.name} (neuron): reset {node.reset!r} {node.reset_value:g}, Loihi resets to 0; train with that"
        )
    source = formats.of(node.inputs[0])
    raw = node.inputs[0] in formats.raw_scales
    coarser = 1.0 if raw else _coarser(node, source)
    scale = source.scale * coarser
    bias = _summed_bias(formats.network[node.inputs[0]], node) if raw else node.bias
    plain = coarser == 1.0 and np.all(node.gain == 1.0)
    return ops.IntegerNeuron(
        node=node,
        output=ops.SPIKE,
        threshold=_threshold(node, scale),
        bias=_whole(bias / scale, node.name),
        current_decay=round(2**loihi.DECAY_BITS * (1.0 - node.current_decay)) - 1,
        membrane_decay=round(2**loihi.DECAY_BITS * (1.0 - node.membrane_decay)),
        rescale=None if plain else rescale_by(node.gain / coarser, node.gain.shape),
    )


def _coarser(node: g.Neuron, source: Format) -> float:
    """The power of two by which a neuron reads a value more coarsely, so that 18 bits hold it and 13 its bias."""
    steps = float(np.abs(node.bias).max()) / source.scale / loihi.BIAS_LIMIT
    fitting = 2.0 ** math.ceil(math.log2(steps)) if steps > 1.0 else 1.0
    return max(fitting, 1.0 if source.bits <= STREAM_BITS else 2.0**ops.MEAN_BITS)


def _threshold(node: g.Neuron, scale: float) -> IntArray:
    """The integer threshold of '>': for '>=' one below the smallest integer that fires."""
    exact = node.threshold / scale
    nearest = np.rint(exact)
    whole = np.where(np.abs(exact - nearest) <= WHOLE * np.abs(exact), nearest, exact)
    return np.asarray(np.ceil(whole) - 1 if node.fires == ">=" else np.floor(whole)).astype(np.int64)


def _lefts(node: g.Concat, formats: Formats, to: float) -> tuple[int, ...]:
    """Powers of two between the inputs' scales and the finest of them."""
    shifts = []
    for name in node.inputs:
        exact = math.log2(formats.of(name).scale / to)
        if abs(exact - round(exact)) > WHOLE:
            raise QuantizationError(
                f"{node.name} ({node.kind}): {name} has a scale that shifts cannot align; put a 1x1 convolution between"
            )
        shifts.append(round(exact))
    return tuple(shifts)


@quantize_node.register
def _(node: g.Add, formats: Formats) -> Operation:
    output = formats.of(node.name)
    ratios = np.array([formats.of(name).scale for name in node.inputs]) / output.scale
    rescale = rescale_by(ratios, (-1,), reference=float(ratios.min()))
    return ops.IntegerAdd(node=node, output=output, rescale=rescale)


@quantize_node.register
def _(node: g.Mul, formats: Formats) -> Operation:
    output = formats.of(node.name)
    product = formats.of(node.inputs[0]).scale * formats.of(node.inputs[1]).scale
    return ops.IntegerMul(node=node, output=output, rescale=rescale_by(product / output.scale))


@quantize_node.register
def _(node: g.Affine, formats: Formats) -> Operation:
    source, output = formats.of(node.inputs[0]), formats.of(node.name)
    rescale = rescale_by(node.scale * source.scale / output.scale, node.scale.shape, largest=source.high)
    offset = _whole(node.offset / output.scale * 2.0**rescale.shift, node.name)
    return ops.IntegerAffine(node=node, output=output, rescale=rescale, offset=offset)


@quantize_node.register
def _(node: g.Concat, formats: Formats) -> Operation:
    output = formats.of(node.name)
    return ops.IntegerConcat(node=node, output=output, left=_lefts(node, formats, output.scale))


@quantize_node.register
def _(node: g.Reduce, formats: Formats) -> Operation:
    kind: Any = ops.IntegerMean if node.function == "mean" else ops.IntegerMax
    operation: Operation = kind(node=node, output=formats.of(node.name))
    return operation


@quantize_node.register
def _(node: g.Activation, formats: Formats) -> Operation:
    if node.function == "relu":
        return ops.IntegerRelu(node=node, output=formats.of(node.name))
    ratio = formats.of(node.inputs[0]).scale * 2.0**ops.TABLE_STEP_BITS
    return ops.IntegerSigmoid(node=node, output=ops.GATE, rescale=rescale_by(ratio), table=ops.sigmoid_table())


@quantize_node.register
def _(node: g.Resize, formats: Formats) -> Operation:
    if node.mode == "bilinear" and node.factor != 2:
        raise QuantizationError(
            f"{node.name} (resize): bilinear by {node.factor}, integers are defined for 2; enlarge by 2, or by copies"
        )
    return ops.IntegerResize(node=node, output=formats.of(node.name))


@quantize_node.register
def _(node: g.RainMask, formats: Formats) -> Operation:
    source = formats.network[node.inputs[0]]
    if not isinstance(source, g.Input):
        raise QuantizationError(
            f"{node.name} (rainmask): reads {source.name} ({source.kind}), expected grey levels; let it read the image"
        )
    return ops.IntegerRainMask(node=node, output=ops.SPIKE)


@quantize_node.register
def _(node: g.Pool, formats: Formats) -> Operation:
    if node.function != "max" or formats.of(node.inputs[0]) != ops.SPIKE:
        raise QuantizationError(
            f"{node.name} (pool): a {node.function} of {formats.network.kinds[node.inputs[0]].value} values, expected a"
            " maximum of spikes; convolve instead"
        )
    return ops.IntegerPool(node=node, output=ops.SPIKE)


@quantize_node.register
def _(node: g.Flood, formats: Formats) -> Operation:
    return ops.IntegerFlood(node=node, output=ops.SPIKE)


@quantize_node.register
def _(node: g.Output, formats: Formats) -> Operation:
    right = math.log2(ops.PIXEL.scale / formats.of(node.inputs[0]).scale)
    if right < 0 or abs(right - round(right)) > WHOLE:
        found = formats.of(node.inputs[0]).scale
        raise QuantizationError(
            f"{node.name} (output): its input has the scale {found:g}, expected 2^-k of a pixel; let the network end in"
            " a sum with its image, or run it in float32"
        )
    return ops.IntegerOutput(node=node, output=ops.PIXEL, right=round(right))
