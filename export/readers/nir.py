"""Reading: a NIR file becomes a Network, each node under its name.

NIR states differential equations and a graph. What it leaves open is chosen by the caller and stated in
docs/semantics.md: the time step, what a spike leaves behind, whose arithmetic. What a cycle reads is nir_order.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError
from export.readers.nir_file import Edge, FileGraph, FileNode, read_file
from export.readers.nir_neurons import RSYNAPTIC, SEMANTICS, STATEFUL, Fields, Reading, Reset, neuron
from export.readers.nir_order import late_edges, running_order
from export.readers.nir_shapes import POOL_FIELDS, constant, conv_geometry, in_graph, infer, integers, numbers

DT_S = 1e-4  # what snnTorch writes and reads


def read_nir(
    path: str | PathLike[str],
    dt: float = DT_S,
    reset: Reset = "v_reset",
    semantics: str = "nir",
    carries: Literal["analog", "spike"] = "analog",
) -> Network:
    """The Network in a .nir file; it takes a frame for every step, of spikes or of numbers (`carries`).

    dt: seconds per step. reset: a neuron that fires goes to v_reset, or loses its threshold ('subtract'). semantics:
    whose arithmetic, one of nir_neurons.SEMANTICS. UserError, one line: a file that cannot be read, a node that cannot
    be expressed, a choice that the semantics does not have.
    """
    reading = Reading(dt, reset, semantics)
    try:
        return _Builder(read_file(path), reading, carries).network(Path(path).stem)
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from error


class _Builder:
    """A file's nodes on their way into the graph: what each reads, and which of that a step late."""

    def __init__(self, graph: FileGraph, reading: Reading, carries: str) -> None:
        self.graph, self.reading, self.carries = graph, reading, carries
        _check_ends(graph)
        self._check_types()
        self.shapes = infer(graph)
        self.sources = {name: [source for source, reader in graph.edges if reader == name] for name in graph.nodes}
        self.waiting: set[str] = set()  # Delays that read late, and wait a step less
        self.late, self.order = self._times()
        self.nodes: list[g.Node] = []

    def network(self, name: str) -> Network:
        """All nodes, in an order in which they can run."""
        for key in self.order:
            self._add(self.graph.nodes[key])
        parameters = sum(node.source_parameters for node in self.nodes)
        return Network(name=name, nodes=tuple(self.nodes), steps=1, model_parameters=parameters, reader="nir")

    def _check_types(self) -> None:
        """Refuse what the semantics has no reference for."""
        known = SEMANTICS[self.reading.semantics].types
        for node in self.graph.nodes.values():
            if node.type not in known:
                node.refuse(
                    f"semantics {self.reading.semantics!r} has no reference for it, expected {', '.join(known)}; read "
                    "the file by semantics 'nir'"
                )
        for source, reader in self.graph.edges:
            bias = self.graph.nodes[source].fields.get("bias", np.zeros(()))
            if self.reading.semantics == "lava" and self.graph.nodes[reader].type == "CubaLIF" and np.any(bias != 0):
                self.graph.nodes[source].refuse(
                    f"its bias enters {reader} through a current, but Lava adds it to the membrane, expected 0; read "
                    "the file by semantics 'nir'"
                )

    def _times(self) -> tuple[set[Edge], list[str]]:
        """The edges that are read late, and the running order."""
        semantics, nodes, edges = SEMANTICS[self.reading.semantics], self.graph.nodes, self.graph.edges
        late = {
            edge
            for edge in edges
            if nodes[edge[0]].type in semantics.late_out_of or nodes[edge[1]].type in semantics.late_into
        }
        delays = {name for name, node in nodes.items() if node.type == "Delay" and self._delay(node).min() > 0}
        if not semantics.cycles:
            for source, reader in sorted(late_edges(nodes, edges, delays)):
                nodes[reader].refuse(
                    f"{source} -> {reader} closes a cycle, for which semantics {self.reading.semantics!r} has no "
                    "reference, expected none; read the file by semantics 'nir'"
                )
        closing = late_edges(nodes, [edge for edge in edges if edge not in late], delays)
        self.waiting = {reader for _, reader in closing if reader in delays}
        if self.reading.semantics == "snntorch":
            closing = {self._recurrent(*edge) for edge in closing}
        late |= closing
        return late, running_order(nodes, edges, late)

    def _recurrent(self, weight: str, name: str) -> Edge:
        """snnTorch's RLeaky and RSynaptic read their last spikes through a matrix: the edge into it is the late one."""
        alone = self.sources[weight] == [name] and [b for a, b in self.graph.edges if a == weight] == [name]
        matrix = self.graph.nodes[weight].type in ("Affine", "Linear")
        if not (alone and matrix and self.graph.nodes[name].type in STATEFUL):
            self.graph.nodes[name].refuse(
                f"{weight} closes a cycle, and snnTorch runs a neuron with a matrix from itself to itself only; read "
                "the file by semantics 'nir'"
            )
        return name, weight

    def _add(self, file: FileNode) -> None:
        """The node, after the sum of what leads into it, if that is several edges."""
        kind, fields = self._kind(file)
        sources, recurrent = self.sources[file.name], list[str]()
        if self.reading.semantics == "snntorch" and kind is g.Leaky:
            recurrent = [source for source in sources if (file.name, source) in self.late]
            if recurrent and fields["current_decay"] is not None:
                fields |= RSYNAPTIC
        summed = [source for source in sources if source not in recurrent]
        inputs = (*([self._sum(file.name, summed)] if summed else []), *recurrent)
        late = tuple(source for source in inputs if (source, file.name) in self.late)
        self.nodes.append(kind(name=file.name, inputs=inputs, late=late, **fields))

    def _sum(self, reader: str, sources: Sequence[str]) -> str:
        """The name of the value that is the sum of the sources, from left to right."""
        total, *others = sources
        for number, other in enumerate(others, 1):
            name = f"{reader}.sum" + (str(number) if len(others) > 1 else "")
            while name in self.graph.nodes:
                name += "_"
            pair = (total, other)
            late = tuple(source for source in pair if (source, reader) in self.late)
            self.nodes.append(g.Add(name=name, inputs=pair, late=late))
            total = name
        return total

    def _kind(self, node: FileNode) -> tuple[type[g.Node], Fields]:
        """The kind of node, and its fields."""
        shape = self.shapes[node.name]
        read = self.shapes[self.sources[node.name][0]] if self.sources[node.name] else shape
        if node.type in STATEFUL:
            return neuron(node, shape, self.reading)
        if node.type == "Input":
            channels, *size = in_graph(shape)
            return g.Input, dict(channels=channels, size=tuple(size), carries=self.carries, every_step=True)
        if node.type in ("Affine", "Linear"):
            return g.Linear, dict(weight=numbers(node, "weight").astype(np.float64), **_bias_of(node))
        if node.type in ("Conv1d", "Conv2d"):
            return g.Conv, _conv(node)
        if node.type in ("SumPool2d", "AvgPool2d"):
            function = "sum" if node.type == "SumPool2d" else "mean"
            kernel, stride, padding = (integers(node, field, 2, 0) for field in POOL_FIELDS)
            return g.Pool, dict(function=function, kernel=kernel, stride=stride, padding=padding)
        if node.type == "Scale":
            return g.Affine, dict(scale=constant(node, "scale", read), source_parameters=numbers(node, "scale").size)
        if node.type == "Threshold":
            return g.Threshold, dict(threshold=constant(node, "threshold", read))
        if node.type == "Delay":
            return g.Delay, dict(steps=self._delay(node) - (node.name in self.waiting))
        return {"Flatten": g.Flatten, "Output": g.Output}[node.type], {}

    def _delay(self, node: FileNode) -> Array:
        """A Delay in whole steps."""
        steps = constant(node, "delay", self.shapes[node.name]) / self.reading.dt
        whole = np.rint(steps)
        if (whole < 0).any() or not np.allclose(steps, whole, rtol=1e-6, atol=1e-6):  # files hold float32 seconds
            odd = steps[~np.isclose(steps, whole, rtol=1e-6, atol=1e-6) | (whole < 0)].flat[0]
            node.refuse(f"a delay is {odd:g} steps of {self.reading.dt:g} s, expected whole steps; choose another dt")
        return whole


