"""What a process of ours computes in integers: the operations of docs/int8.md, frame by frame. No Lava here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from export.graph.nodes import Node
from export.integer.network import IntArray, IntegerAffine, IntegerNeuron, Rescale
from export.integer.run import behind_gate, execute, neuron_step
from hw_sim.backends.lava.dataflow import Dataflow
from hw_sim.backends.lava.plan import Leaf


def make_dataflow(leaf: Leaf) -> Dataflow:
    """The dataflow of a leaf: in integers where it has integer operations."""
    return IntegerDataflow(leaf) if leaf.operations else Dataflow(leaf)


class IntegerState:
    """Membranes and currents of one neuron in 24-bit integers, (C, H, W) int64."""

    def __init__(self, operation: IntegerNeuron, shape: Sequence[int]) -> None:
        self.operation = operation
        self.membrane, self.current = (torch.zeros(*shape, dtype=torch.int64) for _ in range(2))

    def step(self, x: Tensor) -> Tensor:
        """The spikes of one frame of currents (C, H, W), boolean."""
        spikes = neuron_step(self.operation, x, self.current, self.membrane)
        self.membrane.masked_fill_(spikes, 0)
        return spikes


class IntegerDataflow(Dataflow):
    """A Dataflow whose nodes compute their integer operations; values are int64, spikes boolean."""

    def __init__(self, leaf: Leaf) -> None:
        self.operations = {operation.name: operation for operation in leaf.operations}
        super().__init__(leaf)

    def value(self, node: Node, inputs: Sequence[Tensor], frame: int) -> Tensor:
        """What the operation of a node makes of its inputs for frame number `frame`."""
        operation = self.operations[node.name]
        if isinstance(operation, IntegerNeuron):
            if node.name not in self.states:
                self.states[node.name] = IntegerState(operation, inputs[0].shape[1:])
            return behind_gate(operation, inputs, self.states[node.name].step(inputs[0][0]).unsqueeze(0))
        if isinstance(operation, IntegerAffine):
            operation = _at_frame(operation, frame)
        return behind_gate(operation, inputs, execute(operation, inputs, 1))


def _at_frame(operation: IntegerAffine, frame: int) -> IntegerAffine:
    """Constants that change over time as they are at one frame."""

    def at(array: IntArray) -> IntArray:
        return array[frame : frame + 1] if array.ndim == 4 and len(array) > 1 else array

    rescale = Rescale(at(operation.rescale.multiplier), operation.rescale.shift)
    return replace(operation, rescale=rescale, offset=at(operation.offset))
