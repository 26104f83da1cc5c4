"""What rules may look at while a torch module runs: rows, what tensors hold, which module runs, spikes' way out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from export.graph.nodes import ValueKind
from hw_sim.counter.ledger import Ledger
from hw_sim.counter.torch_names import Names
from hw_sim.counter.torch_sums import spikes_in
from hw_sim.counter.torch_values import TensorValues
from hw_sim.counter.values import GATED, Firing, Value


class Call(NamedTuple):
    """An operation that ran: arguments in the order of its schema, what it returned.

    result: the first value of `out`. fresh: it is a new one, nothing was written in its place.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    result: Any
    fresh: bool

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by place or name."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)


class Context:
    """One run: `ledger` has the rows, `values` what tensors hold, `names` the running modules."""

    def __init__(self, module: Any) -> None:
        self.ledger = Ledger()
        self.values = TensorValues()
        self.names = Names(module, self.ledger)
        self.readings: dict[Any, Any] = {}  # of layers with weights, by what tells them apart

    def emit_output(self, output: Any) -> None:
        """What a module returns: spikes as numbers leave the neurons that made them."""
        if isinstance(output, Tensor):
            self._emit_tensor(output)
        elif output is not None:
            for leaf in output if type(output) is tuple else tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self._emit_tensor(leaf)
                elif type(leaf) in (tuple, list, dict):
                    self.emit_output(list(tree_leaves(leaf)))

    def _emit_tensor(self, tensor: Tensor) -> None:
        value = self.values.of(tensor)
        if value.is_spikes and tensor.is_floating_point():
            self.emit(value)

    def emit(self, value: Value) -> None:
        """Something reads these spikes: they are counted, once."""
        if value.firing is not None:
            self.ledger.emit(value.firing, _ones)

    def fire(self, call: Call) -> Value:
        """A comparison was made: if anything reads it as spikes, these were emitted here."""
        out = call.result
        fired = out if call.fresh else _ones(out)  # what is not new may be written again
        return Value(ValueKind.SPIKE, firing=Firing(self.names.neurons(), fired, out.numel()))

    def gate(self, call: Call, values: list[Value]) -> Value:
        """Spikes made of spikes that have not left their neurons: what leaves are these. Of others: counted already."""
        waiting = [value.firing for value in values if value.firing is not None and value.firing.waits]
        if not waiting:
            return GATED
        fired = self.fire(call).firing
        row = next((firing.row for firing in waiting if firing.row is not None), None)
        return Value(ValueKind.SPIKE, firing=fired if fired is None or row is None else replace(fired, row=row))


def _ones(fired: Tensor | int) -> int:
    if isinstance(fired, int):
        return fired
    with torch._C._DisableTorchDispatch():  # type: ignore[no-untyped-call]  # in a hook the counter listens
        return spikes_in(fired)
