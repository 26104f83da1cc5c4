"""Where and when everything happens: a Network becomes a Plan of Lava processes, latencies and delays. No Lava here.

In: a Network, an image size, a precision, the process model. Out: a Plan, all of whose timing follows from the graph.

Time: a value flows as one frame per Lava step. The T frames of an image take T consecutive steps, and images may follow
one another without a gap. Frame n of a value with latency L is sent in step 1 + L + n. A process that receives,
computes and sends within a step adds nothing; a node that needs all T frames (a reduction or a matrix over T) has its
first frame only when the last has come: T - 1 steps. A process starts with the latest of its inputs; the others wait
in delay lines. Where there is no frame there is no message, except to and from Lava's own processes, which send and
receive at every step. A late input is received like any other; its reader looks at the frame before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from export.graph import nodes as g
from export.graph.counting import reads_spikes
from export.graph.network import Network, infer_shapes
from export.graph.nodes import NetworkError, Shape, ValueKind, gate_of
from export.graph.placement import on_host
from export.integer.operations import Operation
from hw_sim.backends.lava.partition import (
    Unit,
    blocks_of,
    needs_all_frames,
    operations_of,
    takes_any_length,
    units_of,
)
from hw_sim.backends.lava.stock import is_stock, split_bias

Model = Literal["fused", "fine"]
CHANNEL_SIZE = 2  # messages that a channel holds: sender and receiver may be a step apart
AT_ONCE = 64  # steps that a sequence of any length is sent at a time: what is under way does not grow with it


@dataclass(frozen=True)
class Value:
    """What flows over a channel: (T or 1, C, H, W), and the type of its numbers ('bool' for spikes).

    `every_step`: one of Lava's own processes sends or receives it, so that there is a message at every step: the last
    frame again while the image lasts, zeros between images.
    """

    name: str
    shape: Shape
    dtype: str
    every_step: bool = False

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W): one message."""
        return self.shape[1:]


@dataclass(frozen=True)
class Wire:
    """An input of a process: the value, its latency, and for how many steps it waits before it is used."""

    value: Value
    latency: int
    delay: int


@dataclass(frozen=True)
class Outlet:
    """An output of a process: the value, and its latency."""

    value: Value
    latency: int


@dataclass(frozen=True)
class Observation:
    """What a process reports of a node: its spikes (of a gate, who reads it does), or how many spikes its weights
    received at each pixel."""

    node: str
    value: Value
    what: Literal["spikes", "received"]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One Lava process of ours: its nodes in order, its wiring, and `start`, the latency of its inputs once delayed."""

    name: str
    nodes: tuple[g.Node, ...]
    values: dict[str, Value]  # all that its nodes read and make
    wires: tuple[Wire, ...]
    outlets: tuple[Outlet, ...]
    observations: tuple[Observation, ...]
    start: int
    precision: str
    operations: tuple[Operation, ...] = ()  # what its nodes compute in integers; none: floating point

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The values that it receives, one port each."""
        return tuple(wire.value for wire in self.wires)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The values that it sends, one port each."""
        return tuple(outlet.value for outlet in self.outlets)


@dataclass(frozen=True, kw_only=True)
class StockLeaf:
    """One of Lava's own processes: Conv (`node` without its bias), or LIFReset. `start`: the latency of its input."""

    name: str
    node: g.Conv | g.Neuron
    source: Value
    result: Value
    start: int
    steps: int
    operation: Operation | None = None  # what it computes in integers, by Lava's fixed-point models

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The one value that it receives."""
        return (self.source,)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The one value that it sends."""
        return (self.result,)


