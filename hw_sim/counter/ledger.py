"""What has been counted, row by row: a row is a layer with weights, or what else a module did.

In: counts as operations run. Out: rows with their totals and the facts that energy models read. Knows no framework.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, NamedTuple

from esdnet.command.errors import UserError
from export.graph.counting import NodeCounts
from hw_sim.counter.values import Firing
from hw_sim.pricing.layer_facts import LayerFacts

COUNTS = (*dict.fromkeys([*(item.name for item in fields(NodeCounts)), "nonzero_macs", "events"]),)
SAME = ("acs", "macs", "neuron_updates", "adds", "muls", "activation_words", "spike_bits", "events_in")  # in facts
Shape = tuple[int, ...]


class Layer(NamedTuple):
    """Who reads what: the identity of a row. shapes: (channels, height, width) of one execution, see LayerFacts."""

    name: str
    kind: str
    reads: str  # a LayerFacts value, or "zero": a state before the first step, whatever it is afterwards
    input_shape: Shape = (0, 0, 0)
    output_shape: Shape = (0, 0, 0)
    kernel: Shape = (1, 1)
    stride: Shape = (1, 1)
    groups: int = 1
    weight_words: int = 0
    bias_words: int = 0


@dataclass
class Row:
    """Counts of one layer, by name (COUNTS). executions: of input_shape, every element of a batch one."""

    layer: Layer
    executions: int = 0
    counts: dict[str, int] = field(default_factory=dict.fromkeys(COUNTS, 0).copy)

    def add(self, executions: int = 0, **counts: int) -> None:
        """Some more."""
        self.executions += executions
        for name, number in counts.items():
            self.counts[name] += number

    @property
    def work(self) -> int:
        """Element-wise operations so far."""
        return self.counts["adds"] + self.counts["muls"]


@dataclass(frozen=True)
class CountedLayer:
    """One row of a report: its facts, and every count by name."""

    facts: LayerFacts
    counts: dict[str, int]

    @property
    def name(self) -> str:
        """Of the module, or of the parameter; a second shape has (2) behind it."""
        return self.facts.name


class Ledger:
    """Rows in the order in which they first ran, and operations that nobody knows how to count."""

    def __init__(self) -> None:
        self._rows: dict[Layer, Row] = {}
        self._rests: dict[str, Row] = {}
        self.unknown: dict[str, int] = {}
        self.by_shape: set[str] = set()  # fused operations, whose inner values are not seen

    def row(self, layer: Layer) -> Row:
        """The row of a layer with weights, or of a product."""
        if layer not in self._rows:
            self._rows[layer] = Row(layer)
        return self._rows[layer]

    def rest(self, name: str) -> Row:
        """The row of everything else that a module does; a row of neurons, if they emit."""
        found = self._rests.get(name)
        if found is None:
            found = self._rests[name] = self.row(Layer(name, "other", "analog"))
        return found

    def fire(self, row: Row, ones: int, updates: int) -> None:
        """Neurons compared and emitted; each is taken to hold one membrane, which it reads and writes."""
        row.add(1, spikes=ones, neuron_updates=updates, membrane_words=2 * updates)

    def emit(self, firing: Firing, ones_in: Callable[[Any], int]) -> None:
        """Something reads spikes: what fired is counted, once. ones_in: the number of ones in what a Firing holds."""
        waiting = [firing]
        while waiting:
            firing = waiting.pop()
            waiting.extend(firing.parents)
            if firing.fired is not None:
                self.fire(firing.row, ones_in(firing.fired), firing.updates)
            firing.fired, firing.parents = None, ()

    def list_unknown(self, name: str, elements: int) -> None:
        """An operation without a rule made so many values."""
        self.unknown[name] = self.unknown.get(name, 0) + elements

    def refuse_unknown(self, where: str) -> None:
        """UserError, if there are such."""
        if self.unknown:
            listed = ", ".join(f"{name} ({elements:,} values)" for name, elements in self.unknown.items())
            raise UserError(f"{where}: no rule for {listed}; without strict they are listed, and not counted")

    def rows(self) -> list[Row]:
        """Those that did something. One whose operand was a zero state joins the row that reads what follows; numbers,
        where nothing does."""
        rows = [row for row in self._rows.values() if row.layer.reads != "zero"]
        for row in self._rows.values():
            if row.layer.reads != "zero":
                continue
            same = [other for other in rows if other.layer._replace(reads="zero") == row.layer]
            if not same:
                same = [Row(row.layer._replace(reads="analog"))]
                rows.append(same[0])
            counts = (
                dict(row.counts) if same[0].layer.reads == "spike" else {**row.counts, "macs": row.counts["dense_taps"]}
            )
            same[0].add(row.executions, **counts)
        return [row for row in rows if any(row.counts.values())]


def name_rows(rows: Sequence[Row]) -> list[CountedLayer]:
    """Rows as layers, each name once."""
    used: Counter[str] = Counter()
    weighted = {row.layer.name for row in rows if row.layer.kind in ("conv", "linear")}
    found = []
    for row in rows:
        name = row.layer.name
        if row.layer.kind == "other" and name in weighted:
            name = f"{name}: the rest"
        used[name] += 1
        found.append(_finish(row, name if used[name] == 1 else f"{name} ({used[name]})"))
    return found


def _finish(row: Row, name: str) -> CountedLayer:
    layer, counts = row.layer, row.counts
    held = layer._asdict()
    steps = max(1, row.executions)
    held |= {key: counts[key] for key in SAME}
    if counts["neuron_updates"]:
        neurons = -(-counts["neuron_updates"] // steps)
        held |= {"kind": "neuron", "state_words": neurons, "leaky": True, "output_shape": (neurons, 1, 1)}
    facts = LayerFacts(
        steps=steps,
        events_out=counts["spikes"],
        nonzero_macs=counts["nonzero_macs"] if counts["macs"] else None,
        taps=counts["dense_taps"] // steps,
        **(held | {"name": name}),
    )
    return CountedLayer(facts, counts)


def frame_shape(shape: Shape) -> Shape:
    """(channels, height, width) of one element of a batch: further axes are flattened into the last, missing ones 1."""
    inner = (*shape, 1, 1, 1)
    return (inner[0], inner[1], prod(inner[2:]))
