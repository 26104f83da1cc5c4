"""NIR graphs, built explicitly: a segment of a Network as stock NIR primitives, a whole Network with extension nodes.

In: a Network, its shapes, and which nodes. Out: an NIRSpec: node types, fields and edges as they go into the file. LIF
parameters fill arrays of (C, H, W) and stay unexpanded here (`Filled`), so that a large graph costs little memory.

A neuron with a gate is a LIF that a convolution of the gate inhibits, so strongly that it never fires where that is 0.
A sum is two edges into the node that reads it; no node has more than two, and an Output has one. Values that share one
Input or Output, and concatenations, are channel-selecting 1x1 convolutions: multiplications by 1 and 0, so exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, singledispatch
from math import ceil, log2
from typing import Any

import numpy as np

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError, Shape, gate_of
from export.graph.rounding import peaks
from export.targets.nir.segments import Step

DT_S = 1e-4  # seconds per step: what snnTorch and spikingjelly assume when they import
DRIVE = ".drive"  # the convolution before a LIF that holds its gain and bias
SHUT = ".shut"  # the one that inhibits a LIF where its gate is 0


@dataclass(frozen=True)
class Filled:
    """An array of `shape` that repeats `values`, which broadcast to it; the writer never expands it whole."""

    shape: tuple[int, ...]
    values: Array


@dataclass(frozen=True)
class SpecNode:
    """One node of a file: its NIR type, and its datasets by name."""

    type: str
    fields: dict[str, Any]


@dataclass
class NIRSpec:
    """Nodes and edges of one graph, in the order they were added."""

    nodes: dict[str, SpecNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, node: SpecNode, sources: Sequence[str] = ()) -> str:
        """Append a node that reads the sum of `sources`. Importers replace '.' by '_': names must differ after that."""
        if name.replace(".", "_") in {known.replace(".", "_") for known in self.nodes}:
            raise NetworkError(f"NIR: {name}: used twice in one graph (importers read '.' as '_'); rename the node")
        self.nodes[name] = node
        self.edges += [(source, name) for source in dict.fromkeys(sources)]
        return name


def encode_lif(node: g.Neuron) -> dict[str, Array]:
    """NIR parameters of a neuron, float64, such that NIR's forward Euler step at DT_S is the neuron's.

    With H the neuron's membrane before reset, NIR's v is (1 - beta) H: v = (1 - dt/tau) v + (dt/tau) r x, tau =
    dt / (1 - beta), r = 1, so v_threshold = (1 - beta) threshold. NIR fires at '>'; for a neuron that fires at '>=' the
    threshold is the next float64 below. Exact where 1 - beta is a power of two (ESDNet: 0.5). Elsewhere the quotient
    dt/tau that a reader computes may be another float64 than 1 - beta; the threshold is scaled by that quotient.
    """
    scale = 1.0 - node.membrane_decay
    threshold = np.asarray(node.threshold * (DT_S / (DT_S / scale)), np.float64)
    if node.fires == ">=":
        threshold = np.nextafter(threshold, -np.inf)
    one = np.ones(())
    return {"tau": one * (DT_S / scale), "r": one, "v_leak": one * 0.0, "v_reset": one * 0.0, "v_threshold": threshold}


def conv2d(weight: Array, size: tuple[int, int], bias: Array | None = None, node: g.Conv | None = None) -> SpecNode:
    """A Conv2d on frames of `size`; geometry of `node`, or a plain one. Importers need a bias, so there is one."""
    pairs = [(1, 1), (0, 0), (1, 1)] if node is None else [node.stride, node.padding, node.dilation]
    stride, padding, dilation = (np.array(pair, np.int64) for pair in pairs)
    return SpecNode(
        "Conv2d",
        {
            "input_shape": np.array(size, np.int64),
            "weight": weight,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": 1,
            "bias": np.zeros(len(weight)) if bias is None else bias,
        },
    )


def segment_graph(network: Network, step: Step, shapes: dict[str, Shape]) -> NIRSpec:
    """One segment as stock primitives, Input -> ... -> Output; values joined along the channels in the step's order."""
    builder = _Builder(network, shapes)
    channels = sum(shapes[name][1] for name in step.inputs)
    size = shapes[step.inputs[0]][2:]
    builder.spec.add("input", SpecNode("Input", {"shape": np.array([channels, *size], np.int64)}))
    start = 0
    for name in step.inputs:
        builder.sources[name] = ["input"]
        if len(step.inputs) > 1:
            stop = start + shapes[name][1]
            selecting = conv2d(np.eye(channels)[start:stop, :, None, None], size)
            builder.sources[name] = [builder.spec.add(f"{name}.selected", selecting, ["input"])]
            start = stop
    for name in step.nodes:
        builder.sources[name] = add_stock(network[name], builder)
    shape = (sum(shapes[name][1] for name in step.outputs), *shapes[step.outputs[0]][2:])
    if len(step.outputs) == 1:
        source = builder.single(step.outputs[0])
    else:
        source = builder.merge("output.joined", shape, builder.join("output", step.outputs))
    builder.spec.add("output", SpecNode("Output", {"shape": np.array(shape, np.int64)}), [source])
    return builder.spec


