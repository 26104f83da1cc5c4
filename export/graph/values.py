"""What a node makes of the values that it reads: their shape, and whether they are spikes. Every kind has a rule."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import numpy as np

from export.graph import nodes as g
from export.graph.nodes import AXES, NetworkError, Shape, ValueKind


@singledispatch
def output_shape(node: g.Node, inputs: Sequence[Shape], steps: int) -> Shape:
    """The shape that a node makes of its inputs' shapes."""
    raise NetworkError(f"{node.name}: no shape rule for kind {node.kind}")


@output_shape.register(g.Spiking)
@output_shape.register(g.Euler)
@output_shape.register(g.EulerNeuron)
@output_shape.register(g.Threshold)
@output_shape.register(g.Delay)
@output_shape.register(g.Membrane)
@output_shape.register(g.Affine)
@output_shape.register(g.Activation)
@output_shape.register(g.Output)
def _(node: g.Node, inputs: Sequence[Shape], steps: int) -> Shape:
    constants = [v.shape for v in vars(node).values() if isinstance(v, np.ndarray)]
    try:
        shape = np.broadcast_shapes(inputs[0], *constants)
    except ValueError as error:
        raise NetworkError(
            f"{node.name} ({node.kind}): constants {constants} do not fit a value {inputs[0]}"
        ) from error
    if shape != inputs[0]:
        raise NetworkError(f"{node.name} ({node.kind}): constants {constants} are larger than the value {inputs[0]}")
    if any(other != inputs[0] for other in inputs[1:]):
        raise NetworkError(f"{node.name} ({node.kind}): shapes {list(inputs)}, expected the same of both")
    return inputs[0]


@output_shape.register
def _(node: g.Neuron, inputs: Sequence[Shape], steps: int) -> Shape:
    return _behind_gate(node, inputs, output_shape.dispatch(g.Spiking)(node, inputs[:1], steps))


def _behind_gate(node: g.Node, inputs: Sequence[Shape], shape: Shape) -> Shape:
    """The shape of a value, which its gate must fit if it has one."""
    gates, expected = inputs[1:], (1, 1, *shape[2:])
    if any(gate != expected for gate in gates):
        raise NetworkError(f"{node.name} ({node.kind}): a gate of shape {gates[0]}, expected {expected}")
    return shape


@output_shape.register
def _(node: g.Repeat, inputs: Sequence[Shape], steps: int) -> Shape:
    if inputs[0][0] != 1:
        raise NetworkError(f"{node.name} (repeat): input has {inputs[0][0]} steps already, expected 1")
    return (steps, *inputs[0][1:])


