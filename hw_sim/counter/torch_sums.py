"""Exact numbers of a tensor's elements, in all or at each place over batch and channels: (N, C, ...) -> int64 (...).

Spikes are 0 and 1 of any dtype: their number is that of elements which are not 0, and their sum. float32 adds whole
numbers without loss below 2^24, and faster than elements are compared with 0.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from export.graph.spike_maps import Counts, count_true, map_true

EXACT = 1 << 24
FEW = 1 << 18  # elements whose marks of 4 bytes stay in a cache


def spikes_in(spikes: Tensor) -> int:
    """How many elements of 0 and 1 are 1."""
    if spikes.dtype is torch.float32 and spikes.numel() < EXACT:
        return int(spikes.sum())
    return nonzero_in(spikes)


def spikes_at(spikes: Tensor) -> Counts:
    """How many elements of 0 and 1 are 1 at each place."""
    if spikes.dtype is torch.float32 and spikes.shape[0] * spikes.shape[1] < EXACT:
        return np.asarray(spikes.sum((0, 1)).cpu().numpy()).astype(np.int64)
    return nonzero_at(spikes)


def nonzero_in(tensor: Tensor) -> int:
    """How many elements are not 0."""
    return count_true(tensor.bool())


def nonzero_at(tensor: Tensor) -> Counts:
    """How many elements are not 0 at each place."""
    if tensor.numel() <= FEW:
        return spikes_at(_marks(tensor))
    return np.asarray(map_true(tensor.bool()).sum(0))


def nonzero_along(tensor: Tensor, axis: int) -> Tensor:
    """How many elements are not 0 along one axis; int64."""
    return _marks(tensor).sum(axis).to(torch.int64)


def _marks(tensor: Tensor) -> Tensor:
    """1 where an element is not 0, in float32."""
    return torch.ne(tensor, 0, out=torch.empty_like(tensor, dtype=torch.float32))


def events_in(events: Tensor) -> int:
    """The sum of whole numbers."""
    return int(events.sum(dtype=torch.float64))


def events_at(events: Tensor) -> Counts:
    """Sums of whole numbers at each place."""
    return np.asarray(events.sum((0, 1), dtype=torch.float64).cpu().numpy()).astype(np.int64)
