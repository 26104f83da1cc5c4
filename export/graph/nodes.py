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

    SPIKE = "spike"  # 0 or 1: of neurons, and of what compares
    GRADED = "graded"  # a sum of spikes: small integers
    ANALOG = "analog"


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One primitive. `modules`: those of the model that it holds, in the order they run, a folded batch norm last.
    `source_parameters`: the trainable numbers in them. `late`: those of the inputs that are read one step late, zeros
    before the first step; only these may be defined after the node, which is how a cycle is written."""

    name: str
    inputs: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
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
    """What a network is given: an image (1, channels, H, W) of analog values in [0, 1], or a frame for every step.

    `size`: (H, W), None where it is free. `carries`: 'analog' or 'spike', declared here and checked at run time. A
    vector of N is (T, N, 1, 1), a sequence of length L (T, C, 1, L).
    """

    channels: int = 3
    size: tuple[int, int] | None = None
    carries: Literal["analog", "spike"] = "analog"
    every_step: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Repeat(Node):
    """Direct coding: the same frame at every step, (1, C, H, W) -> (T, C, H, W)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Node):
    """2-D cross-correlation with zero padding. weight (O, I/groups, kH, kW), bias (O,) or None; float64. It may have a
    gate (`gate_of`)."""

    weight: Array
    bias: Array | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Node):
    """A matrix along one axis ('T' or 'C'), shared by all other axes. weight (out, in), bias (out,) or None. It may
    have a gate (`gate_of`)."""

    weight: Array
    bias: Array | None = None
    axis: Literal["T", "C"] = "C"


@dataclass(frozen=True, kw_only=True, eq=False)
class Spiking(Node):
    """What all neurons share: their values are spikes. `threshold` broadcasts over (C, H, W)."""

    threshold: Array
    fires: Literal[">=", ">"] = ">="


@dataclass(frozen=True, kw_only=True, eq=False)
class Neuron(Spiking):
    """Leaky integrate-and-fire, one per element, state zero before the first step. At each step:

    I = current_decay I + x;  H = membrane_decay U + gain I + bias;  S = [H fires threshold];  U = reset(H, S).
    Decays are the fraction kept. gain, bias and threshold broadcast over (C, H, W). `fires` is '>=' or '>'; an executor
    whose engine knows only '>' derives its compare value in its own dtype. Reset 'to' sets U to `reset_value` where it
    fired; 'by' subtracts `reset_value`. Where a gate (`gate_of`) is shut it is not updated and S is 0.
    """

    membrane_decay: float
    current_decay: float = 0.0
    gain: Array = field(default_factory=lambda: np.ones(()))
    bias: Array = field(default_factory=lambda: np.zeros(()))
    reset: Literal["to", "by"] = "to"
    reset_value: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Euler(Node):
    """NIR's differential equations by forward Euler steps of `dt` seconds. The states begin at I = 0 and U = v_leak:

    I = I + (dt / tau_syn) ((w_in x) - I)         if it has a tau_syn (CubaLIF, CubaLI), else I = x
    U = U + (dt / tau) (((r I) + v_leak) - U)     if it has a tau (LIF, LI, CubaLIF, CubaLI), else U = U + r I (IF, I)

    in this order of operations, dt / tau being dt (1 / tau): norse 1.1's, to the last bit. Arrays broadcast over
    (C, H, W). This kind gives U.
    """

    dt: float
    tau: Array | None = None
    r: Array = field(default_factory=lambda: np.ones(()))
    v_leak: Array = field(default_factory=lambda: np.zeros(()))
    tau_syn: Array | None = None
    w_in: Array = field(default_factory=lambda: np.ones(()))


