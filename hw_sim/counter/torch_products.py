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
from hw_sim.counter.values import NUMBERS, Value

EXACT = 1 << 24  # float32 adds whole numbers exactly below it


def _reads(value: Value) -> str:
    if value.fill == 0.0:
        return "zero"
    return value.kind.value if value.fill is None else "analog"


def _map(read: Tensor, keep: tuple[int, ...], values: bool) -> Any:
    """Sums over all other axes: of the values, or of how many are not 0. int64."""
    others = tuple(axis for axis in range(read.dim()) if axis not in keep)
    if not values:
        return torch.count_nonzero(read, dim=others).cpu().numpy()
    terms = prod(read.shape[axis] for axis in others)
    dtype = torch.float32 if terms < EXACT and read.dtype is not torch.float64 else torch.float64
    return read.sum(others, dtype=dtype).cpu().numpy().astype(np.int64)


def convolution(run: Context, call: Call) -> None:
    """aten.convolution: any number of axes, groups, transposed."""
    read, weight, bias, stride, padding, dilation, transposed, _, groups = call.args
    out = call.out
    axes = [
        Axis(size, made, kernel, *geometry, transposed)
        for size, made, kernel, *geometry in zip(
            read.shape[2:], out.shape[2:], weight.shape[2:], _spread(stride, weight), _spread(padding, weight),
            _spread(dilation, weight), strict=True,
        )
    ]  # fmt: skip
    channels = weight.shape[1] if transposed else weight.shape[0] // groups
    dense = dense_operations(axes, channels, read.shape[0] * read.shape[1])
    value = run.values.of(read)
    row = _weighted_row(run, "conv", value, read, out, weight, bias, (_pair(weight.shape[2:]), _pair(stride), groups))
    places = tuple(range(2, read.dim()))
    counts = _synaptic(run, value, dense, lambda values: operations(axes, channels, _map(read, places, values)))
    events = int(_map(read, (), True)) if value.is_spikes else 0
    _book(row, value, read, out, dense, counts, events, bias)
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
    out: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: tuple[tuple[int, int], tuple[int, int], int] = ((1, 1), (1, 1), 1),
) -> Row:
    """The row of a layer with weights; conv: channels are axis 1, else the last."""
    for parameter in (weight, bias):
        if parameter is not None:
            run.read_weights.add(parameter.untyped_storage()._cdata)
    kernel, stride, groups = geometry
    shapes = [_execution_shape(tensor, kind) for tensor in (read, out)]
    words = (weight.numel(), 0 if bias is None else bias.numel())
    return run.ledger.row(
        Layer(run.names.of_weight(weight), kind, _reads(value), *shapes, kernel, stride, groups, *words)
    )


def _execution_shape(tensor: Tensor, kind: str) -> tuple[int, ...]:
    shape = tuple(tensor.shape[1:]) if tensor.dim() > 1 else tuple(tensor.shape)
    if kind == "conv":
        return frame_shape(shape)
    return frame_shape((shape[-1], *shape[:-1])) if shape else (1, 1, 1)


def _executions(read: Tensor) -> int:
    return read.shape[0] if read.dim() > 1 else 1


def _synaptic(run: Context, value: Value, dense: int, operations_of: Any) -> dict[str, int]:
    """acs, or macs with their finer counts. operations_of(True): of the values; (False): of those that are not 0."""
    if value.fill == 0.0:
        return {}
    if value.is_spikes:
        run.emit(value)
        return {"acs": operations_of(True)}
    counts = {"macs": dense, "nonzero_macs": operations_of(False)}
    if value.fill is None and value.kind is ValueKind.GRADED:
        run.emit(value)
        counts["events"] = operations_of(True)
    return counts


def _book(
    row: Row, value: Value, read: Tensor, out: Tensor, dense: int, counts: dict[str, int], events: int, bias: Any
) -> None:
    executions = _executions(read)
    spikes = value.is_spikes
    row.add(
        executions,
        **counts,
        dense_taps=dense,
        events_in=events,
        adds=0 if bias is None else out.numel(),
        weight_words=executions * (row.layer.weight_words + row.layer.bias_words),
        activation_words=out.numel() + (0 if spikes else read.numel()),
        spike_bits=read.numel() if spikes else 0,
    )


