"""The layer graph as an ONNX model: LIF neurons as primitive operators over T explicit steps, any height and width.

In: a Network and a precision. Out: an ONNX ModelProto whose values bear the names of the network's nodes; spikes are 0
and 1 of the graph's own precision. It pads the image as torch does, so that every size of image runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import singledispatch
from itertools import product
from math import floor
from typing import Literal

import numpy as np
import onnx
from onnx import helper

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import AXES, Array, NetworkError, gate_of
from export.targets.onnx.graph import END, Graph, Precision
from export.targets.onnx.rain_mask import emit_rain_mask

OPSET = 18
IR_VERSION = 8  # of ONNX 1.13, the first with this opset
GIVEN = "/given"  # behind the name of a value that `opened` takes from outside


def to_model(network: Network, precision: Precision = "float32") -> onnx.ModelProto:
    """The network as an ONNX model: image (1, 3, H, W) in [0, 1] in, its output (T or 1, C, H, W), of `precision`.

    float64 is for exact comparison: ONNX Runtime has no Conv kernel for it, so convolutions are written as slices and
    one product of matrices. NetworkError names a node that has no rule.
    """
    graph = Graph(network, precision)
    for node in network.nodes:
        graph.values[node.name] = emit_gated(node, graph, [graph.values[name] for name in node.inputs])
    frames, outputs, _, _ = graph.shapes[network.output.name]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            network.name,
            [
                helper.make_tensor_value_info(
                    network.input.name, graph.element, [1, network.input.channels, "height", "width"]
                )
            ],
            [helper.make_tensor_value_info(network.output.name, graph.element, [frames, outputs, "height", "width"])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="esdnet-deploy",
    )
    facts = {"steps": network.steps, "precision": precision, "parameters": network.model_parameters}
    helper.set_model_props(model, {key: str(value) for key, value in facts.items()})
    return model


def exposed(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy that also gives out the values of these names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    element = copy.graph.output[0].type.tensor_type.elem_type
    there = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, element, [None] * 4) for name in names if name not in there
    )
    return copy


def opened(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy cut open at these values: each is given out, and whoever reads it reads the input NAME/given instead."""
    copy = exposed(model, names)
    element = copy.graph.output[0].type.tensor_type.elem_type
    given = {name: name + GIVEN for name in names}
    for node in copy.graph.node:
        node.input[:] = [given.get(name, name) for name in node.input]
    copy.graph.input.extend(helper.make_tensor_value_info(name, element, [None] * 4) for name in given.values())
    return copy


def emit_gated(node: g.Node, graph: Graph, inputs: Sequence[str]) -> str:
    """Add the operators of one node; behind a gate it runs everywhere as NAME/free, and its value is times the gate."""
    if gate_of(node) is None:
        return emit(node, graph, inputs)
    free = emit(replace(node, name=f"{node.name}/free", inputs=node.inputs[:1]), graph, inputs[:1])
    return graph.op("Mul", [free, inputs[1]], node.name)


@singledispatch
def emit(node: g.Node, graph: Graph, inputs: Sequence[str]) -> str:
    """Add the operators of one node; returns the name of its value. A kind without a rule is refused."""
    raise NetworkError(
        f"ONNX: {node.name} ({node.kind}): no rule for this kind; add one to export/targets/onnx/write.py"
    )


@emit.register
def _(node: g.Input, graph: Graph, inputs: Sequence[str]) -> str:
    """The image, its last row and column repeated until `size_multiple` divides its sides."""
    if graph.network.size_multiple == 1:
        return node.name
    size = graph.op("Shape", [node.name], f"{node.name}/size", start=2, end=4)
    multiple = graph.integers(f"{node.name}/multiple", [graph.network.size_multiple])
    missing = graph.op("Neg", [size], f"{node.name}/negative")
    missing = graph.op("Mod", [missing, multiple], f"{node.name}/missing")  # takes the sign of `multiple`
    pads = graph.op("Concat", [graph.integers(f"{node.name}/none", [0] * 6), missing], f"{node.name}/pads", axis=0)
    return graph.op("Pad", [node.name, pads], f"{node.name}/padded", mode="edge")


@emit.register
def _(node: g.Output, graph: Graph, inputs: Sequence[str]) -> str:
    """The result, cut back to the size of the image."""
    image = graph.network.input.name
    size = graph.op("Shape", [image], f"{node.name}/size", start=2, end=4)
    start, axes = graph.integers(f"{node.name}/start", [0, 0]), graph.integers(f"{node.name}/axes", [2, 3])
    return graph.op("Slice", [inputs[0], start, size, axes], node.name)


@emit.register
def _(node: g.Repeat, graph: Graph, inputs: Sequence[str]) -> str:
    shape = graph.integers(f"{node.name}/shape", [graph.network.steps, 1, 1, 1])
    return graph.op("Expand", [inputs[0], shape], node.name)


