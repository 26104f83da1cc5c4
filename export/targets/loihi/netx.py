"""Lava-DL netx files: which parts of an integer network netx can hold, and their HDF5 description.

In: an IntegerNetwork and the size of its images. Out: segments (spikes in, spikes out) and one HDF5 file for each, as
`lava.lib.dl.netx.hdf5.Network` reads it; for every other node, the reason why netx cannot hold it. docs/lava_dl.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path

import h5py
import numpy as np

from export.graph.network import Network
from export.graph.nodes import Neuron, Shape, ValueKind, gate_of
from export.integer import operations as ops
from export.integer.network import IntegerNetwork
from export.integer.operations import Operation


@dataclass(frozen=True)
class Layer:
    """A convolution of spikes and the neuron that alone reads its sums: one netx layer."""

    conv: ops.IntegerConv
    neuron: ops.IntegerNeuron


@dataclass(frozen=True)
class Segment:
    """Layers in a row: the spikes of node `source` in, those of the last layer's neuron out. A netx neuron has no gate:
    where the neuron's is shut, the host takes off what it fired."""

    layers: tuple[Layer, ...]

    @property
    def source(self) -> str:
        """The node whose spikes the first layer reads."""
        return self.layers[0].conv.node.inputs[0]

    @property
    def target(self) -> str:
        """The neuron whose spikes come out."""
        return self.layers[-1].neuron.name

    @property
    def gate(self) -> str | None:
        """The gate of what comes out."""
        return gate_of(self.layers[-1].neuron.node)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes inside."""
        return tuple(name for layer in self.layers for name in (layer.conv.name, layer.neuron.name))


def find_segments(integer: IntegerNetwork) -> list[Segment]:
    """All layers that netx holds, in the order of the network; a layer that alone reads another's spikes, all of them,
    joins it."""
    segments: list[Segment] = []
    for operation in integer.operations:
        if not isinstance(operation, ops.IntegerNeuron) or why_not(operation, integer):
            continue
        conv = integer.by_name[operation.node.inputs[0]]
        assert isinstance(conv, ops.IntegerConv)  # why_not has looked
        layer = Layer(conv, operation)
        source = conv.node.inputs[0]
        before = next((segment for segment in segments if segment.target == source), None)
        if before is not None and before.gate is None and len(integer.network.readers[source]) == 1:
            segments[segments.index(before)] = Segment((*before.layers, layer))
        else:
            segments.append(Segment((layer,)))
    return segments


def on_off_pairs(network: Network) -> list[tuple[str, str]]:
    """Names of (ON, OFF): two neurons that read one value, the second with the first's gain negated."""
    pairs = []
    for on in network.of(Neuron):
        for name in network.readers[on.inputs[0]]:
            off = network[name]
            if isinstance(off, Neuron) and np.all(on.gain > 0) and np.array_equal(off.gain, -on.gain):
                pairs.append((on.name, off.name))
    return pairs


@singledispatch
def why_not(operation: Operation, integer: IntegerNetwork) -> str:
    """The reason why netx cannot hold a node; empty if it can."""
    return f"netx has no layer of kind {operation.node.kind}"


@why_not.register
def _(operation: ops.IntegerInput, integer: IntegerNetwork) -> str:
    return "the image, 8-bit pixels: netx segments read spikes"


@why_not.register
def _(operation: ops.IntegerRepeat, integer: IntegerNetwork) -> str:
    return "repeats the frame: the host sends it at every step"


@why_not.register
def _(operation: ops.IntegerConv, integer: IntegerNetwork) -> str:
    if integer.network.kinds[operation.node.inputs[0]] is not ValueKind.SPIKE:
        return "multiplies analog values; netx convolutions read spikes here"
    if not _is_read_by_neurons_alone(operation, integer):
        return "its sums are read as numbers (residual stream); a netx layer gives out its neuron's spikes only"
    readers = integer.network.readers[operation.name]
    if len(readers) > 1:
        return f"{len(readers)} neurons read its sums; a netx layer has one neuron"
    neuron = integer.by_name[readers[0]]
    return why_not(neuron, integer) and f"its neuron {neuron.name} does not fit into a netx layer"


def _is_read_by_neurons_alone(operation: Operation, integer: IntegerNetwork) -> bool:
    return all(isinstance(integer.by_name[name], ops.IntegerNeuron) for name in integer.network.readers[operation.name])


