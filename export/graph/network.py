"""The typed layer graph: what every target reads. Frozen dataclasses over NumPy arrays, no torch.

A Network holds primitives in topological order, the number of time steps T, and checks itself when it is built. A value
has the shape (T, C, H, W), or (1, C, H, W) where it does not change over time; reductions keep their axes at size 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, singledispatch
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import UserError

Array = NDArray[np.float64]
Shape = tuple[int, int, int, int]
AXES = "TCHW"


class NetworkError(UserError):
    """A graph that cannot be: the message names the node, what was found, what was expected, and the remedy."""


class ValueKind(str, Enum):
    """What a value is, declared by its producer: it decides whether a layer accumulates (AC) or multiplies (MAC)."""

    SPIKE = "spike"  # 0 or 1
    GRADED = "graded"  # a sum of spikes: small integers
    ANALOG = "analog"


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One primitive. `modules`: those of the model that it holds, in the order they run, a folded batch norm last.
    `source_parameters`: the trainable numbers in them."""

    name: str
    inputs: tuple[str, ...] = ()
    block: str = ""
    source_parameters: int = 0
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def kind(self) -> str:
        """The primitive's name in lower case, as reports show it."""
        return type(self).__name__.lower()


@dataclass(frozen=True, kw_only=True, eq=False)
class Input(Node):
    """The image: (1, channels, H, W), analog, in [0, 1]."""

    channels: int = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Repeat(Node):
    """Direct coding: the same frame at every step, (1, C, H, W) -> (T, C, H, W)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Node):
    """2-D cross-correlation with zero padding. weight (O, I/groups, kH, kW), bias (O,) or None; float64."""

    weight: Array
    bias: Array | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Node):
    """A matrix along one axis ('T' or 'C'), shared by all other axes. weight (out, in), bias (out,) or None."""

    weight: Array
    bias: Array | None = None
    axis: Literal["T", "C"] = "C"


@dataclass(frozen=True, kw_only=True, eq=False)
class Neuron(Node):
    """Leaky integrate-and-fire, one per element, state zero before the first step. At each step:

    I = current_decay I + x;  H = membrane_decay U + gain I + bias;  S = [H fires threshold];  U = reset(H, S).
    Decays are the fraction kept. gain, bias and threshold broadcast over (C, H, W). `fires` is '>=' or '>'; an executor
    whose engine knows only '>' derives its compare value in its own dtype. Reset 'to' sets U to `reset_value` where it
    fired; 'by' subtracts `reset_value`.
    """

    threshold: Array
    membrane_decay: float
    current_decay: float = 0.0
    gain: Array = field(default_factory=lambda: np.ones(()))
    bias: Array = field(default_factory=lambda: np.zeros(()))
    fires: Literal[">=", ">"] = ">="
    reset: Literal["to", "by"] = "to"
    reset_value: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Node):
    """The sum of two values; axes of size 1 broadcast."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mul(Node):
    """The product of two values; axes of size 1 broadcast."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Node):
    """scale * x + offset with constants that broadcast over (T, C, H, W)."""

    scale: Array = field(default_factory=lambda: np.ones(()))
    offset: Array = field(default_factory=lambda: np.zeros(()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Node):
    """Values joined along the channels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduce(Node):
    """Mean or max over the axes named (of 'TCHW'); they stay with size 1. The mean over 'T' is the time mean."""

    function: Literal["mean", "max"] = "mean"
    axes: str = "HW"


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation(Node):
    """relu or sigmoid, element by element."""

    function: Literal["relu", "sigmoid"] = "relu"


@dataclass(frozen=True, kw_only=True, eq=False)
class Resize(Node):
    """Spatial enlargement by a whole factor: bilinear (half-pixel centres, borders repeated) or nearest."""

    factor: int = 2
    mode: Literal["bilinear", "nearest"] = "bilinear"


@dataclass(frozen=True, kw_only=True, eq=False)
class Output(Node):
    """The result of the network, unchanged."""