@emit.register
def _(node: g.Conv, graph: Graph, inputs: Sequence[str]) -> str:
    if graph.dtype == np.float64:
        return _conv_as_product(node, graph, inputs[0])
    constants = [graph.number(f"{node.name}/weight", node.weight)]
    if node.bias is not None:
        constants.append(graph.number(f"{node.name}/bias", node.bias))
    return graph.op(
        "Conv", [inputs[0], *constants], node.name,
        strides=node.stride, pads=node.padding * 2, dilations=node.dilation, group=node.groups,
    )  # fmt: skip


def _conv_as_product(node: g.Conv, graph: Graph, x: str) -> str:
    """The convolution as one product of matrices: its taps, shifted copies of the input, joined along the channels."""
    padded = graph.pad(x, f"{node.name}/padded", node.padding, node.padding, "constant")
    kernel = node.weight.shape[2:]
    taps = []
    for tap in product(*map(range, kernel)):
        spans = []
        for position, size, stride, dilation in zip(tap, kernel, node.stride, node.dilation, strict=True):
            beyond = dilation * (size - 1 - position)
            spans.append((dilation * position, -beyond if beyond else END, stride))
        taps.append(graph.slice(padded, f"{node.name}/tap{tap[0]}.{tap[1]}", [2, 3], spans))
    joined = graph.op("Concat", taps, f"{node.name}/taps", axis=1)
    dense = _without_groups(node)
    matrix = graph.number(f"{node.name}/weight", dense.transpose(0, 2, 3, 1).reshape(len(dense), -1))
    product_name = node.name if node.bias is None else f"{node.name}/product"
    result = graph.op("Einsum", [matrix, joined], product_name, equation="oc,tchw->tohw")
    if node.bias is None:
        return result
    return graph.op("Add", [result, graph.number(f"{node.name}/bias", node.bias[:, None, None])], node.name)


