"""Convolutions, products of matrices, attention and recurrent layers of torch: who accumulates, who multiplies.

An operand of spikes: one AC per spike and synapse that exists. Else MACs, dense; beside them those on values that are
not 0 and, where sums of spikes are read, events (value times fan-out).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.graph.nodes import ValueKind
from hw_sim.counter.ledger import Layer, Row, frame_shape
from hw_sim.counter.synapses import Axis, dense_operations, operations
from hw_sim.counter.torch_context import Call, Context
from hw_sim.counter.torch_sums import events_at, events_in, nonzero_along, nonzero_at, nonzero_in, ones_at, ones_in
from hw_sim.counter.torch_values import storage_of
from hw_sim.counter.values import NUMBERS, Value


def _reads(value: Value) -> str:
    if value.fill == 0.0:
        return "zero"
    return value.kind.value if value.fill is None else "analog"


def convolution(run: Context, call: Call) -> None:
    """aten.convolution: any number of axes, groups, transposed."""
    read, weight, bias, stride, padding, dilation, transposed, _, groups = call.args
    out = call.out
    geometry = [_spread(numbers, weight) for numbers in (stride, padding, dilation)]
    axes = [
        Axis(size, made, kernel, step, pad, dilate, transposed)
        for size, made, kernel, step, pad, dilate in zip(
            read.shape[2:], out.shape[2:], weight.shape[2:], *geometry, strict=True
        )
    ]
    channels = weight.shape[1] if transposed else weight.shape[0] // groups
    dense = dense_operations(axes, channels, read.shape[0] * read.shape[1])
    value = run.values.of(read)
    made = tuple(out.shape)
    row = _weighted_row(run, "conv", value, read, made, weight, bias, (_pair(weight.shape[2:]), _pair(stride), groups))
    counts = _synaptic(run, value, dense, lambda at, _: operations(axes, channels, at(read)))
    events = ones_in(read) if value.is_spikes else 0
    _book(row, value, read, made, dense, counts, events, bias)
    run.values.write(out, NUMBERS, fresh=True)


def _spread(numbers: list[int], weight: Tensor) -> list[int]:
    axes = weight.dim() - 2
    return list(numbers) * axes if len(numbers) == 1 else list(numbers)


def _pair(numbers: Any) -> tuple[int, int]:
    """(height, width): one axis is the width, more than two are flattened into the height."""
    inner = (1, *(int(n) for n in numbers))
    return (prod(inner[:-1]), inner[-1])


def _weighted_row(
    run: Context,
    kind: str,
    value: Value,
    read: Tensor,
    made: tuple[int, ...],
    weight: Tensor,
    bias: Tensor | None,
    geometry: tuple[tuple[int, int], tuple[int, int], int] = ((1, 1), (1, 1), 1),
) -> Row:
    """The row of a layer with weights; conv: channels are axis 1, else the last."""
    reads = _reads(value)
    key = (storage_of(weight), weight.shape, read.shape, made, reads, run.names.frames[-1].name, geometry)
    if key not in run.rows:
        kernel, stride, groups = geometry
        taken, given = (_execution_shape(shape, kind) for shape in (tuple(read.shape), made))
        words = (weight.numel(), 0 if bias is None else bias.numel())
        for parameter in (weight, bias):
            if parameter is not None:
                run.values.of(parameter)  # was read
        name = run.names.of_weight(weight)
        run.rows[key] = run.ledger.row(Layer(name, kind, reads, taken, given, kernel, stride, groups, *words))
    return run.rows[key]


def _execution_shape(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Of one element of a batch."""
    shape = shape[1:] if len(shape) > 1 else shape
    if kind == "conv":
        return frame_shape(shape)
    return frame_shape((shape[-1], *shape[:-1])) if shape else (1, 1, 1)


def _executions(read: Tensor) -> int:
    return read.shape[0] if read.dim() > 1 else 1


def _synaptic(run: Context, value: Value, dense: int, operations_of: Any) -> dict[str, int]:
    """acs, or macs with their finer counts. operations_of: from a way to count elements at each place,
    and one to count all."""
    if value.fill == 0.0:
        return {}
    if value.is_spikes:
        run.emit(value)
        return {"acs": operations_of(ones_at, ones_in)}
    counts = {"macs": dense, "nonzero_macs": operations_of(nonzero_at, nonzero_in)}
    if value.fill is None and value.kind is ValueKind.GRADED:
        run.emit(value)
        counts["events"] = operations_of(events_at, events_in)
    return counts


def _book(
    row: Row,
    value: Value,
    read: Tensor,
    made: tuple[int, ...],
    dense: int,
    counts: dict[str, int],
    events: int,
    bias: Any,
) -> None:
    executions = _executions(read)
    spikes = value.is_spikes
    row.add(
        executions,
        **counts,
        dense_taps=dense,
        events_in=events,
        adds=0 if bias is None else prod(made),
        weight_words=executions * (row.layer.weight_words + row.layer.bias_words),
        activation_words=prod(made) + (0 if spikes else read.numel()),
        spike_bits=read.numel() if spikes else 0,
    )


def linear(run: Context, call: Call) -> None:
    """aten.linear: every element of the input reaches every output."""
    weight: Tensor = call.args[1]
    book_layer(run, call.args[0], weight, call.get(2, "bias"), weight.shape[0], tuple(call.out.shape))
    run.values.write(call.out, NUMBERS, fresh=True)


def book_layer(
    run: Context, read: Tensor, weight: Tensor, bias: Tensor | None, outputs: int, made: tuple[int, ...]
) -> None:
    """Count a matrix of weights: every element read reaches `outputs` of what is made, a value of shape `made`."""
    value = run.values.of(read)
    row = _weighted_row(run, "linear", value, read, made, weight, bias)
    dense = read.numel() * outputs
    counts = _synaptic(run, value, dense, lambda _, total: total(read) * outputs)
    events = counts.get("acs", 0) // outputs if outputs else 0
    _book(row, value, read, made, dense, counts, events, bias)


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
        book_layer(run, left, right, bias, b.shape[-1], made)
    elif of_weights == [True, False]:
        book_layer(run, right, left, bias, a.shape[-2], made)
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
            bits, events = bits + side.numel(), events + ones_in(side)
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
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner"), product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), product_and_sum),
}
