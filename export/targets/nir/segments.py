"""Cutting: which parts of a Network NIR's own primitives express, and in what order all parts run.

In: a Network and the size of its image. Out: steps in order; each is either one segment (nodes that become one stock
NIR graph with one Input and one Output) or operations of the host between two segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatch

from export.graph import nodes as g
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Array, NetworkError, Shape, gate_of
from export.graph.placement import on_cores

Shapes = dict[str, Shape]


@dataclass(frozen=True)
class Step:
    """Nodes (names, in the network's order) that run together. `inputs` come from earlier steps, `outputs` go to later
    ones; a segment carries them on one NIR Input and one NIR Output, joined along the channels in this order."""

    segment: bool
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def stock_nodes(network: Network) -> frozenset[str]:
    """The nodes that stock NIR primitives express exactly, where they run; the host computes the others."""
    side = 8 * network.size_multiple  # what may be summed is the same for all sizes
    shapes = infer_shapes(network, side, side)
    return on_cores(network, lambda node: expresses(node, [shapes[name] for name in node.inputs]))


@singledispatch
def expresses(node: g.Node, inputs: Sequence[Shape]) -> bool:
    """True if stock NIR primitives express the node exactly, given the shapes of what it reads."""
    raise NetworkError(
        f"NIR: {node.name} ({node.kind}): no rule for this kind; add one to export/targets/nir/segments.py"
    )


@expresses.register(g.Input)
@expresses.register(g.Output)
@expresses.register(g.Repeat)
@expresses.register(g.Linear)
@expresses.register(g.Mul)
@expresses.register(g.Reduce)
@expresses.register(g.Activation)
@expresses.register(g.Resize)
@expresses.register(g.RainMask)
@expresses.register(g.Pool)
@expresses.register(g.Flood)
def _(node: g.Node, inputs: Sequence[Shape]) -> bool:
    """NIR 1.0.8 has no product, ReLU, sigmoid, global pooling, maximum, enlargement, matrix over the steps, or
    morphology."""
    return False


@expresses.register(g.Concat)
@expresses.register(g.Neuron)
def _(node: g.Node, inputs: Sequence[Shape]) -> bool:
    return True


@expresses.register
def _(node: g.Conv, inputs: Sequence[Shape]) -> bool:
    """A gate of real values is a product; neurons are shut by inhibition."""
    return gate_of(node) is None


@expresses.register
def _(node: g.Add, inputs: Sequence[Shape]) -> bool:
    """Two edges into one node add values of one shape; nothing broadcasts."""
    return inputs[0] == inputs[1]


@expresses.register
def _(node: g.Affine, inputs: Sequence[Shape]) -> bool:
    """A scale and offset per channel are a diagonal 1x1 convolution; per step or pixel they are not."""
    return all(per_channel(value) for value in (node.scale, node.offset))


def per_channel(constant: Array) -> bool:
    """True if a constant that broadcasts over (T, C, H, W) varies over the channels only."""
    time, _, height, width = (1,) * (4 - constant.ndim) + constant.shape
    return time == height == width == 1


def cut(network: Network, height: int, width: int) -> list[Step]:
    """The steps of a network for one image size, in an order in which they can run.

    A stage is a stretch between two visits to the host: host nodes have odd stages, stock nodes even ones, each as
    early as its inputs allow. The connected stock nodes of one stage are one segment: no path leaves it and comes back.
    A gate has one frame for all steps, so that it always comes from outside. A segment is cut further only where its
    inputs or outputs have different sizes and so do not fit on one Input or Output.
    """
    shapes = infer_shapes(network, height, width)
    stages: dict[str, int] = {}
    stock = stock_nodes(network)
    for node in network.nodes:
        parity = 0 if node.name in stock else 1
        gate = gate_of(node) if parity == 0 else None
        before = [stages[name] + 2 * (name == gate and stages[name] % 2 == 0) for name in node.inputs]
        stages[node.name] = max((s + (s % 2 != parity) for s in before), default=parity)
    steps: list[Step] = []
    for stage in sorted(set(stages.values())):
        members = [node for node in network.nodes if stages[node.name] == stage]
        if stage % 2:
            steps.append(_step(network, members, segment=False))
        else:
            pieces = sorted(_pieces(network, members, shapes, _BOUNDARIES), key=lambda piece: piece[0])
            steps += [_step(network, piece, segment=True) for _, piece in pieces]
    return steps


def _step(network: Network, members: Sequence[g.Node], segment: bool) -> Step:
    inside = {node.name for node in members}
    read = {name for node in members for name in node.inputs} - inside
    shown = {name for name in inside if set(network.readers[name]) - inside}
    return Step(
        segment=segment,
        nodes=tuple(node.name for node in members),
        inputs=tuple(node.name for node in network.nodes if node.name in read),
        outputs=tuple(node.name for node in network.nodes if node.name in shown),
    )


Boundary = Callable[[g.Node, g.Node, Shapes], bool]


def _never(source: g.Node, reader: g.Node, shapes: Shapes) -> bool:
    return False


def _where_the_size_changes(source: g.Node, reader: g.Node, shapes: Shapes) -> bool:
    return shapes[source.name][2:] != shapes[reader.name][2:]


def _around_what_changes_the_size(source: g.Node, reader: g.Node, shapes: Shapes) -> bool:
    return any(shapes[name][2:] != shapes[node.name][2:] for node in (source, reader) for name in node.inputs)


_BOUNDARIES: tuple[Boundary, ...] = (_never, _where_the_size_changes, _around_what_changes_the_size)
Key = tuple[int, ...]


def _pieces(
    network: Network, members: Sequence[g.Node], shapes: Shapes, boundaries: Sequence[Boundary], key: Key = ()
) -> Iterator[tuple[Key, list[g.Node]]]:
    """Connected pieces whose inputs fit on one Input and outputs on one Output, with keys that sort them for running.

    Pieces that do not fit are cut at the next kind of boundary. After the last kind, nodes that change the size stand
    alone and all values of a piece have one size, so that everything fits.
    """
    levels: dict[str, int] = {}
    by_name = {node.name: node for node in members}
    for node in members:
        known = [by_name[name] for name in node.inputs if name in by_name]
        steps_up = (levels[source.name] + boundaries[0](source, node, shapes) for source in known)
        levels[node.name] = max(steps_up, default=0)
    for piece in _connected(members, levels):
        place = (*key, levels[piece[0].name], network.nodes.index(piece[0]))
        if _fits(_step(network, piece, segment=True), shapes):
            yield place, piece
        else:
            yield from _pieces(network, piece, shapes, boundaries[1:], place)


def _connected(members: Sequence[g.Node], levels: dict[str, int]) -> list[list[g.Node]]:
    """Groups of nodes joined by edges between nodes of the same level, in the order of their first nodes."""
    group = {node.name: [node] for node in members}
    for node in members:
        for name in node.inputs:
            if levels.get(name) == levels[node.name] and group[name] is not group[node.name]:
                joined = group[name] + group[node.name]
                group.update((other.name, joined) for other in joined)
    order = {node.name: index for index, node in enumerate(members)}
    unique = {id(nodes): sorted(nodes, key=lambda node: order[node.name]) for nodes in group.values()}
    return sorted(unique.values(), key=lambda nodes: order[nodes[0].name])


def _fits(step: Step, shapes: Shapes) -> bool:
    """True if the inputs have one size, and so have the outputs."""
    return all(len({shapes[name][2:] for name in names}) == 1 for names in (step.inputs, step.outputs))
