"""A chain of layers as one netx file (.net): networks of Loihi's integers that lava.lib.dl.netx runs as a whole.

In: a Network that export/integer/to_loihi.py made. Out: the file. What netx has no layer for, and what is no chain, is
refused: node, found, expected, remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

from export.graph import nodes as g
from export.graph.network import Network, infer_shapes
from export.graph.nodes import NetworkError, Shape


@dataclass(frozen=True)
class Layer:
    """One layer of the file: weights, those from the layer to itself, and the neuron; or a flatten, none of these."""

    node: g.Node
    weights: g.Conv | g.Linear | None = None
    again: g.Linear | None = None


def layers_of(network: Network) -> list[Layer]:
    """The chain, from the input to the output."""
    if network.of(g.Membrane) or len(network.outputs) != 1:
        raise NetworkError(f"netx: {network.name}: {len(network.outputs)} outputs, expected one, of spikes")
    chain: list[Layer] = []
    last = network.input.name
    while not isinstance(_reader(network, last), g.Output):
        layer = _layer_after(network, last)
        chain.append(layer)
        last = layer.node.name
    return chain


def _refuse(node: g.Node, found: str, expected: str, remedy: str) -> NoReturn:
    raise NetworkError(f"netx: {node.name} ({node.kind}): {found}, expected {expected}; {remedy}")


def _reader(network: Network, name: str) -> g.Node:
    """The one node that reads a value, but for the weights from a layer to itself."""
    readers = [network[one] for one in network.readers[name] if name not in network[one].late]
    if len(readers) != 1:
        _refuse(network[name], f"{len(readers)} readers", "one: netx runs chains", "export to NIR or ONNX")
    return readers[0]


def _layer_after(network: Network, last: str) -> Layer:
    node = _reader(network, last)
    if isinstance(node, g.Flatten):
        return Layer(node)
    if not isinstance(node, (g.Conv, g.Linear)):
        _refuse(node, f"a {node.kind} after {last}", "weights, or a flatten", "netx has no such layer; export to NIR")
    reader, again = _reader(network, node.name), None
    if isinstance(reader, g.Add):
        (other,) = (network[name] for name in reader.inputs if name != node.name)
        neuron = _reader(network, reader.name)
        if not (isinstance(other, g.Linear) and other.inputs == (neuron.name,) and neuron.name in other.late):
            _refuse(reader, f"a sum with {other.name}", "weights of the layer's own last spikes", "export to NIR")
        reader, again = neuron, other
    if not isinstance(reader, g.LoihiNeuron):
        _refuse(node, f"read by {reader.name}, a {reader.kind}", "a neuron", "netx has no such layer; export to NIR")
    if again is not None and not isinstance(node, g.Linear):
        _refuse(again, "recurrent weights of a convolution", "of a dense layer", "export to NIR")
    return Layer(reader, node, again)


def write_net(network: Network, path: Path) -> int:
    """Write the file; returns its number of layers of neurons."""
    chain = layers_of(network)
    shapes = infer_shapes(network, *network.probe_size)
    with h5py.File(path, "w") as file:
        first = file.create_group("layer/0")
        first["type"], first["shape"] = np.array([b"input"], "S10"), np.array(shapes[network.input.name][1:], np.int64)
        for number, layer in enumerate(chain):
            _write(file.create_group(f"layer/{number + 1}"), layer, shapes[layer.node.name])
    return sum(layer.weights is not None for layer in chain)


def _write(group: Any, layer: Layer, shape: Shape) -> None:
    group["shape"] = np.array(shape[1:], np.int64)
    if not isinstance(layer.node, g.LoihiNeuron) or layer.weights is None:
        group["type"], group["shape"][...] = np.array([b"flatten"], "S10"), [1, 1, shape[1]]
        return
    weights = layer.weights
    if isinstance(weights, g.Conv):
        group["type"] = np.array([b"conv"], "S10")
        group["inChannels"], group["outChannels"] = weights.weight.shape[1] * weights.groups, len(weights.weight)
        group["kernelSize"], group["groups"] = np.array(weights.weight.shape[2:], np.int64), weights.groups
        for key in ("stride", "padding", "dilation"):
            group[key] = np.array(getattr(weights, key), np.int64)
    else:
        group["type"] = np.array([b"dense_rec" if layer.again is not None else b"dense"], "S10")
        group["inFeatures"], group["outFeatures"] = weights.weight.shape[1], len(weights.weight)
        if layer.again is not None:
            group["weight_rec"] = layer.again.weight.astype(np.int64)
    group["weight"] = weights.weight.astype(np.int64)
    if np.any(layer.node.bias != 0):
        outputs = len(weights.weight)
        group["bias"] = np.broadcast_to(layer.node.bias.reshape(-1), (outputs,)).astype(np.int64)
    neuron = group.create_group("neuron")
    neuron["type"] = np.array([b"CUBA"], "S10")
    neuron["iDecay"], neuron["vDecay"] = layer.node.current_decay, layer.node.membrane_decay
    neuron["vThMant"] = int(layer.node.threshold.reshape(-1)[0])
    neuron["refDelay"], neuron["gradedSpike"] = 1, False
