"""A whole network as one stock .nir file: for networks of any reader, all of whose nodes NIR has a form for.

In: a Network. Out: the file, every node under its name, edges for sums, cycles as they are. What NIR cannot say exactly
is refused: node, what was found, what was expected, what to do.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from export.graph import nodes as g
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Array, NetworkError, Shape
from export.graph.rules import refuse_gates
from export.targets.nir.graph import DT_S, NIRSpec, SpecNode, conv2d, diagonal, encode_lif
from export.targets.nir.write import write_graph

IMAGES = (g.Conv, g.Pool)  # what reads (C, H, W)


def write_file(network: Network, path: Path) -> int:
    """Write the file; returns its number of nodes. NetworkError names the first node that NIR has no exact form for."""
    spec = stock_spec(network)
    write_graph(path, spec, {"dt": DT_S})
    return len(spec.nodes)


def stock_spec(network: Network) -> NIRSpec:
    """All nodes as stock primitives."""
    refuse_gates(network, "NIR, one file")
    writer = _Writer(network)
    for node in network.nodes:
        writer.sources[node.name] = add(node, writer)
    for node in network.nodes:
        if node.name in writer.spec.nodes:
            writer.connect(node)
    writer.lengthen_loops()
    return writer.spec


class _Writer:
    """Grows the file. `sources`: the NIR nodes whose sum is the value of a node: one, or several behind an Add."""

    def __init__(self, network: Network) -> None:
        self.network, self.spec = network, NIRSpec()
        self.shapes = infer_shapes(network, *network.probe_size)
        self.vectors = _vectors(network, self.shapes)
        self.sources: dict[str, list[str]] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value as NIR has it: (N,), (C, L) or (C, H, W)."""
        channels, height, width = self.shapes[name][1:]
        return (channels,) if name in self.vectors else (channels, height, width)

    def add(self, node: g.Node, kind: str, **fields: Any) -> list[str]:
        """A node of the file under the node's own name; its edges come when all nodes are there."""
        self.spec.add(node.name, SpecNode(kind, fields))
        return [node.name]

    def whole(self, node: g.Node, array: Array) -> Array:
        """A parameter for every element, in the shape of the node's value."""
        return np.broadcast_to(array, self.shapes[node.name][1:]).reshape(self.shape(node.name)).copy()

    def connect(self, node: g.Node) -> None:
        """The edges into a node, from everything whose sum it reads."""
        if node.late and isinstance(node, (g.Conv, g.Linear)) and node.bias is not None and np.any(node.bias != 0):
            refuse(
                node, f"a bias on what it reads of {node.late[0]} a step before",
                "none: NIR does not say whether it is there at the first step",
                "set it to 0, and add it before the neuron",
            )  # fmt: skip
        name = node.name
        if isinstance(node, g.Output) and len(self._terms(node.inputs[0])) > 1:
            name = self._whole_sum(node)
        for value in node.inputs:
            for source in self._terms(value):
                if (source, name) in self.spec.edges:
                    refuse(node, f"reads {source} twice", "one edge", "add it up before, by a factor of 2")
                self.spec.edges.append((source, name))

    def _whole_sum(self, node: g.Output) -> str:
        """A node that changes nothing, for the sum that an Output reads: importers add up nothing into an Output."""
        name, shape = f"{node.name}.sum", self.shape(node.name)
        if node.name in self.vectors:
            self.spec.add(name, SpecNode("Flatten", _flat(shape)))
        else:
            self.spec.add(name, diagonal(np.ones(()), np.zeros(()), shape))
        self.spec.edges.append((name, node.name))
        return name

    def reads_late(self, node: g.Node) -> set[bool]:
        """Of everything whose sum a node reads: whether it is read late."""
        found = set()
        for value in node.inputs:
            added = isinstance(self.network[value], g.Add) and value not in node.late
            found |= self.reads_late(self.network[value]) if added else {value in node.late}
        return found

    def lengthen_loops(self) -> None:
        """A Flatten of a vector, which does nothing, between a neuron and the matrix from it to itself: snnTorch's
        importer makes a layer of its own of the two alone, and cannot run it."""
        for neuron, matrix in [edge for edge in self.spec.edges if edge[::-1] in self.spec.edges]:
            to, kind = self.spec.nodes[matrix], self.spec.nodes[neuron].type
            if kind in ("LIF", "CubaLIF") and to.type in ("Affine", "Linear"):
                place = self.spec.edges.index((neuron, matrix))
                fields = _flat(to.fields["weight"].shape[1:])
                name = self.spec.add(f"{matrix}.flat", SpecNode("Flatten", fields))
                self.spec.edges[place : place + 1] = [(neuron, name), (name, matrix)]

    def _terms(self, value: str) -> list[str]:
        node = self.network[value]
        if not isinstance(node, g.Add):
            return self.sources[value]
        if node.late:
            readers = ", ".join(self.network.readers[value])
            if any(isinstance(self.network[reader], g.Add) for reader in self.network.readers[value]):
                refuse(node, f"{node.late[0]} read late into a sum that {readers} adds to", "one sum", "join the sums")
        return [term for one in node.inputs for term in self._terms(one)]


