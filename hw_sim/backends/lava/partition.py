"""Which nodes are one Lava process, and when a node may run. In: a Network. Out: its nodes in groups. No Lava here."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import singledispatch
from itertools import groupby

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.graph.schedule import needs_all_steps, schedule

Unit = list[g.Node]  # nodes that are one process, whatever the model: a cycle, a neuron and its Membrane, or one node


@singledispatch
def needs_all_frames(node: g.Node) -> bool:
    """Whether the node must have received all T frames before it can compute its first. Unknown kinds are refused."""
    raise NetworkError(f"{node.name}: the Lava backend has no rule for kind {node.kind}")


@needs_all_frames.register(g.Activation)
@needs_all_frames.register(g.Add)
@needs_all_frames.register(g.Affine)
@needs_all_frames.register(g.Concat)
@needs_all_frames.register(g.Conv)
@needs_all_frames.register(g.Delay)
@needs_all_frames.register(g.Euler)
@needs_all_frames.register(g.Flatten)
@needs_all_frames.register(g.Flood)
@needs_all_frames.register(g.Membrane)
@needs_all_frames.register(g.Mul)
@needs_all_frames.register(g.Output)
@needs_all_frames.register(g.Pool)
@needs_all_frames.register(g.RainMask)
@needs_all_frames.register(g.Repeat)
@needs_all_frames.register(g.Resize)
@needs_all_frames.register(g.Spiking)
@needs_all_frames.register(g.Threshold)
def _(node: g.Node) -> bool:
    return False


@needs_all_frames.register
def _(node: g.Linear) -> bool:
    return node.axis == "T"


@needs_all_frames.register
def _(node: g.Reduce) -> bool:
    return "T" in node.axes


def takes_any_length(network: Network) -> bool:
    """Whether frames can come for as long as they like: each has its own, and no node looks at all steps at once."""
    return network.input.every_step and not any(map(needs_all_steps, network.nodes))


def units_of(network: Network) -> list[Unit]:
    """All nodes but the Input in units, each after all that it reads, late or not: between units there is no cycle.

    NetworkError names what has no place in a unit.
    """
    units: list[Unit] = []
    unit_of: dict[str, Unit] = {}
    for group in schedule(network):
        nodes = [network[name] for name in group if name != network.input.name]
        if len(nodes) == 1 and isinstance(nodes[0], g.Membrane):
            unit = unit_of[nodes[0].inputs[0]]
            unit += nodes
        elif nodes:
            units.append(nodes)
            unit = nodes
        unit_of |= dict.fromkeys(group, unit) if nodes else {}
    for unit in units:
        _check_unit(unit)
    return units


def _check_unit(unit: Unit) -> None:
    inside = {node.name for node in unit}
    for node in unit:
        if isinstance(node, g.Membrane) and node.late:
            raise NetworkError(
                f"{node.name} (membrane): reads its neuron a step late, expected at once; put a Delay of 1 after it"
            )
        if needs_all_frames(node) and any(not inside.isdisjoint(other.late) for other in unit):
            raise NetworkError(
                f"{node.name} ({node.kind}): waits for all steps on a cycle ({', '.join(sorted(inside))}), which goes"
                " step by step; take it out of the cycle"
            )


def blocks_of(units: Sequence[Unit]) -> list[tuple[str, list[Unit]]]:
    """Runs of consecutive units of one block, nested ones included; units without a block join the one after them.

    Consecutive units of a topological order: between such runs there can be no cycle.
    """
    runs: list[tuple[str, list[Unit]]] = []
    for unit in units:
        block = next((node.block for node in unit if node.block), "")
        name, members = runs[-1] if runs else (None, [])
        if name is not None and (name == "" or f"{block}.".startswith(f"{name}.")):
            members.append(unit)
            runs[-1] = (name or block, members)
        else:
            runs.append((block, [unit]))
    return [(name or members[0][0].name, members) for name, members in runs]


def operations_of(units: Sequence[Unit], host: Set[str]) -> list[Unit]:
    """What is a process of its own in the fine model: a unit, one of Lava's own, a run of nodes on the host."""
    operations: list[Unit] = []
    for at_once, run in groupby(units, key=lambda unit: len(unit) == 1 and unit[0].name in host):
        together = list(run)
        operations += [[unit[0] for unit in together]] if at_once else together
    return operations
