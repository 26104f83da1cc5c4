"""The kinds of nodes of a layer graph: frozen values, each with its fields and nothing else.

What the value of a node is, and of what shape, says values.py; what a node means execute.py, what it costs counting.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
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
