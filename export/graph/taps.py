"""Which inputs of a convolution meet which of its outputs: taps, border by border. No spike is counted here twice, and
no tap that falls on padding.

In: a Conv, the size of its input, maps of what lies at each pixel. Out: numbers of multiplications or additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from export.graph import nodes as g
from export.graph.nodes import Shape
from export.graph.words import EVERYWHERE, Counts, Place


@lru_cache(maxsize=4096)
def taps_along(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Along one axis: how many (output, kernel tap) pairs read each input position, and how many taps of each output
    read one. Padding has no position."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    positions = np.arange(outputs)[:, None] * stride + np.arange(kernel)[None, :] * dilation - padding
    inside = (positions >= 0) & (positions < size)
    return np.bincount(positions[inside], minlength=size).astype(np.int64), inside.sum(1, dtype=np.int64)


def _taps(node: g.Conv, height: int, width: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    geometry = zip((height, width), node.weight.shape[2:], node.stride, node.padding, node.dilation, strict=True)
    return [taps_along(*along) for along in geometry]


def fan_out(node: g.Conv, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Rows, columns and channels of the fan-out of one input element: a spike at (h, w) reaches
    rows[h] * columns[w] * channels outputs, whatever its channel."""
    (rows, _), (columns, _) = _taps(node, height, width)
    return rows, columns, node.weight.shape[0] // node.groups


def dense_taps(node: g.Conv, input_shape: Shape) -> int:
    """Multiply-accumulates of one dense pass over one step; taps that fall on padding are not work."""
    rows, columns, channels = fan_out(node, *input_shape[2:])
    return int(rows.sum() * columns.sum()) * channels * input_shape[1]


def synaptic_operations(
    node: g.Conv, spike_map: NDArray[np.int64], whole: Sequence[int] | None = None, place: Place = EVERYWHERE
) -> Counts:
    """Accumulations per step: every input spike times its exact fan-out. spike_map: (steps, H, W) -> (steps,), of the
    whole input, or of a place in one that has so many rows and columns."""
    rows, columns, channels = fan_out(node, *(whole or spike_map.shape[1:]))
    return np.asarray((spike_map @ columns[place[1]]) @ rows[place[0]] * channels, np.int64)


def open_taps(node: g.Conv, input_shape: Shape, gate: NDArray[np.int64], place: Place = EVERYWHERE) -> int:
    """Those of the outputs where a gate is open alone. gate: 1 or 0, (H, W) of the output, or of a place in it."""
    (_, rows), (_, columns) = _taps(node, *input_shape[2:])
    return int((gate @ columns[place[1]]) @ rows[place[0]]) * node.weight[:, :, 0, 0].size


def taps_on(node: g.Conv, values: NDArray[np.int64], gate: NDArray[np.int64]) -> Counts:
    """Those of them, per step, that fall on what `values` (steps, H, W) counts at each pixel of the input."""
    rows, columns = node.padding
    padded = np.pad(values, ((0, 0), (rows, rows), (columns, columns)))
    total = np.zeros(len(values), np.int64)
    for tap in np.ndindex(*node.weight.shape[2:]):
        first = [place * reach for place, reach in zip(tap, node.dilation, strict=True)]
        below, beside = (
            slice(start, start + stride * size, stride)
            for start, stride, size in zip(first, node.stride, gate.shape, strict=True)
        )
        total += (padded[:, below, beside] * gate).sum((1, 2))
    return total * (len(node.weight) // node.groups)
