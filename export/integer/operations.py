"""The operations of integer networks: what stands for each kind of node, and the formats of values. No torch.

Every value is an integer of a declared width that stands for integer * scale; every operation states its shifts, its
rounding and where it saturates. docs/int8.md is the specification; executors follow it bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from export.graph import nodes as g
from export.graph.nodes import Array, NetworkError

IntArray = NDArray[np.int64]

MEAN_BITS = 6  # further fractional bits that a mean has over what it is the mean of
RECIPROCAL_BITS = 16
MEAN_LIMIT = 2**28  # values that a mean may be of
EXACT = 2**53  # float64 holds every integer below
INT64 = 2**63  # 64 bits hold every integer below
TABLE_STEP_BITS = 8  # the sigmoid's table has steps of 2^-8
TABLE_SIZE = 4096  # from -8 to 8


@dataclass(frozen=True)
class Format:
    """How a value is stored: integers of `bits`, each standing for integer * scale.

    With a sign the range is symmetric, -(2^(bits-1) - 1) to 2^(bits-1) - 1, so that no shift by 6 can reach -2^23.
    """

    bits: int
    scale: float
    signed: bool = True

    @property
    def high(self) -> int:
        """The largest integer."""
        return int(2 ** (self.bits - self.signed) - 1)

    @property
    def low(self) -> int:
        """The smallest integer."""
        return -self.high if self.signed else 0


PIXEL = Format(8, 1 / 255, signed=False)
SPIKE = Format(1, 1.0, signed=False)
GATE = Format(16, 2.0**-15, signed=False)  # a sigmoid: 0 to 2^15


@dataclass(frozen=True, eq=False)
class Rescale:
    """(x * multiplier + 2^(shift-1)) >> shift: to another scale, rounding half up. multiplier: () or (C, 1, 1)."""

    multiplier: IntArray
    shift: int

    @cached_property
    def largest(self) -> int:
        """The largest |multiplier|."""
        return int(np.abs(self.multiplier).max())


AS_IT_IS = Rescale(np.array(1), 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """What one node computes in integers. `output` is the format of its value; results saturate to its range.

    Where the node has a gate (`gate_of`) that is 0 its value is 0; bounds hold for both.
    """

    node: g.Node
    output: Format

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerInput(Operation):
    """8-bit pixels."""

    node: g.Input


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerRepeat(Operation):
    """The same frame at every step: pixels, or features that were computed once."""

    node: g.Repeat


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerConv(Operation):
    """rescale(conv(x, weight) + bias); without `rescale` the sums as they are. weight int8 (O, I/groups, kH, kW).

    weight_step (O,): what 1 stands for in each output channel; the node's weight is weight * weight_step.
    """

    node: g.Conv
    weight: NDArray[np.int8]
    weight_step: Array
    bias: IntArray | None
    rescale: Rescale | None


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerLinear(Operation):
    """rescale(weight @ x + bias) along the node's axis."""

    node: g.Linear
    weight: NDArray[np.int8]
    weight_step: Array
    bias: IntArray | None
    rescale: Rescale


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerNeuron(Operation):
    """Loihi's fixed-point LIF, states zero before the first step. a = rescale(x), or x itself. At each step:

    u = wrap(rz(u (4096 - (du + 1)) >> 12) + (a << 6));  v = clip(rz(v (4096 - dv) >> 12) + u + (bias << 6));
    S = v > threshold << 6;  v = 0 where it fired.
    rz rounds toward zero; wrap takes 2^24 off above 2^23 and adds it at or below -2^23; clip is to +-(2^23 - 1).
    """

    node: g.Neuron
    threshold: IntArray
    bias: IntArray
    current_decay: int  # du; 4095: no current is kept
    membrane_decay: int  # dv; 2048: half of the membrane is kept
    rescale: Rescale | None


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerAdd(Operation):
    """(x * multiplier[0] + y * multiplier[1] + 2^(shift-1)) >> shift; where both have the scale of the sum, x + y."""

    node: g.Add
    rescale: Rescale


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerMul(Operation):
    """rescale(x * y)."""

    node: g.Mul
    rescale: Rescale


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerAffine(Operation):
    """(x * multiplier + offset + 2^(shift-1)) >> shift, constants as the node's broadcast."""

    node: g.Affine
    rescale: Rescale
    offset: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerConcat(Operation):
    """Values side by side, each shifted left to the common scale."""

    node: g.Concat
    left: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerMean(Operation):
    """(sum(x) * reciprocal(n) + half) >> shift, with 6 fractional bits more than x: see `reciprocal`."""

    node: g.Reduce


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerMax(Operation):
    """The largest of the values."""

    node: g.Reduce


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerRelu(Operation):
    """max(x, 0)."""

    node: g.Activation


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerSigmoid(Operation):
    """table[clip(rescale(x), -2048, 2047) + 2048]: steps of 2^-8 from -8 to 8."""

    node: g.Activation
    rescale: Rescale
    table: NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerResize(Operation):
    """Bilinear x2: (9 a + 3 b + 3 c + d + 8) >> 4 of the nearest pixels, borders repeated; nearest: copies."""

    node: g.Resize


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerRainMask(Operation):
    """The mask of 8-bit pixels, which are its grey levels (esdnet/images/rain_streaks.py): whole numbers throughout."""

    node: g.RainMask


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerPool(Operation):
    """The largest spike of each window."""

    node: g.Pool


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerFlood(Operation):
    """Spikes, or 1 everywhere in a step with more ones than the node's limit."""

    node: g.Flood


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerOutput(Operation):
    """8-bit pixels: clip((x + half) >> right, 0, 255)."""

    node: g.Output
    right: int


def reciprocal(count: int) -> tuple[int, int]:
    """(multiplier, shift) of the mean of `count` values: the multiplier has 16 bits, 2^(shift + 6) / count rounded."""
    if not 1 <= count <= MEAN_LIMIT:
        raise NetworkError(f"mean of {count} values: expected 1 to 2^28; run the image in tiles")
    shift = RECIPROCAL_BITS - 1 - MEAN_BITS + (count - 1).bit_length()
    return (2 ** (shift + MEAN_BITS) + count // 2) // count, shift


def sigmoid_table() -> NDArray[np.uint16]:
    """sigmoid((i - 2048) / 256) * 2^15, rounded, for i from 0 to 4095."""
    x = (np.arange(TABLE_SIZE) - TABLE_SIZE // 2) / 2.0**TABLE_STEP_BITS
    return np.floor(2.0**15 / (1.0 + np.exp(-x)) + 0.5).astype(np.uint16)