@output_shape.register
def _(node: g.Conv, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, *sizes = inputs[0]
    if channels != node.weight.shape[1] * node.groups:
        expected = node.weight.shape[1] * node.groups
        raise NetworkError(f"{node.name} (conv): input has {channels} channels, its weight expects {expected}")
    if node.weight.shape[0] % node.groups:
        raise NetworkError(f"{node.name} (conv): {node.weight.shape[0]} outputs do not split into {node.groups} groups")
    if node.bias is not None and node.bias.shape != node.weight.shape[:1]:
        raise NetworkError(f"{node.name} (conv): bias {node.bias.shape}, expected {node.weight.shape[:1]}")
    height, width = _windows(node, sizes, node.weight.shape[2:], node.dilation)
    return _behind_gate(node, inputs, (time, node.weight.shape[0], height, width))


def _windows(
    node: g.Conv | g.Pool, sizes: Sequence[int], kernel: Sequence[int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """How many windows fit along both axes."""
    height, width = (
        (size + 2 * pad - reach * (length - 1) - 1) // stride + 1
        for size, length, stride, pad, reach in zip(sizes, kernel, node.stride, node.padding, dilation, strict=True)
    )
    if height < 1 or width < 1:
        raise NetworkError(f"{node.name} ({node.kind}): input {sizes} is smaller than the kernel {tuple(kernel)}")
    return height, width


@output_shape.register
def _(node: g.Pool, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, *sizes = inputs[0]
    return (time, channels, *_windows(node, sizes, node.kernel, (1, 1)))


@output_shape.register
def _(node: g.Flatten, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, height, width = inputs[0]
    return (time, channels * height * width, 1, 1)


@output_shape.register
def _(node: g.Linear, inputs: Sequence[Shape], steps: int) -> Shape:
    axis = AXES.index(node.axis)
    if inputs[0][axis] != node.weight.shape[1]:
        raise NetworkError(
            f"{node.name} (linear): axis {node.axis} has {inputs[0][axis]}, its weight expects {node.weight.shape[1]}"
        )
    shape = list(inputs[0])
    shape[axis] = node.weight.shape[0]
    return _behind_gate(node, inputs, (shape[0], shape[1], shape[2], shape[3]))


@output_shape.register(g.Add)
@output_shape.register(g.Sub)
@output_shape.register(g.Mul)
def _(node: g.Node, inputs: Sequence[Shape], steps: int) -> Shape:
    try:
        time, channels, height, width = np.broadcast_shapes(*inputs)
    except ValueError as error:
        raise NetworkError(f"{node.name} ({node.kind}): shapes {inputs[0]} and {inputs[1]} do not fit") from error
    return (time, channels, height, width)


@output_shape.register
def _(node: g.Concat, inputs: Sequence[Shape], steps: int) -> Shape:
    if len({(time, height, width) for time, _, height, width in inputs}) != 1:
        raise NetworkError(f"{node.name} (concat): shapes {list(inputs)} differ in more than their channels")
    return (inputs[0][0], sum(shape[1] for shape in inputs), *inputs[0][2:])


@output_shape.register
def _(node: g.Reduce, inputs: Sequence[Shape], steps: int) -> Shape:
    if not node.axes or not set(node.axes) <= set(AXES):
        raise NetworkError(f"{node.name} (reduce): axes {node.axes!r}, expected some of {AXES}")
    time, channels, height, width = (
        1 if axis in node.axes else size for axis, size in zip(AXES, inputs[0], strict=True)
    )
    return (time, channels, height, width)


@output_shape.register
def _(node: g.Resize, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, height, width = inputs[0]
    return (time, channels, node.factor * height, node.factor * width)


@output_shape.register
def _(node: g.RainMask, inputs: Sequence[Shape], steps: int) -> Shape:
    if node.across % 2 == 0 or node.along % 2 == 0:
        raise NetworkError(f"{node.name} (rainmask): lines of {node.across} and {node.along} points, expected odd ones")
    return (inputs[0][0], 1, *inputs[0][2:])


@output_shape.register
def _(node: g.Chunk, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, height, width = inputs[0]
    if not 0 <= node.part < node.parts or channels % node.parts:
        raise NetworkError(f"{node.name} (chunk): part {node.part} of {node.parts} equal ones of {channels} channels")
    return (time, channels // node.parts, height, width)


@output_shape.register
def _(node: g.DepthToSpace, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, height, width = inputs[0]
    if channels % node.factor**2:
        raise NetworkError(f"{node.name} (depthtospace): {channels} channels, expected a multiple of {node.factor**2}")
    return (time, channels // node.factor**2, node.factor * height, node.factor * width)


@output_shape.register
def _(node: g.LayerNorm, inputs: Sequence[Shape], steps: int) -> Shape:
    channels = (inputs[0][1],)
    if node.weight.shape != channels or node.bias.shape != channels:
        found = f"weight {node.weight.shape}, bias {node.bias.shape}"
        raise NetworkError(f"{node.name} (layernorm): {found}, expected {channels} of both")
    return inputs[0]


@output_shape.register
def _(node: g.ArgMax, inputs: Sequence[Shape], steps: int) -> Shape:
    return (inputs[0][0], 1, *inputs[0][2:])


@output_shape.register(g.WindowOrder)
@output_shape.register(g.SortOrder)
def _(node: g.Node, inputs: Sequence[Shape], steps: int) -> Shape:
    """Pixels have numbers that float32 holds, too."""
    time, channels, height, width = inputs[0]
    if isinstance(node, g.SortOrder) and channels != 1:
        raise NetworkError(f"{node.name} ({node.kind}): sorts by {channels} channels, expected 1")
    if isinstance(node, g.WindowOrder) and (height % node.side or width % node.side):
        raise NetworkError(f"{node.name} ({node.kind}): {height}x{width} pixels, expected whole windows of {node.side}")
    if height * width > 2**24:
        raise NetworkError(
            f"{node.name} ({node.kind}): {height}x{width} pixels, expected at most 2^24; run it in tiles"
        )
    return (time, 1, height, width)


@output_shape.register
def _(node: g.WindowAttention, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, height, width = inputs[0]
    if channels % (3 * node.heads):
        expected = f"queries, keys and values of {node.heads} heads"
        raise NetworkError(f"{node.name} (windowattention): {channels} channels, expected {expected}")
    if node.window < 1 or node.overlap < 0:
        raise NetworkError(f"{node.name} (windowattention): windows of {node.window} places and {node.overlap} beside")
    beside = (time, 1, height, width)
    for other in inputs[1:]:
        if other != beside:
            raise NetworkError(f"{node.name} (windowattention): an order or mask of shape {other}, expected {beside}")
    return (time, channels // 3, height, width)


@output_shape.register
def _(node: g.Flood, inputs: Sequence[Shape], steps: int) -> Shape:
    if not 0 <= node.most <= 1:
        raise NetworkError(f"{node.name} (flood): most {node.most:g}, expected a share from 0 to 1")
    return inputs[0]


@singledispatch
def value_kind(node: g.Node, inputs: Sequence[ValueKind]) -> ValueKind:
    """What a node's value is, given what its inputs are."""
    raise NetworkError(f"{node.name}: no rule for what the value of kind {node.kind} is")


@value_kind.register(g.Conv)
@value_kind.register(g.Linear)
@value_kind.register(g.Euler)
@value_kind.register(g.Membrane)
@value_kind.register(g.Sub)
@value_kind.register(g.Mul)
@value_kind.register(g.LayerNorm)
@value_kind.register(g.ArgMax)
@value_kind.register(g.WindowOrder)
@value_kind.register(g.SortOrder)
@value_kind.register(g.WindowAttention)
@value_kind.register(g.Affine)
@value_kind.register(g.Activation)
def _(node: g.Node, inputs: Sequence[ValueKind]) -> ValueKind:
    """Numbers, whatever was read: executors make floats of these."""
    return ValueKind.ANALOG


@value_kind.register
def _(node: g.Input, inputs: Sequence[ValueKind]) -> ValueKind:
    return ValueKind(node.carries)


@value_kind.register(g.Spiking)
@value_kind.register(g.EulerNeuron)
@value_kind.register(g.Threshold)
@value_kind.register(g.RainMask)
@value_kind.register(g.Flood)
def _(node: g.Node, inputs: Sequence[ValueKind]) -> ValueKind:
    return ValueKind.SPIKE


@value_kind.register
def _(node: g.Pool, inputs: Sequence[ValueKind]) -> ValueKind:
    """A maximum of spikes is a spike; their sum is a number of spikes; means are neither."""
    if node.function == "max":
        return inputs[0]
    return ValueKind.ANALOG if node.function == "mean" or inputs[0] is ValueKind.ANALOG else ValueKind.GRADED


@value_kind.register(g.Repeat)
@value_kind.register(g.Output)
@value_kind.register(g.Flatten)
@value_kind.register(g.Chunk)
@value_kind.register(g.DepthToSpace)
@value_kind.register(g.Delay)
def _(node: g.Node, inputs: Sequence[ValueKind]) -> ValueKind:
    return inputs[0]


@value_kind.register
def _(node: g.Resize, inputs: Sequence[ValueKind]) -> ValueKind:
    return inputs[0] if node.mode == "nearest" else ValueKind.ANALOG


@value_kind.register
def _(node: g.Reduce, inputs: Sequence[ValueKind]) -> ValueKind:
    return inputs[0] if node.function == "max" else ValueKind.ANALOG


@value_kind.register
def _(node: g.Concat, inputs: Sequence[ValueKind]) -> ValueKind:
    for kind in (ValueKind.ANALOG, ValueKind.GRADED):
        if kind in inputs:
            return kind
    return ValueKind.SPIKE


@value_kind.register
def _(node: g.Add, inputs: Sequence[ValueKind]) -> ValueKind:
    return ValueKind.ANALOG if ValueKind.ANALOG in inputs else ValueKind.GRADED
