"""The hardware simulator: executes a Network node by node and counts what each node really did.

It reads only the layer graph, never the torch model. torch serves as its array library: CPU or GPU, float32 or float64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph import nodes as g
from export.graph.counting import NodeCounts, Operands, count_node, operands_of, reads_spikes
from export.graph.execute import execute_in, execute_node, numbers
from export.graph.frames import check_image, output_of
from export.graph.network import Network, infer_shapes
from export.graph.nodes import NetworkError, ValueKind
from hw_sim.backends.result import Result

Precision = Literal["float32", "float64"]


def run(
    network: Network,
    image: NDArray[np.floating[Any]],
    *,
    precision: Precision = "float32",
    device: str = "cpu",
    keep_spikes: bool = True,
    count: bool = True,
) -> Result:
    """Execute the network on one image (3, H, W) in [0, 1] whose sides `network.size_multiple` divides.

    `keep_spikes=False` drops the spike tensors as soon as nothing reads them; `count=False` skips the counting.
    """
    with torch.inference_mode():
        return _Run(network, image, getattr(torch, precision), torch.device(device), keep_spikes, count).execute()


class _Run:
    """One image on its way through the graph: values that are still needed, and what has been counted."""

    def __init__(
        self,
        network: Network,
        image: NDArray[np.floating[Any]],
        dtype: torch.dtype,
        device: torch.device,
        keep: bool,
        count: bool,
    ) -> None:
        self.network, self.dtype, self.device, self.keep, self.count = network, dtype, device, keep, count
        self.size = check_image(network, image)
        self.plan = _make_plan(network, self.size)
        self.image = torch.from_numpy(np.ascontiguousarray(image)).to(device, dtype).unsqueeze(0)
        self.values: dict[str, Tensor] = {}
        self.spike_maps: dict[str, Tensor] = {}
        self.spikes: dict[str, NDArray[np.bool_]] = {}
        self.counts: dict[str, NodeCounts] = {}

    def execute(self) -> Result:
        readers = Counter(name for node in self.network.nodes for name in node.inputs)
        for node in self.network.nodes:
            value = self._execute(node, readers)
            self._check(node, value)
            self.values[node.name] = value
            if self.count:
                self.counts[node.name] = self._count(node)
            if self.keep and isinstance(node, g.Neuron):
                self.spikes[node.name] = value.cpu().numpy()
            for name in node.inputs:
                readers[name] -= 1
                if not readers[name]:
                    del self.values[name]
                    self.spike_maps.pop(name, None)
        output = output_of(numbers(self.values[self.network.output.name], self.dtype)).cpu().numpy()
        return Result(output, self.spikes, self.counts, self.size)

    def _execute(self, node: g.Node, readers: Mapping[str, int]) -> Tensor:
        inputs = [self.image] if isinstance(node, g.Input) else [self.values[name] for name in node.inputs]
        if isinstance(node, (g.Add, g.Mul, g.Activation)):
            spare = self._spare(node, readers)
            if spare is not None:
                return execute_in(spare, node, inputs)
        return execute_node(node, inputs, self.network.steps, self.dtype)

    def _spare(self, node: g.Node, readers: Mapping[str, int]) -> Tensor | None:
        """An input that this node is the last to read, and that its result fits into: memory need not be had anew."""
        for name in node.inputs:
            value = self.values[name]
            own = not isinstance(self.network[name], (g.Input, g.Repeat)) and value.dtype is self.dtype
            if own and readers[name] == 1 and value.shape == self.plan.operands[node.name].output_shape:
                return value
        return None

    def _check(self, node: g.Node, value: Tensor) -> None:
        """A value that is declared as spikes holds only 0 and 1: its tensor is boolean, or the run ends here."""
        declared = self.plan.operands[node.name].output_shape
        if tuple(value.shape) != declared:
            raise NetworkError(f"{node.name}: value has shape {tuple(value.shape)}, declared {declared}")
        if (self.network.kinds[node.name] is ValueKind.SPIKE) != (value.dtype is torch.bool):
            raise NetworkError(
                f"{node.name}: declared {self.network.kinds[node.name].value}, found {value.dtype} values"
            )

    def _spike_map(self, name: str) -> Tensor:
        """Spikes per step and pixel of a spike value, (steps, H, W); kept while the value is."""
        if name not in self.spike_maps:
            steps = self.values[name].view(torch.uint8)  # one by one: torch widens all that it sums
            self.spike_maps[name] = torch.stack([step.sum(0, dtype=torch.int32) for step in steps])
        return self.spike_maps[name]

    def _count(self, node: g.Node) -> NodeCounts:
        operands, counts = self.plan.operands[node.name], self.plan.counts
        if isinstance(node, g.Neuron):
            spikes_out = self._spike_map(node.name).sum((1, 2)).cpu().numpy()
            return count_node(node, replace(operands, spikes_out=spikes_out))
        if reads_spikes(self.network, node):
            spike_map = self._spike_map(node.inputs[0]).cpu().numpy().astype(np.int64)
            return count_node(node, replace(operands, spike_map=spike_map))
        if node.name not in counts:
            counts[node.name] = count_node(node, operands)
        return counts[node.name]


@dataclass(frozen=True, eq=False)
class _Plan:
    """What every run on images of one size has in common: shapes and kinds, and the counts that no spike decides."""

    operands: dict[str, Operands]
    counts: dict[str, NodeCounts] = field(default_factory=dict)


_PLANS: WeakKeyDictionary[Network, dict[tuple[int, int], _Plan]] = WeakKeyDictionary()


def _make_plan(network: Network, size: tuple[int, int]) -> _Plan:
    """The plan of a network for a size, made once: tiles and folders run the same size again and again."""
    plans = _PLANS.setdefault(network, {})
    if size not in plans:
        shapes = infer_shapes(network, *size)
        plans[size] = _Plan({node.name: operands_of(network, shapes, node) for node in network.nodes})
    return plans[size]
