"""What rules may look at while a torch module runs: rows, what tensors hold, which module runs, spikes' way out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from export.graph.nodes import ValueKind
from hw_sim.counter.ledger import Ledger
from hw_sim.counter.torch_names import Names
from hw_sim.counter.torch_values import TensorValues
from hw_sim.counter.values import Firing, Value


@dataclass(frozen=True, eq=False)
class Call:
    """An operation that ran: arguments in the order of its schema, what it returned."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by place or name."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    @property
    def result(self) -> Tensor | None:
        """What it computed; the first, where there are several."""
        out = self.out[0] if isinstance(self.out, (tuple, list)) and self.out else self.out
        return out if isinstance(out, Tensor) else None


class Context:
    """One run: `ledger` has the rows, `values` what tensors hold, `names` the running modules."""

    def __init__(self, module: Any) -> None:
        self.ledger = Ledger()
        self.values = TensorValues()
        self.names = Names(module, self.ledger)
        self.read_weights: set[int] = set()  # storages

    def read(self, tensor: Tensor) -> None:
        """An operation reads this; if it is a weight, it counts as a parameter that was used."""
        if tensor.layout is torch.strided:
            self.read_weights.add(tensor.untyped_storage()._cdata)

    def emit_output(self, output: Any) -> None:
        """What a module returns: spikes as numbers leave the neurons that made them."""
        if isinstance(output, Tensor):
            self._emit_tensor(output)
        elif output is not None:
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self._emit_tensor(leaf)

    def _emit_tensor(self, tensor: Tensor) -> None:
        if tensor.is_floating_point():
            value = self.values.of(tensor)
            if value.is_spikes:
                self.emit(value)

    def emit(self, value: Value) -> None:
        """Something reads these spikes: they are counted, once."""
        waiting = [value.firing] if value.firing is not None else []
        while waiting:
            firing = waiting.pop()
            waiting.extend(firing.parents)
            if firing.fired is not None:
                self.ledger.fire(firing.row, int(firing.fired), firing.updates)
            firing.fired, firing.parents = None, ()

    def fire(self, out: Tensor) -> Value:
        """A comparison was made: if anything reads it as spikes, these were emitted here."""
        fired = torch.count_nonzero(out)
        return Value(ValueKind.SPIKE, firing=Firing(self.names.neurons(), fired, out.numel()))
