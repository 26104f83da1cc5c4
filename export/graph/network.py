"""The typed layer graph: what every target reads. Frozen dataclasses over NumPy arrays, no torch.

A Network holds primitives in topological order, the number of time steps T, and checks itself when it is built. A value
has the shape (T, C, H, W), or (1, C, H, W) where it does not change over time; reductions keep their axes at size 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from export.graph import nodes as g
from export.graph.nodes import FAN_IN, NetworkError, Shape, ValueKind
from export.graph.values import output_shape, value_kind


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
        side = 8 * self.size_multiple
        infer_shapes(self, side, side)

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
        kinds: dict[str, ValueKind] = {}
        for node in self.nodes:
            kinds[node.name] = value_kind(node, [kinds[name] for name in node.inputs])
        return kinds

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Names of the nodes that read each node's value."""
        return {
            node.name: tuple(other.name for other in self.nodes if node.name in other.inputs) for node in self.nodes
        }

    @property
    def input(self) -> g.Input:
        """The one Input."""
        return next(node for node in self.nodes if isinstance(node, g.Input))

    @property
    def output(self) -> g.Output:
        """The one Output."""
        return next(node for node in self.nodes if isinstance(node, g.Output))

    @property
    def neurons(self) -> tuple[g.Neuron, ...]:
        """All spiking nodes, in order."""
        return tuple(node for node in self.nodes if isinstance(node, g.Neuron))


def _check_structure(network: Network) -> None:
    """Names unique, inputs defined before they are read, the right number of them, one Input and one Output."""
    if network.steps < 1:
        raise NetworkError(f"{network.name}: steps must be at least 1, found {network.steps}")
    seen: set[str] = set()
    for node in network.nodes:
        if node.name in seen:
            raise NetworkError(f"{node.name}: the name is used twice; names must be unique")
        late = [name for name in node.inputs if name not in seen]
        if late:
            raise NetworkError(f"{node.name} ({node.kind}): reads {late[0]}, which is not defined before it (a cycle?)")
        _check_fan_in(node)
        seen.add(node.name)
    for required in (g.Input, g.Output):
        found = sum(isinstance(node, required) for node in network.nodes)
        if found != 1:
            raise NetworkError(f"{network.name}: {found} {required.__name__} nodes, expected 1")


def _check_fan_in(node: g.Node) -> None:
    known = [kind for kind in type(node).__mro__ if kind in FAN_IN]
    if not known:
        raise NetworkError(f"{node.name}: no rule for the inputs of kind {node.kind}; add one to FAN_IN")
    expected, found = FAN_IN[known[0]], len(node.inputs)
    if found < expected or (found > expected and not isinstance(node, g.Concat)):
        more = " or more" if isinstance(node, g.Concat) else ""
        raise NetworkError(f"{node.name} ({node.kind}): {found} inputs, expected {expected}{more}")


def infer_shapes(network: Network, height: int, width: int) -> dict[str, Shape]:
    """The shape of every node's value for an image of that size; NetworkError names the first that does not fit."""
    multiple = network.size_multiple
    if height < 1 or width < 1 or height % multiple or width % multiple:
        raise NetworkError(
            f"{network.name}: image of {height}x{width}; both sides must be positive multiples of {multiple}"
        )
    shapes: dict[str, Shape] = {}
    for node in network.nodes:
        if isinstance(node, g.Input):
            shapes[node.name] = (1, node.channels, height, width)
        else:
            shapes[node.name] = output_shape(node, [shapes[name] for name in node.inputs], network.steps)
    return shapes
