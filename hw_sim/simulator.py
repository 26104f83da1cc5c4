"""The hardware simulator: executes a Network node by node and counts what each node really did.

It reads only the layer graph, never the torch model. torch serves as its array library: CPU or GPU, float32 or float64.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import singledispatch
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from export.network import (
    AXES,
    Activation,
    Add,
    Affine,
    Array,
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
from hw_sim.counts import NodeCounts, Operands, count_node
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
        if image.ndim != 3:
            raise NetworkError(f"{network.name}: image of shape {image.shape}, expected (channels, height, width)")
        self.size = (int(image.shape[1]), int(image.shape[2]))
        self.shapes = infer_shapes(network, *self.size)
        if image.shape[0] != network.input.channels:
            raise NetworkError(
                f"{network.name}: image has {image.shape[0]} channels, expected {network.input.channels}"
            )
        self.image = torch.from_numpy(np.ascontiguousarray(image)).to(device, dtype).unsqueeze(0)
        self.values: dict[str, Tensor] = {}
        self.spike_maps: dict[str, Tensor] = {}
        self.spikes: dict[str, NDArray[np.bool_]] = {}
        self.counts: dict[str, NodeCounts] = {}

    def execute(self) -> Result:
        readers = Counter(name for node in self.network.nodes for name in node.inputs)
        for node in self.network.nodes:
            inputs = [self.image] if isinstance(node, Input) else [self.values[name] for name in node.inputs]
            value = execute_node(node, inputs, self.network.steps, self.dtype)
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
        output = self.values[self.network.output.name][0].cpu().numpy()
        return Result(output, self.spikes, self.counts, self.size)

    def _check(self, node: Node, value: Tensor) -> None:
        """A value that is declared as spikes holds only 0 and 1: its tensor is boolean, or the run ends here."""
        if tuple(value.shape) != self.shapes[node.name]:
            raise NetworkError(f"{node.name}: value has shape {tuple(value.shape)}, declared {self.shapes[node.name]}")
        if (self.network.kinds[node.name] is ValueKind.SPIKE) != (value.dtype is torch.bool):
            raise NetworkError(
                f"{node.name}: declared {self.network.kinds[node.name].value}, found {value.dtype} values"
            )

    def _spike_map(self, name: str) -> Tensor:
        """Spikes per step and pixel of a spike value, (steps, H, W); kept while the value is."""
        if name not in self.spike_maps:
            self.spike_maps[name] = torch.sum(self.values[name], dim=1, dtype=torch.int32)
        return self.spike_maps[name]

    def _count(self, node: Node) -> NodeCounts:
        kinds, shapes = self.network.kinds, self.shapes
        spike_map = spikes_out = None
        if isinstance(node, Neuron):
            spikes_out = self._spike_map(node.name).sum((1, 2)).cpu().numpy()
        elif isinstance(node, Conv) and kinds[node.inputs[0]] is ValueKind.SPIKE:
            spike_map = self._spike_map(node.inputs[0]).cpu().numpy().astype(np.int64)
        return count_node(
            node,
            Operands(
                input_shapes=[shapes[name] for name in node.inputs],
                input_kinds=[kinds[name] for name in node.inputs],
                output_shape=shapes[node.name],
                output_kind=kinds[node.name],
                spike_map=spike_map,
                spikes_out=spikes_out,
            ),
        )


def _tensor(array: Array, like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.tensor(array, dtype=dtype, device=like.device)


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
    x = inputs[0].to(dtype)
    bias = None if node.bias is None else _tensor(node.bias, x, dtype)
    weight = _tensor(node.weight, x, dtype)
    return F.conv2d(x, weight, bias, node.stride, node.padding, node.dilation, node.groups)


@execute_node.register
def _(node: Linear, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    axis = AXES.index(node.axis)
    bias = None if node.bias is None else _tensor(node.bias, inputs[0], dtype)
    x = inputs[0].to(dtype).transpose(axis, 3)
    return F.linear(x, _tensor(node.weight, x, dtype), bias).transpose(axis, 3)


def _drive(node: Neuron, current: Tensor) -> Tensor:
    """gain * I + bias, leaving out what changes nothing."""
    if np.any(node.gain != 1.0):
        current = current * _tensor(node.gain, current, current.dtype)
    if np.any(node.bias != 0.0):
        current = current + _tensor(node.bias, current, current.dtype)
    return current


@execute_node.register
def _(node: Neuron, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = inputs[0].to(dtype)
    threshold = _tensor(node.threshold, x, dtype)
    if node.fires == ">=":
        threshold = torch.nextafter(threshold, torch.full_like(threshold, -math.inf))
    spikes = torch.empty(x.shape, dtype=torch.bool, device=x.device)
    current: Tensor | None = None
    membrane: Tensor | None = None
    for step in range(x.shape[0]):
        current = x[step] if current is None or not node.current_decay else x[step] + node.current_decay * current
        drive = _drive(node, current)
        membrane = drive.clone() if membrane is None else torch.add(drive, membrane, alpha=node.membrane_decay)
        torch.gt(membrane, threshold, out=spikes[step])
        if node.reset == "to":
            membrane.masked_fill_(spikes[step], node.reset_value)
        else:
            membrane.sub_(spikes[step].to(dtype), alpha=node.reset_value)
    return spikes


@execute_node.register
def _(node: Add, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return inputs[0].to(dtype) + inputs[1].to(dtype)


@execute_node.register
def _(node: Mul, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return inputs[0].to(dtype) * inputs[1].to(dtype)


@execute_node.register
def _(node: Affine, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = inputs[0].to(dtype)
    return x * _tensor(node.scale, x, dtype) + _tensor(node.offset, x, dtype)


@execute_node.register
def _(node: Concat, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    same = all(value.dtype is torch.bool for value in inputs)
    return torch.cat([value if same else value.to(dtype) for value in inputs], dim=1)


@execute_node.register
def _(node: Reduce, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    axes = [AXES.index(axis) for axis in node.axes]
    if node.function == "max":
        return inputs[0].amax(axes, keepdim=True)
    return inputs[0].to(dtype).mean(axes, keepdim=True)


@execute_node.register
def _(node: Activation, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = inputs[0].to(dtype)
    return torch.relu(x) if node.function == "relu" else torch.sigmoid(x)


@execute_node.register
def _(node: Resize, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    if node.mode == "nearest":
        return inputs[0].repeat_interleave(node.factor, dim=2).repeat_interleave(node.factor, dim=3)
    return F.interpolate(inputs[0].to(dtype), scale_factor=node.factor, mode="bilinear", align_corners=False)
