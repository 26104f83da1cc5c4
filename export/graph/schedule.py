"""In which order nodes can run, and whether time can be cut. In: a Network, or a node. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from graphlib import TopologicalSorter
from heapq import heappop, heappush

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from export.graph import nodes as g
from export.graph.network import Network

Groups = tuple[tuple[str, ...], ...]


@lru_cache(maxsize=8)
def schedule(network: Network) -> Groups:
    """The nodes in groups, in an order in which groups can run one after the other over all steps, the network's as far
    as it can be: the nodes of a cycle are one group, every other node is a group of its own."""
    if not any(node.late for node in network.nodes):
        return tuple((node.name,) for node in network.nodes)
    index = {node.name: number for number, node in enumerate(network.nodes)}
    edges = [(index[name], index[node.name]) for node in network.nodes for name in node.inputs]
    sources, readers = np.array(edges).T
    matrix = coo_array((np.ones(len(edges)), (sources, readers)), shape=(len(index), len(index)))
    _, cycles = connected_components(matrix, connection="strong")
    before: dict[int, set[int]] = {int(cycle): set() for cycle in cycles}
    for source, reader in edges:
        if cycles[source] != cycles[reader]:
            before[int(cycles[reader])].add(int(cycles[source]))
    members: dict[int, list[str]] = {}
    for node in network.nodes:
        members.setdefault(int(cycles[index[node.name]]), []).append(node.name)
    return tuple(tuple(members[cycle]) for cycle in _sorted(before, [*members]))


def _sorted(before: dict[int, set[int]], wanted: list[int]) -> Iterator[int]:
    """Everything after what is before it, and else in the order that is wanted: what belongs together stays so."""
    rank = {cycle: number for number, cycle in enumerate(wanted)}
    sorter = TopologicalSorter(before)
    sorter.prepare()
    ready: list[tuple[int, int]] = []
    while sorter.is_active():
        for cycle in sorter.get_ready():
            heappush(ready, (rank[cycle], cycle))
        _, first = heappop(ready)
        sorter.done(first)
        yield first


def needs_all_steps(node: g.Node) -> bool:
    """Whether a node looks at all steps at once, or tells them apart: time cannot be cut into chunks then."""
    per_step = any(isinstance(v, np.ndarray) and v.ndim == 4 and len(v) > 1 for v in vars(node).values())
    if isinstance(node, (g.Reduce, g.Linear)):
        return "T" in (node.axes if isinstance(node, g.Reduce) else node.axis)
    return isinstance(node, g.Repeat) or (per_step and not isinstance(node, g.Conv))