def _vectors(network: Network, shapes: dict[str, Shape]) -> set[str]:
    """Values that are vectors: what matrices and Flatten make, what they read, and what is made of these one by one."""
    found = {node.name for node in network.nodes if isinstance(node, (g.Linear, g.Flatten))}
    images = {name for node in network.nodes if isinstance(node, IMAGES) for name in (node.name, *node.inputs)}
    changed = True
    while changed:
        changed = False
        for node in network.nodes:
            alike = {node.name, *node.inputs} if not isinstance(node, (g.Linear, g.Flatten)) else {node.name}
            alike |= set(node.inputs) if isinstance(node, g.Linear) else set()
            if alike & found and not isinstance(node, IMAGES) and not alike <= found:
                found |= alike
                changed = True
    flat = {name for name, (_, _, height, width) in shapes.items() if height == width == 1}
    alone = flat - images if network.input.size == (1, 1) else set()
    return (found | alone) - images


def refuse(node: g.Node, found: str, expected: str, remedy: str) -> NoReturn:
    """One line: node, found, expected, remedy."""
    raise NetworkError(f"NIR: {node.name} ({node.kind}): {found}, expected {expected}; {remedy}")


@singledispatch
def add(node: g.Node, writer: _Writer) -> list[str]:
    """Add a node of the graph; returns the nodes of the file whose sum is its value. Unknown kinds are refused."""
    raise NetworkError(f"NIR: {node.name} ({node.kind}): NIR has no such node; leave it out, or export to ONNX")


@add.register
def _(node: g.Input, writer: _Writer) -> list[str]:
    return writer.add(node, "Input", shape=np.array(writer.shape(node.name), np.int64))


@add.register
def _(node: g.Output, writer: _Writer) -> list[str]:
    return writer.add(node, "Output", shape=np.array(writer.shape(node.name), np.int64))


@add.register(g.Add)
@add.register(g.Repeat)
def _(node: g.Node, writer: _Writer) -> list[str]:
    """A sum is edges; the same frame at every step is what the file is given."""
    return [] if isinstance(node, g.Add) else writer.sources[node.inputs[0]]


@add.register
def _(node: g.Conv, writer: _Writer) -> list[str]:
    if node.groups != 1:
        refuse(node, f"{node.groups} groups", "one: nir 1.0 cannot read grouped convolutions back", "make it dense")
    node = _square(node)
    fields = conv2d(node.weight, writer.shapes[node.inputs[0]][2:], node.bias, node).fields
    return writer.add(node, "Conv2d", **fields)


def _square(node: g.Conv) -> g.Conv:
    """The same with a square kernel, zeros around the narrower side: nir 1.0 takes the height for the width too."""
    kernel = np.array(node.weight.shape[2:])
    missing = kernel.max() - kernel
    if np.any(missing % 2):
        refuse(node, f"a kernel of {tuple(kernel.tolist())}", "a square one, as nir 1.0", "pad its weight with zeros")
    around = missing // 2
    weight = np.pad(node.weight, ((0, 0), (0, 0), *((side, side) for side in around)))
    height, width = (np.array(node.padding) + around * node.dilation).tolist()
    return replace(node, weight=weight, padding=(height, width))


