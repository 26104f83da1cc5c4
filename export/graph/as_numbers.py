"""Values as tensors of numbers: spikes are boolean, and whoever computes with them takes them as 0 and 1."""

from __future__ import annotations

import torch
from torch import Tensor


def numbers(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Values as numbers; spikes as 0 and 1, by way of bytes: booleans are converted ten times as slowly."""
    return without_booleans(value).to(dtype)


def without_booleans(value: Tensor) -> Tensor:
    """The same memory, spikes as bytes 0 and 1."""
    return value.view(torch.uint8) if value.dtype is torch.bool else value
