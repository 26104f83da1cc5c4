"""Convolutions, products of matrices, attention and recurrent layers of torch: who accumulates, who multiplies.

An operand of spikes: one AC per spike and synapse that exists. Else MACs, dense; beside them those on values that are
not 0 and, where sums of spikes are read, events (value times fan-out).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from export.graph.nodes import ValueKind
from hw_sim.counter.ledger import Layer, Row, Shape, frame_shape
from hw_sim.counter.synapses import Axis, Counts, dense_operations, reached, taps_along
from hw_sim.counter.torch_context import Call, Context
from hw_sim.counter.torch_sums import (
    events_at,
    events_in,
    nonzero_along,
    nonzero_at,
    nonzero_in,
    spikes_at,
    spikes_in,
)
from hw_sim.counter.values import NUMBERS, Value


def _reads(value: Value) -> str:
    if value.fill == 0.0:
        return "zero"
    return value.kind.value if value.fill is None else "analog"


class Window(NamedTuple):
    """How a convolution moves over its input, axis by axis; one number is that of all axes."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    groups: int


@dataclass
class Reading:
    """A layer with weights that reads values of one shape and kind: its row, and what is the same whenever it does.

    An element reaches its `taps` along each axis in `channels` channels; without them so many outputs.
    """

    row: Row
    taps: tuple[Counts, ...]
    channels: int
    executions: int
    same: dict[str, int]
    times: int = 0

    def book(self) -> None:
        """What is the same, as often as it ran."""
        self.row.add(self.times * self.executions, **{name: self.times * number for name, number in self.same.items()})
        self.times = 0

    def operations(
        self, read: Tensor, number_in: Callable[[Tensor], int], number_at: Callable[[Tensor], Counts]
    ) -> tuple[int, int]:
        """Operations of elements, and the elements; these are counted in all or at each place."""
        if not self.taps:
            elements = number_in(read)
            return elements * self.channels, elements
        places = number_at(read)
        return reached(self.taps, self.channels, places), int(places.sum())


def convolution(run: Context, call: Call) -> None:
    """aten.convolution: any number of axes, groups, transposed."""
    read, weight, bias, stride, padding, dilation, transposed, _, groups = call.args
    window = Window(tuple(stride), tuple(padding), tuple(dilation), transposed, groups)
    book_layer(run, read, weight, bias, call.out.shape, window)
    run.values.write(call.out, NUMBERS, fresh=True)


def conv(run: Context, call: Call) -> None:
    """conv1d, conv2d and conv3d, with a batch or without: what modules call."""
    read, weight, bias = call.args[0], call.args[1], call.get(2, "bias")
    stride, padding, dilation = (tuple(call.get(3 + i, "", (default,))) for i, default in enumerate((1, 0, 1)))
    made = call.out.shape
    if read.dim() < weight.dim():
        read, made = read.unsqueeze(0), (1, *made)
    book_layer(run, read, weight, bias, made, Window(stride, padding, dilation, False, call.get(6, "groups", 1)))
    run.values.write(call.out, NUMBERS, fresh=True)


def linear(run: Context, call: Call) -> None:
    """aten.linear: every element of the input reaches every output."""
    weight: Tensor = call.args[1]
    bias = call.args[2] if len(call.args) > 2 else None
    book_layer(run, call.args[0], weight, bias, call.out.shape, weight.shape[0])
    run.values.write(call.out, NUMBERS, fresh=True)


def book_layer(
    run: Context, read: Tensor, weight: Tensor, bias: Tensor | None, made: tuple[int, ...], how: Window | int
) -> None:
    """Count a layer with weights that makes a value of shape `made`: a convolution, or a matrix of so many outputs."""
    value = run.values.of(read)
    reads = "analog" if value is NUMBERS else _reads(value)
    place = weight.untyped_storage()._cdata
    key = (place, weight.shape, bias is None, read.shape, made, reads, how, run.names.frames[-1].name)
    reading = run.readings.get(key)
    if reading is None:
        reading = run.readings[key] = _open_reading(run, read, weight, bias, tuple(made), how, reads)
    counts = reading.row.counts
    if reads == "spike":
        run.emit(value)
        acs, events = reading.operations(read, spikes_in, spikes_at)
        counts["acs"] += acs
        counts["events_in"] += events
    elif reads != "zero":
        counts["nonzero_macs"] += reading.operations(read, nonzero_in, nonzero_at)[0]
        if reads == "graded":
            run.emit(value)
            counts["events"] += reading.operations(read, events_in, events_at)[0]
    reading.times += 1


def _open_reading(
    run: Context, read: Tensor, weight: Tensor, bias: Tensor | None, made: Shape, how: Window | int, reads: str
) -> Reading:
    """When it runs for the first time."""
    kind = "linear" if isinstance(how, int) else "conv"
    kernel, stride, groups = (1, 1), (1, 1), 1
    taps: tuple[Counts, ...] = ()
    if isinstance(how, int):
        channels, dense = how, read.numel() * how
    else:
        taps, channels, of_channel = _fan_out(read.shape[2:], made[2:], weight.shape, how)
        dense = of_channel * read.shape[0] * read.shape[1]
        kernel, stride, groups = _pair(weight.shape[2:]), _pair(how.stride), how.groups
    for parameter in (weight, bias):
        if parameter is not None:
            run.values.of(parameter)  # was read
    words = (weight.numel(), 0 if bias is None else bias.numel())
    taken, given = (_execution_shape(shape, kind) for shape in (tuple(read.shape), made))
    layer = Layer(run.names.of_weight(weight), kind, reads, taken, given, kernel, stride, groups, *words)
    executions, spikes = _executions(read), reads == "spike"
    same = {
        "dense_taps": dense,
        "macs": dense if reads in ("analog", "graded") else 0,
        "adds": 0 if bias is None else prod(made),
        "weight_words": executions * sum(words),
        "activation_words": prod(made) + (0 if spikes else read.numel()),
        "spike_bits": read.numel() if spikes else 0,
    }
    return Reading(run.ledger.row(layer), taps, channels, executions, same)


