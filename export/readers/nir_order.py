"""Which edges of a NIR graph are read one step late, and an order to run the rest in.

NIR says that a graph may have cycles, not where a step ends. The rule here depends on nothing but the graph:

- A Delay of at least one step on a cycle is late by itself: what it gives never depends on the present.
- Of the cycles that remain, an entry is a node that also reads from outside its cycle. It reads what comes round the
  cycle one step late, zero before the first step. Cycles that remain without those edges are treated likewise.

One loop (B. Steensgaard's nesting of loops, "Sequentializing program dependence graphs", 1993) thus costs one step, the
edge that closes it; two populations that excite each other hear each other's last step, both.
"""

from __future__ import annotations

from collections.abc import Collection
from graphlib import TopologicalSorter

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from export.graph.nodes import NetworkError
from export.readers.nir_file import Edge


def late_edges(names: Collection[str], edges: Collection[Edge], delays: Collection[str]) -> set[Edge]:
    """The edges that are read one step late. `delays`: nodes that hold back every element for a step or more; one of
    them on a cycle reads everything late. NetworkError for a cycle that nothing leads into."""
    inside = _on_cycles(names, edges)
    waiting = {reader for _, reader in inside if reader in delays}
    late = {edge for edge in edges if edge[1] in waiting}
    while inside := _on_cycles(names, set(edges) - late):
        entries = {reader for source, reader in set(edges) - late if (source, reader) not in inside}
        found = {edge for edge in inside if edge[1] in entries}
        if not found:
            name = min(reader for _, reader in inside)
            raise NetworkError(
                f"{name}: on a cycle that no edge leads into, expected one from outside; connect an Input"
            )
        late |= found
    return late


def running_order(names: Collection[str], edges: Collection[Edge], late: Collection[Edge]) -> list[str]:
    """Every node after all that it reads, but for what it reads late."""
    sources: dict[str, list[str]] = {name: [] for name in names}
    for edge in edges:
        if edge not in late:
            sources[edge[1]].append(edge[0])
    return list(TopologicalSorter(sources).static_order())


def _on_cycles(names: Collection[str], edges: Collection[Edge]) -> set[Edge]:
    """The edges of all cycles: those within a strongly connected component."""
    if not edges:
        return set()
    index = {name: number for number, name in enumerate(names)}
    rows, columns = np.array([(index[source], index[reader]) for source, reader in edges]).T
    matrix = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(index), len(index)))
    _, component = connected_components(matrix, connection="strong")
    return {edge for edge in edges if component[index[edge[0]]] == component[index[edge[1]]]}
