"""The one step of a neuron. In: a Neuron node, and the current of one time step after the other. Out: its spikes.

Whoever runs neurons in floating point runs these: the simulator, Lava's processes, and the check of membranes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from export.graph.nodes import Array, Neuron, Spiking


class NeuronState:
    """The membranes of one Neuron node between two time steps, in the dtype and on the device of `like` (C, H, W).

    A step is `integrate`, `fire` and `reset`; the dynamics are those of `Neuron`.
    """

    def __init__(self, node: Neuron, like: Tensor) -> None:
        self.node = node
        self.membrane, self.current = torch.zeros_like(like), torch.zeros_like(like)
        self._fired = torch.empty_like(like)
        self.threshold = lowest_that_fires(node, like)
        self.gain, self.bias = constant_unless(node.gain, 1.0, like), constant_unless(node.bias, 0.0, like)

    def rest(self) -> None:
        """The next step is the first of an image."""
        self.membrane.zero_()
        self.current.zero_()

    def integrate(self, x: Tensor) -> Tensor:
        """The membranes before the reset, of the current `x` (C, H, W): overwritten by what follows."""
        if self.node.current_decay:
            x = x + self.node.current_decay * self.current
            self.current.copy_(x)
        if self.gain is not None:
            x = x * self.gain
        if self.bias is not None:
            x = x + self.bias
        return torch.add(x, self.membrane, alpha=self.node.membrane_decay, out=self.membrane)

    def fire(self) -> Tensor:
        """1 where a membrane is above its threshold, else 0, as numbers: torch compares into them four times as fast as
        into booleans. Overwritten by the next step."""
        return torch.gt(self.membrane, self.threshold, out=self._fired)

    def reset(self, fired: Tensor) -> None:
        """What a spike leaves behind, where `fired` is 1."""
        if self.node.reset == "by":
            self.membrane.sub_(fired, alpha=self.node.reset_value)
            return
        self.membrane.addcmul_(self.membrane, fired, value=-1.0)  # exact: the membrane, or 0
        if self.node.reset_value:
            self.membrane.add_(fired, alpha=self.node.reset_value)

    def step(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """All three: the spikes of one time step as 0 and 1, (C, H, W), overwritten by the next step. None where `gate`
        (1, H, W) is 0; what a membrane would be there, nobody sees: gates are the same at all steps."""
        self.integrate(x)
        fired = self.fire()
        if gate is not None:
            fired.mul_(gate)
        self.reset(fired)
        return fired


def lowest_that_fires(node: Spiking, like: Tensor) -> Tensor:
    """What a membrane must be above to fire: H >= threshold is H > the next number below it, in the dtype of `like`."""
    threshold = torch.tensor(node.threshold, dtype=like.dtype, device=like.device)
    if node.fires == ">=":
        threshold = torch.nextafter(threshold, torch.full_like(threshold, -math.inf))
    return threshold


def constant_unless(array: Array, neutral: float, like: Tensor) -> Tensor | None:
    """The constant, or None where it changes nothing."""
    return None if np.all(array == neutral) else torch.tensor(array, dtype=like.dtype, device=like.device)