def linear(run: Context, call: Call) -> None:
    """aten.linear: every element of the input reaches every output."""
    _dense_layer(run, call.args[0], call.args[1], call.get(2, "bias"), call.out, call.args[1].shape[0])


def _dense_layer(run: Context, read: Tensor, weight: Tensor, bias: Any, out: Tensor, outputs: int) -> None:
    value = run.values.of(read)
    row = _weighted_row(run, "linear", value, read, out, weight, bias)
    counts = _synaptic(run, value, read.numel() * outputs, lambda values: int(_map(read, (), values)) * outputs)
    events = counts["acs"] // outputs if counts.get("acs") and outputs else 0
    _book(row, value, read, out, read.numel() * outputs, counts, events, bias)
    run.values.write(out, NUMBERS, fresh=True)


def product(run: Context, call: Call) -> None:
    """matmul, mm, bmm, mv, dot."""
    _product(run, call.args[0], call.args[1], None, call.out)


def product_and_sum(run: Context, call: Call) -> None:
    """addmm, baddbmm, addmv, addbmm: a summand first."""
    _product(run, call.args[1], call.args[2], call.args[0], call.out)


def _product(run: Context, left: Tensor, right: Tensor, bias: Any, out: Tensor) -> None:
    a = left if left.dim() > 1 else left.unsqueeze(0)
    b = right if right.dim() > 1 else right.unsqueeze(1)
    weights = [run.names.is_weight(tensor) for tensor in (left, right)]
    if weights[1] and not weights[0] and right.dim() <= 2:
        return _dense_layer(run, left, right, bias, out, b.shape[-1])
    if weights[0] and not weights[1] and left.dim() <= 2:
        return _dense_layer(run, right, left, bias, out, a.shape[-2])
    _pair_product(run, a, b, bias, out)


def _pair_product(run: Context, a: Tensor, b: Tensor, bias: Any, out: Tensor) -> None:
    """Two computed operands, (..., n, d) by (..., d, m). Spikes by spikes: an AC where both are 1."""
    values = (run.values.of(a), run.values.of(b))
    spiking = [value for value in values if value.is_spikes]
    chief = (
        spiking[0] if spiking else max(values, key=lambda value: (value.fill != 0.0, value.kind is ValueKind.GRADED))
    )
    if any(value.fill == 0.0 for value in values):
        chief = next(value for value in values if value.fill == 0.0)
    dense = out.numel() * a.shape[-1]
    counter_parts = [_active(side, value, len(spiking)) for side, value in zip((a, b), values, strict=True)]
    left = counter_parts[0](a, -2)
    right = counter_parts[1](b, -1)
    both = int((left * right).sum()) if dense else 0
    layer = Layer(
        run.names.of_product(), "linear", _reads(chief), _execution_shape(a, "linear"),
        _execution_shape(out if out.dim() else out.view(1), "linear"),
    )  # fmt: skip
    for value in spiking:
        run.emit(value)
    counts = {} if chief.fill == 0.0 else {"acs": both} if spiking else {"macs": dense, "nonzero_macs": both}
    row = run.ledger.row(layer)
    ones = sum(int(_map(side, (), True)) for side, value in zip((a, b), values, strict=True) if value.is_spikes)
    row.add(
        _executions(a),
        **counts,
        dense_taps=dense,
        events_in=ones if counts else 0,
        adds=0 if bias is None else out.numel(),
        activation_words=out.numel() + sum(s.numel() for s, v in zip((a, b), values, strict=True) if not v.is_spikes),
        spike_bits=sum(s.numel() for s, v in zip((a, b), values, strict=True) if v.is_spikes),
    )
    run.values.write(out, Value(ValueKind.GRADED) if len(spiking) == 2 else NUMBERS, fresh=True)


def _active(side: Tensor, value: Value, spiking: int) -> Any:
    """How many elements of an operand take part, along one axis: of spikes the ones; beside spikes all, else those
    that are not 0."""
    if spiking and not value.is_spikes:
        return lambda tensor, axis: torch.full_like(tensor.select(axis, 0), tensor.shape[axis], dtype=torch.int64)
    return lambda tensor, axis: torch.count_nonzero(tensor, dim=axis)


RULES: dict[str, Any] = {
    "convolution": convolution,
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner"), product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), product_and_sum),
}
