"""The typed layer graph: what every target reads. Frozen dataclasses over NumPy arrays, no torch.

A Network holds primitives in topological order, the number of time steps T, and checks itself when it is built. A value
has the shape (T, C, H, W), or (1, C, H, W) where it does not change over time; reductions keep their axes at size 1.
A cycle is an input that is read one step late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from export.graph import nodes as g
from export.graph.nodes import FAN_IN, NetworkError, Shape, ValueKind, gate_of
from export.graph.values import output_shape, value_kind

Kind = TypeVar("Kind", bound=g.Node)
JOINS = ("add", "sub", "mul", "leaky")  # of two inputs either decides the shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """Nodes in topological order. Images have sides that `size_multiple` divides (the runner pads).

    `model_parameters`: trainable parameters of the model it was lowered from; the nodes' must sum to it. `reader`: the
    one that made it, for what is only said of its networks.
    """

    name: str
    nodes: tuple[g.Node, ...]
    steps: int
    size_multiple: int = 1
    model_parameters: int = 0
    reader: str = ""

    def __post_init__(self) -> None:
        _check_structure(self)
        counted = sum(node.source_parameters for node in self.nodes)
        if counted != self.model_parameters:
            raise NetworkError(f"{self.name}: nodes hold {counted} parameters, the model {self.model_parameters}")
        infer_shapes(self, *self.probe_size)
        _check_spikes(self)

    def __getitem__(self, name: str) -> g.Node:
        """The node of that name (KeyError where there is none)."""
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, g.Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def kinds(self) -> dict[str, ValueKind]:
        """What each node's value is: spike, graded or analog."""
        kinds = dict.fromkeys(self.by_name, ValueKind.SPIKE)  # on a cycle: spikes, unless something makes more of them
        changed = True
        while changed:
            changed = False
            for node in self.nodes:
                found = value_kind(node, [kinds[name] for name in node.inputs])
                changed = changed or found is not kinds[node.name]
                kinds[node.name] = found
        return kinds

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Names of the nodes that read each node's value."""
        return {
            node.name: tuple(other.name for other in self.nodes if node.name in other.inputs) for node in self.nodes
        }

    @cached_property
    def gates(self) -> tuple[str, ...]:
        """The names of all nodes that are gates of others, in order."""
        found = {gate_of(node) for node in self.nodes}
        return tuple(node.name for node in self.nodes if node.name in found)

    @property
    def input(self) -> g.Input:
        """The one Input."""
        return next(node for node in self.nodes if isinstance(node, g.Input))

    @property
    def output(self) -> g.Output:
        """The one Output; NetworkError where there are several (`outputs` has them all)."""
        if len(self.outputs) != 1:
            raise NetworkError(f"{self.name}: {len(self.outputs)} outputs, expected one")
        return self.outputs[0]

    @property
    def outputs(self) -> tuple[g.Output, ...]:
        """All Outputs, in order."""
        return self.of(g.Output)

    @property
    def neurons(self) -> tuple[g.Spiking, ...]:
        """All spiking nodes, in order."""
        return self.of(g.Spiking)

    @property
    def has_neurons(self) -> bool:
        """Whether anything has a membrane, or fires."""
        return bool(self.neurons or self.of(g.Euler) or self.of(g.Threshold))

    def of(self, kind: type[Kind]) -> tuple[Kind, ...]:
        """All nodes of a kind, in order."""
        return tuple(node for node in self.nodes if isinstance(node, kind))

    @property
    def probe_size(self) -> tuple[int, int]:
        """(height, width) that its input takes: its own, or where that is free one that fits."""
        return self.input.size or (8 * self.size_multiple, 8 * self.size_multiple)

    def with_steps(self, steps: int) -> Network:
        """The same network for so many time steps; what is given a frame for every step has no number of its own."""
        return self if steps == self.steps else replace(self, steps=steps)


