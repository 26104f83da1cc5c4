"""Convolutions of integers in floating point, exact to the last bit: integers in, int64 sums out.

A sum of integers is exact in any order as long as no partial sum can leave the range in which the type holds every
integer. On a GPU that is float64 (2^53). On the CPU float32 (2^24) is six times as fast, so values are cut into pieces
of few enough bits, and the pieces' sums are put together in int64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from export.graph.nodes import Conv

FLOAT32_BITS = 24
MAX_PIECES = 4  # more cost as much as float64


def convolve(x: Tensor, weight: Tensor, node: Conv) -> Tensor:
    """int64 sums (T, O, H', W') of x (T, C, H, W), integers or booleans, and int64 weight; all below 2^53."""
    if x.is_cuda:
        return _convolve_in(torch.float64, x, weight, node)
    largest = max(1, int(weight.flatten(1).abs().sum(1).max()))
    piece = FLOAT32_BITS - largest.bit_length()  # (2^piece - 1) * largest < 2^24
    bits = 1 if x.dtype is torch.bool else max(abs(int(bound)) for bound in torch.aminmax(x)).bit_length()
    if bits <= piece:
        return _convolve_in(torch.float32, x, weight, node)
    if bits > MAX_PIECES * piece:
        return _convolve_in(torch.float64, x, weight, node)
    total = _convolve_in(torch.float32, x & (2**piece - 1), weight, node)
    for low in range(piece, bits, piece):
        part = x >> low if low + piece >= bits else x >> low & (2**piece - 1)
        total += _convolve_in(torch.float32, part, weight, node) << low
    return total


def _convolve_in(dtype: torch.dtype, x: Tensor, weight: Tensor, node: Conv) -> Tensor:
    """Rounding changes no exact sum; it removes what a transform (FFT, Winograd) of the library may leave."""
    sums = F.conv2d(x.to(dtype), weight.to(dtype), None, node.stride, node.padding, node.dilation, node.groups)
    return sums.round_().to(torch.int64)