def _bias_of(node: FileNode) -> dict[str, Any]:
    """A bias that changes nothing is none; the file's numbers are the model's parameters."""
    bias, weight = node.fields.get("bias"), numbers(node, "weight")
    if bias is None:
        return dict(source_parameters=weight.size)
    values = numbers(node, "bias")
    if values.shape != weight.shape[:1]:
        node.refuse(f"bias of shape {values.shape}, expected {weight.shape[:1]}")
    return dict(bias=values.astype(np.float64) if values.any() else None, source_parameters=weight.size + values.size)


def _conv(node: FileNode) -> Fields:
    """A Conv1d is a Conv along the width."""
    weight = numbers(node, "weight").astype(np.float64)
    stride, padding, dilation = conv_geometry(node)
    if weight.ndim == 3:
        weight, stride, padding, dilation = weight[:, :, None], (1, *stride), (0, *padding), (1, *dilation)
    groups = integers(node, "groups", 1, 1)[0]
    return dict(weight=weight, stride=stride, padding=padding, dilation=dilation, groups=groups, **_bias_of(node))


def _check_ends(graph: FileGraph) -> None:
    """One Input that nothing leads into, one Output or more that nothing reads."""
    ends = {kind: [name for name, node in graph.nodes.items() if node.type == kind] for kind in ("Input", "Output")}
    if len(ends["Input"]) != 1 or not ends["Output"]:
        found = f"{len(ends['Input'])} Input and {len(ends['Output'])} Output nodes"
        raise NetworkError(
            f"{found}, expected 1 Input and at least 1 Output; nir.read adds missing ones: write it again"
        )
    for source, reader in graph.edges:
        if reader in ends["Input"] or source in ends["Output"]:
            raise NetworkError(f"edge {source} -> {reader}: leads into an Input or out of an Output; take it out")