@why_not.register
def _(operation: ops.IntegerNeuron, integer: IntegerNetwork) -> str:
    source = integer.by_name[operation.node.inputs[0]]
    on_off = any(operation.name in pair for pair in on_off_pairs(integer.network))
    half = "half of an ON/OFF pair: " if on_off else ""
    reads_spikes = (
        isinstance(source, ops.IntegerConv) and integer.network.kinds[source.node.inputs[0]] is ValueKind.SPIKE
    )
    if not reads_spikes or not _is_read_by_neurons_alone(source, integer):
        return f"{half}integrates a value of the host; a netx neuron reads its own layer's synapses only"
    if len(integer.network.readers[source.name]) > 1:
        return f"{half}shares the sums of {source.name}; a netx layer has one neuron"
    if operation.rescale is not None:
        return "has a gain; a netx neuron adds its synapses as they are"
    if operation.threshold.size > 1:
        return "has a threshold per channel; a netx layer has one"
    if operation.bias.size > 1 and operation.bias.shape[1:] != (1, 1):
        return "has a bias per pixel; a netx layer has one per channel"
    return ""


@why_not.register
def _(operation: ops.IntegerAdd, integer: IntegerNetwork) -> str:
    return "adds values: netx is sequential and has no sum of two branches"


@why_not.register
def _(operation: ops.IntegerConcat, integer: IntegerNetwork) -> str:
    return "netx raises NotImplementedError for concat"


@why_not.register(ops.IntegerMean)
@why_not.register(ops.IntegerMax)
@why_not.register(ops.IntegerPool)
def _(operation: Operation, integer: IntegerNetwork) -> str:
    return "netx raises NotImplementedError for pool and average"


@why_not.register(ops.IntegerRainMask)
@why_not.register(ops.IntegerFlood)
def _(operation: Operation, integer: IntegerNetwork) -> str:
    return "comparisons of grey levels, or of a number of pixels: the host's"


@why_not.register
def _(operation: ops.IntegerResize, integer: IntegerNetwork) -> str:
    reason = "netx raises NotImplementedError for unpool"
    return reason if operation.node.mode == "nearest" else f"{reason}; bilinear taps are not spikes"


@why_not.register(ops.IntegerMul)
@why_not.register(ops.IntegerSigmoid)
@why_not.register(ops.IntegerRelu)
@why_not.register(ops.IntegerLinear)
def _(operation: Operation, integer: IntegerNetwork) -> str:
    return "attention or refinement: analog values, products and tables, which netx does not have"


@why_not.register
def _(operation: ops.IntegerOutput, integer: IntegerNetwork) -> str:
    return "the derained pixels: netx gives out spikes"


def write_segment(path: Path, segment: Segment, shapes: dict[str, Shape]) -> None:
    """One netx HDF5 file. `shapes` are those of `infer_shapes` for the size of the images."""
    with h5py.File(path, "w") as file:
        for index, layer in enumerate(segment.layers):
            _write_layer(file.create_group(f"layer/{index}"), layer, shapes[layer.neuron.name])


def _write_layer(group: h5py.Group, layer: Layer, shape: Shape) -> None:
    node, neuron = layer.conv.node, layer.neuron
    weight = layer.conv.weight
    group["type"] = np.array([b"conv"], "S10")
    group["shape"] = np.array(shape[1:], np.int64)  # C, H, W
    group["inChannels"] = weight.shape[1] * node.groups
    group["outChannels"] = weight.shape[0]
    group["kernelSize"] = np.array(weight.shape[2:], np.int64)
    for key in ("stride", "padding", "dilation"):
        group[key] = np.array(getattr(node, key), np.int64)
    group["groups"] = node.groups
    group["weight"] = weight.astype(np.int64)
    if np.any(neuron.bias):
        group["bias"] = np.broadcast_to(neuron.bias.reshape(-1), weight.shape[:1]).astype(np.int64)
    cuba = group.create_group("neuron")
    cuba["type"] = np.array([b"CUBA"], "S10")
    cuba["iDecay"] = neuron.current_decay + 1  # the loader takes du = iDecay - 1
    cuba["vDecay"] = neuron.membrane_decay
    cuba["vThMant"] = int(neuron.threshold.reshape(-1)[0])
    cuba["refDelay"] = 1
    cuba["gradedSpike"] = False
