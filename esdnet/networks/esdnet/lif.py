"""LIF neurons: snntorch.Leaky over T steps, with a threshold that is exact in the dtype in use and a fused fast path.

In: input currents (T, ...). Out: spikes 0/1 of the same shape and dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor, nn

from esdnet.command.errors import UserError


def compare_value(threshold: float, dtype: torch.dtype) -> Tensor:
    """The value v such that `H > v` is `H >= threshold` for every H of this dtype (0-d tensor of that dtype).

    snnTorch fires at '>', the authors' network at '>='; the next number below the threshold joins the two without loss.
    """
    exact = torch.tensor(threshold, dtype=dtype)
    return torch.nextafter(exact, torch.full_like(exact, -math.inf))


def fire(current: Tensor, compare: Tensor, decay: float) -> Tensor:
    """Spikes of a zero-reset LIF over T steps, (T, ...) -> (T, ...): what `_FusedLIF` computes, without what only a
    backward pass needs. One membrane stays in the cache where T of them would go through memory."""
    spikes = torch.empty_like(current)
    kept = torch.empty_like(current[0])
    for step, given in enumerate(current):
        membrane = given if step == 0 else torch.add(given, kept, alpha=decay, out=kept)
        torch.gt(membrane, compare, out=spikes[step])
        if step + 1 < len(current):
            torch.addcmul(membrane, membrane, spikes[step], value=-1.0, out=kept)
    return spikes


class _FusedLIF(torch.autograd.Function):
    """All T steps of a zero-reset LIF in one node of the autograd graph: what T calls of snntorch.Leaky compute."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, compare: Tensor, decay: float, slope: float) -> Tensor:
        membrane = torch.empty_like(current)  # H, before the reset: kept for the backward pass
        spikes = torch.empty_like(current)
        kept = torch.empty_like(current[0])
        for step in range(len(current)):
            if step == 0:
                membrane[0].copy_(current[0])
            else:
                torch.add(current[step], kept, alpha=decay, out=membrane[step])
            torch.gt(membrane[step], compare, out=spikes[step])
            if step + 1 < len(current):
                torch.addcmul(membrane[step], membrane[step], spikes[step], value=-1.0, out=kept)
        ctx.save_for_backward(membrane, spikes, compare)
        ctx.decay, ctx.slope = decay, slope
        return spikes

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        membrane, spikes, compare = ctx.saved_tensors
        grad, buffer = torch.empty_like(membrane), torch.empty_like(membrane[0])
        grad_compare = torch.zeros_like(compare) if ctx.needs_input_grad[1] else None
        for step in reversed(range(len(grad))):  # step by step, so that what lies between stays in the cache
            level = torch.sub(membrane[step], compare, out=buffer).mul_(ctx.slope).sigmoid_()
            torch.addcmul(level, level, level, value=-1.0, out=grad[step]).mul_(grad_spikes[step]).mul_(ctx.slope)
            if grad_compare is not None:
                grad_compare -= grad[step].sum()
            if step + 1 < len(grad):  # the reset is detached, as in snnTorch
                carried = torch.mul(grad[step + 1], ctx.decay, out=buffer)
                grad[step].add_(carried.addcmul_(carried, spikes[step], value=-1.0))
        return grad, grad_compare, None, None


class LIF(snntorch.Leaky):
    """Leaky integrate-and-fire with reset to zero: H = beta U + gain X, S = [H fires], U = H (1 - S).

    The authors' setting (tau 2, decay_input off, v_reset 0). `forward` takes (T, ...) currents and starts at U = 0.
    A fixed threshold fires at H >= threshold, as the authors' does, and the state dict holds nothing, as in their
    checkpoints; a learnt one is the parameter `threshold` and fires at H > threshold, as snnTorch's does. `gain` is 1,
    or -1 for the OFF half of an ON/OFF pair.
    `fused=True` computes all steps at once; `fused=False` calls snntorch.Leaky step by step: same spikes, membranes
    and gradients (tested).
    """

    beta: Tensor
    threshold: Tensor

    def __init__(
        self,
        beta: float = 0.5,
        threshold: float = 0.15,
        slope: float = 4.0,
        fused: bool = True,
        learn_threshold: bool = False,
        gain: Literal[1, -1] = 1,
    ) -> None:
        if gain not in (1, -1):
            raise UserError(f"LIF: gain must be 1 or -1, found {gain}; fold other factors into what it reads")
        dtype = torch.get_default_dtype()
        super().__init__(
            beta=beta,
            threshold=torch.tensor(threshold, dtype=dtype) if learn_threshold else compare_value(threshold, dtype),
            learn_threshold=learn_threshold,
            spike_grad=surrogate.sigmoid(slope=slope),
            reset_mechanism="zero",
        )
        snntorch.SpikingNeuron.instances.remove(self)  # that class-wide list would keep every network alive
        self.exact_beta, self.slope, self.fused, self.gain = beta, slope, fused, gain
        self._fixed_threshold = None if learn_threshold else threshold
        self._non_persistent_buffers_set.update(self._buffers)

    @property
    def exact_threshold(self) -> float:
        """The threshold without rounding to the dtype in use; a learnt one is what the parameter holds."""
        return float(self.threshold.detach()) if self._fixed_threshold is None else self._fixed_threshold

    @property
    def fires(self) -> Literal[">", ">="]:
        """How the membrane is compared with `exact_threshold`."""
        return ">" if self._fixed_threshold is None else ">="

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Changing dtype or device makes beta and the compare value anew from the exact numbers, in the new dtype."""
        super()._apply(fn, recurse)
        device, dtype = self.beta.device, self.beta.dtype
        if self._fixed_threshold is not None:
            self.threshold = compare_value(self._fixed_threshold, dtype).to(device)
        self.beta = torch.tensor(self.exact_beta, dtype=dtype, device=device)
        return self

    def forward(self, current: Tensor, gate: Tensor | None = None) -> Tensor:
        """Spikes of T steps: (T, ...) -> (T, ...), the same floating dtype. Where `gate`, which broadcasts over (...),
        is 0 there are none."""
        spikes = self._fire(current)
        return spikes if gate is None else spikes * gate

    def _fire(self, current: Tensor) -> Tensor:
        if self.gain == -1:
            current = -current
        if self.fused and not torch.is_grad_enabled():
            return fire(current, self.threshold, self.exact_beta)
        if self.fused:
            return _FusedLIF.apply(current, self.threshold, self.exact_beta, self.slope)
        membrane = torch.zeros_like(current[0])
        spikes = []
        for step_current in current:
            spike, membrane = super().forward(step_current, membrane)
            spikes.append(spike.to(current.dtype))
        return torch.stack(spikes)
