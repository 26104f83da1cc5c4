"""Exact numbers of a tensor's elements, fast: float32 adds whole numbers without loss below 2^24."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXACT = 1 << 24
Counts = NDArray[np.int64]


def ones_in(spikes: Tensor) -> int:
    """How many ones there are in a tensor of 0 and 1, of any dtype."""
    if spikes.dtype is torch.bool:
        spikes = spikes.view(torch.uint8)
    return int(spikes.sum(dtype=torch.float32 if spikes.numel() < EXACT else torch.float64))


def nonzero_in(tensor: Tensor) -> int:
    """How many elements are not 0. Faster than torch.count_nonzero, by up to eight times."""
    return ones_in(_marks(tensor))


def events_in(events: Tensor) -> int:
    """The sum of whole numbers."""
    return int(events.sum(dtype=torch.float64))


def ones_at(spikes: Tensor) -> Counts:
    """How many ones there are at each place, over batch and channels: (N, C, ...) -> int64 (...)."""
    if spikes.dtype is torch.bool:
        spikes = spikes.view(torch.uint8)
    return _whole(spikes.sum((0, 1), dtype=torch.float32 if spikes.numel() < EXACT else torch.float64))


def nonzero_at(tensor: Tensor) -> Counts:
    """How many elements are not 0 at each place: (N, C, ...) -> int64 (...)."""
    return ones_at(_marks(tensor))


def events_at(events: Tensor) -> Counts:
    """Sums of whole numbers at each place: (N, C, ...) -> int64 (...)."""
    return _whole(events.sum((0, 1), dtype=torch.float64))


def nonzero_along(tensor: Tensor, axis: int) -> Tensor:
    """How many elements are not 0 along one axis; int64."""
    return _marks(tensor).sum(axis).to(torch.int64)


def _marks(tensor: Tensor) -> Tensor:
    return torch.ne(tensor, 0, out=torch.empty_like(tensor, dtype=torch.float32))


def _whole(sums: Tensor) -> Counts:
    return np.asarray(sums.cpu().numpy()).astype(np.int64)
