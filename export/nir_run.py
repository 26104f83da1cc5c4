"""Running a NIR export: its graphs by NIR's own semantics, the host operations between them, T steps, float64.

In: an export and an image (3, H, W). Out: the output image and, one neuron at a time, the spikes of every LIF. It reads
files only, and shares no code with the torch model or the simulator: what it computes is what the files say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from graphlib import TopologicalSorter
from typing import Any

import h5py
import nir
import numpy as np
import torch
import torch.nn.functional as F
from nir.serialization import hdf2dict
from numpy.typing import NDArray
from torch import Tensor

from export.frames import check_image, output_of
from export.network import (
    AXES,
    Activation,
    Add,
    Affine,
    Array,
    Concat,
    Conv,
    Linear,
    Mul,
    Network,
    NetworkError,
    Node,
    Output,
    Reduce,
    Repeat,
    Resize,
)
from export.nir_format import Export
from export.nir_graph import EXTENSION, input_is_stream

Values = dict[str, Tensor]
See = Callable[[str, NDArray[np.bool_]], object]


@dataclass
class _Run:
    """One image on its way: seconds per step, number of steps, and who sees the spikes."""

    dt_s: float
    steps: int
    see: See


def run_export(export: Export, network: Network, image: Array, see: See) -> Array:
    """The output, (C, H, W) or all frames (T, C, H, W), for one image of the export's size, floats in [0, 1].

    `see` gets each LIF's name and spikes (T, C, H, W).

    `network` is the one that the export holds: host operations are its nodes, convolutions and neurons come from the
    graphs.
    """
    expected = tuple(export.manifest["input_shape"][1:])
    if image.shape != expected:
        raise NetworkError(f"{export.path}: image of shape {image.shape}, the export is for {expected}")
    check_image(network, image)
    run = _Run(export.manifest["dt"], network.steps, see)
    given = {network.input.name: torch.from_numpy(np.ascontiguousarray(image, np.float64)).unsqueeze(0)}
    with torch.inference_mode():
        execute = _run_file if export.single_file else _run_folder
        return np.asarray(output_of(execute(run, export, network, given)).numpy())


def run_graph(graph: nir.NIRGraph, stream: Tensor, dt_s: float, see: See) -> Tensor:
    """A stock graph with one Input and one Output on a stream (T, C, H, W): its output stream."""
    run = _Run(dt_s, len(stream), see)
    (start,), (end,) = graph.inputs, graph.outputs
    for node in graph.nodes.values():
        compact(node)
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, reader in graph.edges:
        sources[reader].append(source)
    return _evaluate(run, graph.nodes, sources, {start: stream}, [end])[end]


def _run_folder(run: _Run, export: Export, network: Network, given: Values) -> Tensor:
    values = dict(given)
    steps = export.manifest["steps"]
    uses = Counter(name for step in steps for name in step["inputs"])
    for step in steps:
        uses.subtract(step["inputs"])
        taken = {name: values[name] if uses[name] else values.pop(name) for name in step["inputs"]}
        if "segment" in step:
            stream = torch.cat([taken.pop(name) for name in step["inputs"]], dim=1)
            joined = run_graph(nir.read(export.path / step["segment"]), stream, run.dt_s, run.see)
            channels = [export.manifest["shapes"][name][1] for name in step["outputs"]]
            parts = torch.split(joined, channels, dim=1)  # copied, so that each can go when its last reader has it
            values.update((name, part.clone()) for name, part in zip(step["outputs"], parts, strict=True))
            del stream, joined, parts
        else:
            nodes = {name: network[name] for name in step["nodes"]}
            sources = {name: node.inputs for name, node in nodes.items()}
            wanted = [*step["outputs"], *(nodes.keys() & {network.output.name})]
            taken.update((name, values[name]) for name in nodes.keys() & values.keys())
            values.update(_evaluate(run, nodes, sources, taken, wanted))
    return values[network.output.name]


def _run_file(run: _Run, export: Export, network: Network, given: Values) -> Tensor:
    nodes: dict[str, nir.NIRNode | Node] = {}
    sources: dict[str, list[str]] = {}
    with h5py.File(export.path, "r") as file:
        for name, group in file["node/nodes"].items():
            kind = group["type"][()].decode()
            sources[name] = [source.decode() for source in group["inputs"][()]] if "inputs" in group else []
            nodes[name] = network[name] if kind.startswith(EXTENSION) else nir.dict2NIRNode(hdf2dict(group))
            compact(nodes[name])
        for source, reader in file["node/edges"][()]:
            if not isinstance(nodes[reader.decode()], Node):
                sources[reader.decode()].append(source.decode())
    if input_is_stream(network):
        given = {name: frame.expand(run.steps, -1, -1, -1) for name, frame in given.items()}
    end = network.output.name
    return _evaluate(run, nodes, sources, given, [end])[end]


def _evaluate(
    run: _Run, nodes: Mapping[str, Any], sources: Mapping[str, Sequence[str]], given: Values, wanted: Sequence[str]
) -> Values:
    """The wanted values of a graph without cycles from those given; each value is dropped after its last reader."""
    values = given
    uses = Counter(name for reader in sources.values() for name in reader) + Counter(wanted)
    for name in TopologicalSorter(sources).static_order():
        if name not in values:
            values[name] = run_node(nodes[name], [values[source] for source in sources[name]], run, name)
        for source in sources.get(name, ()):
            uses[source] -= 1
            if not uses[source]:
                del values[source]
    return {name: values[name] for name in wanted}


@singledispatch
def run_node(node: object, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    """One node of a graph, or one operation of the host, over all steps: values (T, C, H, W)."""
    raise NetworkError(f"NIR: {name} ({type(node).__name__}): no rule to run this kind; add one to export/nir_run.py")


# --- NIR's primitives: a node with two edges reads their sum ----------------------------------------------------------


@run_node.register
def _(node: nir.Output, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    return sum_of(inputs)


@run_node.register
def _(node: nir.Conv2d, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    geometry = (node.stride, node.padding, node.dilation)
    stride, padding, dilation = (tuple(int(size) for size in pair) for pair in geometry)
    weight, bias = torch.from_numpy(node.weight), torch.from_numpy(node.bias)

    def convolve(step: int) -> Tensor:
        frame = sum_of([stream[step : step + 1] for stream in inputs])
        return F.conv2d(frame, weight, bias, stride, padding, dilation, int(node.groups))

    first = convolve(0)  # step by step: torch unfolds all float64 frames of a batch at once
    result = first.new_empty((len(inputs[0]), *first.shape[1:]))
    result[0] = first[0]
    for step in range(1, len(result)):
        result[step] = convolve(step)[0]
    return result


@run_node.register
def _(node: nir.LIF, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    """Forward Euler: v = (1 - dt/tau) v + (dt/tau) (v_leak + r x); a spike where v > v_threshold, which resets v."""
    leak = run.dt_s / torch.from_numpy(node.tau)
    decay, gain, rest = 1 - leak, leak * torch.from_numpy(node.r), leak * torch.from_numpy(node.v_leak)
    threshold, reset = torch.from_numpy(node.v_threshold), torch.from_numpy(node.v_reset)
    membrane = torch.zeros_like(inputs[0][0])
    spikes = torch.empty(inputs[0].shape, dtype=torch.bool)
    for step in range(len(spikes)):
        current = sum_of([stream[step] for stream in inputs])
        membrane.mul_(decay).add_(rest).add_(gain * current)
        torch.gt(membrane, threshold, out=spikes[step])
        membrane = torch.where(spikes[step], reset, membrane)
    run.see(name, spikes.numpy())
    return spikes.double()


def compact(node: object) -> None:
    """Hold the parameters of a LIF, (C, H, W), as one number per channel, (C, 1, 1), where that says the same."""
    if isinstance(node, nir.LIF):
        for key in ("tau", "r", "v_leak", "v_threshold", "v_reset"):
            values = getattr(node, key)
            per_channel = values[:, :1, :1]
            setattr(node, key, per_channel.copy() if (values == per_channel).all() else values)


def sum_of(inputs: Sequence[Tensor]) -> Tensor:
    """The sum that NIR means by several edges into one node."""
    total = inputs[0]
    for other in inputs[1:]:
        total = total + other
    return total


# --- operations of the host -------------------------------------------------------------------------------------------


@run_node.register
def _(node: Output, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    return inputs[0]


@run_node.register
def _(node: Repeat, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    return inputs[0].expand(run.steps, -1, -1, -1)


@run_node.register
def _(node: Conv, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    bias = None if node.bias is None else _constant(node.bias)
    weight = _constant(node.weight)
    return F.conv2d(inputs[0], weight, bias, node.stride, node.padding, node.dilation, node.groups)


@run_node.register
def _(node: Linear, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    axis = AXES.index(node.axis)
    bias = None if node.bias is None else _constant(node.bias)
    return F.linear(inputs[0].movedim(axis, -1), _constant(node.weight), bias).movedim(-1, axis)


@run_node.register
def _(node: Add, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    return inputs[0] + inputs[1]


@run_node.register
def _(node: Mul, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    return inputs[0] * inputs[1]


@run_node.register
def _(node: Affine, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    return inputs[0] * _constant(node.scale) + _constant(node.offset)


@run_node.register
def _(node: Concat, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    return torch.cat(list(inputs), dim=1)


@run_node.register
def _(node: Reduce, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    axes = [AXES.index(axis) for axis in node.axes]
    return inputs[0].mean(axes, keepdim=True) if node.function == "mean" else inputs[0].amax(axes, keepdim=True)


@run_node.register
def _(node: Activation, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    return torch.relu(inputs[0]) if node.function == "relu" else torch.sigmoid(inputs[0])


@run_node.register
def _(node: Resize, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    smooth = {"mode": "bilinear", "align_corners": False} if node.mode == "bilinear" else {"mode": "nearest"}
    return F.interpolate(inputs[0], scale_factor=node.factor, **smooth)


def _constant(array: Array) -> Tensor:
    return torch.tensor(array, dtype=torch.float64)