@lru_cache(maxsize=8)
def _peaks(network: Network) -> dict[str, float]:
    return peaks(network)


class _Builder:
    """Grows one spec. `sources`: for each value of the Network, the one or two NIR nodes whose sum it is."""

    def __init__(self, network: Network, shapes: dict[str, Shape]) -> None:
        self.network, self.shapes = network, shapes
        self.spec = NIRSpec()
        self.sources: dict[str, list[str]] = {}

    def single(self, value: str) -> str:
        """The one NIR node that holds a value; a pending sum becomes one."""
        self.sources[value] = [self.merge(f"{value}.joined", self.shapes[value][1:], self.sources[value])]
        return self.sources[value][0]

    def inhibition(self, node: g.Neuron) -> float:
        """What keeps a neuron silent, whatever the image: a power of two, twice what could make its membrane reach the
        threshold from 0. With it no membrane is ever above 0, so that none is carried on either."""
        drive = float(np.abs(node.gain).max()) * _peaks(self.network)[node.inputs[0]] + float(np.abs(node.bias).max())
        return float(2.0 ** ceil(log2(2 * (drive + float(np.abs(node.threshold).max())))))

    def merge(self, name: str, shape: tuple[int, ...], sources: list[str]) -> str:
        """One node that holds the sum of the sources, (C, H, W): the source itself, or an identity 1x1 convolution."""
        if len(sources) == 1:
            return sources[0]
        channels, height, width = shape
        return self.spec.add(name, conv2d(np.eye(channels)[:, :, None, None], (height, width)), sources)

    def join(self, name: str, parts: Sequence[str]) -> list[str]:
        """The parts one after another along the channels, as a sum of channel-placing 1x1 convolutions."""
        total = sum(self.shapes[part][1] for part in parts)
        height, width = self.shapes[parts[0]][2:]
        sources: list[str] = []
        start = 0
        for index, part in enumerate(parts):
            stop = start + self.shapes[part][1]
            if len(sources) == 2:
                sources = [self.merge(f"{name}.first{index}", (total, height, width), sources)]
            placing = conv2d(np.eye(total)[:, start:stop, None, None], (height, width))
            sources.append(self.spec.add(f"{name}.part{index}", placing, self.sources[part]))
            start = stop
        return sources


@singledispatch
def add_stock(node: g.Node, builder: _Builder) -> list[str]:
    """Add a node as stock primitives; returns the NIR nodes whose sum is its value. Unknown kinds are refused."""
    raise NetworkError(f"NIR: {node.name} ({node.kind}): no stock form; add one to export/targets/nir/graph.py")


@add_stock.register
def _(node: g.Conv, builder: _Builder) -> list[str]:
    size = builder.shapes[node.inputs[0]][2:]
    return [builder.spec.add(node.name, conv2d(node.weight, size, node.bias, node), builder.sources[node.inputs[0]])]


@add_stock.register
def _(node: g.Neuron, builder: _Builder) -> list[str]:
    shape, gate = builder.shapes[node.name][1:], gate_of(node)
    sources = builder.sources[node.inputs[0]] if gate is None else [builder.single(node.inputs[0])]
    if np.any(node.gain != 1.0) or np.any(node.bias != 0.0):  # importers read only r = 1
        drive = diagonal(node.gain, node.bias, shape)
        sources = [builder.spec.add(node.name + DRIVE, drive, sources)]
    if gate is not None:
        inhibition = inhibiting(builder.inhibition(node), shape)
        sources.append(builder.spec.add(node.name + SHUT, inhibition, builder.sources[gate]))
    parameters = {key: Filled(shape, value) for key, value in encode_lif(node).items()}
    return [builder.spec.add(node.name, SpecNode("LIF", parameters), sources)]


@add_stock.register
def _(node: g.Affine, builder: _Builder) -> list[str]:
    shape = builder.shapes[node.name][1:]
    return [builder.spec.add(node.name, diagonal(node.scale, node.offset, shape), builder.sources[node.inputs[0]])]


@add_stock.register
def _(node: g.Add, builder: _Builder) -> list[str]:
    left, right = (builder.single(name) for name in node.inputs)
    if left != right:
        return [left, right]
    doubling = diagonal(np.full((), 2.0), np.zeros(()), builder.shapes[node.name][1:])
    return [builder.spec.add(node.name, doubling, [left])]


@add_stock.register
def _(node: g.Concat, builder: _Builder) -> list[str]:
    return builder.join(node.name, node.inputs)


def inhibiting(strength: float, shape: tuple[int, ...]) -> SpecNode:
    """strength * gate - strength in every channel: nothing where the gate is 1, to the last bit."""
    channels, height, width = shape
    return conv2d(np.full((channels, 1, 1, 1), strength), (height, width), np.full(channels, -strength))


def diagonal(scale: Array, offset: Array, shape: tuple[int, ...]) -> SpecNode:
    """scale * x + offset per channel, as a dense 1x1 convolution (nir cannot read a grouped one back)."""
    channels, height, width = shape
    scales, offsets = (np.broadcast_to(value.reshape(-1), (channels,)) for value in (scale, offset))
    return conv2d(np.diag(scales)[:, :, None, None], (height, width), np.array(offsets))