@dataclass(frozen=True)
class Block:
    """One hierarchical Lava process: what goes in and out, and the processes it is made of (a single one if fused)."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    leaves: tuple[Leaf | StockLeaf, ...]


@dataclass(frozen=True)
class Plan:
    """All processes of a network for inputs of one size. `steps`: those of an image, or, where it takes sequences of
    `any_length`, the most that are sent at once."""

    blocks: tuple[Block, ...]
    image: Value
    outputs: tuple[Outlet, ...]
    shapes: dict[str, Shape]
    steps: int
    any_length: bool
    precision: str

    @property
    def latency(self) -> int:
        """Steps from the first frame in to the first of the last output."""
        return max(outlet.latency for outlet in self.outputs)

    @property
    def leaves(self) -> Iterator[Leaf | StockLeaf]:
        """All leaf processes, in topological order."""
        return (leaf for block in self.blocks for leaf in block.leaves)


def make_plan(
    network: Network, size: tuple[int, int], *, precision: str = "float64", model: Model = "fused", stock: bool = False
) -> Plan:
    """Processes, latencies and delays of a network for inputs of (height, width).

    `fused`: a process per block. `fine`: a process per operation; what a block does on the host processor (attention,
    refinement) is one program there, and one process here. `stock`: as fine, with Lava's own Conv and LIFReset wherever
    they can express a node. NetworkError names the first node without a rule.
    """
    return lay_out(Planner(network, size, precision, stock), whole=model == "fused" and not stock)


def lay_out(planner: Planner, whole: bool) -> Plan:
    """The plan that a planner makes of its network; `whole`: a process per block."""
    network = planner.network
    blocks = tuple(planner.block(name, units, whole) for name, units in blocks_of(planner.units))
    return Plan(
        blocks=blocks,
        image=planner.values[network.input.name],
        outputs=tuple(planner.outlet(node.name) for node in network.outputs),
        shapes=planner.shapes,
        steps=network.steps,
        any_length=planner.any_length,
        precision=planner.precision,
    )


class Planner:
    """Walks over the network once; knows every value and its latency so far."""

    def __init__(self, network: Network, size: tuple[int, int], precision: str, stock: bool) -> None:
        self.any_length = takes_any_length(network) and not stock  # Lava's own neurons reset when T steps have passed
        self.network = network = network.with_steps(AT_ONCE) if self.any_length else network
        self.precision = precision
        self.shapes = infer_shapes(network, *size)
        for name, (frames, _, _, _) in self.shapes.items():
            if frames > network.steps:
                raise NetworkError(
                    f"{name}: {frames} frames an image, Lava sends one in each of its {network.steps} steps;"
                    " use --backend simulator"
                )
        for neuron in network.of(g.LoihiNeuron):
            if precision != "float64":
                raise NetworkError(f"{neuron.name} (loihineuron): found {precision}, expected float64, for its 36 bits")
        self.units = units_of(network)
        alone = [unit[0] for unit in self.units if len(unit) == 1 and not unit[0].late]
        self.stock = {node.name for node in alone if stock and self.is_stock(node)}
        self.values = {node.name: self._value(node) for node in network.nodes}
        self.latencies = {network.input.name: 0}
        self.names: set[str] = set()
        self.gates: set[str] = set()  # those that some process reports

    def is_stock(self, node: g.Node) -> bool:
        """Whether one of Lava's own processes computes this node exactly."""
        return is_stock(node, self.shapes, self.network.steps)

    def operation(self, node: g.Node) -> Operation | None:
        """What a node computes in integers; None in floating point."""
        return None

    def split(self, node: g.Node) -> tuple[g.Conv | g.Neuron, g.Affine | None]:
        """What Lava's own process computes of a node, and what is left to one of ours after it."""
        return split_bias(node)

    def _value(self, node: g.Node) -> Value:
        spikes = self.network.kinds[node.name] is ValueKind.SPIKE
        lava = node.name in self.stock or not self.stock.isdisjoint(self.network.readers[node.name])
        every_step = lava or isinstance(node, (g.Input, g.Output))  # Lava's Injector and Extractor
        return Value(node.name, self.shapes[node.name], "bool" if spikes else self.precision, every_step)

    def outlet(self, name: str) -> Outlet:
        """A value that leaves a process which has been planned."""
        return Outlet(self.values[name], self.latencies[name])

    def block(self, name: str, units: list[Unit], whole: bool) -> Block:
        """The processes of one block, and what crosses its border."""
        leaves: list[Leaf | StockLeaf] = []
        nodes = list(chain.from_iterable(units))
        inside = {node.name for node in nodes}
        for part in [nodes] if whole else operations_of(units, on_host(self.network) - self.stock):
            if part[0].name in self.stock:
                leaves += self._stock(part[0])
            else:
                leaves.append(self._leaf(part, self._name(part, name if whole else part[0].block), alone=not whole))
        monitor = self._monitor(f"{name}.monitor", [leaf for leaf in leaves if isinstance(leaf, StockLeaf)])
        if monitor:
            leaves.append(monitor)
        produced = {value.name: value for leaf in leaves for value in leaf.outputs}
        received = {value.name: value for leaf in leaves for value in leaf.inputs if value.name not in produced}
        sent = [value for value in produced.values() if value.name in inside and self._leaves_block(value.name, inside)]
        return Block(name, tuple(received.values()), tuple(sent), tuple(leaves))

    def _leaves_block(self, name: str, inside: set[str]) -> bool:
        is_output = isinstance(self.network[name], g.Output)
        return is_output or not inside.issuperset(self.network.readers[name])

    def _name(self, nodes: Sequence[g.Node], block: str) -> str:
        """A name that no other process has: the node's, or the block's for several nodes."""
        free = block and block not in self.names and block not in self.network.by_name
        name = block if len(nodes) > 1 and free else nodes[0].name
        self.names.add(name)
        return name

    def _leaf(self, nodes: Sequence[g.Node], name: str, alone: bool, sources: Sequence[str] = ()) -> Leaf:
        """A process of ours; `sources`: values that it receives beyond what its nodes read (a monitor's)."""
        inside = {node.name for node in nodes}
        read = dict.fromkeys([*sources, *(source for node in nodes for source in node.inputs if source not in inside)])
        arrivals = {source: self.latencies[source] for source in read}
        start = max(arrivals.values())
        ready = self._ready(nodes, list(read))
        sent = [node.name for node in nodes if self._leaves_block(node.name, inside)]
        for value in sent:
            self.latencies[value] = start + max(step - frame for frame, step in enumerate(ready[value]))
        return Leaf(
            name=name,
            nodes=tuple(nodes),
            values={value: self.values[value] for value in [*read, *inside]},
            wires=tuple(Wire(self.values[name], latency, start - latency) for name, latency in arrivals.items()),
            outlets=tuple(map(self.outlet, sent)),
            observations=tuple(self._observe(nodes)),
            start=start,
            precision=self.precision,
            operations=tuple(operation for node in nodes if (operation := self.operation(node)) is not None),
        )

    def _ready(self, nodes: Sequence[g.Node], received: Sequence[str]) -> dict[str, list[int]]:
        """For each frame of each value of a process: how many steps after its start it is there, or later: what is late
        counts as if it were not. Around a cycle, behind what waits for all steps, times grow until they fit."""
        ready = {name: list(range(self.values[name].shape[0])) for name in received}
        ready |= {node.name: [0] * self.values[node.name].shape[0] for node in nodes}
        before: dict[str, list[int]] = {}
        while before != ready:
            before = dict(ready)
            for node in nodes:
                inputs = [ready[name] for name in node.inputs]
                frames = range(len(ready[node.name]))
                if needs_all_frames(node):
                    ready[node.name] = [max(steps[-1] for steps in inputs) for _ in frames]
                else:
                    ready[node.name] = [max(steps[min(k, len(steps) - 1)] for steps in inputs) for k in frames]
        return ready

    def _observe(self, nodes: Sequence[g.Node]) -> Iterator[Observation]:
        for node in nodes:
            if isinstance(node, (g.Spiking, g.Threshold)):
                yield Observation(node.name, self.values[node.name], "spikes")
            elif reads_spikes(self.network, node):
                yield Observation(node.name, self.values[node.inputs[0]], "received")
            gate = gate_of(node)
            if gate is not None and gate not in self.gates:
                self.gates.add(gate)
                yield Observation(gate, self.values[gate], "spikes")

    def _stock(self, node: g.Node) -> list[Leaf | StockLeaf]:
        """Lava's own process for a node, followed by one of ours for the bias that Lava's Conv does not have."""
        bare, bias = self.split(node)
        source = self.values[node.inputs[0]]
        self.values[bare.name] = Value(bare.name, self.shapes[node.name], self.values[node.name].dtype, every_step=True)
        start = self.latencies[source.name]
        self.latencies[bare.name] = start + isinstance(node, g.Conv)  # Lava's Conv sends what it computed a step ago
        stock = StockLeaf(
            name=node.name,
            node=bare,
            source=source,
            result=self.values[bare.name],
            start=start,
            steps=self.network.steps,
            operation=self.operation(bare),
        )
        return [stock] if bias is None else [stock, self._leaf([bias], bias.name, alone=True)]

    def _monitor(self, name: str, stock: Sequence[StockLeaf]) -> Leaf | None:
        """A process that watches the spikes of Lava's own processes in a block, which report nothing themselves."""
        watched = tuple(self._observe([self.network[leaf.name] for leaf in stock]))
        if not watched:
            return None
        leaf = self._leaf([], name, alone=True, sources=[observation.value.name for observation in watched])
        return Leaf(**{**vars(leaf), "observations": watched})
