"""What quantisation costs, layer by layer: the noise that 8-bit weights add to each layer's sums.

In: the float network, its integer network, an 8-bit image. Out: per convolution and matrix its signal-to-noise ratio in
dB, measured on the inputs that the integer network really has, against the same sums with unrounded weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from export.graph.network import Network
from export.graph.nodes import AXES, Array, Conv, Linear
from export.integer.network import IntegerNetwork
from export.integer.operations import IntegerConv, IntegerLinear, Operation
from export.integer.run import run_integer


def layer_losses(network: Network, integer: IntegerNetwork, pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Signal-to-noise ratio in dB of every weighted layer; infinite where nothing is lost or nothing arrives."""
    given = {node.name: node.weight for node in network.nodes if isinstance(node, (Conv, Linear))}
    losses: dict[str, float] = {}

    def observe(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> None:
        if not isinstance(operation, (IntegerConv, IntegerLinear)):
            return
        x = inputs[0].float()
        exact = layer_sums(operation.node, x, given[operation.name])
        rounded = layer_sums(operation.node, x, operation.node.weight)
        noise = float((exact - rounded).square().sum())
        losses[operation.name] = 10 * math.log10(float(exact.square().sum()) / noise) if noise else math.inf

    run_integer(integer, pixels, observe)
    return losses


def layer_sums(node: Conv | Linear, x: Tensor, weight: Array) -> Tensor:
    """The layer's sums without bias, with these weights."""
    kernel = torch.tensor(weight, dtype=x.dtype)
    if isinstance(node, Conv):
        return F.conv2d(x, kernel, None, node.stride, node.padding, node.dilation, node.groups)
    return F.linear(x.transpose(AXES.index(node.axis), 3), kernel)
