"""What is computed value by value: rescaled sums of convolutions, sums, products, gains, ReLUs; alone or in a chain.

A piece of a value that is in a core's cache goes through all links of a chain; what is between them is never written to
memory. A chain computes what its operations compute one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.graph.nodes import NetworkError, Shape, gate_of
from export.graph.values import output_shape
from export.integer import operations as ops
from export.integer.arithmetic import (
    AT_ONCE,
    INT32,
    Grid,
    finish,
    grid_of,
    know,
    new_value,
    once,
    pieces,
    reach,
    scale_,
    scaled_bound,
    scaling,
    type_of,
    whole_type,
    work_in,
)
from export.integer.convolution import convolve, cut, largest_joined, offset_of
from export.integer.network import Bounds, IntegerNetwork
from export.integer.operations import Operation

FRAMES_AT_ONCE = 4 * AT_ONCE  # values that a convolution reads: their digits and sums are some times as much


@dataclass(frozen=True)
class Link:
    """An operation of a chain: which of its inputs the value before it is, and the others."""

    operation: Operation
    position: int
    others: Sequence[Tensor]
    bounds: Bounds


@dataclass(frozen=True)
class Step:
    """What an operation makes of a piece x of one of its inputs: run(x, to, *beside) fills `to`, perhaps x itself.

    `beside`: what it reads besides, whole. `largest`: what no |value| exceeds afterwards.
    """

    run: Callable[..., None]
    beside: Sequence[Tensor | None]
    largest: int


Pieces = Iterator[Tensor]  # of a value, in order, as soon as they are filled


def run_chain(head: Operation, inputs: Sequence[Tensor], links: Sequence[Link], steps: int, bounds: Bounds) -> Tensor:
    """The value of the last link, or of the head if there is none."""
    out = room(head, inputs, steps)
    grid = grid_of(out)
    largest, made = _produce(head, inputs, out, grid, bounds)
    after: list[tuple[Callable[..., None], list[Sequence[Any]]]] = []
    for link in links:
        found = step(link.operation, link, out, largest)
        after.append((found.run, _beside(found, grid)))
        largest = found.largest
    seen = []
    for number, piece in enumerate(made):
        for run, beside in after:
            run(piece, piece, *beside[number])
        if grid.groups * grid.bands > 1:  # a later reader would have to fetch it once more
            seen += [piece.amin(), piece.amax()]
    if seen:
        know(out, int(torch.stack(seen[::2]).min()), int(torch.stack(seen[1::2]).max()))
    return out


def _beside(found: Step, grid: Grid) -> list[Sequence[Any]]:
    """What a step reads besides, piece by piece."""
    count = grid.groups * grid.bands
    if not found.beside:
        return [()] * count
    return list(zip(*([None] * count if value is None else grid.cut(value) for value in found.beside), strict=True))


def room(operation: Operation, inputs: Sequence[Tensor], steps: int) -> Tensor:
    """Room for the value."""
    time, channels, *sides = output_shape(operation.node, [shape_of(value) for value in inputs], steps)
    return new_value((time, channels, *sides), operation.output, inputs[0])


def shape_of(value: Tensor) -> Shape:
    """(T, C, H, W)."""
    frames, channels, height, width = value.shape
    return frames, channels, height, width


def find_chain(network: IntegerNetwork, shapes: Mapping[str, Shape], first: int) -> list[Operation]:
    """Operations that follow one another from number `first` on, each the only reader of the one before it."""
    operations = network.operations
    chain = [operations[first]]
    raw = isinstance(chain[0], ops.IntegerConv) and chain[0].rescale is None
    gated = gate_of(chain[0].node) is not None
    if raw or gated or not isinstance(chain[0], (ops.IntegerConv, *POINTWISE)):
        return chain
    for following in operations[first + 1 :]:
        name, inputs = chain[-1].name, following.node.inputs
        alone = list(network.network.readers[name]) == [following.name] and inputs.count(name) == 1
        alike = shapes[following.name] == shapes[name] and type_of(following.output) is type_of(chain[0].output)
        if not (isinstance(following, POINTWISE) and gate_of(following.node) is None and alone and alike):
            break
        chain.append(following)
    return chain


def _produce(
    operation: Operation, inputs: Sequence[Tensor], out: Tensor, grid: Grid, bounds: Bounds
) -> tuple[int, Pieces]:
    """What no |value| exceeds, and the pieces of `out`."""
    if isinstance(operation, ops.IntegerConv) and operation.rescale is not None:
        return _produce_convolution(operation, operation.rescale, inputs[0], out, grid)
    largest = reach(inputs[0]) if bounds.largest >= INT32 else bounds.inputs[0]  # what is proven often suffices
    own = step(operation, Link(operation, 0, inputs[1:], bounds), out, largest)

    def fill() -> Pieces:
        for to, x, beside in zip(grid.cut(out), grid.cut(inputs[0]), _beside(own, grid), strict=True):
            own.run(x, to, *beside)
            yield to

    return own.largest, fill()


def _produce_convolution(
    operation: ops.IntegerConv, rescale: ops.Rescale, x: Tensor, out: Tensor, grid: Grid
) -> tuple[int, Pieces]:
    at_once = grid.frames * max(1, FRAMES_AT_ONCE // (grid.frames * x[0].numel()))
    how = cut(x, operation, at_once)
    on_the_way, largest = largest_joined(x, operation, how, rescale)
    dtype = whole_type(on_the_way)
    by, plus = scaling(operation, rescale, out, dtype, lambda: offset_of(operation, rescale, how.excess), how)

    def fill() -> Pieces:
        for frames, made in zip(torch.split(x, at_once), torch.split(out, at_once), strict=True):
            for to, *digits in pieces(made, *convolve(frames, operation, how)):
                whole = join(digits, how.bits, work_in(to, dtype))
                finish(scale_(whole, by, plus, rescale.shift), operation.output, to, largest)
                yield to

    return min(largest, operation.output.high), fill()


def join(digits: Sequence[Tensor], bits: int, whole: Tensor) -> Tensor:
    """Fill `whole` with what sums of digits are together."""
    whole.copy_(digits[0])
    for place, digit in enumerate(digits[1:], 1):
        whole.add_(digit.to(whole.dtype), alpha=1 << bits * place)
    return whole


# --- one rule per operation -------------------------------------------------------------------------------------------


@singledispatch
def step(operation: Operation, link: Link, like: Tensor, largest: int) -> Step:
    """What the operation does to pieces like those of `like`, none of whose |values| exceeds `largest`."""
    raise NetworkError(
        f"{operation.name}: {type(operation).__name__} is not computed value by value; add a rule to"
        " export/integer/chains.py"
    )


POINTWISE = (ops.IntegerAdd, ops.IntegerMul, ops.IntegerAffine, ops.IntegerRelu)


@step.register
def _(operation: ops.IntegerRelu, link: Link, like: Tensor, largest: int) -> Step:
    def run(x: Tensor, to: Tensor) -> None:
        if to is not x:
            to.copy_(x)  # frames from Lava have 64 bits
        to.clamp_(min=0)

    return Step(run, (), largest)


@step.register
def _(operation: ops.IntegerAdd, link: Link, like: Tensor, largest: int) -> Step:
    rescale, output, dtype = operation.rescale, operation.output, whole_type(link.bounds.largest)
    own, other = (int(rescale.multiplier[place]) for place in (link.position, 1 - link.position))
    rounding = scaling(operation, ops.Rescale(np.array(1), rescale.shift), like, dtype)

    def run(x: Tensor, to: Tensor, y: Tensor, by: Tensor | None, plus: Tensor | None) -> None:
        x = x.to(dtype) if own == 1 else x.to(dtype) * own
        whole = torch.add(x, y.to(dtype), alpha=other, out=work_in(to, dtype))
        finish(scale_(whole, by, plus, rescale.shift), output, to)

    return Step(run, (link.others[0], *rounding), output.high)


@step.register
def _(operation: ops.IntegerMul, link: Link, like: Tensor, largest: int) -> Step:
    rescale, output = operation.rescale, operation.output
    other, bounds = link.others[0], link.bounds
    factor = reach(other) if bounds.largest >= INT32 else bounds.inputs[1 - link.position]
    products, result = scaled_bound(largest * factor, rescale)
    dtype = whole_type(min(products, bounds.largest))

    def run(x: Tensor, to: Tensor, y: Tensor, by: Tensor | None, plus: Tensor | None) -> None:
        whole = torch.mul(x.to(dtype), y.to(dtype), out=work_in(to, dtype))
        finish(scale_(whole, by, plus, rescale.shift), output, to, result)

    return Step(run, (other, *scaling(operation, rescale, like, dtype)), min(result, output.high))


@step.register
def _(operation: ops.IntegerAffine, link: Link, like: Tensor, largest: int) -> Step:
    rescale, output = operation.rescale, operation.output
    offset = once(operation, "largest offset", lambda: int(np.abs(operation.offset).max()))
    products, result = scaled_bound(largest, rescale, offset)
    dtype = whole_type(min(products, link.bounds.largest))

    def run(x: Tensor, to: Tensor, by: Tensor | None, plus: Tensor | None) -> None:
        whole = work_in(to, dtype)
        if whole is not x:
            whole.copy_(x)
        finish(scale_(whole, by, plus, rescale.shift), output, to, result)

    constants = scaling(operation, rescale, like, dtype, lambda: operation.offset)
    return Step(run, constants, min(result, output.high))