@lru_cache(maxsize=4096)
def _fan_out(read: Shape, made: Shape, weight: Shape, window: Window) -> tuple[tuple[Counts, ...], int, int]:
    """Taps along each axis and the channels that an element reaches; where all have the same taps, none and the outputs
    that it reaches. And the operations of one channel of the input, dense."""
    moves = [numbers * len(read) if len(numbers) == 1 else numbers for numbers in window[:3]]
    axes = [
        Axis(size, outputs, kernel, stride, padding, dilation, window.transposed)
        for size, outputs, kernel, stride, padding, dilation in zip(read, made, weight[2:], *moves, strict=True)
    ]
    channels = weight[1] if window.transposed else weight[0] // window.groups
    dense = dense_operations(axes, channels, 1)
    taps = tuple(taps_along(axis) for axis in axes)
    if all((along == along[:1]).all() for along in taps):  # a 1x1 convolution
        return (), channels * prod(int(along[:1].sum()) for along in taps), dense
    return taps, channels, dense


def _pair(numbers: Any) -> tuple[int, int]:
    """(height, width): one axis is the width, more than two are flattened into the height."""
    inner = (1, *(int(n) for n in numbers))
    return (prod(inner[:-1]), inner[-1])


def _execution_shape(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Of one element of a batch."""
    shape = shape[1:] if len(shape) > 1 else shape
    if kind == "conv":
        return frame_shape(shape)
    return frame_shape((shape[-1], *shape[:-1])) if shape else (1, 1, 1)


def _executions(read: Tensor) -> int:
    return read.shape[0] if read.dim() > 1 else 1


def product(run: Context, call: Call) -> None:
    """matmul, mm, bmm, mv, dot."""
    _product(run, call.args[0], call.args[1], None, call.out)


def product_and_sum(run: Context, call: Call) -> None:
    """addmm, baddbmm, addmv: a summand first."""
    _product(run, call.args[1], call.args[2], call.args[0], call.out)


def _product(run: Context, left: Tensor, right: Tensor, bias: Any, out: Tensor) -> None:
    if right.is_sparse:
        return run.ledger.list_unknown("a product by a sparse matrix", out.numel())
    a = left if left.dim() > 1 else left.unsqueeze(0)
    b = right if right.dim() > 1 else right.unsqueeze(1)
    of_weights = [run.names.is_weight(tensor) and tensor.dim() <= 2 for tensor in (left, right)]
    made = tuple(out.shape)
    if of_weights == [False, True]:
        book_layer(run, left, right, bias, made, b.shape[-1])
    elif of_weights == [True, False]:
        book_layer(run, right, left, bias, made, a.shape[-2])
    else:
        book_pair(run, a, b, run.names.of_product(), 0 if bias is None else out.numel())
    both = all(run.values.of(side).is_spikes for side in (left, right))
    run.values.write(out, Value(ValueKind.GRADED) if both else NUMBERS, fresh=True)


def book_pair(run: Context, a: Tensor, b: Tensor, name: str, adds: int = 0) -> None:
    """Count a product of two computed values, (..., n, d) by (..., d, m). Spikes by spikes: an AC where both are 1."""
    values = [run.values.of(a), run.values.of(b)]
    reads = _reads_of_pair(values)
    made = (*np.broadcast_shapes(tuple(a.shape[:-2]), tuple(b.shape[:-2])), a.shape[-2], b.shape[-1])
    dense = prod(made) * a.shape[-1]
    active = [
        torch.full_like(side.select(axis, 0), side.shape[axis], dtype=torch.int64)
        if reads == "spike" and not value.is_spikes  # whatever it holds is accumulated
        else nonzero_along(side, axis)
        for side, value, axis in ((a, values[0], -2), (b, values[1], -1))
    ]
    worked = int((active[0] * active[1]).sum()) if dense else 0
    counts = {"spike": {"acs": worked}, "zero": {}}.get(reads, {"macs": dense, "nonzero_macs": worked})
    words, bits, events = 0, 0, 0
    for side, value in ((a, values[0]), (b, values[1])):
        if value.is_spikes:
            run.emit(value)
            bits, events = bits + side.numel(), events + spikes_in(side)
        else:
            words += side.numel()
    layer = Layer(name, "linear", reads, _execution_shape(tuple(a.shape), "linear"), _execution_shape(made, "linear"))
    run.ledger.row(layer).add(
        _executions(a), **counts, dense_taps=dense, events_in=events if reads == "spike" else 0, adds=adds,
        activation_words=prod(made) + words, spike_bits=bits,
    )  # fmt: skip


def _reads_of_pair(values: list[Value]) -> str:
    """A zero state makes nothing; spikes accumulate what is beside them; else both are numbers."""
    reads = [_reads(value) for value in values]
    return next((kind for kind in ("zero", "spike") if kind in reads), "analog")


RULES: dict[str, Any] = {
    "convolution": convolution,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), conv),
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner"), product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), product_and_sum),
}
