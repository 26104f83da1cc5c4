"""What a process of ours computes in integers: the operations of docs/int8.md, frame by frame. No Lava here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from export.graph.nodes import Node
from export.integer.neurons import Neurons
from export.integer.operations import IntegerAffine, IntegerNeuron, Rescale
from export.integer.run import behind_gate, execute
from hw_sim.backends.lava.dataflow import Dataflow
from hw_sim.backends.lava.plan import Leaf


def make_dataflow(leaf: Leaf) -> Dataflow:
    """The dataflow of a leaf: in integers where it has integer operations."""
    return IntegerDataflow(leaf) if leaf.operations else Dataflow(leaf)


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
                self.states[node.name] = Neurons(operation, inputs[0])
            return behind_gate(operation, inputs, self.states[node.name].step(inputs[0]).bool())
        if isinstance(operation, IntegerAffine):
            operation = _at_frame(operation, frame)
        return behind_gate(operation, inputs, execute(operation, inputs, 1))


def _at_frame(operation: IntegerAffine, frame: int) -> IntegerAffine:
    """Constants that change over time as they are at one frame."""

    def at(array: NDArray[Any]) -> NDArray[Any]:
        return array[frame : frame + 1] if array.ndim == 4 and len(array) > 1 else array

    node = replace(operation.node, scale=at(operation.node.scale), offset=at(operation.node.offset))
    rescale = Rescale(at(operation.rescale.multiplier), operation.rescale.shift)
    return replace(operation, node=node, rescale=rescale, offset=at(operation.offset))
