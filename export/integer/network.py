"""The integer network: a Network, and for every node the integer operation that stands for it, with the proof that no
number on the way to its value overflows, whatever the image. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch

import numpy as np

from export.graph import loihi
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.integer.operations import (
    EXACT,
    INT64,
    MEAN_LIMIT,
    Format,
    IntegerAdd,
    IntegerAffine,
    IntegerConcat,
    IntegerConv,
    IntegerFlood,
    IntegerInput,
    IntegerLinear,
    IntegerMax,
    IntegerMean,
    IntegerMul,
    IntegerNeuron,
    IntegerOutput,
    IntegerPool,
    IntegerRainMask,
    IntegerRelu,
    IntegerRepeat,
    IntegerResize,
    IntegerSigmoid,
    Operation,
    Rescale,
)


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
