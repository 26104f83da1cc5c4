"""The simulator in integers: executes an IntegerNetwork and counts every node by the rules of the float simulator.

In: an integer network and an image. Out: a Result whose output are 8-bit pixels / 255, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph.counting import NodeCounts, count_node, operands_of, reads_spikes
from export.graph.frames import check_image
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Shape
from export.integer.network import IntegerNetwork, IntegerNeuron, Operation
from export.integer.run import run_integer, to_pixels
from hw_sim.backends.result import Result, SpikeMap, as_map


def run(
    integer: IntegerNetwork,
    image: NDArray[np.floating[Any]],
    *,
    device: str = "cpu",
    keep_spikes: bool = True,
    keep_maps: bool = False,
    count: bool = True,
) -> Result:
    """Execute on one image (3, H, W) in [0, 1], rounded to 8 bits first; sides as `size_multiple` demands.

    keep_maps: where neurons fired, summed over channels (`Result.spike_maps`).
    """
    size = check_image(integer.network, image)
    shapes = infer_shapes(integer.network, *size)
    spikes: dict[str, NDArray[np.bool_]] = {}
    counts: dict[str, NodeCounts] = {}
    maps: dict[str, SpikeMap] = {}

    def observe(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> None:
        if keep_spikes and isinstance(operation, IntegerNeuron):
            spikes[operation.name] = value.cpu().numpy()
        if keep_maps and isinstance(operation, IntegerNeuron):
            maps[operation.name] = as_map(value.sum(1, dtype=torch.int32).cpu().numpy())
        if count:
            counts[operation.name] = _count(integer.network, shapes, operation, inputs, value)

    pixels = run_integer(integer, to_pixels(image), observe, device)
    return Result(pixels.astype(np.float64) / 255.0, spikes, counts, size, kept_maps=maps)


def _count(
    network: Network, shapes: dict[str, Shape], operation: Operation, inputs: Sequence[Tensor], value: Tensor
) -> NodeCounts:
    node = operation.node
    spike_map = spikes_out = None
    if isinstance(operation, IntegerNeuron):
        spikes_out = value.sum((1, 2, 3)).cpu().numpy()
    elif reads_spikes(network, node):
        spike_map = inputs[0].sum(1, dtype=torch.int32).cpu().numpy().astype(np.int64)
    return count_node(node, operands_of(network, shapes, node, spike_map, spikes_out))
