"""How many synapses an element of a convolution's input has: exact at borders, for any number of axes and direction.

In: sizes, kernel, stride, padding of each axis. Out: taps that fall on a value; those on zero padding are no work.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


class Axis(NamedTuple):
    """One spatial axis of a convolution: `size` elements are read, `outputs` written.

    padding: zeros before the first element (of a transposed one: outputs cut off before the first).
    """

    size: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False


@lru_cache(maxsize=4096)
def taps_along(axis: Axis) -> Counts:
    """For each input position of an axis: how many (output, tap) pairs read it. int64 (size,)."""
    taps = np.arange(axis.kernel)[None, :] * axis.dilation - axis.padding
    if axis.transposed:  # a position scatters to position * stride + tap
        reached = np.arange(axis.size)[:, None] * axis.stride + taps
        return np.asarray(((reached >= 0) & (reached < axis.outputs)).sum(1), np.int64)
    read = np.arange(axis.outputs)[:, None] * axis.stride + taps
    inside = read[(read >= 0) & (read < axis.size)]
    return np.bincount(inside, minlength=axis.size).astype(np.int64)


@lru_cache(maxsize=4096)
def all_taps(axis: Axis) -> int:
    """Those of all positions together."""
    return int(taps_along(axis).sum())


def operations(axes: Sequence[Axis], channels: int, elements: Counts) -> int:
    """Operations of input elements: each reaches its taps in `channels` output channels.

    elements: how many there are at each place, summed over channels and batch: int64 of the axes' sizes.
    """
    return reached([taps_along(axis) for axis in axes], channels, elements)


def reached(taps: Sequence[Counts], channels: int, elements: Counts) -> int:
    """The same, where the taps along each axis are known."""
    total = elements
    for along in reversed(taps):
        total = total @ along
    return int(total) * channels


def dense_operations(axes: Sequence[Axis], channels: int, elements: int) -> int:
    """The same for `elements` at every place."""
    total = elements * channels
    for axis in axes:
        total *= all_taps(axis)
    return total
