"""Executes an IntegerNetwork in torch, on the CPU or a GPU: 8-bit pixels in, 8-bit pixels out, equal on every machine.

Values are tensors of whole numbers (T or 1, C, H, W), spikes boolean. What is computed is exact: in 32 bits where what
was proven of an operation (Bounds) or is seen of its values allows that, else in wider ones; in floating point only
where no sum is rounded, so that their order does not matter. docs/int8.md is the specification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import singledispatch
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from esdnet.images.rain_streaks import rain_mask
from export.graph.frames import output_of
from export.graph.network import infer_shapes
from export.graph.nodes import AXES, NetworkError, Reduce, gate_of
from export.integer import operations as ops
from export.integer.arithmetic import (
    AT_ONCE,
    FIRST,
    INT32,
    LAST,
    constant,
    extremes,
    factors,
    finish,
    know,
    maximum,
    new_value,
    once,
    pieces,
    reach,
    scale_,
    scaling,
    total,
    whole_type,
)
from export.integer.chains import Link, find_chain, join, room, run_chain
from export.integer.convolution import convolve, cut, largest_joined, offset_of
from export.integer.network import Bounds, IntegerNetwork
from export.integer.neurons import Neurons
from export.integer.operations import INT64, PIXEL, Operation

_WORD = 2**32 - 1
FRAMES_AT_ONCE = 4 * AT_ONCE  # values of a convolution: its digits and their sums are some times as much
UNPROVEN = Bounds()
Observe = Callable[[Operation, Sequence[Tensor], Tensor], None]
See = Callable[[Operation, Tensor], None]


def run_integer(
    network: IntegerNetwork,
    pixels: NDArray[np.uint8],
    observe: Observe | None = None,
    device: str = "cpu",
    see_spikes: See | None = None,
) -> NDArray[np.uint8]:
    """The derained image of pixels uint8 (C, H, W), whose sides `size_multiple` divides; (T, C, H, W) if it is several.

    `observe` is called for every node with its operation, its input values and its value; without it chains of nodes
    are computed piece by piece. `see_spikes` is called with every value that is spikes.
    """
    image = torch.from_numpy(_check_pixels(network, pixels)).to(device, torch.int32)[None]
    run = _Run(network, image.contiguous(memory_format=torch.channels_last), observe, see_spikes)
    with torch.inference_mode():
        number = 0
        while number < len(network.operations):
            number += run.advance(number)
        return output_of(run.values[network.network.output.name]).to("cpu", torch.uint8).numpy()


class _Run:
    """One image on its way: the values that somebody still reads."""

    def __init__(self, network: IntegerNetwork, image: Tensor, observe: Observe | None, see: See | None) -> None:
        self.network, self.image, self.observe, self.see = network, image, observe, see
        self.steps = network.network.steps
        self.shapes = infer_shapes(network.network, *image.shape[2:])
        self.unread = Counter(name for operation in network.operations for name in operation.node.inputs)
        self.values: dict[str, Tensor] = {}

    def advance(self, number: int) -> int:
        """Compute the operation of that number, or a chain from it on; returns how many were computed."""
        chain = [self.network.operations[number]]
        if self.observe is None:
            chain = find_chain(self.network, self.shapes, number)
        operation, bounds = chain[0], self.network.bounds
        inputs = [self.values[name] for name in operation.node.inputs] or [self.image]
        if len(chain) == 1:
            value = behind_gate(operation, inputs, execute(operation, inputs, self.steps, bounds[operation.name]))
        else:
            value = run_chain(operation, inputs, self._links(chain), self.steps, bounds[operation.name])
        self.values[chain[-1].name] = value
        if self.observe is not None:
            self.observe(operation, inputs, value)
        if self.see is not None and value.dtype is torch.bool:
            self.see(operation, value)
        for one in chain:
            self._have_read(one)
        return len(chain)

    def _links(self, chain: Sequence[Operation]) -> list[Link]:
        links = []
        for before, link in pairwise(chain):
            position = link.node.inputs.index(before.name)
            others = [self.values[name] for name in link.node.inputs if name != before.name]
            links.append(Link(link, position, others, self.network.bounds[link.name]))
        return links

    def _have_read(self, operation: Operation) -> None:
        for name in operation.node.inputs:
            self.unread[name] -= 1
            if not self.unread[name]:
                self.values.pop(name, None)  # what is inside a chain never was there


def behind_gate(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> Tensor:
    """The value of a node where its gate, if it has one, is open, and 0 elsewhere. In place."""
    if gate_of(operation.node) is None:
        return value
    if value.dtype is torch.bool:
        return value.logical_and_(inputs[1])
    low, high = extremes(value)
    return know(value.mul_(inputs[1]), min(low, 0), max(high, 0))


def _check_pixels(network: IntegerNetwork, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    channels = network.network.input.channels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] != channels:
        raise NetworkError(
            f"{network.network.name}: image {pixels.dtype} {pixels.shape}, expected uint8 ({channels}, height, width);"
            " `to_pixels` makes that of floats in [0, 1]"
        )
    return np.ascontiguousarray(pixels)


def to_pixels(image: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Values in [0, 1] as 8-bit pixels, rounded half up: exact for an image that was read from 8 bits."""
    return np.floor(np.clip(image.astype(np.float64), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


@singledispatch
def execute(operation: Operation, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    """The value of one node; an operation without a rule is refused."""
    raise NetworkError(f"{operation.name}: no rule for {type(operation).__name__}; add one to export/integer/run.py")


@execute.register
def _(operation: ops.IntegerInput, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    return inputs[0]


@execute.register
def _(operation: ops.IntegerRepeat, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    return know(inputs[0].expand(steps, -1, -1, -1), *extremes(inputs[0]))


@execute.register
def _(operation: ops.IntegerConv, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    if operation.rescale is None:
        return _raw_sums(operation, inputs[0])
    return run_chain(operation, inputs, [], steps, bounds)


@execute.register(ops.IntegerAdd)
@execute.register(ops.IntegerMul)
@execute.register(ops.IntegerAffine)
@execute.register(ops.IntegerRelu)
def _(operation: Operation, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    return run_chain(operation, inputs, [], steps, bounds)


def _raw_sums(operation: ops.IntegerConv, x: Tensor) -> Tensor:
    """The sums as they are: in float32 where that holds them all."""
    how = cut(x, operation, len(x))
    sums = convolve(x, operation, how)
    offset = offset_of(operation, ops.AS_IT_IS, how.excess)
    if len(sums) == 1 and not np.any(offset):
        return sums[0]
    dtype = whole_type(largest_joined(x, operation, how, ops.AS_IT_IS)[0])
    whole = join(sums, how.bits, new_value(sums[0].shape, dtype, x))
    return whole.add_(constant(offset, whole, whole.dtype))


@execute.register
def _(operation: ops.IntegerLinear, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    x, dtype, rescale = inputs[0], whole_type(bounds.largest), operation.rescale
    factor, summand = scaling(operation, rescale, x, dtype, lambda: offset_of(operation, rescale))
    kind = torch.float64 if operation.node.axis == "C" else dtype
    weight = once(operation, ("weight", kind, x.device), lambda: torch.tensor(operation.weight).to(x.device, kind))
    out = room(operation, inputs, steps)
    if operation.node.axis == "C":
        sums = F.linear(x.double().transpose(1, 3), weight).transpose(1, 3).to(dtype)
        finish(scale_(sums, factor, summand, rescale.shift), operation.output, out)
        return out
    shares = weight[..., None, None, None].unbind(1)
    for to, by, plus, *both in pieces(out, factor, summand, *shares, *torch.split(x, 1)):
        sums = both[0] * both[len(x)].to(dtype)
        for share, frame in zip(both[1 : len(x)], both[len(x) + 1 :], strict=True):
            sums.addcmul_(share, frame.to(dtype))
        finish(scale_(sums, by, plus, rescale.shift), operation.output, to)
    return out


@execute.register
def _(operation: ops.IntegerNeuron, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    """Some rows after the other, all steps of each."""
    x = inputs[0]
    largest = bounds.inputs[0] if x.is_floating_point() else min(bounds.inputs[0], reach(x))
    spikes = room(operation, inputs, steps)
    same = all(array.ndim < 3 or array.shape[-2] == 1 for array in (operation.threshold, operation.bias))
    rows = max(1, AT_ONCE // (x.shape[1] * x.shape[3])) if same else x.shape[2]
    for arriving, fired in zip(torch.split(x, rows, 2), torch.split(spikes, rows, 2), strict=True):
        neurons = Neurons(operation, arriving[:1], largest, len(x))
        for frame, out in zip(torch.split(arriving, 1), torch.split(fired, 1), strict=True):
            out.copy_(neurons.step(frame))
    return spikes


@execute.register
def _(operation: ops.IntegerConcat, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    channels = [value.shape[1] for value in inputs]
    out = room(operation, inputs, steps)
    for part, value, left in zip(torch.split(out, channels, 1), inputs, operation.left, strict=True):
        part.copy_(value)
        if left:
            part.bitwise_left_shift_(left)
    return out


@execute.register
def _(operation: ops.IntegerMean, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    x = inputs[0]
    summed = total(x, _axes(operation.node), bounds.inputs[0])
    count = x.numel() // summed.numel()
    multiplier, shift = ops.reciprocal(count)
    products = bounds.inputs[0] * count * multiplier + (1 << shift)
    out = new_value(summed.shape, operation.output, x)
    if products >= INT64:
        finish(divide(summed.to(torch.int64), count), operation.output, out)
        return out
    dtype = whole_type(products)
    factor, summand = factors(multiplier, 0, shift, dtype)
    for to, part in pieces(out, summed):
        finish(scale_(part.to(dtype, copy=True), factor, summand, shift), operation.output, to)
    return out


def _axes(node: Reduce) -> list[int]:
    return [AXES.index(axis) for axis in node.axes]


def divide(total: Tensor, count: int) -> Tensor:
    """The mean of `count` values with this int64 sum: (total * multiplier + half) >> shift of `reciprocal`.

    The product may have 79 bits: it is taken in two halves of 32 and more bits, and is exact.
    """
    multiplier, shift = ops.reciprocal(count)
    low = (total & _WORD) * multiplier + ((1 << shift) >> 1)
    high = (total >> 32) * multiplier + (low >> 32)
    return (high << 32 - shift) + ((low & _WORD) >> shift) if shift < 32 else high >> shift - 32


@execute.register
def _(operation: ops.IntegerMax, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    return maximum(inputs[0], _axes(operation.node))


@execute.register
def _(operation: ops.IntegerSigmoid, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    x, dtype, middle = inputs[0], whole_type(bounds.largest), ops.TABLE_SIZE // 2
    factor, summand = scaling(operation, operation.rescale, x, dtype)
    table = once(operation, x.device, lambda: torch.tensor(operation.table.astype(np.int32), device=x.device))
    out = new_value(x.shape, operation.output, x)
    for to, value, by, plus in pieces(out, x, factor, summand):
        index = scale_(value.to(dtype, copy=True), by, plus, operation.rescale.shift)
        to.copy_(table[index.clamp_(-middle, middle - 1).add_(middle).to(torch.int64)])
    return know(out, *extremes(table))


@execute.register
def _(operation: ops.IntegerResize, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    x, factor = inputs[0], operation.node.factor
    frames, channels, height, width = x.shape
    if operation.node.mode == "nearest":
        copies = x.permute(LAST)[:, :, None, :, None].expand(-1, -1, factor, -1, factor, -1)
        return copies.reshape(frames, height * factor, width * factor, channels).permute(FIRST)
    out = new_value((frames, channels, 2 * height, 2 * width), operation.output, x)
    whole = torch.int32 if bounds.largest < INT32 else torch.int64
    for to, frame in zip(torch.split(out, 1), torch.split(x, 1), strict=True):
        to.copy_(_double(_double(frame.to(whole), 2), 3).add_(8).bitwise_right_shift_(4))
    return out


def _double(x: Tensor, axis: int) -> Tensor:
    """Twice as long along one axis: 3 x the pixel's own value + its nearer neighbour's, so four times too large."""
    size = x.shape[axis]
    shape = list(x.shape)
    shape[axis] *= 2
    out = new_value(shape, x.dtype, x)
    pairs = out.view(*x.shape[:axis], size, 2, *x.shape[axis + 1 :])
    for side, neighbours in enumerate(_neighbours(x, axis)):
        torch.add(neighbours, x, alpha=3, out=pairs.select(axis + 1, side))
    return out


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The values before and those after, the first and the last repeated."""
    size = x.shape[axis]
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, size - 1, 1)
    before = torch.cat([first, x.narrow(axis, 0, size - 1)], dim=axis)
    return before, torch.cat([x.narrow(axis, 1, size - 1), last], dim=axis)


@execute.register
def _(operation: ops.IntegerOutput, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    x, dtype = inputs[0], whole_type(bounds.largest)
    factor, summand = scaling(operation, ops.Rescale(np.array(1), operation.right), x, dtype)
    out = new_value(x.shape, operation.output, x)
    finish(scale_(x.to(dtype, copy=True), factor, summand, operation.right), operation.output, out)
    return out


@execute.register
def _(operation: ops.IntegerRainMask, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    """Of the pixels as shares of white: float64 gives each grey level back as it was."""
    node = operation.node
    shares = inputs[0].double() / PIXEL.high
    return rain_mask(
        shares, angles=node.angles, across=node.across, along=node.along, clip=node.clip, threshold=node.threshold
    ) > 0  # fmt: skip


@execute.register
def _(operation: ops.IntegerPool, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    node = operation.node
    return F.max_pool2d(inputs[0].float(), node.kernel, node.stride, node.padding) > 0


@execute.register
def _(operation: ops.IntegerFlood, inputs: Sequence[Tensor], steps: int, bounds: Bounds = UNPROVEN) -> Tensor:
    ones = inputs[0]
    return ones | (ones.sum((1, 2, 3), keepdim=True) > operation.node.limit(ones[0].numel()))
