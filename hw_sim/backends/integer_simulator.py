"""The simulator in integers: executes an IntegerNetwork and counts every node by the rules of the float simulator.

In: an integer network and an image. Out: a Result whose output are 8-bit pixels / 255, the same on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from export.graph.counting import NodeCounts, reads_spikes
from export.graph.frames import check_image
from export.graph.nodes import Node, Spiking, gate_of
from export.graph.part import Part, PartCounter
from export.graph.spike_maps import map_true
from export.graph.words import Counts
from export.integer.network import IntegerNetwork
from export.integer.operations import Operation
from export.integer.run import run_integer, to_pixels
from hw_sim.backends.count_plan import make_count_plan
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
    tally = _Tally(integer, size, part) if count else None
    spikes: dict[str, NDArray[np.bool_]] = {}
    maps: dict[str, SpikeMap] = {}
    gates: dict[str, SpikeMap] = {}

    def see(operation: Operation, value: Tensor) -> None:
        fires = isinstance(operation.node, Spiking)
        if fires and keep_spikes:
            spikes[operation.name] = value.cpu().numpy()
        opens = operation.name in integer.network.gates
        if tally is not None or opens or (fires and keep_maps):
            found = map_true(value)
            if opens:
                gates[operation.name] = as_map(found)
            if fires and keep_maps:
                maps[operation.name] = as_map(found)
            if tally is not None:
                tally.see(operation.node, found)

    pixels = run_integer(integer, to_pixels(image), device=device, see_spikes=see)
    counts, of_core = tally.result() if tally is not None else ({}, {})
    return Result(pixels.astype(np.float64) / 255.0, spikes, counts, size, kept_maps=maps, of_core=of_core, gates=gates)


class _Tally:
    """The counts of one image, node by node."""

    def __init__(self, integer: IntegerNetwork, size: tuple[int, int], part: Part | None) -> None:
        self.network = integer.network
        self.plan = make_count_plan(self.network, size, self.network.steps)
        self.core = PartCounter(self.network, part) if part else None
        self.counts: dict[str, NodeCounts] = {}
        self.of_core: dict[str, NodeCounts] = {}
        self.waiting: dict[str, dict[str, Counts]] = {}  # maps of nodes that have a gate

    def see(self, node: Node, spikes: Counts) -> None:
        """Spikes per step and pixel of a node's value: what the counts of it and of its readers hang on. What a gate
        decides too waits for it."""
        if isinstance(node, Spiking):
            self._see(node, "fired", spikes)
        for name in self.network.readers[node.name]:
            reader = self.network[name]
            if gate_of(reader) == node.name:
                self.waiting.setdefault(name, {})["gate"] = spikes[0]
            elif reads_spikes(self.network, reader):
                self._see(reader, "spike_map", spikes)

    def _see(self, node: Node, what: str, spikes: Counts) -> None:
        if gate_of(node) is None:
            self._count(node, **{what: spikes})
        else:
            self.waiting.setdefault(node.name, {})[what] = spikes

    def result(self) -> tuple[dict[str, NodeCounts], dict[str, NodeCounts]]:
        """Of all nodes, in their order; and of the core, if this is a part."""
        for node in self.network.nodes:
            if node.name not in self.counts:
                self._count(node, **self.waiting.get(node.name, {}))
        order = [node.name for node in self.network.nodes]
        return tuple({name: found[name] for name in order if found} for found in (self.counts, self.of_core))  # type: ignore[return-value]

    def _count(self, node: Node, **seen: Counts) -> None:
        self.counts[node.name] = self.plan.count(node, seen)
        if self.core is not None:
            self.of_core[node.name] = self.core.count(node, **seen)
