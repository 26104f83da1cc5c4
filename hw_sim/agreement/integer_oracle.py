"""docs/int8.md in NumPy, written to be read: an integer network, pixels in; every value and membrane out.

The second witness of the integers: it shares nothing with export/integer/run.py but the data. int64 throughout,
convolutions tap by tap, no torch; seconds for an image of 64x64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph.nodes import AXES, NetworkError, gate_of
from export.integer import operations as ops
from export.integer.network import IntegerNetwork
from export.integer.operations import IntArray

Pair = tuple[int, int]


@dataclass
class Trace:
    """Integers of every node (spikes as 0 and 1), membranes before the reset of every neuron."""

    values: dict[str, IntArray] = field(default_factory=dict)
    membranes: dict[str, IntArray] = field(default_factory=dict)


def run(network: IntegerNetwork, pixels: NDArray[np.integer[Any]]) -> Trace:
    """One image, 8-bit pixels (3, H, W), sides multiples of the network's."""
    trace = Trace()
    for operation in network.operations:
        inputs = [trace.values[name] for name in operation.node.inputs]
        if isinstance(operation, ops.IntegerInput):
            inputs = [pixels[None].astype(np.int64)]
        value = Oracle(trace, network.network.steps).value(operation, *inputs[: 1 if gate_of(operation.node) else None])
        if gate_of(operation.node):
            value = np.where(inputs[1] == 1, value, 0)
        trace.values[operation.name] = value
    return trace


def shift_right(x: IntArray, shift: int) -> IntArray:
    """x / 2^shift, rounded half up."""
    return x if shift == 0 else (x + 2 ** (shift - 1)) >> shift


def toward_zero(x: IntArray, shift: int) -> IntArray:
    """x / 2^shift without its fraction."""
    return np.sign(x) * (np.abs(x) >> shift)


def rescaled(x: IntArray, rescale: ops.Rescale | None) -> IntArray:
    """To another scale; x itself where there is none."""
    return x if rescale is None else shift_right(x * rescale.multiplier, rescale.shift)


def saturated(x: IntArray, to: ops.Format) -> IntArray:
    """The nearest integers that the format holds."""
    return np.clip(x, to.low, to.high)


