"""Where the nodes of a graph are drawn: to the right what comes later, further down what is smaller.

In: nodes in order, each with the places of what it reads and the shape of what it gives. Out: x and y, edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ROW = 6  # lanes that one size has
Node = Mapping[str, Any]


def draw(nodes: Sequence[Node]) -> dict[str, Any] | None:
    """`x`: how many nodes are at least before it. `y`: a row per size of picture, large ones above; in a row a lane for
    each node that has the same x. `edges`: [from, to, whether it is read a step late]. None where nothing is read."""
    edges = [[read, place, read >= place] for place, node in enumerate(nodes) for read in node["inputs"]]
    if not edges:
        return None
    x: list[int] = []
    for place, node in enumerate(nodes):
        x.append(1 + max((x[read] for read in node["inputs"] if read < place), default=-1))
    return {"x": x, "y": _rows(nodes, x), "edges": edges}


def _rows(nodes: Sequence[Node], x: Sequence[int]) -> list[int]:
    sizes = _sizes(nodes)
    rank = {size: row for row, size in enumerate(sorted(set(sizes), reverse=True))}
    lanes: dict[tuple[int, int], int] = {}
    rows = []
    for size, column in zip(sizes, x, strict=True):
        lane = lanes.get((size, column), 0)
        lanes[size, column] = lane + 1
        rows.append(rank[size] * ROW + lane)
    return rows


def _sizes(nodes: Sequence[Node]) -> list[int]:
    """Pixels of what each node gives; what has none (means, vectors) stays where its input is."""
    sizes: list[int] = []
    for place, node in enumerate(nodes):
        _, height, width = node["gives"]
        before = [sizes[read] for read in node["inputs"] if read < place]
        sizes.append(before[0] if height * width == 1 and before else height * width)
    return sizes
