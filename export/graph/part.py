"""A tile of an image and its core, in every value of a network: what is counted of the core is the whole image's.

In: a network without image-wide nodes, where its tile lies, the maps of what happened in it. Out: counts that add up,
over the tiles whose cores make up the image, to those of one run of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph import nodes as g
from export.graph.counting import NodeCounts, count_node, operands_of
from export.graph.network import Network, infer_shapes
from export.graph.nodes import gate_of
from export.graph.receptive_field import pitches

Span = tuple[int, int]  # first, and the one behind the last, along one axis
Map = NDArray[np.int64]  # (steps, H, W), of a value in the tile


@dataclass(frozen=True)
class Part:
    """Rows and columns, in pixels of the whole (height, width): of a tile that runs, and of the core that it is for."""

    whole: tuple[int, int]
    tile: tuple[Span, Span]
    core: tuple[Span, Span]


class PartCounter:
    """Counts what a tile's core adds to one run of the whole. What that costs though nothing fires and every gate is
    shut is the part of the core in the corner. The tile must hold the core's halo (receptive_field.py), or the border
    of the whole."""

    def __init__(self, network: Network, part: Part) -> None:
        self.network, self.in_corner = network, (part.core[0][0], part.core[1][0]) == (0, 0)
        self.shapes = infer_shapes(network, *part.whole)
        along = [pitches(network, axis) for axis in (0, 1)]
        self.places = {name: [_spans(part, axis, along[axis][name], shape[2 + axis]) for axis in (0, 1)]
                       for name, shape in self.shapes.items()}  # fmt: skip

    def count(
        self, node: g.Node, fired: Map | None = None, gate: NDArray[np.int64] | None = None, **read: Map | None
    ) -> NodeCounts:
        """Counts of one node. `fired`: its own spikes per step and pixel; `gate`: as Operands has it, of the tile;
        `read`: maps of its first input, by the names that Operands has for them."""
        operands = operands_of(self.network, self.shapes, node)
        fired = None if fired is None else self.core(node.name, fired)
        maps = {name: found for name, found in read.items() if found is not None}
        if gate is not None:
            operands = replace(operands, **self._behind(node.name, gate))  # type: ignore[arg-type]
        elif maps:
            rows, columns = self.places[node.inputs[0]]
            operands = replace(operands, place=(slice(*rows[0]), slice(*columns[0])))
            maps = {name: self.core(node.inputs[0], found) for name, found in maps.items()}
        counts = count_node(node, operands.seeing(fired, **maps))
        return counts if self.in_corner else counts.less(self._at_rest(node))

    def _at_rest(self, node: g.Node) -> NodeCounts:
        """Where nobody has looked nothing happens: maps of no pixel."""
        nothing = np.zeros((1, 0, 0), np.int64)
        operands = replace(operands_of(self.network, self.shapes, node, nothing), place=(slice(0, 0), slice(0, 0)))
        silent = np.zeros((operands.steps, 0, 0), np.int64)
        gate = {} if gate_of(node) is None else {"gate": nothing[0]}
        return count_node(node, operands.seeing(silent, **gate))

    def _behind(self, name: str, gate: NDArray[np.int64]) -> dict[str, object]:
        """The gate of the tile, shut outside of the core, and where the tile lies in the node's value."""
        spans, core = self.places[name], np.zeros_like(gate)
        inside = tuple(slice(*in_tile) for _, in_tile in spans)
        core[inside] = gate[inside]
        firsts = [whole[0] - in_tile[0] for whole, in_tile in spans]
        return {"gate": core, "place": tuple(slice(at, at + n) for at, n in zip(firsts, gate.shape, strict=True))}

    def core(self, name: str, found: NDArray[Any]) -> NDArray[Any]:
        """The core's part of a map of a node's value in the tile."""
        rows, columns = (slice(*in_tile) for _, in_tile in self.places[name])
        return found[:, rows, columns]


def _spans(part: Part, axis: int, pitch: object, size: int) -> tuple[Span, Span]:
    """The core's elements of a value, counted from the border of the whole and from that of the tile.

    The last core of a side has all that is left of the value, which may have more or fewer elements than pixels.
    """
    first, end = (int(place / pitch) for place in part.core[axis])  # type: ignore[operator]
    end = size if part.core[axis][1] == part.whole[axis] else end
    before = int(part.tile[axis][0] / pitch)  # type: ignore[operator]
    return (first, end), (first - before, end - before)


def join(parts: Iterable[Mapping[str, NodeCounts]]) -> dict[str, NodeCounts]:
    """The counts of a whole image, by node: the sum of those of its parts."""
    whole: dict[str, NodeCounts] = {}
    for part in parts:
        whole = {name: whole[name].plus(counts) if whole else counts for name, counts in part.items()}
    return whole