def _check_structure(network: Network) -> None:
    """Names unique, inputs defined before they are read or read late, the right number of them, one Input, Outputs."""
    if network.steps < 1:
        raise NetworkError(f"{network.name}: steps must be at least 1, found {network.steps}")
    seen: set[str] = set()
    for node in network.nodes:
        if node.name in seen:
            raise NetworkError(f"{node.name}: the name is used twice; names must be unique")
        early = [name for name in node.inputs if name not in seen and name not in node.late]
        if early:
            raise NetworkError(
                f"{node.name} ({node.kind}): reads {early[0]}, which is not defined before it (a cycle?); mark it late"
            )
        if not set(node.late) <= set(node.inputs):
            raise NetworkError(f"{node.name} ({node.kind}): reads {node.late} late, which are not all among its inputs")
        _check_fan_in(node)
        seen.add(node.name)
    for node in network.nodes:
        missing = [name for name in node.late if name not in seen]
        if missing:
            raise NetworkError(f"{node.name} ({node.kind}): reads {missing[0]}, which is not there")
    inputs = sum(isinstance(node, g.Input) for node in network.nodes)
    if inputs != 1:
        raise NetworkError(f"{network.name}: {inputs} Input nodes, expected 1")
    if not network.outputs:
        raise NetworkError(f"{network.name}: 0 Output nodes, expected 1 or more")


def _check_fan_in(node: g.Node) -> None:
    known = [kind for kind in type(node).__mro__ if kind in FAN_IN]
    if not known:
        raise NetworkError(f"{node.name}: no rule for the inputs of kind {node.kind}; add one to FAN_IN")
    (least, most), found = FAN_IN[known[0]], len(node.inputs)
    if not least <= found <= most:
        expected = f"{least}" if most == least else f"{least} or more" if most > 3 else f"{least} or {most}"
        raise NetworkError(f"{node.name} ({node.kind}): {found} inputs, expected {expected}")


def _check_spikes(network: Network) -> None:
    """Gates are spikes, and so is what Flood counts; what spikes drive has no gate, nor has anything a late one."""
    for node in network.nodes:
        gate, source = gate_of(node), node.inputs[0] if node.inputs else ""
        asked = gate if gate is not None else source if isinstance(node, g.Flood) else None
        if asked is not None and network.kinds[asked] is not ValueKind.SPIKE:
            what = "its gate" if asked is gate else "its input"
            raise NetworkError(
                f"{node.name} ({node.kind}): {what} {asked} is {network.kinds[asked].value}, expected spikes; put"
                " neurons or a threshold before it"
            )
        if gate is not None and gate in node.late:
            raise NetworkError(
                f"{node.name} ({node.kind}): reads its gate {gate} late; a gate is the same at all steps"
            )
        if gate is not None and not isinstance(node, g.Neuron) and network.kinds[source] is ValueKind.SPIKE:
            raise NetworkError(
                f"{node.name} ({node.kind}): has a gate, and is driven by the spikes of {source}, which come when they"
                " come; gate the neurons before it or behind it"
            )


def infer_shapes(network: Network, height: int, width: int) -> dict[str, Shape]:
    """The shape of every node's value for an input of that size; NetworkError names the first that does not fit."""
    multiple, size = network.size_multiple, network.input.size
    if size is not None and (height, width) != size:
        raise NetworkError(f"{network.name}: input of {height}x{width}, expected {size[0]}x{size[1]}")
    if height < 1 or width < 1 or height % multiple or width % multiple:
        raise NetworkError(
            f"{network.name}: image of {height}x{width}; both sides must be positive multiples of {multiple}"
        )
    time = network.steps if network.input.every_step else 1
    shapes: dict[str, Shape] = {network.input.name: (time, network.input.channels, height, width)}
    _infer_cycles(network, shapes)
    for node in network.nodes:
        if not isinstance(node, g.Input):
            found = output_shape(node, [shapes[name] for name in node.inputs], network.steps)
            if shapes.setdefault(node.name, found) != found:
                raise NetworkError(f"{node.name} ({node.kind}): its cycle makes {found} of {shapes[node.name]}")
    return shapes


def _infer_cycles(network: Network, shapes: dict[str, Shape]) -> None:
    """Fill in what late inputs leave open: a sum, or a neuron of two inputs, has the shape of what is known."""
    if not any(node.late for node in network.nodes):
        return
    before = -1
    while len(shapes) != before:
        before = len(shapes)
        for node in network.nodes:
            known = [shapes[name] for name in node.inputs if name in shapes]
            if node.name in shapes or not known or (len(known) < len(node.inputs) and node.kind not in JOINS):
                continue
            shapes[node.name] = output_shape(node, (known * 2)[: len(node.inputs)], network.steps)
    missing = [node.name for node in network.nodes if node.name not in shapes]
    if missing:
        raise NetworkError(f"{missing[0]} ({network[missing[0]].kind}): on a cycle that nothing else leads into")
