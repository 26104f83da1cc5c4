"""Executes an IntegerNetwork in torch, on the CPU or a GPU: 8-bit pixels in, 8-bit pixels out, equal on every machine.

Values are int64 tensors (T or 1, C, H, W), spikes boolean. Sums are taken in floating point only where every partial
sum is exact, so that their order does not matter. docs/int8.md is the specification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from esdnet.images.rain_streaks import rain_mask
from export.graph import loihi
from export.graph.frames import output_of
from export.graph.network import infer_shapes
from export.graph.nodes import AXES, NetworkError, gate_of
from export.integer import network as ops
from export.integer.convolution import convolve
from export.integer.network import PIXEL, Format, IntegerNetwork, Operation, Rescale

_WORD = 2**32 - 1
Observe = Callable[[Operation, Sequence[Tensor], Tensor], None]


def run_integer(
    network: IntegerNetwork, pixels: NDArray[np.uint8], observe: Observe | None = None, device: str = "cpu"
) -> NDArray[np.uint8]:
    """The derained image of pixels uint8 (C, H, W), whose sides `size_multiple` divides; (T, C, H, W) if it is several.

    `observe` is called for every node with its operation, its input values and its value.
    """
    image = _check_pixels(network, pixels)
    readers = Counter(name for operation in network.operations for name in operation.node.inputs)
    values: dict[str, Tensor] = {}
    with torch.inference_mode():
        for operation in network.operations:
            if isinstance(operation, ops.IntegerInput):
                inputs = [torch.from_numpy(image).to(device, torch.int64).unsqueeze(0)]
            else:
                inputs = [values[name] for name in operation.node.inputs]
            value = behind_gate(operation, inputs, execute(operation, inputs, network.network.steps))
            values[operation.name] = value
            if observe is not None:
                observe(operation, inputs, value)
            for name in operation.node.inputs:
                readers[name] -= 1
                if not readers[name]:
                    del values[name]
        return output_of(values[network.network.output.name]).to("cpu", torch.uint8).numpy()


def behind_gate(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> Tensor:
    """The value of a node where its gate, if it has one, is open, and 0 elsewhere. In place."""
    if gate_of(operation.node) is None:
        return value
    return value.logical_and_(inputs[1]) if value.dtype is torch.bool else value.mul_(inputs[1])


def _check_pixels(network: IntegerNetwork, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    channels = network.network.input.channels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] != channels:
        raise NetworkError(
            f"{network.network.name}: image {pixels.dtype} {pixels.shape}, expected uint8 ({channels}, height, width);"
            " `to_pixels` makes that of floats in [0, 1]"
        )
    infer_shapes(network.network, *pixels.shape[1:])
    return np.ascontiguousarray(pixels)


def to_pixels(image: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Values in [0, 1] as 8-bit pixels, rounded half up: exact for an image that was read from 8 bits."""
    return np.floor(np.clip(image.astype(np.float64), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _half(shift: int) -> int:
    return (1 << shift) >> 1


def _constant(array: NDArray[Any], like: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor(array, dtype=dtype, device=like.device)


def _saturate(x: Tensor, to: Format) -> Tensor:
    return x.clamp_(to.low, to.high)


def _rescale_(x: Tensor, rescale: Rescale) -> Tensor:
    """In place: (x * multiplier + half) >> shift."""
    if rescale.multiplier.size > 1 or rescale.multiplier.item() != 1:
        x.mul_(_constant(rescale.multiplier, x))
    return _round_(x, rescale.shift)


def _round_(x: Tensor, shift: int) -> Tensor:
    """In place: x / 2^shift, rounded half up."""
    return x.add_(_half(shift)).bitwise_right_shift_(shift) if shift else x


@singledispatch
def execute(operation: Operation, inputs: Sequence[Tensor], steps: int) -> Tensor:
    """The value of one node; an operation without a rule is refused."""
    raise NetworkError(f"{operation.name}: no rule for {type(operation).__name__}; add one to export/integer/run.py")


@execute.register
def _(operation: ops.IntegerInput, inputs: Sequence[Tensor], steps: int) -> Tensor:
    return inputs[0]


@execute.register
def _(operation: ops.IntegerRepeat, inputs: Sequence[Tensor], steps: int) -> Tensor:
    return inputs[0].expand(steps, -1, -1, -1)


@execute.register
def _(operation: ops.IntegerConv, inputs: Sequence[Tensor], steps: int) -> Tensor:
    sums = convolve(inputs[0], _constant(operation.weight, inputs[0]), operation.node)
    if operation.bias is not None:
        sums += _constant(operation.bias, sums)[:, None, None]
    return sums if operation.rescale is None else _saturate(_rescale_(sums, operation.rescale), operation.output)


@execute.register
def _(operation: ops.IntegerLinear, inputs: Sequence[Tensor], steps: int) -> Tensor:
    axis = AXES.index(operation.node.axis)
    x = inputs[0].double().transpose(axis, 3)
    weight = _constant(operation.weight, x, torch.float64)
    bias = None if operation.bias is None else _constant(operation.bias, x, torch.float64)
    sums = F.linear(x, weight, bias).transpose(axis, 3).to(torch.int64)
    return _saturate(_rescale_(sums, operation.rescale), operation.output)


def _decay_(state: Tensor, keep: int) -> Tensor:
    """In place: state * keep >> 12, rounded toward zero."""
    toward_zero = (state >> 63) & (2**loihi.DECAY_BITS - 1)  # what a negative number needs on top
    return state.mul_(keep).add_(toward_zero).bitwise_right_shift_(loihi.DECAY_BITS)


def neuron_steps(operation: ops.IntegerNeuron, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Step by step: the membrane before the reset (C, H, W), int64, and the spikes, bool. Both change afterwards."""
    current, membrane = (torch.zeros_like(x[0], dtype=torch.int64) for _ in range(2))
    for frame in x:
        spikes = neuron_step(operation, frame, current, membrane)
        yield membrane, spikes
        membrane.masked_fill_(spikes, 0)


def neuron_step(operation: ops.IntegerNeuron, x: Tensor, current: Tensor, membrane: Tensor) -> Tensor:
    """The spikes (C, H, W) of one frame. `current` and `membrane` go one step on, in place, before the reset."""
    arrived = x.to(torch.int64)
    if operation.rescale is not None:
        arrived = _rescale_(arrived.clone(), operation.rescale).clamp_(-loihi.CURRENT_LIMIT, loihi.CURRENT_LIMIT)
    keep_current = 2**loihi.DECAY_BITS - (operation.current_decay + 1)
    if keep_current:
        _decay_(current, keep_current).add_(arrived << loihi.CURRENT_SHIFT)
    else:
        torch.bitwise_left_shift(arrived, loihi.CURRENT_SHIFT, out=current)
    _wrap_(current)
    _decay_(membrane, 2**loihi.DECAY_BITS - operation.membrane_decay).add_(current)
    if np.any(operation.bias):
        membrane.add_(_constant(operation.bias, x) << loihi.CURRENT_SHIFT)
    membrane.clamp_(1 - loihi.STATE_LIMIT, loihi.STATE_LIMIT - 1)
    return membrane > _constant(operation.threshold, x) << loihi.CURRENT_SHIFT


def _wrap_(current: Tensor) -> None:
    """In place: 2^24 off above 2^23, 2^24 on at or below -2^23."""
    lowest, highest = (int(bound) for bound in torch.aminmax(current))
    if highest > loihi.STATE_LIMIT or lowest <= -loihi.STATE_LIMIT:
        above = current > loihi.STATE_LIMIT
        current.add_(2 * loihi.STATE_LIMIT * (current <= -loihi.STATE_LIMIT)).sub_(2 * loihi.STATE_LIMIT * above)


@execute.register
def _(operation: ops.IntegerNeuron, inputs: Sequence[Tensor], steps: int) -> Tensor:
    spikes = torch.empty(inputs[0].shape, dtype=torch.bool, device=inputs[0].device)
    for step, (_, fired) in enumerate(neuron_steps(operation, inputs[0])):
        spikes[step] = fired
    return spikes


@execute.register
def _(operation: ops.IntegerAdd, inputs: Sequence[Tensor], steps: int) -> Tensor:
    x, y = (value.to(torch.int64) for value in inputs)
    first, second = operation.rescale.multiplier.tolist()
    total = torch.add(x if first == 1 else x * first, y, alpha=second)
    return _saturate(_round_(total, operation.rescale.shift), operation.output)


@execute.register
def _(operation: ops.IntegerMul, inputs: Sequence[Tensor], steps: int) -> Tensor:
    product = inputs[0].to(torch.int64) * inputs[1].to(torch.int64)
    return _saturate(_rescale_(product, operation.rescale), operation.output)


@execute.register
def _(operation: ops.IntegerAffine, inputs: Sequence[Tensor], steps: int) -> Tensor:
    x = inputs[0].to(torch.int64)
    total = x * _constant(operation.rescale.multiplier, x) + _constant(operation.offset, x)
    return _saturate(_round_(total, operation.rescale.shift), operation.output)


@execute.register
def _(operation: ops.IntegerConcat, inputs: Sequence[Tensor], steps: int) -> Tensor:
    if all(value.dtype is torch.bool for value in inputs):
        return torch.cat(list(inputs), dim=1)
    aligned = [value.to(torch.int64) << left for value, left in zip(inputs, operation.left, strict=True)]
    return torch.cat(aligned, dim=1)


@execute.register
def _(operation: ops.IntegerMean, inputs: Sequence[Tensor], steps: int) -> Tensor:
    axes = [AXES.index(axis) for axis in operation.node.axes]
    total = inputs[0].sum(axes, keepdim=True, dtype=torch.int64)
    return _saturate(divide(total, inputs[0].numel() // total.numel()), operation.output)


def divide(total: Tensor, count: int) -> Tensor:
    """The mean of `count` values with this int64 sum: (total * multiplier + half) >> shift of `reciprocal`.

    The product may have 79 bits: it is taken in two halves of 32 and more bits, and is exact.
    """
    multiplier, shift = ops.reciprocal(count)
    low = (total & _WORD) * multiplier + _half(shift)
    high = (total >> 32) * multiplier + (low >> 32)
    return (high << 32 - shift) + ((low & _WORD) >> shift) if shift < 32 else high >> shift - 32


@execute.register
def _(operation: ops.IntegerMax, inputs: Sequence[Tensor], steps: int) -> Tensor:
    return inputs[0].amax([AXES.index(axis) for axis in operation.node.axes], keepdim=True)


@execute.register
def _(operation: ops.IntegerRelu, inputs: Sequence[Tensor], steps: int) -> Tensor:
    return inputs[0].clamp(min=0)


@execute.register
def _(operation: ops.IntegerSigmoid, inputs: Sequence[Tensor], steps: int) -> Tensor:
    middle = ops.TABLE_SIZE // 2
    index = _rescale_(inputs[0].clone(), operation.rescale).clamp_(-middle, middle - 1).add_(middle)
    return _constant(operation.table.astype(np.int64), index)[index]


@execute.register
def _(operation: ops.IntegerResize, inputs: Sequence[Tensor], steps: int) -> Tensor:
    x = inputs[0]
    if operation.node.mode == "nearest":
        return x.repeat_interleave(operation.node.factor, dim=2).repeat_interleave(operation.node.factor, dim=3)
    return _double(_double(x.to(torch.int64), 2), 3).add_(8).bitwise_right_shift_(4)


def _double(x: Tensor, axis: int) -> Tensor:
    """Twice as long along one axis: 3 x the pixel's own value + its nearer neighbour's, so four times too large."""
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    size = x.shape[axis]
    before = torch.cat([first, x.narrow(axis, 0, size - 1)], dim=axis)
    after = torch.cat([x.narrow(axis, 1, size - 1), last], dim=axis)
    triple = 3 * x
    shape = list(x.shape)
    shape[axis] *= 2
    return torch.stack([triple + before, triple + after], dim=axis + 1).reshape(shape)


@execute.register
def _(operation: ops.IntegerOutput, inputs: Sequence[Tensor], steps: int) -> Tensor:
    return _saturate(_round_(inputs[0].clone(), operation.right), operation.output)


@execute.register
def _(operation: ops.IntegerRainMask, inputs: Sequence[Tensor], steps: int) -> Tensor:
    """Of the pixels as shares of white: float64 gives each grey level back as it was."""
    node = operation.node
    shares = inputs[0].double() / PIXEL.high
    return rain_mask(
        shares, angles=node.angles, across=node.across, along=node.along, clip=node.clip, threshold=node.threshold
    ) > 0  # fmt: skip


@execute.register
def _(operation: ops.IntegerPool, inputs: Sequence[Tensor], steps: int) -> Tensor:
    node = operation.node
    return F.max_pool2d(inputs[0].float(), node.kernel, node.stride, node.padding) > 0


@execute.register
def _(operation: ops.IntegerFlood, inputs: Sequence[Tensor], steps: int) -> Tensor:
    ones = inputs[0]
    return ones | (ones.sum((1, 2, 3), keepdim=True) > operation.node.limit(ones[0].numel()))