def _without_groups(node: g.Conv) -> Array:
    """The weight (O, I, kH, kW) over all input channels, zero where a group does not reach."""
    outputs, width = node.weight.shape[0] // node.groups, node.weight.shape[1]
    dense = np.zeros((node.weight.shape[0], width * node.groups, *node.weight.shape[2:]))
    for group in range(node.groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        dense[rows, group * width : (group + 1) * width] = node.weight[rows]
    return dense


@emit.register
def _(node: g.Linear, graph: Graph, inputs: Sequence[str]) -> str:
    equation = "oc,tchw->tohw" if node.axis == "C" else "ot,tchw->ochw"
    name = node.name if node.bias is None else f"{node.name}/product"
    result = graph.op("Einsum", [graph.number(f"{node.name}/weight", node.weight), inputs[0]], name, equation=equation)
    if node.bias is None:
        return result
    shape = [-1 if axis == node.axis else 1 for axis in AXES]
    return graph.op("Add", [result, graph.number(f"{node.name}/bias", node.bias.reshape(shape))], node.name)


@emit.register
def _(node: g.Neuron, graph: Graph, inputs: Sequence[str]) -> str:
    """All its steps written out. Exact at the threshold: GreaterOrEqual, with it in the graph's own precision."""
    compare = "GreaterOrEqual" if node.fires == ">=" else "Greater"
    threshold = graph.number(f"{node.name}/threshold", node.threshold)
    spikes: list[str] = []
    current = kept = ""  # there is none before the first step
    for step in range(graph.shapes[node.inputs[0]][0]):
        at = f"{node.name}/step{step}"
        x = graph.slice(inputs[0], f"{at}/x", [0], [(step, step + 1, 1)])
        current = _plus_kept(node, graph, "current", x, current, at)
        membrane = _plus_kept(node, graph, "membrane", _drive(node, graph, current, at), kept, at)
        fired = graph.op(compare, [membrane, threshold], f"{at}/fired")
        spikes.append(graph.op("Cast", [fired], f"{at}/spikes", to=graph.element))
        reset = graph.number(f"{node.name}/reset", node.reset_value)
        if node.reset == "to":
            kept = graph.op("Where", [fired, reset, membrane], f"{at}/after")
        else:
            kept = graph.op("Sub", [membrane, graph.op("Mul", [spikes[-1], reset], f"{at}/taken")], f"{at}/after")
    return graph.op("Concat", spikes, node.name, axis=0)


def _plus_kept(node: g.Neuron, graph: Graph, what: Literal["current", "membrane"], x: str, kept: str, at: str) -> str:
    """x + decay * kept for the neuron's current or membrane; x itself where nothing is kept."""
    decay = node.current_decay if what == "current" else node.membrane_decay
    if not kept or not decay:
        return x
    share = graph.op("Mul", [kept, graph.number(f"{node.name}/{what}_decay", decay)], f"{at}/{what}_kept")
    return graph.op("Add", [x, share], f"{at}/{what}")


def _drive(node: g.Neuron, graph: Graph, current: str, at: str) -> str:
    """gain * current + bias, leaving out what changes nothing."""
    if np.any(node.gain != 1.0):
        current = graph.op("Mul", [current, graph.number(f"{node.name}/gain", node.gain)], f"{at}/gained")
    if np.any(node.bias != 0.0):
        current = graph.op("Add", [current, graph.number(f"{node.name}/bias", node.bias)], f"{at}/biased")
    return current


@emit.register(g.Add)
@emit.register(g.Mul)
def _(node: g.Node, graph: Graph, inputs: Sequence[str]) -> str:
    return graph.op(type(node).__name__, inputs, node.name)


@emit.register
def _(node: g.Affine, graph: Graph, inputs: Sequence[str]) -> str:
    scaled = graph.op("Mul", [inputs[0], graph.number(f"{node.name}/scale", node.scale)], f"{node.name}/scaled")
    return graph.op("Add", [scaled, graph.number(f"{node.name}/offset", node.offset)], node.name)


@emit.register
def _(node: g.Concat, graph: Graph, inputs: Sequence[str]) -> str:
    return graph.op("Concat", inputs, node.name, axis=1)


@emit.register
def _(node: g.Reduce, graph: Graph, inputs: Sequence[str]) -> str:
    axes = graph.integers(f"{node.name}/axes", [AXES.index(axis) for axis in node.axes])
    return graph.op("ReduceMean" if node.function == "mean" else "ReduceMax", [inputs[0], axes], node.name)


@emit.register
def _(node: g.Activation, graph: Graph, inputs: Sequence[str]) -> str:
    return graph.op("Relu" if node.function == "relu" else "Sigmoid", inputs, node.name)


@emit.register
def _(node: g.Resize, graph: Graph, inputs: Sequence[str]) -> str:
    """All output pixels of one phase, (row, column) modulo the factor, are one map; DepthToSpace interleaves them."""
    phases = range(node.factor)
    if node.mode == "nearest":
        maps = [inputs[0]] * node.factor**2
    else:
        padded = graph.pad(inputs[0], f"{node.name}/padded", (1, 1), (1, 1), "edge")
        rows = [_phase(node, graph, padded, f"{node.name}/row{phase}", 2, phase) for phase in phases]
        maps = [
            _phase(node, graph, rows[row], f"{node.name}/row{row}.column{column}", 3, column)
            for row, column in product(phases, phases)
        ]
    joined = graph.op("Concat", maps, f"{node.name}/phases", axis=1)
    return graph.op("DepthToSpace", [joined], node.name, blocksize=node.factor, mode="DCR")


def _phase(node: g.Resize, graph: Graph, padded: str, name: str, axis: int, phase: int) -> str:
    """Between two neighbours along one axis, half-pixel centres: output pixel factor * i + phase lies at i + place."""
    place = (phase + 0.5) / node.factor - 0.5
    first = floor(place) + 1  # in the padded input
    near = graph.slice(padded, f"{name}/near", [axis], [(first, first - 2, 1)])
    far = graph.slice(padded, f"{name}/far", [axis], [(first + 1, first - 1 or END, 1)])
    share = place - floor(place)
    near = graph.op("Mul", [near, graph.number(f"{name}/near_share", 1 - share)], f"{name}/near_part")
    far = graph.op("Mul", [far, graph.number(f"{name}/far_share", share)], f"{name}/far_part")
    return graph.op("Add", [near, far], name)


@emit.register
def _(node: g.Pool, graph: Graph, inputs: Sequence[str]) -> str:
    if node.function != "max":
        raise NetworkError(f"ONNX: {node.name} (pool): a {node.function} over windows, expected a maximum; convolve")
    return graph.op(
        "MaxPool", inputs, node.name, kernel_shape=node.kernel, strides=node.stride, pads=node.padding * 2
    )  # fmt: skip


@emit.register
def _(node: g.RainMask, graph: Graph, inputs: Sequence[str]) -> str:
    return emit_rain_mask(node, graph, inputs[0])


@emit.register
def _(node: g.Flood, graph: Graph, inputs: Sequence[str]) -> str:
    """Counted in whole numbers: no sum of floats holds every one."""
    axes = graph.integers(f"{node.name}/axes", [1, 2, 3])
    whole = graph.op("Cast", inputs, f"{node.name}/whole", to=onnx.TensorProto.INT64)
    ones = graph.op("ReduceSum", [whole, axes], f"{node.name}/ones")
    size = graph.op("Shape", inputs, f"{node.name}/size", start=1)
    elements = graph.op("ReduceProd", [size], f"{node.name}/elements", keepdims=0)
    exact = graph.op("Cast", [elements], f"{node.name}/exact", to=onnx.TensorProto.DOUBLE)
    share = graph.op("Mul", [exact, graph.double(f"{node.name}/most", node.most)], f"{node.name}/share")
    limit = graph.op("Cast", [share], f"{node.name}/limit", to=onnx.TensorProto.INT64)  # toward zero
    above = graph.op("Greater", [ones, limit], f"{node.name}/above")
    return graph.op("Max", [inputs[0], graph.op("Cast", [above], f"{node.name}/flooded", to=graph.element)], node.name)
