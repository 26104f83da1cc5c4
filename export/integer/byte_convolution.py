"""Convolutions of bytes by a CPU's integer instructions (VNNI, AMX, or older ones), through torch's oneDNN.

Unsigned bytes and 8-bit weights in, their exact sums out, in float32. torch has the operation for quantised networks;
it is in no public interface, its kernels differ from CPU to CPU, and some are wrong. So it is used for ordinary
geometries alone, and only after it has given the right sums for each: who asks gets None, and convolves another way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from export.graph.nodes import Conv

# The widest first. Without VNNI the instructions add up two products in 16 bits: those of 7-bit digits fit.
DIGIT_BITS = (8, 7)
# oneDNN 3.3 and 3.12 give wrong sums, or crash, on images of one to three columns (AMX), and with dilations and groups.
LEAST_SIDE = 8
LARGEST_KERNEL = 7
TRIED_ROWS = 16

Pair = tuple[int, int]
Sums = Callable[[Tensor], Tensor]


def is_ordinary(node: Conv, height: int, width: int) -> bool:
    """Whether a convolution's geometry is one of those that oneDNN's kernels are trusted with."""
    kernel, padding = node.weight.shape[2:], node.padding
    return (
        node.groups == 1
        and node.dilation == (1, 1)
        and kernel[0] == kernel[1] <= LARGEST_KERNEL
        and node.stride in ((1, 1), (2, 2))
        and padding[0] == padding[1] <= kernel[0] // 2
        and min(height, width) >= LEAST_SIDE
    )


def packed(weight: Tensor, stride: Pair, padding: Pair) -> Sums:
    """A function of bytes (T, C, H, W), channels last, that gives their sums in float32.

    weight: int8 (O, C, kH, kW).
    """
    ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int32)
    geometry = [*stride], [*padding], [1, 1], 1
    kernel = torch.ops.onednn.qconv_prepack(weight, ones, 1.0, 0, *geometry, None)
    run = torch.ops.onednn.qconv2d_pointwise

    def sums(x: Tensor) -> Tensor:
        return run(x, 1.0, 0, kernel, ones, zeros, None, *geometry, 1.0, 0, torch.float32, "none", [], "")

    return sums


@lru_cache(maxsize=1024)
def is_exact(bits: int, shape: tuple[int, ...], stride: Pair, padding: Pair, width: int) -> bool:
    """Whether this CPU and this torch give the right sums of digits for a kernel (O, C, kH, kW) and a width of images.

    Tried with the largest digits and weights, where instructions would saturate, and with mixed ones; against float32,
    whose sums stay below 2^24.
    """
    out, channels, *sides = shape
    weight = (torch.arange(out * channels * sides[0] * sides[1]).reshape(shape) * 89 % 255 - 127).to(torch.int8)
    weight[::3], weight[1::3] = 127, -127
    weight[:, max(1, 500 // (sides[0] * sides[1])) :] = 0
    x = (torch.arange(2 * channels * TRIED_ROWS * width) * 41 % (1 << bits)).reshape(2, TRIED_ROWS, width, channels)
    x[0] = (1 << bits) - 1
    x = x.permute(0, 3, 1, 2).to(torch.uint8)
    expected = F.conv2d(x.float(), weight.float(), None, stride, padding).round_()
    try:
        return torch.equal(packed(weight, stride, padding)(x), expected)
    except (AttributeError, NotImplementedError, RuntimeError):  # a torch without oneDNN, or with another signature
        return False
