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
    """Current and membrane of a LoihiNeuron: whole numbers below 2^36 on the way, which float64 holds exactly."""

    def __init__(self, node: g.LoihiNeuron, like: Tensor) -> None:
        if like.dtype is not torch.float64:
            raise NetworkError(f"{node.name}: integers of 36 bits, which {like.dtype} does not hold; use float64")
        self.node, self.now = node, 0
        self.current, self.membrane = torch.zeros_like(like), torch.zeros_like(like)
        self.threshold, self.bias = SHIFTED * _tensor(node.threshold, like), SHIFTED * _tensor(node.bias, like)

    def step(self, *inputs: Tensor) -> Tensor:
        """0 and 1: where it fires."""
        node, (x,) = self.node, inputs
        if node.reset_interval and self.now % node.reset_interval == node.reset_offset:
            self.current, self.membrane = torch.zeros_like(x), torch.zeros_like(x)
        self.now += 1
        current = torch.trunc(self.current * (1 - node.current_decay / 2**DECAY_BITS)) + SHIFTED * x
        wrapped = 2 * STATE_LIMIT * ((current <= -STATE_LIMIT).to(x.dtype) - (current > STATE_LIMIT).to(x.dtype))
        self.current = current + wrapped
        membrane = torch.trunc(self.membrane * (1 - node.membrane_decay / 2**DECAY_BITS)) + self.current + self.bias
        membrane = membrane.clamp(1 - STATE_LIMIT, STATE_LIMIT - 1)
        fired = membrane > self.threshold
        self.membrane = membrane.masked_fill(fired, 0.0)
        return fired


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
