"""What nodes remember between two time steps. In: a node, and its inputs of one step after the other. Out: its values.

Whoever runs such nodes in floating point runs these. A Neuron's membranes are neuron.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from export.graph import nodes as g
from export.graph.loihi import CURRENT_SHIFT, DECAY_BITS, STATE_LIMIT
from export.graph.neuron import NeuronState, constant_unless, lowest_that_fires
from export.graph.nodes import Array, NetworkError

SHIFTED = 2.0**CURRENT_SHIFT
STATEFUL = (g.Spiking, g.Euler, g.Delay)


class State(Protocol):
    """One node between two steps. `step` makes of its inputs, (C, H, W) each, the value of one time step; spikes are 0
    and 1. The next step may overwrite it."""

    membrane: Tensor

    @property
    def step(self) -> Callable[..., Tensor]:
        """Inputs (C, H, W) -> value (C, H, W)."""
        ...


@singledispatch
def open_state(node: g.Node, like: Tensor) -> State:
    """A node before its first step, for inputs in the shape, dtype and on the device of `like` (C, H, W)."""
    raise NetworkError(f"{node.name}: no rule for what kind {node.kind} remembers; add one to export/graph/states.py")


@open_state.register
def _(node: g.Neuron, like: Tensor) -> State:
    return NeuronState(node, like)


@open_state.register
def _(node: g.Euler, like: Tensor) -> State:
    return EulerState(node, like)


@open_state.register
def _(node: g.EulerNeuron, like: Tensor) -> State:
    return EulerNeuronState(node, like)


@open_state.register
def _(node: g.Leaky, like: Tensor) -> State:
    return LeakyState(node, like)


@open_state.register
def _(node: g.LoihiNeuron, like: Tensor) -> State:
    if like.dtype is not torch.float64:
        raise NetworkError(f"{node.name}: integers of 36 bits, which {like.dtype} does not hold; use float64")
    return LoihiState(node, like)


@open_state.register
def _(node: g.Delay, like: Tensor) -> State:
    return DelayState(node, like)


def run_state(state: State, inputs: Sequence[Tensor], spikes: bool, membranes: Tensor | None = None) -> Tensor:
    """All steps of inputs (T, C, H, W): values (T, C, H, W), boolean for spikes. A gate has one frame for all of them.
    `membranes` is filled with U."""
    out = torch.empty_like(inputs[0], dtype=torch.bool if spikes else inputs[0].dtype)
    for step in range(len(out)):
        out[step].copy_(state.step(*(frame_at(value, step) for value in inputs)))
        if membranes is not None:
            membranes[step].copy_(state.membrane)
    return out


def frame_at(value: Tensor, step: int) -> Tensor:
    """The frame (C, H, W) of a value that has one for every step, or one for all of them."""
    return value[step if len(value) > 1 else 0]


class EulerState:
    """The membrane (and current) of an Euler node: see there for the equations and their order."""

    def __init__(self, node: g.Euler, like: Tensor) -> None:
        self.membrane = torch.zeros_like(like) + _tensor(node.v_leak, like)
        self.current = torch.zeros_like(like) if node.tau_syn is not None else None
        self.rate = None if node.tau is None else _tensor(node.dt * (1 / node.tau), like)
        self.leak = constant_unless(node.v_leak, 0.0, like)
        self.r = constant_unless(node.r, 1.0, like)
        self.w_in = constant_unless(node.w_in, 1.0, like)
        self.rate_syn = None if node.tau_syn is None else _tensor(node.dt * (1 / node.tau_syn), like)

    def step(self, *inputs: Tensor) -> Tensor:
        """U after the step."""
        (x,) = inputs
        if self.current is not None:
            x = x if self.w_in is None else x * self.w_in
            self.current = x = self.current + self.rate_syn * (x - self.current)
        x = x if self.r is None else x * self.r
        if self.rate is not None:
            x = x if self.leak is None else x + self.leak
            x = self.rate * (x - self.membrane)
        self.membrane = self.membrane + x
        return self.membrane


class EulerNeuronState(EulerState):
    """The same, with spikes and their reset."""

    def __init__(self, node: g.EulerNeuron, like: Tensor) -> None:
        super().__init__(node, like)
        self.threshold = lowest_that_fires(node, like)
        self.v_reset, self.by = _tensor(node.v_reset, like), node.reset == "by"

    def step(self, *inputs: Tensor) -> Tensor:
        """0 and 1: where U fires."""
        fired = super().step(*inputs) > self.threshold
        reset = self.membrane - self.v_reset if self.by else self.v_reset
        self.membrane = torch.where(fired, reset, self.membrane)
        return fired


class LeakyState:
    """The membrane and current of a Leaky node; `R` of its docstring is `before`, and `membrane` is U after a step."""

    def __init__(self, node: g.Leaky, like: Tensor) -> None:
        self.reset, self.delayed = node.reset, node.delayed
        self.membrane, self.current = torch.zeros_like(like), torch.zeros_like(like)
        self.threshold, self.fires = _tensor(node.threshold, like), lowest_that_fires(node, like)
        self.beta = _tensor(node.beta, like)
        self.decay = None if node.current_decay is None else _tensor(node.current_decay, like)
        self.gain = constant_unless(node.gain, 1.0, like)

    def step(self, *inputs: Tensor) -> Tensor:
        """0 and 1: where U fires."""
        before = (self.membrane > self.fires).to(self.membrane.dtype)
        if self.reset == "zero":
            self.membrane = (1 - before) * self.membrane
        updated = self._integrate(inputs)
        if self.reset == "subtract":
            updated = updated - before * self.threshold
        elif self.reset == "erase":
            updated = updated - before * updated
        fired = updated > self.fires
        if not self.delayed and self.reset != "none":
            more = fired.to(updated.dtype) - before
            updated = updated - more * (self.threshold if self.reset == "subtract" else updated)
        self.membrane = updated
        return fired

    def _integrate(self, inputs: Sequence[Tensor]) -> Tensor:
        x, others = inputs[0], inputs[1:]
        if self.decay is not None:
            self.current = self.decay * self.current + x
            for other in others:
                self.current = self.current + other
            x, others = self.current, ()
        updated = self.beta * self.membrane + (x if self.gain is None else x * self.gain)
        for other in others:
            updated = updated + other
        return updated


class LoihiState:
    """Current and membrane of a LoihiNeuron, whole numbers: in float64, and a current that keeps something in int64, as
    long as what arrives is below 2^53; a membrane has 24 bits.

    float32 holds them if `fits_float32`. `linear`: the caller knows by `is_linear` that nothing is rounded or clipped.
    A step is `integrate`, `fire` and `reset`, all in place; `membrane * unit` is v.
    """

    def __init__(self, node: g.LoihiNeuron, like: Tensor, linear: bool = False) -> None:
        self.node, self.now, self.linear = node, 0, linear
        self.unit = SHIFTED if linear else 1.0
        self.membrane, self._fired = torch.zeros_like(like), torch.zeros_like(like)
        self.kept = 2**DECAY_BITS - node.current_decay
        wraps = like.dtype is torch.float64
        self.current = torch.zeros_like(like, dtype=torch.int64 if self.kept else None) if wraps else None
        self.keep = 1 - node.membrane_decay / 2**DECAY_BITS
        shifted = SHIFTED / self.unit
        self.threshold = _tensor(node.threshold * shifted, like)
        bias = constant_unless(node.bias * shifted, 0.0, like)
        self.bias = None if bias is None else _along_rows(bias, like)

    @staticmethod
    def fits_float32(node: g.LoihiNeuron, largest: int) -> bool:
        """Whether float32 is exact as long as no |sum| that arrives is larger: membranes of 24 bits, which decay by a
        power of two, a current that keeps nothing and cannot wrap, and sums of both below 2^24."""
        keep = 2**DECAY_BITS - node.membrane_decay
        return node.current_decay == 2**DECAY_BITS and keep & (keep - 1) == 0 and _arriving(node, largest) < STATE_LIMIT

    @staticmethod
    def is_linear(node: g.LoihiNeuron, largest: int, steps: int) -> bool:
        """Whether so many steps lose no fraction, v having six bits of it, and none reaches what v is clipped to."""
        keep = 2**DECAY_BITS - node.membrane_decay
        lost = (DECAY_BITS - keep.bit_length() + 1) * (steps - 1)
        share = keep / 2**DECAY_BITS
        added = steps if share == 1 else (1 - share**steps) / (1 - share)  # of all that arrives, in the last membrane
        return (
            LoihiState.fits_float32(node, largest)
            and lost <= CURRENT_SHIFT
            and _arriving(node, largest) * added < STATE_LIMIT
        )

    def integrate(self, x: Tensor) -> Tensor:
        """The membranes before the reset, of what arrives (C, H, W)."""
        node = self.node
        if node.reset_interval and self.now % node.reset_interval == node.reset_offset:
            self._rest()
        self.now += 1
        if self.linear:
            torch.add(x, self.membrane, alpha=self.keep, out=self.membrane)
        else:
            arrived = (x, SHIFTED) if self.current is None else (self._flow(self.current, x), 1.0)
            self.membrane.mul_(self.keep).trunc_().add_(arrived[0], alpha=arrived[1])
        if self.bias is not None:
            self.membrane.add_(self.bias)
        return self.membrane if self.linear else self.membrane.clamp_(1 - STATE_LIMIT, STATE_LIMIT - 1)

    def _rest(self) -> None:
        self.membrane.zero_()
        if self.current is not None:
            self.current.zero_()

    def _flow(self, current: Tensor, x: Tensor) -> Tensor:
        """The current one step later."""
        if self.kept:
            toward_zero = (current >> 63) & (2**DECAY_BITS - 1)  # what a negative number needs on top
            current.mul_(self.kept).add_(toward_zero).bitwise_right_shift_(DECAY_BITS)
            current.add_(x.to(torch.int64), alpha=1 << CURRENT_SHIFT)
        else:
            torch.mul(x, SHIFTED, out=current)
        above, below = current > STATE_LIMIT, current <= -STATE_LIMIT
        return current.add_(below, alpha=2 * STATE_LIMIT).add_(above, alpha=-2 * STATE_LIMIT)

    def fire(self) -> Tensor:
        """0 and 1: where membranes are above the threshold."""
        return torch.gt(self.membrane, self.threshold, out=self._fired)

    def reset(self, fired: Tensor) -> None:
        """To 0 where it fired."""
        self.membrane.addcmul_(self.membrane, fired, value=-1.0)

    def step(self, *inputs: Tensor) -> Tensor:
        """All three."""
        self.integrate(inputs[0])
        fired = self.fire()
        self.reset(fired)
        return fired


def _along_rows(constant: Tensor, like: Tensor) -> Tensor:
    """A constant of channels repeated along a row, as `like` lies in memory: torch works on whole rows at once."""
    if constant.ndim != 3 or constant.shape[1:] != (1, 1):
        return constant
    return torch.empty_like(like[..., :1, :]).copy_(constant)


def _arriving(node: g.LoihiNeuron, largest: int) -> int:
    """The largest |64 (x + bias)|."""
    return (largest + int(np.abs(node.bias).max())) << CURRENT_SHIFT


class DelayState:
    """The last frames, as many as the longest delay."""

    def __init__(self, node: g.Delay, like: Tensor) -> None:
        self.steps = torch.from_numpy(np.broadcast_to(node.steps, tuple(like.shape)).astype(np.int64)).to(like.device)
        self.length = int(node.steps.max()) + 1
        self.frames = torch.zeros((self.length, *like.shape), dtype=like.dtype, device=like.device)
        self.membrane = self.frames  # what it remembers
        self.now = -1

    def step(self, *inputs: Tensor) -> Tensor:
        """Every element as it was its number of steps before."""
        self.now = (self.now + 1) % self.length
        self.frames[self.now] = inputs[0]
        return self.frames.gather(0, ((self.now - self.steps) % self.length)[None])[0]


def _tensor(array: Array, like: Tensor) -> Tensor:
    return torch.tensor(array, dtype=like.dtype, device=like.device)
