"""What the processes reported of one input, put together. In: Flights, one after the other. Out: a Result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph.counting import NodeCounts, count_node, operands_of
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Node, Shape, gate_of
from hw_sim.backends.lava.host import LavaError
from hw_sim.backends.lava.partition import needs_all_frames
from hw_sim.backends.lava.plan import Leaf, Plan
from hw_sim.backends.lava.records import Flight, read_record
from hw_sim.backends.result import Result, SpikeMap, as_map

Array = NDArray[Any]


class Collected:
    """Adds up outputs, counts and, if they are kept, spikes of one image or sequence."""

    def __init__(self, network: Network, plan: Plan, precision: str, keep_spikes: bool = True) -> None:
        self.network, self.plan, self.precision, self.keep = network, plan, precision, keep_spikes
        self.size: tuple[int, int] = plan.image.frame_shape[1:]
        self.spikes: dict[str, list[NDArray[np.bool_]]] = {node.name: [] for node in network.neurons}
        self.outputs: dict[str, list[Array]] = {node.name: [] for node in network.outputs}
        self.counts: dict[str, NodeCounts] = {}
        self.gates: dict[str, SpikeMap] = {}

    def add(self, flight: Flight) -> None:
        """What came out of the network for some steps. LavaError if a node did not run as often as the graph says."""
        shapes = self._shapes(flight.steps)
        spikes: dict[str, NDArray[np.bool_]] = {}
        received: dict[str, NDArray[np.int64]] = {}
        for leaf in self.plan.leaves:
            if isinstance(leaf, Leaf):
                record = read_record(leaf, flight.records[leaf.name], flight.steps)
                spikes.update(record.spikes)
                received.update(record.received)
                for node in leaf.nodes:
                    _check_runs(node, record.runs[node.name], shapes)
        self.gates = {name: as_map(spikes[name].sum(1)) for name in self.network.gates}
        for node in self.network.nodes:
            fired = spikes[node.name].sum((1, 2, 3), dtype=np.int64) if node.name in spikes else None
            operands = operands_of(self.network, shapes, node, received.get(node.name), fired)
            gate = gate_of(node)
            if gate is not None:
                operands = replace(operands, gate=self.gates[gate][0].astype(np.int64))
            counts = count_node(node, operands)
            self.counts[node.name] = self.counts[node.name].then(counts) if node.name in self.counts else counts
        if self.keep:
            for name, parts in self.spikes.items():
                parts.append(spikes[name])
        for name, frames in flight.frames.items():
            self.outputs[name].append(np.stack(frames).astype(self.precision))

    def _shapes(self, steps: int) -> dict[str, Shape]:
        if steps == self.plan.steps:
            return self.plan.shapes
        return infer_shapes(self.network.with_steps(steps), *self.size)

    def result(self, form: Callable[[Array], Array]) -> Result:
        """The result; `form` makes of an output's frames (T or 1, C, H, W) what is returned."""
        outputs = {name: form(np.concatenate(parts)) for name, parts in self.outputs.items()}
        spikes = {name: np.concatenate(parts) for name, parts in self.spikes.items()} if self.keep else {}
        several = outputs if len(outputs) > 1 else {}
        return Result(next(iter(outputs.values())), spikes, self.counts, self.size, several, gates=self.gates)


def _check_runs(node: Node, runs: int, shapes: dict[str, Shape]) -> None:
    expected = 1 if needs_all_frames(node) else shapes[node.name][0]
    if runs != expected:
        raise LavaError(f"{node.name}: it ran {runs} times, expected {expected}")
