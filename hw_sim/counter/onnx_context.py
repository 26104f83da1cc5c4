"""What rules may look at while an ONNX model runs: what was computed, what is known of it, the rows of the count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from export.graph.nodes import ValueKind
from hw_sim.counter.ledger import Ledger, Row
from hw_sim.counter.values import GATED, NUMBERS, Firing, Value, constant

SCOPES = "pkg.torch.onnx.name_scopes"  # "['', 'MODULE', 'NODE']"
AGAIN = re.compile(r"(/step\d+|_\d+)$")  # the same module called again: how exporters name it


@dataclass
class Item:
    """A value of the graph. known: of what kind. static: made of constants alone, before any input is there; stored:
    it stands in the file."""

    array: Any
    known: Value = NUMBERS
    static: bool = False
    stored: bool = False

    @property
    def size(self) -> int:
        """Elements; of a sequence, of all its tensors."""
        return sum(np.size(part) for part in self.array) if isinstance(self.array, list) else int(np.size(self.array))


@dataclass
class Call:
    """A node that ran. inputs: None where an optional one was not given."""

    node: onnx.NodeProto
    attributes: dict[str, Any]
    inputs: list[Item | None]
    outputs: list[Item]

    @property
    def read(self) -> Item:
        """The first input."""
        first = self.inputs[0]
        return Item(np.zeros(0)) if first is None else first

    @property
    def made(self) -> Item:
        """The first output."""
        return self.outputs[0]

    def given(self, index: int) -> Item | None:
        """An optional input."""
        return self.inputs[index] if len(self.inputs) > index else None


class Context:
    """One run of a model."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._names: dict[str, str] = {}

    def rest(self, node: onnx.NodeProto) -> Row:
        """The row of a module's element-wise work: torch's newer exporter writes the module beside a node, others into
        its name, before the last slash."""
        scope = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
        if scope:
            modules = re.findall(r"'([^']*)'", scope)
            scope = modules[-2] if len(modules) > 1 else ""
        else:
            scope = (node.name or node.output[0]).strip("/").rpartition("/")[0]
            while AGAIN.search(scope):
                scope = AGAIN.sub("", scope)
        return self.ledger.rest(scope or "(graph)")

    def layer_name(self, node: onnx.NodeProto, weight: str) -> str:
        """Of the weight (NAME.weight, NAME/weight), else of the first node that reads it."""
        if weight not in self._names:
            stem = re.sub(r"[./]weight$", "", weight)
            self._names[weight] = stem if stem != weight else self.product_name(node)
        return self._names[weight]

    def product_name(self, node: onnx.NodeProto) -> str:
        """Of a node without weights, or whose weight has no name of its own."""
        return (node.name or node.output[0]).strip("/")

    def work(self, call: Call, adds: int, muls: int) -> None:
        """Element-wise work. Arithmetic of whole numbers is addresses, and is not counted."""
        made = call.made.array
        if isinstance(made, list) or np.asarray(made).dtype.kind not in "fc":
            return
        words = call.made.size
        bits = 0
        for item in call.inputs:
            if item is not None and item.known.is_spikes:
                bits += item.size
            elif item is not None:
                words += item.size
        self.rest(call.node).add(adds=adds, muls=muls, activation_words=words, spike_bits=bits)

    def emit(self, known: Value) -> None:
        """Something reads these spikes: they are counted, once."""
        if known.firing is not None:
            self.ledger.emit(known.firing, int)

    def fire(self, call: Call) -> Value:
        """A comparison was made: if anything reads it as spikes, these were emitted here."""
        fired = int(np.count_nonzero(call.made.array))
        return Value(ValueKind.SPIKE, firing=Firing(self.rest(call.node), fired, call.made.size))

    def gate(self, call: Call, values: Sequence[Value]) -> Value:
        """Spikes made of spikes that have not left their neurons: what leaves are these. Of others: counted already."""
        waiting = [value.firing for value in values if value.firing is not None and value.firing.waits]
        if not waiting:
            return GATED
        made = self.fire(call)
        row = next((firing.row for firing in waiting if firing.row is not None), None)
        firing = made.firing
        return made if firing is None or row is None else made._replace(firing=replace(firing, row=row))


def known_constant(array: Any) -> Value:
    """Of a constant of the model: one number everywhere, or numbers."""
    if not isinstance(array, np.ndarray) or not array.size or array.dtype.kind not in "fiub":
        return NUMBERS
    return constant(float(array.flat[0])) if bool((array == array.flat[0]).all()) else NUMBERS
