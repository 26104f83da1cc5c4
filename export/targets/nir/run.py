"""Running a NIR export: its graphs by NIR's own semantics, the host operations between them, T steps, float64.

In: an export and an image (3, H, W). Out: the output image and, one neuron at a time, the spikes of every LIF. It reads
files only, and shares no code with the torch model; host operations are those of export/graph/execute.py.
Where every LIF has one set of parameters per channel, images of other sizes than the export's run as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from graphlib import TopologicalSorter
from typing import Any

import nir
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from export.graph.execute import execute_node
from export.graph.frames import check_image, output_of
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Array, Conv, Linear, NetworkError, Neuron, Node, gate_of
from export.targets.nir.graph import DRIVE, SHUT
from export.targets.nir.read import Export

Values = dict[str, Tensor]
Arrays = Mapping[str, NDArray[np.floating[Any]]]
See = Callable[[str, NDArray[np.bool_]], NDArray[np.bool_] | None]


@dataclass
class _Run:
    """One image on its way: seconds per step, number of steps, and what `OpenedExport.run` is given."""

    dt_s: float
    steps: int
    see: See
    other_form: Counter[str] | None = None
    layers: _LayerByLayer | None = None


class _LayerByLayer:
    """Has every convolution, matrix and neuron whose input is given read that, and keeps what it would have read, and
    what it gives."""

    def __init__(self, network: Network, given: Arrays) -> None:
        self.layers = {node.name: node for node in network.nodes if isinstance(node, (Conv, Linear, Neuron))}
        self.given, self.found = given, dict[str, Array]()

    def reads(self, name: str, inputs: Mapping[str, Tensor], nodes: Mapping[str, Any]) -> Sequence[Tensor]:
        """`inputs`: by the names of the nodes that they come from. A neuron with a gain or bias has a node before it,
        its drive, that reads for it; one with a gate has one beside it that reads that."""
        node = self.layers.get(name.removesuffix(DRIVE).removesuffix(SHUT))
        if node is None or name + DRIVE in nodes or node.inputs[0] not in self.given:
            return [*inputs.values()]
        source, gate = node.inputs[0], gate_of(node)
        if name.endswith(SHUT):
            return [self._instead(node.inputs[1], [*inputs.values()])]
        beside = {one: value for one, value in inputs.items() if one in (gate, node.name + SHUT)}
        driving = self._instead(source, [value for one, value in inputs.items() if one not in beside])
        return [driving, *(self._instead(one, [value]) if one == gate else value for one, value in beside.items())]

    def _instead(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        """What is given in the place of a value, which is the sum of these; of a gate one frame is kept."""
        found = sum_of(parts)
        given = torch.from_numpy(np.ascontiguousarray(self.given[name], np.float64))
        self.found[name] = found[: len(given)].numpy()
        return given.expand(found.shape)

    def gives(self, name: str, value: Tensor) -> None:
        if name in self.layers:
            self.found[name] = value.numpy()


def run_export(export: Export, network: Network, image: Array, see: See) -> Array:
    """One image through an export; see `OpenedExport.run`."""
    return OpenedExport(export, network).run(image, see)


class OpenedExport:
    """An export read once, to run images. `network` is the one that it holds: host operations are its nodes,
    convolutions and neurons come from the graphs."""

    def __init__(self, export: Export, network: Network) -> None:
        self.manifest, self.network = export.manifest, network
        self.graphs: dict[str, nir.NIRGraph] = {}
        for segment in export.segments:
            self.graphs[segment] = nir.read(export.path / segment)
            for node in self.graphs[segment].nodes.values():
                compact(node)

    def run(self, image: Array, see: See, other_form: Counter[str] | None = None) -> Array:
        """The output, (C, H, W) or all frames (T, C, H, W), for one image of floats in [0, 1].

        `see` gets each LIF's name and spikes, bool (T, C, H, W).

        Spikes that `see` returns, if it does, are handed on in the place of the LIF's own. `other_form` counts, by LIF,
        the spikes that `relaxed` fires otherwise from the same currents.
        """
        infer_shapes(self.network, *check_image(self.network, image))  # NetworkError for a size it cannot take
        run = _Run(self.manifest["dt"], self.network.steps, see, other_form)
        return np.asarray(output_of(self._execute(run, image[None]).numpy()))

    def run_layers(self, given: Arrays) -> dict[str, Array]:
        """What every convolution, matrix and neuron gives when it reads the values given, by name, (T or 1, C, H, W),
        what it would have read, and the output."""
        layers = _LayerByLayer(self.network, given)
        run = _Run(self.manifest["dt"], self.network.steps, lambda name, spikes: None, layers=layers)
        output = self._execute(run, given[self.network.input.name])
        return {**layers.found, self.network.output.name: output.numpy()}

    def _execute(self, run: _Run, frame: NDArray[np.floating[Any]]) -> Tensor:
        given = {self.network.input.name: torch.from_numpy(np.ascontiguousarray(frame, np.float64))}
        with torch.inference_mode():
            return self._run_steps(run, given)

    def _run_steps(self, run: _Run, given: Values) -> Tensor:
        network, values, steps = self.network, dict(given), self.manifest["steps"]
        uses = Counter(name for step in steps for name in step["inputs"])
        for step in steps:
            uses.subtract(step["inputs"])
            taken = {name: values[name] if uses[name] else values.pop(name) for name in step["inputs"]}
            if "segment" in step:
                parts = [taken.pop(name) for name in step["inputs"]]
                frames = max(map(len, parts))  # a gate has one, for all steps
                stream = torch.cat([part.expand(frames, -1, -1, -1) for part in parts], dim=1)
                del parts
                joined = _run_graph(run, self.graphs[step["segment"]], stream)
                channels = [self.manifest["shapes"][name][1] for name in step["outputs"]]
                split = torch.split(joined, channels, dim=1)  # copied, so that each can go when its last reader has it
                values.update((name, part.clone()) for name, part in zip(step["outputs"], split, strict=True))
                del stream, joined, split
            else:
                nodes = {name: network[name] for name in step["nodes"]}
                sources = {name: node.inputs for name, node in nodes.items()}
                wanted = [*step["outputs"], *(nodes.keys() & {network.output.name})]
                taken.update((name, values[name]) for name in nodes.keys() & values.keys())
                values.update(_evaluate(run, nodes, sources, taken, wanted))
        return values[network.output.name]


def run_graph(graph: nir.NIRGraph, stream: Tensor, dt_s: float, see: See) -> Tensor:
    """A stock graph with one Input and one Output on a stream (T, C, H, W): its output stream."""
    for node in graph.nodes.values():
        compact(node)
    return _run_graph(_Run(dt_s, len(stream), see), graph, stream)


def _run_graph(run: _Run, graph: nir.NIRGraph, stream: Tensor) -> Tensor:
    if len(graph.outputs) != 1:
        found = ", ".join(name.removeprefix("output_") for name in graph.outputs)
        raise NetworkError(f"NIR: no node reads {found}, expected one such node, the graph's output")
    (start,), (end,) = graph.inputs, graph.outputs
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, reader in graph.edges:
        sources[reader].append(source)
    return _evaluate(run, graph.nodes, sources, {start: stream}, [end])[end]


def _evaluate(
    run: _Run, nodes: Mapping[str, Any], sources: Mapping[str, Sequence[str]], given: Values, wanted: Sequence[str]
) -> Values:
    """The wanted values of a graph without cycles from those given; each value is dropped after its last reader."""
    values = given
    uses = Counter(name for reader in sources.values() for name in reader) + Counter(wanted)
    for name in TopologicalSorter(sources).static_order():
        if name not in values:
            inputs: Sequence[Tensor] = [values[source] for source in sources[name]]
            if run.layers is not None:
                inputs = run.layers.reads(name, dict(zip(sources[name], inputs, strict=True)), nodes)
            values[name] = run_node(nodes[name], inputs, run, name)
            if run.layers is not None:
                run.layers.gives(name, values[name])
        for source in sources.get(name, ()):
            uses[source] -= 1
            if not uses[source]:
                del values[source]
    return {name: values[name] for name in wanted}


@singledispatch
def run_node(node: object, inputs: Sequence[Tensor], run: _Run, name: str) -> Tensor:
    """One node of a graph, or one operation of the host, over all steps: values (T, C, H, W)."""
    if isinstance(node, Node):
        return execute_node(node, inputs, run.steps, torch.float64)
    raise NetworkError(
        f"NIR: {name} ({type(node).__name__}): no rule to run this kind; add one to export/targets/nir/run.py"
    )


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
    """A spike where v > v_threshold, which resets v."""
    threshold, reset = torch.from_numpy(node.v_threshold), torch.from_numpy(node.v_reset)
    if threshold.shape[1:] not in ((1, 1), inputs[0].shape[2:]):
        found = "x".join(map(str, inputs[0].shape[2:]))
        raise NetworkError(f"NIR: {name}: its parameters vary over frames of {tuple(threshold.shape)}, found {found}")
    forms = [decayed] if run.other_form is None else [decayed, relaxed]
    membranes = [torch.zeros_like(inputs[0][0])] * len(forms)
    spikes = torch.empty((len(forms), *inputs[0].shape), dtype=torch.bool)
    for step in range(len(inputs[0])):
        current = sum_of([stream[step] for stream in inputs])
        for index, form in enumerate(forms):
            v = form(node, membranes[index], current, run.dt_s)
            torch.gt(v, threshold, out=spikes[index, step])
            membranes[index] = torch.where(spikes[index, step], reset, v)
    if run.other_form is not None:
        run.other_form[name] += int((spikes[0] != spikes[1]).sum())
    handed_on = run.see(name, spikes[0].numpy())
    return (spikes[0] if handed_on is None else torch.from_numpy(handed_on)).double()


def decayed(node: nir.LIF, v: Tensor, x: Tensor, dt_s: float) -> Tensor:
    """A forward Euler step as it decays: v = (1 - dt/tau) v + (dt/tau) (v_leak + r x)."""
    leak = dt_s / torch.from_numpy(node.tau)
    return v.mul(1 - leak).add_(leak * torch.from_numpy(node.v_leak)).add_(leak * torch.from_numpy(node.r) * x)


def relaxed(node: nir.LIF, v: Tensor, x: Tensor, dt_s: float) -> Tensor:
    """The same step as it relaxes: v = v + (dt/tau) (v_leak + r x - v). Other roundings, so perhaps other last bits."""
    leak, rest, gain = dt_s / torch.from_numpy(node.tau), torch.from_numpy(node.v_leak), torch.from_numpy(node.r)
    return gain.mul(x).add_(rest).sub_(v).mul_(leak).add_(v)


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
