"""What attention does to features (T, N, C, H, W): pooling, gating and the mean over steps, trained fast.

Each function equals the plain torch expression in its docstring, up to the order of a sum. Beside torch's own gradients
these keep the memory layout of the features (mixed layouts slow everything before them down), work step by step so that
intermediate values stay in the cache, and find maxima without comparing into booleans.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _PoolPixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        # the maximum in two stages: the first runs along memory if channels are last, and leads backward to the place
        columns = x.permute(0, 1, 3, 4, 2).flatten(3).amax(2).unflatten(2, (x.shape[4], x.shape[2])).transpose(2, 3)
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


class _GateAndPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gated = torch.empty_like(x)
        highest = torch.full_like(x[0], -torch.inf)
        total = torch.zeros_like(x[0])  # torch's sum over the first axis is slower, and loses the layout
        for step in range(len(x)):
            torch.mul(x[step], gate[step, ..., None, None], out=gated[step])
            torch.maximum(highest, gated[step], out=highest)
            total += gated[step]
        peak = highest.amax(1)
        ctx.save_for_backward(x, gate, gated, highest, peak)
        return gated, total.sum(1) / (x.shape[0] * x.shape[2]), peak

    @staticmethod
    def backward(ctx: Any, grad_gated: Tensor, grad_mean: Tensor, grad_peak: Tensor) -> tuple[Tensor, Tensor]:
        x, gate, gated, highest, peak = ctx.saved_tensors
        wins = _equal(highest, peak.unsqueeze(1))  # the channels of the peak; equal maxima share, as with amax
        grad_highest = wins.mul_((grad_peak / wins.sum(1)).unsqueeze(1))
        wins, count = torch.empty_like(x), torch.zeros_like(highest)
        for step in range(len(x)):
            count += _equal(gated[step], highest, out=wins[step])
        grad_highest /= count
        grad_each = (grad_mean / (x.shape[0] * x.shape[2])).unsqueeze(1)
        grad_x, grad_gate, buffer = torch.empty_like(x), torch.empty_like(gate), torch.empty_like(highest)
        for step in range(len(x)):
            torch.addcmul(grad_gated[step], grad_highest, wins[step], out=buffer).add_(grad_each)
            torch.mul(buffer, gate[step, ..., None, None], out=grad_x[step])
            torch.sum(buffer.mul_(x[step]), (2, 3), out=grad_gate[step])
        return grad_x, grad_gate


class _GateReluAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, skip: Tensor) -> Tensor:
        ctx.save_for_backward(x, gate)
        result, buffer = torch.empty_like(x), torch.empty_like(x[0])
        for step in range(len(x)):
            torch.clamp(x[step], min=0, out=buffer).mul_(gate.unsqueeze(1))
            torch.add(buffer, skip[step], out=result[step])
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, gate = ctx.saved_tensors
        grad_x, product, buffer = torch.empty_like(x), torch.zeros_like(x[0]), torch.empty_like(x[0])
        for step in range(len(x)):
            positive = torch.clamp(x[step], min=0, out=buffer)
            product.addcmul_(grad[step], positive)
            torch.mul(grad[step], gate.unsqueeze(1), out=grad_x[step]).mul_(positive.sign_())
        return grad_x, product.sum(1), grad


class _MeanOverSteps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        total = x[0].clone()
        for each in x[1:]:
            total += each
        return total / len(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.empty_like(x).copy_((grad / len(x)).expand_as(x))


def pool_pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """x.mean((3, 4)), x.amax((3, 4)): two of (T, N, C). The gradient of a maximum goes to one place that has it."""
    return _PoolPixels.apply(x)


def gate_and_pool(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y = x * gate for gates (T, N, C), y.mean((0, 2)), y.amax((0, 2)): (T, N, C, H, W) and two of (N, H, W)."""
    return _GateAndPool.apply(x, gate)


def gate_relu_add(x: Tensor, gate: Tensor, skip: Tensor) -> Tensor:
    """relu(x * gate) + skip for positive gates (N, H, W)."""
    return _GateReluAdd.apply(x, gate, skip)


def mean_over_steps(x: Tensor) -> Tensor:
    """x.mean(0): (N, C, H, W)."""
    return _MeanOverSteps.apply(x)


def _equal(below: Tensor, bound: Tensor, out: Tensor | None = None) -> Tensor:
    """1 where `below` equals its upper bound, else 0, in its own dtype and layout; faster than comparing."""
    return torch.sub(below, bound, out=out).sign_().add_(1)


def _indices(like: Tensor) -> list[Tensor]:
    """One index per axis, each shaped to broadcast over `like`."""
    return [
        torch.arange(size, device=like.device).view([-1 if axis == other else 1 for other in range(like.ndim)])
        for axis, size in enumerate(like.shape)
    ]
