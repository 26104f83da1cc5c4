"""Means and maxima over pixels, over steps and channels, and over steps, of features (T, N, C, H, W), trained fast.

Same values as torch's `mean` and `amax` up to the order of a sum. Gradients take the memory layout of the features
(torch's would not keep channels last, and mixed layouts slow everything before them down), and the gradient of a
maximum goes to the first place that has it instead of being shared by equal ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _PoolPixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        columns = x.amax(3)  # in two stages: the first runs over contiguous memory, and leads backward to the place
        ctx.save_for_backward(x, columns)
        return x.sum((3, 4)) / (x.shape[3] * x.shape[4]), columns.amax(3)

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_peak: Tensor) -> Tensor:
        x, columns = ctx.saved_tensors
        column = columns.argmax(3)  # (T, N, C)
        values = x.gather(4, column[..., None, None].expand(*x.shape[:4], 1)).squeeze(4)
        grad = torch.empty_like(x).copy_((grad_mean / (x.shape[3] * x.shape[4]))[..., None, None].expand_as(x))
        place = (*_indices(column), values.argmax(3), column)
        return grad.index_put_(place, grad_peak, accumulate=True)


class _PoolStepsAndChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        over_steps = x.amax(0)
        ctx.save_for_backward(x, over_steps)
        return x.sum(0).sum(1) / (x.shape[0] * x.shape[2]), over_steps.amax(1)

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_peak: Tensor) -> Tensor:
        x, over_steps = ctx.saved_tensors
        channel = over_steps.argmax(1, keepdim=True)  # (N, 1, H, W)
        step = x.gather(2, channel.expand(len(x), *channel.shape)).argmax(0).squeeze(1)
        channel = channel.squeeze(1)
        grad = torch.empty_like(x).copy_((grad_mean / (x.shape[0] * x.shape[2]))[None, :, None].expand_as(x))
        image, row, column = _indices(channel)
        return grad.index_put_((step, image, channel, row, column), grad_peak, accumulate=True)


class _MeanOverSteps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.mean(x, 0, out=torch.empty_like(x[0]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.empty_like(x).copy_((grad / len(x)).expand_as(x))


def pool_pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over H and W: (T, N, C, H, W) -> two of (T, N, C)."""
    return _PoolPixels.apply(x)


def pool_steps_and_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over T and C: (T, N, C, H, W) -> two of (N, H, W)."""
    return _PoolStepsAndChannels.apply(x)


def mean_over_steps(x: Tensor) -> Tensor:
    """Mean over T: (T, N, C, H, W) -> (N, C, H, W)."""
    return _MeanOverSteps.apply(x)


def _indices(like: Tensor) -> list[Tensor]:
    """One index per axis, each shaped to broadcast over `like`."""
    return [
        torch.arange(size, device=like.device).view([-1 if axis == other else 1 for other in range(like.ndim)])
        for axis, size in enumerate(like.shape)
    ]