@add.register
def _(node: g.Linear, writer: _Writer) -> list[str]:
    if node.axis != "C" or node.inputs[0] not in writer.vectors:
        refuse(node, f"a matrix along {node.axis} of {writer.shape(node.inputs[0])}", "a vector", "flatten before it")
    if node.bias is None:
        return writer.add(node, "Linear", weight=node.weight)
    return writer.add(node, "Affine", weight=node.weight, bias=node.bias)


@add.register
def _(node: g.Affine, writer: _Writer) -> list[str]:
    """A diagonal matrix or 1x1 convolution, where one can be it: importers know no Scale."""
    shape = (1, *writer.shapes[node.name][1:])
    scale, offset = (np.broadcast_to(value, shape)[0] for value in (node.scale, node.offset))
    if node.name in writer.vectors:
        return writer.add(node, "Affine", weight=np.diag(scale.ravel()), bias=offset.ravel().copy())
    if np.any(scale != scale[:, :1, :1]) or np.any(offset != offset[:, :1, :1]):
        if np.any(offset != 0):
            refuse(node, "factors and offsets that vary over the pixels", "one a channel", "flatten before it")
        return writer.add(node, "Scale", scale=scale.copy())
    fields = diagonal(scale[:, 0, 0], offset[:, 0, 0], scale.shape).fields
    return writer.add(node, "Conv2d", **fields)


@add.register
def _(node: g.Flatten, writer: _Writer) -> list[str]:
    return writer.add(node, "Flatten", **_flat(writer.shape(node.inputs[0])))


def _flat(shape: tuple[int, ...]) -> dict[str, Any]:
    """All axes of `shape`, counted from the last: importers put a batch axis before them."""
    return {"start_dim": -len(shape), "end_dim": -1, "input_type": np.array(shape, np.int64)}


@add.register
def _(node: g.Pool, writer: _Writer) -> list[str]:
    if node.function == "max":
        refuse(node, "a maximum", "a sum or a mean", "pool by nn.AvgPool2d, or by the stride of a convolution")
    geometry = {"kernel_size": node.kernel, "stride": node.stride, "padding": node.padding}
    kind = "SumPool2d" if node.function == "sum" else "AvgPool2d"
    return writer.add(node, kind, **{key: np.array(value, np.int64) for key, value in geometry.items()})


@add.register
def _(node: g.Threshold, writer: _Writer) -> list[str]:
    return writer.add(node, "Threshold", threshold=writer.whole(node, node.threshold))


@add.register
def _(node: g.Delay, writer: _Writer) -> list[str]:
    """One that reads everything late waits a step less than the file says: it closes a cycle by itself."""
    waits = writer.reads_late(node) == {True}
    return writer.add(node, "Delay", delay=writer.whole(node, node.steps + waits) * DT_S)


@add.register
def _(node: g.Neuron, writer: _Writer) -> list[str]:
    plain = node.reset == "to" and not node.reset_value and not node.current_decay and node.membrane_decay < 1
    if not plain or np.any(node.gain != 1) or np.any(node.bias != 0):
        refuse(node, "a gain, bias, current, or other reset", "a LIF that resets to 0", "export the checkpoint itself")
    return writer.add(node, "LIF", **{key: writer.whole(node, value) for key, value in encode_lif(node).items()})


@add.register
def _(node: g.Euler, writer: _Writer) -> list[str]:
    return writer.add(node, _type(node, "LI", "I", "CubaLI"), **_equations(node, writer))


@add.register
def _(node: g.EulerNeuron, writer: _Writer) -> list[str]:
    if node.reset != "to":
        refuse(node, "a reset by subtraction", "a reset to v_reset", "read the file with --reset v_reset")
    fields = _equations(node, writer) | {"v_threshold": writer.whole(node, _exceeded(node, node.threshold))}
    return writer.add(node, _type(node, "LIF", "IF", "CubaLIF"), **fields, v_reset=writer.whole(node, node.v_reset))


