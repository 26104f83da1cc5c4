"""Convolutions of bytes by a CPU's integer instructions (VNNI, AMX, or older ones), through torch's oneDNN.

Unsigned bytes and 8-bit weights in, their exact sums out, in float32. torch has the operation for quantised networks;
it is in no public interface, its kernels differ from CPU to CPU, and some are wrong. So it is used for ordinary
geometries alone, and of those only for the very sizes for which this CPU has given the right sums before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from platform import machine

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export.graph.nodes import Conv

# The widest first. Without VNNI the instructions add up two products in 16 bits: those of 7-bit digits fit.
DIGIT_BITS = (8, 7)
# oneDNN 3.3 and 3.12 give wrong sums, or crash, on images of one to three columns (AMX), and with dilations and groups;
# wrong ones too where a single column comes out of eight.
LEAST_SIDE, LEAST_OUT = 8, 4
LARGEST_KERNEL = 7
MACHINES = ("x86_64", "AMD64")  # elsewhere oneDNN's kernels for bytes are for reference, and slow
KINDS = 8  # different kernels of a trial: its outputs repeat them in no order
IMAGES = 4  # different images
STRETCH = 65_521  # different digits of a trial: a prime, so that no row is like another

Pair = tuple[int, int]
Shape = tuple[int, ...]
Sums = Callable[[Tensor], Tensor]


def is_ordinary(node: Conv, height: int, width: int) -> bool:
    """Whether a convolution's geometry is one of those that oneDNN's kernels are trusted with."""
    kernel, padding, side = node.weight.shape[2:], node.padding, min(height, width)
    return (
        machine() in MACHINES
        and node.groups == 1
        and node.dilation == (1, 1)
        and kernel[0] == kernel[1] <= LARGEST_KERNEL
        and node.stride in ((1, 1), (2, 2))
        and padding[0] == padding[1] <= kernel[0] // 2
        and side >= LEAST_SIDE
        and (side + 2 * padding[0] - kernel[0]) // node.stride[0] + 1 >= LEAST_OUT
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


def is_exact(bits: int, kernel: Shape, stride: Pair, padding: Pair, image: Shape) -> bool:
    """Whether this CPU and this torch give the right sums of digits for kernels (O, C, kH, kW) and images (N, C, H, W).

    Such a kernel does the same whatever the numbers are: each of its sums adds up products of pairs that the shapes
    alone decide, and only a sum of few products can be cut off on the way (in 16 bits). So numbers at random show
    whether it is right, if large ones meet large ones; float32 knows the sums, which stay below 2^24.
    """
    return _is_exact(bits, kernel, stride, padding, image, torch.get_num_threads())


@lru_cache(maxsize=1024)
def _is_exact(bits: int, kernel: Shape, stride: Pair, padding: Pair, image: Shape, threads: int) -> bool:
    """oneDNN divides its work by all of these. `threads` is what torch has."""
    random = np.random.default_rng(0)
    kinds = _large_weights(random, (KINDS, *kernel[1:]))
    images = _scattered(random, bits, image)
    expected = F.conv2d(images.float(), kinds.float(), None, stride, padding).round_()
    of_output, of_image = (
        torch.from_numpy(random.permutation(n) % m) for n, m in ((kernel[0], KINDS), (image[0], IMAGES))
    )
    x = images[of_image].contiguous(memory_format=torch.channels_last)
    try:
        found = packed(kinds[of_output], stride, padding)(x)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # no oneDNN here, or one of another shape
        return False
    return found.dtype is torch.float32 and all(
        torch.equal(one, expected[which, of_output]) for one, which in zip(found, of_image, strict=True)
    )


def _large_weights(random: np.random.Generator, shape: Shape) -> Tensor:
    """Kernels int8 (O, C, kH, kW) of large weights at random, whose neighbours have one sign: instructions add up four
    products at most, of channels or columns side by side, and whatever can be cut off is."""
    outputs, channels, height, width = shape
    signs = random.choice([-1, 1], (outputs, -(-channels // 4), height, -(-width // 4)))
    signs = np.kron(signs, np.ones((1, 4, 1, 4), np.int64))[:, :channels, :, :width]
    return torch.from_numpy((signs * random.integers(96, 128, shape)).astype(np.int8))


def _scattered(random: np.random.Generator, bits: int, shape: Shape) -> Tensor:
    """Different images uint8 (N, C, H, W), channels last: digits at random, a stretch of them over and over."""
    stretch = random.integers(0, 2 << bits, STRETCH).clip(max=(1 << bits) - 1).astype(np.uint8)
    frames, channels, height, width = shape
    digits = np.resize(stretch, (min(IMAGES, frames), height, width, channels))
    return torch.from_numpy(digits).permute(0, 3, 1, 2)
