"""How far the output looks: which pixels of an image, and of every value on the way, a part of the output hangs on.

In: a Network. Out: the halo with which a tile computes its core as the whole image would, or the names of the nodes
that look at the whole image, so that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, singledispatch
from math import ceil
from typing import NamedTuple

import numpy as np

from export.graph import nodes as g
from export.graph.network import Network, infer_shapes
from export.graph.nodes import NetworkError, gate_of

Range = tuple[int, int]  # first and last index along one axis; may lie beyond the image's borders, where zeros are


class Halo(NamedTuple):
    """Pixels around the core of a tile that its core hangs on, multiples of the network's `size_multiple`."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Window:
    """Along one axis: output j reads the inputs from (j stride - before) // factor to (j stride + after) // factor."""

    stride: int = 1
    before: int = 0
    after: int = 0
    factor: int = 1

    def read_by(self, outputs: Range) -> Range:
        """The inputs that a range of outputs reads."""
        first, last = outputs
        return (first * self.stride - self.before) // self.factor, (last * self.stride + self.after) // self.factor


HERE = (Window(), Window())


@singledispatch
def windows(node: g.Node) -> tuple[Window, Window] | None:
    """What an element of a node's value reads of its inputs, along rows and columns; None: the whole of them."""
    raise NetworkError(
        f"{node.name}: no rule for how far kind {node.kind} looks; add one to export/graph/receptive_field.py"
    )


@windows.register(g.Input)
@windows.register(g.Output)
@windows.register(g.Repeat)
@windows.register(g.Linear)
@windows.register(g.Membrane)
@windows.register(g.Add)
@windows.register(g.Sub)
@windows.register(g.Mul)
@windows.register(g.Concat)
@windows.register(g.Chunk)
@windows.register(g.LayerNorm)
@windows.register(g.ArgMax)
@windows.register(g.Activation)
def _(node: g.Node) -> tuple[Window, Window] | None:
    return HERE


@windows.register(g.Spiking)
@windows.register(g.Euler)
@windows.register(g.EulerNeuron)
@windows.register(g.Threshold)
@windows.register(g.Delay)
@windows.register(g.Affine)
def _(node: g.Node) -> tuple[Window, Window] | None:
    """Constants that differ from place to place tie a value to its place in the image."""
    arrays = [value for value in vars(node).values() if isinstance(value, np.ndarray)]
    return HERE if all(size == 1 for array in arrays for size in array.shape[-2:]) else None


@windows.register
def _(node: g.Conv) -> tuple[Window, Window] | None:
    return _sliding(node.weight.shape[2:], node.stride, node.padding, node.dilation)


@windows.register
def _(node: g.Pool) -> tuple[Window, Window] | None:
    return _sliding(node.kernel, node.stride, node.padding, (1, 1))


def _sliding(
    kernel: tuple[int, ...], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Window, Window]:
    rows, columns = (
        Window(step, before=pad, after=reach * (length - 1) - pad)
        for length, step, pad, reach in zip(kernel, stride, padding, dilation, strict=True)
    )
    return rows, columns


@windows.register
def _(node: g.Resize) -> tuple[Window, Window] | None:
    """Bilinear: the two pixels whose centres lie around (j + 1/2) / factor - 1/2."""
    if node.mode == "nearest":
        one = Window(factor=node.factor)
    else:
        one = Window(2, before=node.factor - 1, after=node.factor + 1, factor=2 * node.factor)
    return one, one


@windows.register
def _(node: g.DepthToSpace) -> tuple[Window, Window] | None:
    return (Window(factor=node.factor),) * 2


@windows.register
def _(node: g.Reduce) -> tuple[Window, Window] | None:
    return None if set("HW") & set(node.axes) else HERE


@windows.register(g.Flatten)
@windows.register(g.RainMask)
@windows.register(g.Flood)
@windows.register(g.WindowOrder)
@windows.register(g.SortOrder)
@windows.register(g.WindowAttention)
def _(node: g.Node) -> tuple[Window, Window] | None:
    """All places of a channel become channels; rain falls in the direction that is the strongest of the image; a
    flood counts all ones; who stands beside whom in an order is a matter of all pixels."""
    return None


