"""The neurons of an integer operation: Loihi's, behind the rescaling of what arrives. In: frames. Out: their spikes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from export.graph import loihi
from export.graph.nodes import LoihiNeuron
from export.graph.states import LoihiState
from export.integer.arithmetic import FLOAT32, scale_, scaled_bound, scaling, whole_type
from export.integer.operations import INT64, IntegerNeuron


class Neurons:
    """States of the neurons, zero at first, for frames like `like` (1, C, H, W), whole numbers of any type.

    `largest`: what no |value| exceeds that arrives in at most `steps` steps. Where it allows, they compute in float32,
    else in float64, and leave out what cannot happen.
    """

    def __init__(self, operation: IntegerNeuron, like: Tensor, largest: int = INT64 - 1, steps: int = 2**31) -> None:
        self.rescale = operation.rescale
        node = LoihiNeuron(
            name=operation.name, threshold=operation.threshold.astype(np.float64), fires=">",
            bias=operation.bias.astype(np.float64),
            current_decay=operation.current_decay + 1, membrane_decay=operation.membrane_decay,
        )  # fmt: skip
        if self.rescale is not None:
            products, largest = scaled_bound(largest, self.rescale)
            self.products = torch.float32 if products < FLOAT32 else whole_type(products)
            self.factors = scaling(operation, self.rescale, like, self.products)
            self.limit = None if largest <= loihi.CURRENT_LIMIT else loihi.CURRENT_LIMIT
            largest = min(largest, loihi.CURRENT_LIMIT)
        dtype = torch.float32 if LoihiState.fits_float32(node, largest) else torch.float64
        linear = LoihiState.is_linear(node, largest, steps)
        self.state = LoihiState(node, torch.empty_like(like, dtype=dtype), linear)
        self.membrane = self.state.membrane

    def arrived(self, x: Tensor) -> Tensor:
        """What the neurons add up of a frame (1, C, H, W)."""
        if self.rescale is not None:
            x = scale_(x.to(self.products, copy=True), *self.factors, self.rescale.shift)
            if self.limit is not None:
                x.clamp_(-self.limit, self.limit)
        return x.to(self.state.membrane.dtype)

    def step(self, x: Tensor) -> Tensor:
        """The spikes of one frame as 0 and 1, overwritten by the next step."""
        return self.state.step(self.arrived(x))
