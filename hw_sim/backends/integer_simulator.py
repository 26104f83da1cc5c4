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
from export.graph.nodes import gate_of
from export.graph.part import Part, PartCounter
from export.graph.words import Counts
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
    part: Part | None = None,
) -> Result:
    """Execute on one image (3, H, W) in [0, 1], rounded to 8 bits first; sides as `size_multiple` demands.

    keep_maps: where neurons fired, summed over channels (`Result.spike_maps`). part: which part of a larger image this
    one is; its core is counted apart.
    """
    size = check_image(integer.network, image)
    shapes = infer_shapes(integer.network, *size)
    core = PartCounter(integer.network, part) if part and count else None
    spikes: dict[str, NDArray[np.bool_]] = {}
    counts: dict[str, NodeCounts] = {}
    maps: dict[str, SpikeMap] = {}
    of_core: dict[str, NodeCounts] = {}
    gates: dict[str, SpikeMap] = {}

    def observe(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> None:
        if keep_spikes and isinstance(operation, IntegerNeuron):
            spikes[operation.name] = value.cpu().numpy()
        if keep_maps and isinstance(operation, IntegerNeuron):
            maps[operation.name] = as_map(value.sum(1, dtype=torch.int32).cpu().numpy())
        if operation.name in integer.network.gates:
            gates[operation.name] = as_map(_map(value))
        if count:
            node, seen = operation.node, _maps_of(integer.network, operation, inputs, value)
            counts[node.name] = count_node(node, operands_of(integer.network, shapes, node).seeing(**seen))
            if core is not None:
                of_core[node.name] = core.count(node, **seen)

    pixels = run_integer(integer, to_pixels(image), observe, device)
    return Result(pixels.astype(np.float64) / 255.0, spikes, counts, size, kept_maps=maps, of_core=of_core, gates=gates)


def _maps_of(network: Network, operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> dict[str, Counts]:
    """The maps that the counts of a node hang on: its gate (H, W), and (steps, H, W) of the spikes that it fired, or of
    those it read."""
    found = {} if gate_of(operation.node) is None else {"gate": _map(inputs[1])[0]}
    if isinstance(operation, IntegerNeuron):
        return found | {"fired": _map(value)}
    return found | ({"spike_map": _map(inputs[0])} if reads_spikes(network, operation.node) else {})


def _map(spikes: Tensor) -> Counts:
    return spikes.sum(1, dtype=torch.int32).cpu().numpy().astype(np.int64)
