"""Exact numbers of a tensor's elements, in all or at each place over batch and channels: (N, C, ...) -> int64 (...).

Spikes are 0 and 1 of any dtype: their number is that of elements which are not 0.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from export.graph.spike_maps import Counts, count_true, map_true


def nonzero_in(tensor: Tensor) -> int:
    """How many elements are not 0."""
    return count_true(tensor.bool())


def nonzero_at(tensor: Tensor) -> Counts:
    """How many elements are not 0 at each place."""
    return np.asarray(map_true(tensor.bool()).sum(0))


def nonzero_along(tensor: Tensor, axis: int) -> Tensor:
    """How many elements are not 0 along one axis; int64. float32 adds whole numbers without loss below 2^24."""
    return torch.ne(tensor, 0, out=torch.empty_like(tensor, dtype=torch.float32)).sum(axis).to(torch.int64)


def events_in(events: Tensor) -> int:
    """The sum of whole numbers."""
    return int(events.sum(dtype=torch.float64))


def events_at(events: Tensor) -> Counts:
    """Sums of whole numbers at each place."""
    return np.asarray(events.sum((0, 1), dtype=torch.float64).cpu().numpy()).astype(np.int64)