@dataclass(frozen=True, kw_only=True, eq=False)
class EulerNeuron(Euler, Spiking):
    """The same with spikes, S = [U fires threshold]. Where it fired, U is `v_reset` ('to') or loses it ('by')."""

    fires: Literal[">=", ">"] = ">"
    reset: Literal["to", "by"] = "to"
    v_reset: Array = field(default_factory=lambda: np.zeros(()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaky(Spiking):
    """snnTorch's neurons (Leaky, Synaptic, Lapicque, and with a second input RLeaky and RSynaptic), at each step:

    I = current_decay I + x (+ the second input), if it has a current_decay, else I = x;  U = beta U + gain I
    (+ the second input, if there is no current) - what the reset takes off;  S = [U > threshold]

    in this order of operations. A reset looks at U of the step before, R = [U > threshold]: 'subtract' takes R
    threshold off, 'zero' makes U zero before the update, 'erase' what the update gave. Not `delayed`: U is reset by S
    at once, and less what R took off already. docs/semantics.md says which neuron of snnTorch is which.
    """

    beta: Array
    current_decay: Array | None = None
    gain: Array = field(default_factory=lambda: np.ones(()))
    fires: Literal[">=", ">"] = ">"
    reset: Literal["subtract", "zero", "erase", "none"] = "subtract"
    delayed: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class LoihiNeuron(Spiking):
    """Loihi's fixed-point LIF, in whole numbers, states zero before the first step. At each step:

    u = wrap(rz(u (4096 - current_decay) / 4096) + 64 x);  v = clip(rz(v (4096 - membrane_decay) / 4096) + u + 64 bias);
    S = v > 64 threshold;  v = 0 where it fired.

    rz rounds toward zero; wrap takes 2^24 off above 2^23 and adds it at or below -2^23; clip is to +-(2^23 - 1). With a
    `reset_interval`, u and v are zero before every step t (from 0) with t modulo reset_interval = reset_offset.
    """

    current_decay: int
    membrane_decay: int
    bias: Array = field(default_factory=lambda: np.zeros(()))
    reset_interval: int = 0
    reset_offset: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Membrane(Node):
    """U of the neuron that it reads, a Leaky, as that step leaves it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Threshold(Node):
    """A spike where a value is above the threshold, which broadcasts over (C, H, W)."""

    threshold: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Delay(Node):
    """Every element as it was `steps` steps before, zero before the first; whole numbers, broadcast over (C, H, W)."""

    steps: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool(Node):
    """Sum, mean or maximum over windows (height, width); padding is zeros that a mean counts and a maximum does not."""

    function: Literal["sum", "mean", "max"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Node):
    """(T, C, H, W) -> (T, C H W, 1, 1), channel by channel, row by row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Node):
    """The sum of two values; axes of size 1 broadcast."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sub(Node):
    """The first value less the second; axes of size 1 broadcast."""


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
class Chunk(Node):
    """One of so many equal `parts` of the channels; `part` counts from 0."""

    part: int
    parts: int


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthToSpace(Node):
    """Channels become pixels: (C f f, H, W) to (C, f H, f W), f the `factor`. Channel c f f + i f + j holds the pixels
    (f h + i, f w + j) of channel c."""

    factor: int


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
class LayerNorm(Node):
    """Over the channels of each pixel, (x - mean) / sqrt(variance + epsilon) weight + bias; weight and bias (C,)."""

    weight: Array
    bias: Array
    epsilon: float = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Resize(Node):
    """Spatial enlargement by a whole factor: bilinear (half-pixel centres, borders repeated) or nearest."""

    factor: int = 2
    mode: Literal["bilinear", "nearest"] = "bilinear"


@dataclass(frozen=True, kw_only=True, eq=False)
class RainMask(Node):
    """1 where an image (C, H, W) in [0, 1] has streaks of rain, else 0: (1, H, W), by esdnet/images/rain_streaks.py.

    `angles`: the directions looked in, degrees from upright; `across`, `along`: points of the lines, odd; `clip`,
    `threshold`: grey levels.
    """

    angles: tuple[int, ...]
    across: int
    along: int
    clip: int
    threshold: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ArgMax(Node):
    """The number of the channel with the largest value, of equals the first: (C, H, W) -> (1, H, W)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowOrder(Node):
    """Pixels window after window of `side` x `side`, row by row in each and the windows too; 1: row by row. The value
    (1, H, W) has at each place, counted row by row, the number of the pixel that stands there. It reads no value, only
    a shape (C, H, W)."""

    side: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SortOrder(Node):
    """Pixels in the order of their values (1, H, W), equal ones row by row; written as in WindowOrder."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowAttention(Node):
    """Softmax attention between pixels that stand near each other: (3 C, H, W) queries, keys and values, one after the
    other, and an order of the pixels, to (C, H, W), each value at its pixel.

    Pixels that stand in one `window` of the order ask together; they look at it and at `overlap` places on either side,
    as far as there are any. `heads` share the channels; logits are products times d^-0.5, d channels a head. With a
    third value (1, H, W): `penalty` is taken from the logits of keys where it is `shut_from` or more.
    """

    heads: int
    window: int
    overlap: int = 0
    shut_from: float = 0.5
    penalty: float = 50.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Flood(Node):
    """Spikes as they are, or 1 everywhere in a step in which more than `most` of them are 1."""

    most: float

    def limit(self, elements: int) -> int:
        """The largest number of ones, of so many elements, that stays as it is."""
        return int(self.most * elements)


@dataclass(frozen=True, kw_only=True, eq=False)
class Output(Node):
    """The result of the network, unchanged."""


FAN_IN: dict[type[Node], tuple[int, int]] = {  # how many values a node of each kind reads, at least and at most
    Input: (0, 0), Repeat: (1, 1), Conv: (1, 2), Linear: (1, 2), Neuron: (1, 2), Euler: (1, 1), Leaky: (1, 2),
    LoihiNeuron: (1, 1), Membrane: (1, 1), Threshold: (1, 1), Delay: (1, 1), Pool: (1, 1), Flatten: (1, 1),
    Add: (2, 2), Sub: (2, 2), Mul: (2, 2), Affine: (1, 1), Concat: (2, 10**6), Chunk: (1, 1), DepthToSpace: (1, 1),
    Reduce: (1, 1), Activation: (1, 1), LayerNorm: (1, 1), Resize: (1, 1), RainMask: (1, 1), Flood: (1, 1),
    ArgMax: (1, 1), WindowOrder: (1, 1), SortOrder: (1, 1), WindowAttention: (2, 3), Output: (1, 1),
}  # fmt: skip


def gate_of(node: Node) -> str | None:
    """The gate of a node, its second input: spikes (1, 1, H, W), the same at every step. The node runs where it is 1;
    elsewhere its value is 0. None: it runs everywhere."""
    gated = isinstance(node, (Conv, Linear, Neuron)) and len(node.inputs) == 2
    return node.inputs[1] if gated else None
