"""Convolutions of integers, exact to the last bit, from operations that are exact for small integers only.

Values are cut into digits of so few bits that no sum of digits times weights can leave what its type holds exactly; in
any order, therefore. A CPU's integer instructions take digits of bytes (byte_convolution.py); elsewhere they are as
wide as float32 allows, or float64: on a GPU, and where they would be many. What the sums are together is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export.graph.nodes import Conv
from export.integer import byte_convolution
from export.integer.arithmetic import FLOAT32, extremes, new_value, once, pieces, reach, scaled_bound
from export.integer.operations import EXACT, IntArray, IntegerConv, IntegerLinear, Rescale

Pair = tuple[int, int]
MAX_DIGITS = 4  # in float32: more cost as much as float64


@dataclass(frozen=True)
class Cut:
    """How values are cut into `count` digits of `bits`, and in what they are convolved.

    `excess` is added to every value, the border's zeros included: so that it has no sign. The sums have it too many.
    """

    bits: int
    count: int
    dtype: torch.dtype
    excess: int = 0


def largest_row(operation: IntegerConv) -> int:
    """The largest sum of |weights| of an output channel."""
    return once(operation, "largest row", lambda: int(np.abs(_rows(operation)).sum(1).max()))


def offset_of(operation: IntegerConv | IntegerLinear, rescale: Rescale, excess: int = 0) -> IntArray:
    """The bias as products have it, less what an excess of all that a convolution reads adds to its sums."""
    along_time = isinstance(operation, IntegerLinear) and operation.node.axis == "T"
    shape = (-1, 1, 1, 1) if along_time else (-1, 1, 1)
    bias = np.zeros((), np.int64) if operation.bias is None else operation.bias.reshape(shape)
    if excess:
        bias = bias - excess * _rows(operation).sum(1).reshape(shape)
    return np.asarray(bias * rescale.multiplier)


def _rows(operation: IntegerConv | IntegerLinear) -> IntArray:
    return operation.weight.reshape(len(operation.weight), -1).astype(np.int64)


def cut(x: Tensor, operation: IntegerConv, at_once: int) -> Cut:
    """The fastest way that is exact for these values, integers or booleans (T, C, H, W), so many frames at once."""
    low, filled, row = extremes(x)[0], reach(x).bit_length(), largest_row(operation)
    for bits in byte_convolution.DIGIT_BITS:
        count = max(1, -(-filled // bits)) if low >= 0 else filled // bits + 1
        how = Cut(bits, count, torch.uint8, 0 if low >= 0 else 1 << bits * count - 1)
        if row << bits < FLOAT32 and _runs_in_bytes(x, operation, how, at_once):
            return how
    bits, dtype = _narrower(FLOAT32, row), torch.float32
    if x.is_cuda or bits < 1 or filled > MAX_DIGITS * bits:
        bits, dtype = _narrower(EXACT, row), torch.float64
    return Cut(bits, max(1, -(-filled // bits)), dtype)


def _narrower(limit: int, row: int) -> int:
    """Bits of digits whose sums stay below a limit, -2^bits included: the last digit of a negative number may be it."""
    return limit.bit_length() - 1 - max(1, row).bit_length()


def _runs_in_bytes(x: Tensor, operation: IntegerConv, how: Cut, at_once: int) -> bool:
    """Whether the CPU's integer instructions give the right sums for this layer and these sizes."""
    node, (frames, channels, height, width) = operation.node, x.shape
    if x.device.type != "cpu" or not byte_convolution.is_ordinary(node, height, width):
        return False
    padding = _padding(node, how)
    top, left = (whole - rest for whole, rest in zip(node.padding, padding, strict=True))
    size = channels, height + 2 * top, width + 2 * left
    batches = {min(at_once, frames), frames % at_once or at_once}
    kernel = operation.weight.shape
    return all(
        byte_convolution.is_exact(how.bits, kernel, node.stride, padding, (how.count * batch, *size))
        for batch in batches
    )


def _padding(node: Conv, how: Cut) -> Pair:
    """What is left of a border of zeros: with an excess the values have it already."""
    return (0, 0) if how.excess else node.padding


def largest_joined(x: Tensor, operation: IntegerConv, how: Cut, rescale: Rescale) -> tuple[int, int]:
    """What nothing exceeds on the way from sums of digits to their rescaled whole, and what that does not exceed."""
    row, offset = largest_row(operation), once(operation, "largest offset", lambda: _largest_offset(operation, rescale))
    on_the_way = scaled_bound(2 * row * (reach(x) + how.excess), rescale, offset)[0]
    return on_the_way, scaled_bound(row * reach(x), rescale, offset)[1]


def _largest_offset(operation: IntegerConv, rescale: Rescale) -> int:
    return int(np.abs(offset_of(operation, rescale)).max())


def convolve(x: Tensor, operation: IntegerConv, how: Cut) -> Sequence[Tensor]:
    """Sums of each digit of x (T, C, H, W), the lowest digit first, whole numbers in float32 or float64.

    sum(sums[k] << k * bits) are those of x + excess, below 2^53.
    """
    if how.dtype is not torch.uint8:
        return [_convolve_floats(digit.to(how.dtype), operation) for digit in _digits(x, how)]
    node, frames, padding = operation.node, len(x), _padding(operation.node, how)
    weight = torch.from_numpy(operation.weight)
    run = once(operation, ("packed", padding), lambda: byte_convolution.packed(weight, node.stride, padding))
    sums = run(_spikes(x) if x.dtype is torch.bool else _bytes(x, operation, how))
    return torch.split(sums, frames)


def _digits(x: Tensor, how: Cut) -> list[Tensor]:
    """The last digit has the sign."""
    mask, last = (1 << how.bits) - 1, how.count - 1
    return [x] if not last else [*((x >> how.bits * k) & mask for k in range(last)), x >> how.bits * last]


def _convolve_floats(digit: Tensor, operation: IntegerConv) -> Tensor:
    """Rounding changes no exact sum; it removes what a transform (FFT, Winograd) of the library may leave."""
    node = operation.node
    key = ("weight", digit.dtype, digit.device)
    weight = once(operation, key, lambda: torch.tensor(operation.weight).to(digit))
    digit = digit.contiguous(memory_format=torch.channels_last)
    return F.conv2d(digit, weight, None, node.stride, node.padding, node.dilation, node.groups).round_()


def _spikes(x: Tensor) -> Tensor:
    return x.view(torch.uint8).contiguous(memory_format=torch.channels_last)


def _bytes(x: Tensor, operation: IntegerConv, how: Cut) -> Tensor:
    """The digits one after the other, (count * T, C, H, W); with an excess, their borders too, of the last one only."""
    frames, channels, height, width = x.shape
    top, left = operation.node.padding if how.excess else (0, 0)
    made = new_value((how.count * frames, channels, height + 2 * top, width + 2 * left), torch.uint8, x)
    last, mask = how.count - 1, (1 << how.bits) - 1
    half = how.excess >> how.bits * last
    for place, digit in enumerate(torch.split(made, frames)):
        if how.excess:
            digit.fill_(half if place == last else 0)
        for out, value in pieces(digit[:, :, top : top + height, left : left + width], x):
            value = value >> how.bits * place if place else value
            if place == last and half:
                value = value + half
            out.copy_(value if how.bits == 8 else value & mask)  # the lowest eight bits are what a byte takes
    return made