def _looks_at(node: g.Node, axis: int) -> dict[str, Window]:
    """By input, along rows (axis 0) or columns (1), what an element of the value of a local node reads: of its gate the
    element at its own place."""
    window = windows(node)
    if window is None:
        return {}
    return dict.fromkeys(node.inputs, window[axis]) | ({gate: HERE[axis]} if (gate := gate_of(node)) else {})


def image_wide(network: Network) -> tuple[str, ...]:
    """The nodes that look at the whole of what they read, or whose constants are bound to a place in it."""
    return tuple(node.name for node in network.nodes if windows(node) is None)


def hangs_on(network: Network, axis: int, parts: Mapping[str, Range]) -> dict[str, Range]:
    """The rows (axis 0) or columns (1) of every value that those of `parts` are computed of, these included.

    Of networks without `image_wide` nodes and cycles.
    """
    found = dict(parts)
    for node in reversed(network.nodes):
        if node.name in found:
            for name, window in _looks_at(node, axis).items():
                first, last = window.read_by(found[node.name])
                before = found.get(name, (first, last))
                found[name] = min(first, before[0]), max(last, before[1])
    return found


def find_halo(network: Network) -> Halo:
    """The halo of a network of images. A tile that begins and ends at multiples of `size_multiple`, or at the border of
    the image, holds in its core, so many pixels further in, every value that the whole image has there.

    NetworkError, which names the node, where there is no such halo: something looks at the whole image, the network
    is no map of images of any size, or its grids do not fit its `size_multiple`.
    """
    _check_is_local(network)
    (top, bottom), (left, right) = (_reach(network, axis) for axis in (0, 1))
    return Halo(top, left, bottom, right)


def _check_is_local(network: Network) -> None:
    wide = image_wide(network)
    if wide:
        more = f" and {len(wide) - 1} more nodes" if len(wide) > 1 else ""
        raise NetworkError(
            f"{network.name}: {wide[0]} ({network[wide[0]].kind}){more} look at the whole image, which no tile has"
        )
    late = next((node for node in network.nodes if node.late), None)
    if late is not None:
        raise NetworkError(f"{late.name} ({late.kind}): on a cycle, which looks further at every step; it has no halo")
    if network.input.every_step or network.input.size is not None:
        raise NetworkError(f"{network.name}: takes no images of any size; only such are cut into tiles")


def _reach(network: Network, axis: int) -> Range:
    """Pixels before and behind a core, along one axis.

    Every value must be right within the core, not only those that reach the output: they are counted there. Beside the
    last index that is read, what a value lacks at its end (a convolution without padding) must lie in the tile.
    """
    distances = pitches(network, axis)
    first = hangs_on(network, axis, {name: (0, 0) for name in distances})
    last = hangs_on(network, axis, {name: (-1, -1) for name in distances})  # of a core that ends at 0
    side = 8 * network.size_multiple
    sizes = {name: shape[2 + axis] for name, shape in infer_shapes(network, side, side).items()}
    before = max(-first[name][0] * pitch for name, pitch in distances.items())
    behind = max((last[name][1] + 1 - sizes[name]) * pitch + side for name, pitch in distances.items())
    output = network.output.name
    if distances[output] != 1 or sizes[output] != side:
        raise NetworkError(f"{output}: makes {sizes[output]} pixels of {side}, expected an image of the same size")
    multiple = network.size_multiple
    return ceil(before / multiple) * multiple, ceil(behind / multiple) * multiple


@lru_cache(maxsize=8)
def pitches(network: Network, axis: int) -> dict[str, Fraction]:
    """How many pixels of the image lie between two elements of each value, along rows (axis 0) or columns (1);
    NetworkError unless it is one distance and divides `size_multiple`."""
    found = {network.input.name: Fraction(1)}
    for node in network.nodes:
        looked_at = _looks_at(node, axis)
        if looked_at:
            distances = {found[name] * window.stride / window.factor for name, window in looked_at.items()}
            if len(distances) > 1 or (network.size_multiple / min(distances)).denominator > 1:
                raise NetworkError(
                    f"{node.name} ({node.kind}): elements every {', '.join(map(str, sorted(distances)))} pixels,"
                    f" expected one such distance, and that it divides {network.size_multiple}; it has no halo"
                )
            [found[node.name]] = distances
    return found
