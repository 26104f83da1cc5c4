"""An integer network on Lava's CPU simulator: in images, out Results that equal the integer simulator's, bit for bit.

With `stock`, Lava's own fixed-point Conv and bit-accurate LIFReset compute every convolution of spikes and every neuron
that they can express; processes of ours compute the rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph.nodes import Affine, Conv, NetworkError, Neuron, Node, ValueKind, gate_of
from export.integer.network import IntegerNetwork
from export.integer.operations import Format, IntegerAffine, IntegerConv, IntegerNeuron, Operation, Rescale
from export.integer.run import to_pixels
from hw_sim.backends.lava.plan import Model, Plan, Planner, lay_out
from hw_sim.backends.lava.records import Flight
from hw_sim.backends.lava.session import TIMEOUT_S, LavaSession
from hw_sim.backends.result import Result

NUMBERS = "int64"  # of the frames that flow; every value has its declared width in them


class IntegerPlanner(Planner):
    """A planner that gives every process its integer operations, and chooses Lava's fixed-point processes."""

    def __init__(self, integer: IntegerNetwork, size: tuple[int, int], stock: bool) -> None:
        self.integer = integer
        self.added: dict[str, Operation] = {}  # what is left of a convolution after Lava's own
        super().__init__(integer.network, size, NUMBERS, stock)

    def is_stock(self, node: Node) -> bool:
        """Spikes into a convolution; a neuron with one threshold that adds up its input as it is, and has no gate."""
        if not node.inputs or self.shapes[node.inputs[0]][0] != self.network.steps or gate_of(node) is not None:
            return False
        operation = self.integer.by_name[node.name]
        if isinstance(operation, IntegerConv):
            return self.network.kinds[node.inputs[0]] is ValueKind.SPIKE
        return isinstance(operation, IntegerNeuron) and operation.threshold.size == 1 and operation.rescale is None

    def operation(self, node: Node) -> Operation | None:
        """The operation of a node, or of a part of it that stock processes made."""
        return self.added.get(node.name) or self.integer.by_name[node.name]

    def split(self, node: Node) -> tuple[Conv | Neuron, Affine | None]:
        """A convolution as Lava's sums, and after it its bias and its rescaling; a neuron stays as it is."""
        operation = self.integer.by_name[node.name]
        if isinstance(operation, IntegerNeuron):
            return operation.node, None
        assert isinstance(operation, IntegerConv)  # is_stock has looked
        if operation.rescale is None:
            return operation.node, None
        bare = replace(operation.node, name=f"{node.name}.sums", bias=None)
        after = Affine(name=node.name, inputs=(bare.name,))
        bias = np.zeros(len(operation.weight), np.int64) if operation.bias is None else operation.bias
        multiplier = operation.rescale.multiplier
        self.added[bare.name] = replace(operation, node=bare, output=Format(24, 1.0), bias=None, rescale=None)
        self.added[after.name] = IntegerAffine(
            node=after,
            output=operation.output,
            rescale=Rescale(multiplier, operation.rescale.shift),
            offset=bias[:, None, None] * multiplier,
        )
        return bare, after


def make_integer_plan(integer: IntegerNetwork, size: tuple[int, int], model: Model, stock: bool) -> Plan:
    """Processes, latencies and delays of an integer network, as `make_plan` lays out a float one."""
    return lay_out(IntegerPlanner(integer, size, stock), whole=model == "fused" and not stock)


class IntegerLavaSession(LavaSession):
    """A LavaSession for an integer network. Images are rounded to 8 bits; outputs are 8-bit pixels / 255, float64."""

    def __init__(
        self,
        integer: IntegerNetwork,
        size: tuple[int, int],
        *,
        model: Model = "fused",
        stock: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        plan = make_integer_plan(integer, size, model, stock)
        super().__init__(integer.network, size, precision=NUMBERS, timeout_s=timeout_s, plan=plan)

    def _frame(self, image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        return to_pixels(super()._frame(image)).astype(np.float64)

    def run_sequence(self, frames: NDArray[Any], *, keep_spikes: bool = True) -> Result:
        """Refused: integers are calibrated on images."""
        raise NetworkError(f"{self.network.name}: integers run images, found a sequence; use precision float64")

    def _result(self, flight: Flight) -> Result:
        result = super()._result(flight)
        return replace(result, output=result.output / 255.0)