FAN_IN: dict[type[Node], int] = {  # how many values a node of each kind reads; Concat: at least
    Input: 0, Repeat: 1, Conv: 1, Linear: 1, Neuron: 1, Add: 2, Mul: 2, Affine: 1, Concat: 2, Reduce: 1, Activation: 1,
    Resize: 1, Output: 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """Nodes in topological order. Images have sides that `size_multiple` divides (the runner pads).

    `model_parameters`: trainable parameters of the model it was lowered from; the nodes' must sum to it. `reader`: the
    one that made it, for what is only said of its networks.
    """

    name: str
    nodes: tuple[Node, ...]
    steps: int
    size_multiple: int = 1
    model_parameters: int = 0
    reader: str = ""

    def __post_init__(self) -> None:
        _check_structure(self)
        counted = sum(node.source_parameters for node in self.nodes)
        if counted != self.model_parameters:
            raise NetworkError(f"{self.name}: nodes hold {counted} parameters, the model {self.model_parameters}")
        side = 8 * self.size_multiple
        infer_shapes(self, side, side)

    def __getitem__(self, name: str) -> Node:
        """The node of that name (KeyError where there is none)."""
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def kinds(self) -> dict[str, ValueKind]:
        """What each node's value is: spike, graded or analog."""
        kinds: dict[str, ValueKind] = {}
        for node in self.nodes:
            kinds[node.name] = value_kind(node, [kinds[name] for name in node.inputs])
        return kinds

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Names of the nodes that read each node's value."""
        return {
            node.name: tuple(other.name for other in self.nodes if node.name in other.inputs) for node in self.nodes
        }

    @property
    def input(self) -> Input:
        """The one Input."""
        return next(node for node in self.nodes if isinstance(node, Input))

    @property
    def output(self) -> Output:
        """The one Output."""
        return next(node for node in self.nodes if isinstance(node, Output))

    @property
    def neurons(self) -> tuple[Neuron, ...]:
        """All spiking nodes, in order."""
        return tuple(node for node in self.nodes if isinstance(node, Neuron))


def _check_structure(network: Network) -> None:
    """Names unique, inputs defined before they are read, the right number of them, one Input and one Output."""
    if network.steps < 1:
        raise NetworkError(f"{network.name}: steps must be at least 1, found {network.steps}")
    seen: set[str] = set()
    for node in network.nodes:
        if node.name in seen:
            raise NetworkError(f"{node.name}: the name is used twice; names must be unique")
        late = [name for name in node.inputs if name not in seen]
        if late:
            raise NetworkError(f"{node.name} ({node.kind}): reads {late[0]}, which is not defined before it (a cycle?)")
        _check_fan_in(node)
        seen.add(node.name)
    for required in (Input, Output):
        found = sum(isinstance(node, required) for node in network.nodes)
        if found != 1:
            raise NetworkError(f"{network.name}: {found} {required.__name__} nodes, expected 1")


def _check_fan_in(node: Node) -> None:
    known = [kind for kind in type(node).__mro__ if kind in FAN_IN]
    if not known:
        raise NetworkError(f"{node.name}: no rule for the inputs of kind {node.kind}; add one to FAN_IN")
    expected, found = FAN_IN[known[0]], len(node.inputs)
    if found < expected or (found > expected and not isinstance(node, Concat)):
        more = " or more" if isinstance(node, Concat) else ""
        raise NetworkError(f"{node.name} ({node.kind}): {found} inputs, expected {expected}{more}")


def infer_shapes(network: Network, height: int, width: int) -> dict[str, Shape]:
    """The shape of every node's value for an image of that size; NetworkError names the first that does not fit."""
    multiple = network.size_multiple
    if height < 1 or width < 1 or height % multiple or width % multiple:
        raise NetworkError(
            f"{network.name}: image of {height}x{width}; both sides must be positive multiples of {multiple}"
        )
    shapes: dict[str, Shape] = {}
    for node in network.nodes:
        if isinstance(node, Input):
            shapes[node.name] = (1, node.channels, height, width)
        else:
            shapes[node.name] = output_shape(node, [shapes[name] for name in node.inputs], network.steps)
    return shapes


@singledispatch
def output_shape(node: Node, inputs: Sequence[Shape], steps: int) -> Shape:
    """The shape that a node makes of its inputs' shapes."""
    raise NetworkError(f"{node.name}: no shape rule for kind {node.kind}")


@output_shape.register(Neuron)
@output_shape.register(Affine)
@output_shape.register(Activation)
@output_shape.register(Output)
def _(node: Node, inputs: Sequence[Shape], steps: int) -> Shape:
    constants = [v.shape for v in vars(node).values() if isinstance(v, np.ndarray)]
    try:
        shape = np.broadcast_shapes(inputs[0], *constants)
    except ValueError as error:
        raise NetworkError(
            f"{node.name} ({node.kind}): constants {constants} do not fit a value {inputs[0]}"
        ) from error
    if shape != inputs[0]:
        raise NetworkError(f"{node.name} ({node.kind}): constants {constants} are larger than the value {inputs[0]}")
    return inputs[0]


@output_shape.register
def _(node: Repeat, inputs: Sequence[Shape], steps: int) -> Shape:
    if inputs[0][0] != 1:
        raise NetworkError(f"{node.name} (repeat): input has {inputs[0][0]} steps already, expected 1")
    return (steps, *inputs[0][1:])


@output_shape.register
def _(node: Conv, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, *sizes = inputs[0]
    if channels != node.weight.shape[1] * node.groups:
        expected = node.weight.shape[1] * node.groups
        raise NetworkError(f"{node.name} (conv): input has {channels} channels, its weight expects {expected}")
    if node.weight.shape[0] % node.groups:
        raise NetworkError(f"{node.name} (conv): {node.weight.shape[0]} outputs do not split into {node.groups} groups")
    if node.bias is not None and node.bias.shape != node.weight.shape[:1]:
        raise NetworkError(f"{node.name} (conv): bias {node.bias.shape}, expected {node.weight.shape[:1]}")
    height, width = (
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, pad, dilation in zip(
            sizes, node.weight.shape[2:], node.stride, node.padding, node.dilation, strict=True
        )
    )
    if height < 1 or width < 1:
        raise NetworkError(f"{node.name} (conv): input {sizes} is smaller than the kernel {node.weight.shape[2:]}")
    return (time, node.weight.shape[0], height, width)


@output_shape.register
def _(node: Linear, inputs: Sequence[Shape], steps: int) -> Shape:
    axis = AXES.index(node.axis)
    if inputs[0][axis] != node.weight.shape[1]:
        raise NetworkError(
            f"{node.name} (linear): axis {node.axis} has {inputs[0][axis]}, its weight expects {node.weight.shape[1]}"
        )
    shape = list(inputs[0])
    shape[axis] = node.weight.shape[0]
    return (shape[0], shape[1], shape[2], shape[3])


@output_shape.register(Add)
@output_shape.register(Mul)
def _(node: Node, inputs: Sequence[Shape], steps: int) -> Shape:
    try:
        time, channels, height, width = np.broadcast_shapes(*inputs)
    except ValueError as error:
        raise NetworkError(f"{node.name} ({node.kind}): shapes {inputs[0]} and {inputs[1]} do not fit") from error
    return (time, channels, height, width)


@output_shape.register
def _(node: Concat, inputs: Sequence[Shape], steps: int) -> Shape:
    if len({(time, height, width) for time, _, height, width in inputs}) != 1:
        raise NetworkError(f"{node.name} (concat): shapes {list(inputs)} differ in more than their channels")
    return (inputs[0][0], sum(shape[1] for shape in inputs), *inputs[0][2:])


@output_shape.register
def _(node: Reduce, inputs: Sequence[Shape], steps: int) -> Shape:
    if not node.axes or not set(node.axes) <= set(AXES):
        raise NetworkError(f"{node.name} (reduce): axes {node.axes!r}, expected some of {AXES}")
    time, channels, height, width = (
        1 if axis in node.axes else size for axis, size in zip(AXES, inputs[0], strict=True)
    )
    return (time, channels, height, width)


@output_shape.register
def _(node: Resize, inputs: Sequence[Shape], steps: int) -> Shape:
    time, channels, height, width = inputs[0]
    return (time, channels, node.factor * height, node.factor * width)


@singledispatch
def value_kind(node: Node, inputs: Sequence[ValueKind]) -> ValueKind:
    """What a node's value is, given what its inputs are."""
    raise NetworkError(f"{node.name}: no rule for what the value of kind {node.kind} is")


@value_kind.register(Input)
@value_kind.register(Conv)
@value_kind.register(Linear)
@value_kind.register(Mul)
@value_kind.register(Affine)
@value_kind.register(Activation)
def _(node: Node, inputs: Sequence[ValueKind]) -> ValueKind:
    """Numbers, whatever was read: executors make floats of these."""
    return ValueKind.ANALOG


@value_kind.register
def _(node: Neuron, inputs: Sequence[ValueKind]) -> ValueKind:
    return ValueKind.SPIKE


@value_kind.register(Repeat)
@value_kind.register(Output)
def _(node: Node, inputs: Sequence[ValueKind]) -> ValueKind:
    return inputs[0]


@value_kind.register
def _(node: Resize, inputs: Sequence[ValueKind]) -> ValueKind:
    return inputs[0] if node.mode == "nearest" else ValueKind.ANALOG


@value_kind.register
def _(node: Reduce, inputs: Sequence[ValueKind]) -> ValueKind:
    return inputs[0] if node.function == "max" else ValueKind.ANALOG


@value_kind.register
def _(node: Concat, inputs: Sequence[ValueKind]) -> ValueKind:
    for kind in (ValueKind.ANALOG, ValueKind.GRADED):
        if kind in inputs:
            return kind
    return ValueKind.SPIKE


@value_kind.register
def _(node: Add, inputs: Sequence[ValueKind]) -> ValueKind:
    return ValueKind.ANALOG if ValueKind.ANALOG in inputs else ValueKind.GRADED
