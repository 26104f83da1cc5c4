"""The integer network: a Network, and for every node the integer operation that stands for it. No torch.

Every value is an integer of a declared width that stands for integer * scale; every operation states its shifts, its
rounding and where it saturates. docs/int8.md is the specification; executors follow it bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch

import numpy as np
from numpy.typing import NDArray

from export.graph import loihi
from export.graph import nodes as g
from export.graph.network import Network
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


@dataclass(frozen=True)
class Bounds:
    """What no image exceeds: the largest |integer| of each input of an operation, and on the way to its value.

    Executors choose by them the types that they compute in; without a proof they take the widest.
    """

    inputs: tuple[int, ...] = (INT64 - 1, INT64 - 1)
    largest: int = INT64 - 1


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A Network whose weights are the quantised ones, and its operations in the order of its nodes.

    It checks itself when it is built: whatever the input, sums of convolutions stay below 2^53 and all other integers,
    products and sums of means among them, below 2^63.
    """

    network: Network
    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        names = [operation.name for operation in self.operations]
        if names != [node.name for node in self.network.nodes]:
            raise NetworkError(
                f"{self.network.name}: the integer operations are not those of the network's nodes; quantise it again"
            )
        for operation in self.operations:
            largest = self.bounds[operation.name].largest
            if largest >= INT64:
                label = f"{operation.name} ({operation.node.kind})"
                raise NetworkError(
                    f"{label}: products up to {largest}, 64 bits hold less than 2^63; its numbers and the scales around"
                    " it are too far apart: train on, or scale its weights"
                )

    @cached_property
    def by_name(self) -> dict[str, Operation]:
        """Operations by the name of their node."""
        return {operation.name: operation for operation in self.operations}

    @cached_property
    def bounds(self) -> dict[str, Bounds]:
        """The proof of each operation, by the name of its node."""
        found: dict[str, Bounds] = {}
        reach: dict[str, Format] = {}
        for operation in self.operations:
            sources = [reach[name] for name in operation.node.inputs]
            largest = largest_product(operation, sources)
            found[operation.name] = Bounds(tuple(source.high for source in sources), largest)
            reach[operation.name] = operation.output
            if isinstance(operation, IntegerConv) and operation.rescale is None:  # its sums do not saturate
                reach[operation.name] = replace(operation.output, bits=1 + largest.bit_length())
        return found


def largest_sum(operation: IntegerConv | IntegerLinear, source: Format) -> int:
    """The largest |sum| that the operation can reach, bias included, over all inputs of that format (worst case)."""
    weight = operation.weight.reshape(len(operation.weight), -1).astype(np.int64)
    bias = np.zeros(len(weight), np.int64) if operation.bias is None else operation.bias
    positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
    highest = positive * source.high + negative * source.low + bias
    lowest = positive * source.low + negative * source.high + bias
    return int(max(np.abs(highest).max(), np.abs(lowest).max()))


@singledispatch
def largest_product(operation: Operation, sources: Sequence[Format]) -> int:
    """The largest |integer| on the way to an operation's value, over all inputs of these formats (worst case)."""
    raise NetworkError(
        f"{operation.name}: no bound for {type(operation).__name__}; add one to export/integer/network.py"
    )


@largest_product.register
def _(operation: IntegerInput, sources: Sequence[Format]) -> int:
    return operation.output.high


@largest_product.register(IntegerRepeat)
@largest_product.register(IntegerPool)
@largest_product.register(IntegerMax)
@largest_product.register(IntegerRelu)
def _(operation: Operation, sources: Sequence[Format]) -> int:
    return sources[0].high


@largest_product.register(IntegerConv)
@largest_product.register(IntegerLinear)
def _(operation: IntegerConv | IntegerLinear, sources: Sequence[Format]) -> int:
    largest = largest_sum(operation, sources[0])
    if largest >= EXACT:
        raise NetworkError(
            f"{operation.name} ({operation.node.kind}): sums up to {largest}, float64 holds integers below 2^53; make"
            " the layer narrower, or its bias smaller"
        )
    return largest if operation.rescale is None else _rescaled(largest, operation.rescale)


@largest_product.register
def _(operation: IntegerNeuron, sources: Sequence[Format]) -> int:
    """What arrives as it is are sums of a convolution, below 2^53; the products of 24-bit states are far below that."""
    if operation.rescale is None:
        return EXACT << loihi.CURRENT_SHIFT
    return max(_rescaled(sources[0].high, operation.rescale), loihi.CURRENT_LIMIT << loihi.CURRENT_SHIFT)


@largest_product.register
def _(operation: IntegerAdd, sources: Sequence[Format]) -> int:
    return _rescaled(sources[0].high + sources[1].high, operation.rescale)


@largest_product.register
def _(operation: IntegerMul, sources: Sequence[Format]) -> int:
    return _rescaled(sources[0].high * sources[1].high, operation.rescale)


@largest_product.register
def _(operation: IntegerAffine, sources: Sequence[Format]) -> int:
    return _rescaled(sources[0].high, operation.rescale) + int(np.abs(operation.offset).max())


@largest_product.register
def _(operation: IntegerConcat, sources: Sequence[Format]) -> int:
    return max(source.high << left for source, left in zip(sources, operation.left, strict=True))


@largest_product.register
def _(operation: IntegerMean, sources: Sequence[Format]) -> int:
    """The sum of the most values that a mean takes; its product with the reciprocal is taken in halves of 64 bits."""
    return MEAN_LIMIT * sources[0].high


@largest_product.register
def _(operation: IntegerRainMask, sources: Sequence[Format]) -> int:
    """The strength of a direction, of as many pixels as a mean may be of."""
    return MEAN_LIMIT * operation.node.clip


@largest_product.register
def _(operation: IntegerFlood, sources: Sequence[Format]) -> int:
    """The number of ones, of as many."""
    return MEAN_LIMIT


@largest_product.register
def _(operation: IntegerSigmoid, sources: Sequence[Format]) -> int:
    return _rescaled(sources[0].high, operation.rescale)


@largest_product.register
def _(operation: IntegerResize, sources: Sequence[Format]) -> int:
    return 16 * sources[0].high + 8 if operation.node.mode == "bilinear" else sources[0].high


@largest_product.register
def _(operation: IntegerOutput, sources: Sequence[Format]) -> int:
    return sources[0].high + 2**operation.right


def _rescaled(largest: int, rescale: Rescale) -> int:
    return largest * rescale.largest + 2**rescale.shift
