"""What all runs of a network on inputs of one size and length have in common: shapes, kinds, and most counts.

In: a network, a size, a number of steps; then, node by node, the maps (steps, H, W) of what happened. Out: its counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from export.graph.counting import NodeCounts, count_node, count_seen, operands_of
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Node
from export.graph.words import Counts, Operands


@dataclass(frozen=True, eq=False)
class CountPlan:
    """What each node works on, and the counts of its first run: most of them hang on sizes alone, and are made once."""

    operands: dict[str, Operands]
    counts: dict[str, NodeCounts] = field(default_factory=dict)

    def count(self, node: Node, seen: dict[str, Counts]) -> NodeCounts:
        """Counts of one node. `seen`: its own spikes per step and pixel, or maps of what it read and of its gate, as
        `Operands.seeing` has them."""
        operands = self.operands[node.name].seeing(**seen) if seen else self.operands[node.name]
        if operands.gate is not None:
            return count_node(node, operands)
        known = self.counts.get(node.name)
        if known is None:
            known = self.counts[node.name] = count_node(node, operands)
            return known
        return known.but(count_seen(node, operands)) if seen else known


KEPT_PLANS = 16  # the exact tiles of an image have up to nine sizes
_PLANS: WeakKeyDictionary[Network, dict[tuple[int, int, int], CountPlan]] = WeakKeyDictionary()


def make_count_plan(network: Network, size: tuple[int, int], steps: int) -> CountPlan:
    """The plan of a network for a size and so many steps, made once: tiles, folders and chunks run the same again. Of
    a folder of ten thousand sizes the last few are kept."""
    plans = _PLANS.setdefault(network, {})
    key = (*size, steps)
    if key not in plans:
        while len(plans) >= KEPT_PLANS:
            plans.pop(next(iter(plans)))
        shapes = infer_shapes(network.with_steps(steps), *size)
        plans[key] = CountPlan({node.name: operands_of(network, shapes, node) for node in network.nodes})
    return plans[key]