def _exceeded(node: g.Spiking, threshold: Array) -> Array:
    """The threshold that a neuron which fires has exceeded: NIR fires at '>'."""
    return np.nextafter(threshold, -np.inf) if node.fires == ">=" else threshold


def _type(node: g.Euler, leaky: str, plain: str, current: str) -> str:
    """Its type: of a membrane that leaks, of one that does not, of one behind a current."""
    if node.dt != DT_S:
        refuse(node, f"steps of {node.dt:g} s", f"{DT_S:g} s, which importers assume", f"read it with --dt {DT_S:g}")
    if node.tau_syn is not None and node.tau is None:
        refuse(node, "a current and no leak", "both or neither", "give it a tau_mem")
    return current if node.tau_syn is not None else leaky if node.tau is not None else plain


def _equations(node: g.Euler, writer: _Writer) -> dict[str, Array]:
    """The parameters of its membrane. Without a leak r is 1 / dt for 1: v + x to all importers but snnTorch's, which
    refuses it, and would read an IF of r = 1 as a neuron that leaks."""
    if node.tau is None:
        return {"r": writer.whole(node, np.full((), 1 / DT_S) if np.all(node.r == 1) else node.r)}
    fields = {"r": writer.whole(node, node.r), "v_leak": writer.whole(node, node.v_leak)}
    if node.tau_syn is None:
        return fields | {"tau": writer.whole(node, node.tau)}
    fields |= {"tau_syn": writer.whole(node, node.tau_syn), "tau_mem": writer.whole(node, node.tau)}
    return fields | {"w_in": writer.whole(node, node.w_in)}


@add.register
def _(node: g.Leaky, writer: _Writer) -> list[str]:
    """tau = dt / (1 - beta), r = 1: NIR's v is (1 - beta) U, since norse knows no other r. At beta 1 an IF. Behind a
    current r = tau / dt, so v is U: snnTorch and spikingjelly know no other r there."""
    at_once = node.reset in ("zero", "erase") and not node.delayed and np.all(node.threshold >= 0)
    if not at_once or np.any(node.gain != 1):
        refuse(
            node, f"reset {node.reset!r}{', a step later' if node.delayed else ''}", "to zero at once, as NIR has it",
            "train with reset_mechanism='zero', reset_delay=False, or export to ONNX",
        )  # fmt: skip
    perfect = node.beta >= 1
    if np.any(perfect) and (np.any(node.beta != 1) or node.current_decay is not None):
        refuse(node, "beta of 1 beside others or a current", "below 1, or 1 for all of a plain neuron", "lower beta")
    zero = writer.whole(node, np.zeros(()))
    if np.all(perfect):
        threshold = writer.whole(node, _exceeded(node, node.threshold))
        return writer.add(node, "IF", r=zero + 1 / DT_S, v_threshold=threshold, v_reset=zero)
    tau = writer.whole(node, _time_constant(node.beta))
    fields = {"v_leak": zero, "v_reset": zero}
    if node.current_decay is None:
        threshold = writer.whole(node, node.threshold) * (DT_S / tau)
        return writer.add(node, "LIF", tau=tau, r=zero + 1, v_threshold=_exceeded(node, threshold), **fields)
    tau_syn = writer.whole(node, _time_constant(node.current_decay))
    fields |= {"v_threshold": writer.whole(node, _exceeded(node, node.threshold))}
    return writer.add(node, "CubaLIF", tau_mem=tau, tau_syn=tau_syn, r=tau / DT_S, w_in=tau_syn / DT_S, **fields)


def _time_constant(decay: Array) -> Array:
    """dt / (1 - decay), or a float64 some ulps above it, at which dt / tau and dt (1 / tau) round alike: importers
    compute either, and an input at the threshold is to be at the threshold in all of them."""
    tau = DT_S / (1 - decay)
    for _ in range(8):  # three suffice for 100,000 decays drawn at random
        tau = np.where(DT_S / tau == DT_S * (1 / tau), tau, np.nextafter(tau, np.inf))
    return tau
