"""The hardware simulator: executes a Network node by node and counts what each node really did.

It reads only the layer graph, never the torch model. torch serves as its array library: CPU or GPU, float32 or float64.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from export.frames import check_image, output_of
from export.network import (
    AXES,
    Activation,
    Add,
    Affine,
    Concat,
    Conv,
    Input,
    Linear,
    Mul,
    Network,
    NetworkError,
    Neuron,
    Node,
    Output,
    Reduce,
    Repeat,
    Resize,
    ValueKind,
    infer_shapes,
)
from hw_sim.counts import NodeCounts, Operands, count_node, operands_of, reads_spikes
from hw_sim.result import Result

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
            if self.keep and isinstance(node, Neuron):
                self.spikes[node.name] = value.cpu().numpy()
            for name in node.inputs:
                readers[name] -= 1
                if not readers[name]:
                    del self.values[name]
                    self.spike_maps.pop(name, None)
        output = output_of(_numbers(self.values[self.network.output.name], self.dtype)).cpu().numpy()
        return Result(output, self.spikes, self.counts, self.size)

    def _execute(self, node: Node, readers: Mapping[str, int]) -> Tensor:
        inputs = [self.image] if isinstance(node, Input) else [self.values[name] for name in node.inputs]
        if isinstance(node, (Add, Mul, Activation)):
            spare = self._spare(node, readers)
            if spare is not None:
                return _execute_in(spare, node, inputs)
        return execute_node(node, inputs, self.network.steps, self.dtype)

    def _spare(self, node: Node, readers: Mapping[str, int]) -> Tensor | None:
        """An input that this node is the last to read, and that its result fits into: memory need not be had anew."""
        for name in node.inputs:
            value = self.values[name]
            own = not isinstance(self.network[name], (Input, Repeat)) and value.dtype is self.dtype
            if own and readers[name] == 1 and value.shape == self.plan.operands[node.name].output_shape:
                return value
        return None

    def _check(self, node: Node, value: Tensor) -> None:
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

    def _count(self, node: Node) -> NodeCounts:
        operands, counts = self.plan.operands[node.name], self.plan.counts
        if isinstance(node, Neuron):
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


_CONSTANTS: WeakKeyDictionary[Node, dict[tuple[str, torch.dtype, torch.device], Tensor]] = WeakKeyDictionary()


def _constant(node: Node, name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
    """A node's array as a tensor, made once per dtype and device; weights of convolutions with the channels last."""
    made = _CONSTANTS.setdefault(node, {})
    key = (name, dtype, like.device)
    if key not in made:
        made[key] = torch.tensor(getattr(node, name), dtype=dtype, device=like.device)
        if made[key].ndim == 4:
            made[key] = made[key].contiguous(memory_format=torch.channels_last)
    return made[key]


def _bias(node: Conv | Linear, like: Tensor, dtype: torch.dtype) -> Tensor | None:
    return None if node.bias is None else _constant(node, "bias", like, dtype)


def _numbers(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Values as numbers; spikes as 0 and 1, by way of bytes: booleans are converted ten times as slowly."""
    return (value.view(torch.uint8) if value.dtype is torch.bool else value).to(dtype)


@singledispatch
def execute_node(node: Node, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    """The value of one node, (T or 1, C, H, W): boolean for spikes, else of `dtype`. Unknown kinds are refused."""
    raise NetworkError(f"{node.name}: the simulator has no rule for kind {node.kind}")


@execute_node.register(Input)
@execute_node.register(Output)
def _(node: Node, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return inputs[0]


@execute_node.register
def _(node: Repeat, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return inputs[0].expand(steps, -1, -1, -1)


@execute_node.register
def _(node: Conv, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = _numbers(inputs[0], dtype).contiguous(memory_format=torch.channels_last)  # up to three times as fast as first
    weight = _constant(node, "weight", x, dtype)
    return F.conv2d(x, weight, _bias(node, x, dtype), node.stride, node.padding, node.dilation, node.groups)


@execute_node.register
def _(node: Linear, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    axis = AXES.index(node.axis)
    x = _numbers(inputs[0], dtype).transpose(axis, 3)
    return F.linear(x, _constant(node, "weight", x, dtype), _bias(node, x, dtype)).transpose(axis, 3)


def _drive(node: Neuron, current: Tensor) -> Tensor:
    """gain * I + bias, leaving out what changes nothing."""
    if np.any(node.gain != 1.0):
        current = current * _constant(node, "gain", current, current.dtype)
    if np.any(node.bias != 0.0):
        current = current + _constant(node, "bias", current, current.dtype)
    return current


@execute_node.register
def _(node: Neuron, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = _numbers(inputs[0], dtype)
    threshold = _constant(node, "threshold", x, dtype)
    if node.fires == ">=":
        threshold = torch.nextafter(threshold, torch.full_like(threshold, -math.inf))
    spikes = torch.empty_like(x, dtype=torch.bool)
    membrane = torch.zeros_like(x[0])
    fired = torch.empty_like(membrane)  # 0 and 1: torch compares into numbers four times as fast as into booleans
    current = None
    for step in range(len(x)):
        current = x[step] if current is None or not node.current_decay else x[step] + node.current_decay * current
        torch.add(_drive(node, current), membrane, alpha=node.membrane_decay, out=membrane)
        torch.gt(membrane, threshold, out=fired)
        spikes[step].copy_(fired)
        if node.reset == "by":
            membrane.sub_(fired, alpha=node.reset_value)
        else:
            membrane.addcmul_(membrane, fired, value=-1.0)  # exact: the membrane, or 0
            if node.reset_value:
                membrane.add_(fired, alpha=node.reset_value)
    return spikes


@execute_node.register
def _(node: Add, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return _numbers(inputs[0], dtype) + _numbers(inputs[1], dtype)


@execute_node.register
def _(node: Mul, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return _numbers(inputs[0], dtype) * _numbers(inputs[1], dtype)


def _execute_in(spare: Tensor, node: Add | Mul | Activation, inputs: Sequence[Tensor]) -> Tensor:
    """The same values as `execute_node` gives, written over an input that nobody reads afterwards."""
    if isinstance(node, Activation):
        return spare.relu_() if node.function == "relu" else spare.sigmoid_()
    first, second = (_numbers(value, spare.dtype) for value in inputs)
    return torch.add(first, second, out=spare) if isinstance(node, Add) else torch.mul(first, second, out=spare)


@execute_node.register
def _(node: Affine, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = _numbers(inputs[0], dtype)
    return x * _constant(node, "scale", x, dtype) + _constant(node, "offset", x, dtype)


@execute_node.register
def _(node: Concat, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    same = all(value.dtype is torch.bool for value in inputs)
    return torch.cat([value if same else _numbers(value, dtype) for value in inputs], dim=1)


@execute_node.register
def _(node: Reduce, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    axes = [AXES.index(axis) for axis in node.axes]
    if node.function == "max":
        return inputs[0].amax(axes, keepdim=True)
    return _numbers(inputs[0], dtype).mean(axes, keepdim=True)


@execute_node.register
def _(node: Activation, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = _numbers(inputs[0], dtype)
    return torch.relu(x) if node.function == "relu" else torch.sigmoid(x)


@execute_node.register
def _(node: Resize, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    if node.mode == "nearest":
        return inputs[0].repeat_interleave(node.factor, dim=2).repeat_interleave(node.factor, dim=3)
    return F.interpolate(_numbers(inputs[0], dtype), scale_factor=node.factor, mode="bilinear", align_corners=False)