def convolved(
    x: IntArray, weight: NDArray[np.integer[Any]], stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> IntArray:
    """Sums over channels and taps, one tap after the other."""
    weight = weight.astype(np.int64)
    x = np.pad(x, ((0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])))
    out_h, out_w = (
        (size - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1 for i, size in enumerate(x.shape[2:])
    )
    parts = []
    for part, kernel in zip(np.split(x, groups, axis=1), np.split(weight, groups), strict=True):
        total = np.zeros((len(x), len(kernel), out_h, out_w), np.int64)
        for row in range(kernel.shape[2]):
            for column in range(kernel.shape[3]):
                top, left = row * dilation[0], column * dilation[1]
                seen = part[
                    :, :, top : top + out_h * stride[0] : stride[0], left : left + out_w * stride[1] : stride[1]
                ]
                seen = seen[:, :, :out_h, :out_w]
                total += np.einsum("tchw,oc->tohw", seen, kernel[:, :, row, column])
        parts.append(total)
    return np.concatenate(parts, axis=1)


def opened(levels: IntArray, line: list[Pair]) -> IntArray:
    """The least, then the largest level (1, H, W) along a line around each pixel; beyond the border nothing counts."""
    height, width = levels.shape[1:]
    for extreme, beyond in ((np.min, 255), (np.max, 0)):
        far = max(max(abs(down), abs(right)) for down, right in line)
        padded = np.pad(levels, ((0, 0), (far, far), (far, far)), constant_values=beyond)
        corners = [(far + down, far + right) for down, right in line]
        levels = extreme([padded[:, top : top + height, left : left + width] for top, left in corners], 0)
    return levels


class Oracle:
    """One rule for each operation. Membranes go into the trace; T is `steps`."""

    def __init__(self, trace: Trace, steps: int) -> None:
        self.trace, self.steps = trace, steps

    @singledispatchmethod
    def value(self, operation: ops.Operation, *inputs: IntArray) -> IntArray:
        """The integers of a node, given those of its inputs, (T or 1, C, H, W)."""
        raise NetworkError(f"{operation.name}: the NumPy oracle has no rule for {type(operation).__name__}")

    @value.register
    def _(self, operation: ops.IntegerInput, x: IntArray) -> IntArray:
        return x

    @value.register
    def _(self, operation: ops.IntegerRepeat, x: IntArray) -> IntArray:
        return np.repeat(x, self.steps, axis=0)

    @value.register
    def _(self, operation: ops.IntegerConv, x: IntArray) -> IntArray:
        node = operation.node
        sums = convolved(x, operation.weight, node.stride, node.padding, node.dilation, node.groups)
        if operation.bias is not None:
            sums = sums + operation.bias[:, None, None]
        return sums if operation.rescale is None else saturated(rescaled(sums, operation.rescale), operation.output)

    @value.register
    def _(self, operation: ops.IntegerLinear, x: IntArray) -> IntArray:
        axis = AXES.index(operation.node.axis)
        sums = np.moveaxis(np.tensordot(operation.weight.astype(np.int64), x, axes=(1, axis)), 0, axis)
        if operation.bias is not None:
            sums = sums + operation.bias.reshape([-1 if i == axis else 1 for i in range(4)])
        return saturated(rescaled(sums, operation.rescale), operation.output)

    @value.register
    def _(self, operation: ops.IntegerNeuron, x: IntArray) -> IntArray:
        u = v = np.zeros(x.shape[1:], np.int64)
        spikes, membranes = np.zeros(x.shape, np.int64), np.zeros(x.shape, np.int64)
        for step, arrived in enumerate(x):
            a = arrived
            if operation.rescale is not None:
                a = np.clip(rescaled(a, operation.rescale), -(2**17 - 1), 2**17 - 1)
            u = toward_zero(u * (4096 - (operation.current_decay + 1)), 12) + a * 2**6
            u = np.where(u > 2**23, u - 2**24, np.where(u <= -(2**23), u + 2**24, u))
            v = toward_zero(v * (4096 - operation.membrane_decay), 12) + u + operation.bias * 2**6
            v = np.clip(v, -(2**23) + 1, 2**23 - 1)
            membranes[step] = v
            spikes[step] = v > operation.threshold * 2**6
            v = np.where(spikes[step] == 1, 0, v)
        self.trace.membranes[operation.name] = membranes
        return spikes

    @value.register
    def _(self, operation: ops.IntegerAdd, x: IntArray, y: IntArray) -> IntArray:
        total = x * operation.rescale.multiplier[0] + y * operation.rescale.multiplier[1]
        return saturated(shift_right(total, operation.rescale.shift), operation.output)

    @value.register
    def _(self, operation: ops.IntegerMul, x: IntArray, y: IntArray) -> IntArray:
        return saturated(rescaled(x * y, operation.rescale), operation.output)

    @value.register
    def _(self, operation: ops.IntegerAffine, x: IntArray) -> IntArray:
        total = x * operation.rescale.multiplier + operation.offset
        return saturated(shift_right(total, operation.rescale.shift), operation.output)

    @value.register
    def _(self, operation: ops.IntegerConcat, *inputs: IntArray) -> IntArray:
        return np.concatenate([x * 2**left for x, left in zip(inputs, operation.left, strict=True)], axis=1)

    @value.register
    def _(self, operation: ops.IntegerMean, x: IntArray) -> IntArray:
        axes = tuple(AXES.index(axis) for axis in operation.node.axes)
        count = int(np.prod([x.shape[axis] for axis in axes]))
        shift = 9 + int(np.ceil(np.log2(count)))  # a 16-bit multiplier; six fractional bits more than x
        multiplier = (2 ** (shift + 6) + count // 2) // count
        return saturated(shift_right(x.sum(axes, keepdims=True) * multiplier, shift), operation.output)

    @value.register
    def _(self, operation: ops.IntegerMax, x: IntArray) -> IntArray:
        return x.max(tuple(AXES.index(axis) for axis in operation.node.axes), keepdims=True)

    @value.register
    def _(self, operation: ops.IntegerRelu, x: IntArray) -> IntArray:
        return np.where(x > 0, x, 0)

    @value.register
    def _(self, operation: ops.IntegerSigmoid, x: IntArray) -> IntArray:
        return operation.table[np.clip(rescaled(x, operation.rescale), -2048, 2047) + 2048].astype(np.int64)

    @value.register
    def _(self, operation: ops.IntegerResize, x: IntArray) -> IntArray:
        if operation.node.mode == "nearest":
            factor = operation.node.factor
            return x.repeat(factor, axis=2).repeat(factor, axis=3)
        rows, columns = x.shape[2:]
        bordered = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        out = np.zeros((*x.shape[:2], 2 * rows, 2 * columns), np.int64)
        for row in range(2 * rows):
            for column in range(2 * columns):
                y, near_y = row // 2 + 1, row // 2 + (2 if row % 2 else 0)
                z, near_z = column // 2 + 1, column // 2 + (2 if column % 2 else 0)
                taps = 9 * bordered[..., y, z] + 3 * bordered[..., near_y, z] + 3 * bordered[..., y, near_z]
                out[..., row, column] = (taps + bordered[..., near_y, near_z] + 8) >> 4
        return out

    @value.register
    def _(self, operation: ops.IntegerRainMask, x: IntArray) -> IntArray:
        node, levels = operation.node, x.min(1)
        found, strengths = [], []
        for angle in node.angles:
            slope = np.tan(np.radians(angle))
            across = [(-round(step * slope), step) for step in range(-(node.across // 2), node.across // 2 + 1)]
            along = [(step, round(step * slope)) for step in range(-(node.along // 2), node.along // 2 + 1)]
            found.append(opened(levels - opened(levels, across), along))
            strengths.append(int(np.minimum(found[-1], node.clip).sum()))
        near = [strengths[max(0, place - 1) : place + 2] for place in range(len(found))]
        kept = [response for response, beside in zip(found, near, strict=True) if max(beside) == max(strengths)]
        return (np.max(kept, 0) >= node.threshold).astype(np.int64)[:, None]

    @value.register
    def _(self, operation: ops.IntegerPool, x: IntArray) -> IntArray:
        node = operation.node
        (rows, columns), (down, right), (top, left) = node.kernel, node.stride, node.padding
        padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
        height, width = (padded.shape[2] - rows) // down * down + 1, (padded.shape[3] - columns) // right * right + 1
        places = [(row, column) for row in range(rows) for column in range(columns)]
        return np.max([padded[:, :, i : i + height : down, j : j + width : right] for i, j in places], 0)

    @value.register
    def _(self, operation: ops.IntegerFlood, x: IntArray) -> IntArray:
        many = x.sum((1, 2, 3), keepdims=True) > int(operation.node.most * x[0].size)
        return np.where(many, 1, x)

    @value.register
    def _(self, operation: ops.IntegerOutput, x: IntArray) -> IntArray:
        return np.clip(shift_right(x, operation.right), 0, 255)
