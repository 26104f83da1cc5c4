"""Convolutions of values (T, C, H, W). In: numbers or spikes, a convolution's constants. Out: its sums.

torch computes them in float32. In float64 on a CPU it has no fast convolution: it writes a matrix of all windows of all
steps, nine times the values of a 3x3 one. There they are sums of matrix products of a few rows at a time instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from export.graph.as_numbers import numbers, without_booleans
from export.graph.nodes import Conv

AT_ONCE = 2**17  # numbers of a strip: 1 MB, half of what a core has near it
FEW_CHANNELS, FEW_NUMBERS = 8, 2**18  # with fewer torch's way is faster


def convolve(node: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The sums of the node, (T, O, H', W') of the weight's dtype. weight (O, C/groups, kH, kW), channels last."""
    if weight.dtype is torch.float64 and weight.device.type == "cpu" and is_slow(node, x):
        return convolve_rows(x, weight, bias, node.padding)
    x = numbers(x, weight.dtype).contiguous(memory_format=torch.channels_last)  # up to three times as fast as first
    return F.conv2d(x, weight, bias, node.stride, node.padding, node.dilation, node.groups)


def is_slow(node: Conv, x: Tensor) -> bool:
    """Whether torch's way is slower in float64 than by rows."""
    _, channels, tall, wide = node.weight.shape
    plain = node.stride == node.dilation == (1, 1) and node.groups == 1 and tall * wide > 1
    return plain and channels >= FEW_CHANNELS and x.numel() * tall * wide >= FEW_NUMBERS


def convolve_rows(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Stride 1. Some rows, or some small frames, are copied with their borders, the channels last. Then kW pixels side
    by side are kW * C numbers without a gap; every kW-th such run is a row of a matrix, and kW matrices hold all."""
    out_channels, channels, tall, wide = weight.shape
    sizes = [size + 2 * pad - kernel + 1 for size, pad, kernel in zip(x.shape[2:], padding, (tall, wide), strict=True)]
    out = x.new_empty((len(x), *sizes, out_channels), dtype=weight.dtype)
    of_rows = weight.permute(0, 2, 3, 1).reshape(out_channels, tall, wide * channels).transpose(0, 1).mT
    line = x.shape[3] + 2 * padding[1]
    for to, strip in _strips(without_booleans(x).permute(0, 2, 3, 1), out, tall, padding):
        frames, rows = to.shape[:2]
        high = rows + tall - 1  # rows that are read, in each frame
        runs = -(-((frames * high - tall + 1) * line) // wide)
        sums = strip.new_empty(frames * high * line + wide, out_channels)
        for phase in range(wide):
            target = sums[phase:].as_strided((runs, out_channels), (wide * out_channels, 1))
            for row, kernel in enumerate(of_rows):
                start = (row * line + phase) * channels
                read = strip[start : start + runs * wide * channels].view(runs, wide * channels)
                torch.addmm(target, read, kernel, beta=int(row > 0), out=target)
        made = sums[: frames * high * line].view(frames, high, line, out_channels)[:, :rows, : sizes[1]]
        to.copy_(made) if bias is None else torch.add(made, bias, out=to)
    return out.permute(0, 3, 1, 2)


def _strips(x: Tensor, out: Tensor, tall: int, padding: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of the result (T, H', W', O), and what each is made of: rows of x (T, H, W, C) as numbers, their borders
    as zeros; flat, with room behind them."""
    (frames, height, width, channels), (top, left) = x.shape, padding
    line = (width + 2 * left) * channels
    frames_at_once = min(frames, max(1, AT_ONCE // ((height + 2 * top) * line)))
    rows_at_once = min(out.shape[1], max(1, AT_ONCE // line - tall + 1))
    high = rows_at_once + tall - 1
    flat = out.new_zeros((frames_at_once * high + 2) * line)
    for first in range(0, frames, frames_at_once):
        for row in range(0, out.shape[1], rows_at_once):
            to = out[first : first + frames_at_once, row : row + rows_at_once]
            high = to.shape[1] + tall - 1
            padded = flat[: len(to) * high * line].view(len(to), high, width + 2 * left, channels)
            begin, end = max(0, row - top), min(height, row - top + high)
            above = begin - (row - top)
            padded[:, :above] = 0.0
            padded[:, above + end - begin :] = 0.0
            padded[:, above : above + end - begin, left : left + width] = x[first : first + len(to), begin:end]
            yield to, flat
