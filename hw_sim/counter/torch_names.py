"""Whose work an operation is: the module whose weights it reads, else the one that runs.

In: a module; hooks that see every module run, without touching any. Out: names as `named_modules` gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from hw_sim.counter.ledger import Ledger, Row
from hw_sim.counter.torch_values import storage_of


class Frame(NamedTuple):
    """A module that is running, None around all. start: element-wise work in its row when it began."""

    name: str
    rest: Row
    start: int
    module: nn.Module | None = None

    @property
    def holds(self) -> bool:
        """Parameters or buffers."""
        return self.module is None or bool(self.module._parameters or self.module._buffers)

    @property
    def own_work(self) -> int:
        """Element-wise operations since it began, without those of the modules inside."""
        return self.rest.work - self.start


class Names:
    """The modules that are running, innermost last, and whose each parameter is."""

    def __init__(self, module: Any, ledger: Ledger) -> None:
        self._ledger = ledger
        self._names: dict[int, str] = {}
        self._entered: dict[int, tuple[str, Row]] = {}  # of these: names and rows, once they have run
        self._owners: dict[int | None, list[tuple[str, str]]] = {}  # storage -> (module, parameter)
        if isinstance(module, nn.Module):
            for name, child in module.named_modules():
                self._names[id(child)] = name
                for parameter, tensor in (*child._parameters.items(), *child._buffers.items()):
                    if tensor is not None and not is_lazy(tensor):
                        self._owners.setdefault(storage_of(tensor), []).append((name, parameter))
        self.root = type(module).__name__ if isinstance(module, nn.Module) else getattr(module, "__name__", "function")
        self.frames = [Frame("", self._ledger.rest(self.root), 0)]

    def _enter(self, module: nn.Module) -> tuple[str, Row]:
        """The name and the row of a module that runs for the first time, or was made on the way."""
        name = self._names.get(id(module))
        if name is None:
            name = f"{self.frames[-1].name}.{type(module).__name__}".lstrip(".")
            return name, self._ledger.rest(name)
        found = self._entered[id(module)] = name, self._ledger.rest(name or self.root)
        return found

    @contextmanager
    def watch(self, on_output: Callable[[Any], None]) -> Iterator[None]:
        """While it is open, `frames` follows the modules; `on_output` is told what each returns before it is left."""

        def enter(module: nn.Module, inputs: Any) -> None:
            name, rest = self._entered.get(id(module)) or self._enter(module)
            counts = rest.counts
            self.frames.append(tuple.__new__(Frame, (name, rest, counts["adds"] + counts["muls"], module)))

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            on_output(output)
            self.frames.pop()

        handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether it is a parameter or buffer of the module, or a view of one."""
        return storage_of(tensor) in self._owners

    def of_weight(self, weight: Tensor) -> str:
        """The name of a layer by its weight: of the module that runs, if that has it, else of the first that has."""
        owners = self._owners.get(storage_of(weight))
        running = self.frames[-1].name
        if not owners:
            return running or self.root
        name, parameter = next((owner for owner in owners if owner[0] == running), owners[0])
        if parameter == "weight":
            return name or self.root
        return f"{name}.{parameter}".lstrip(".")

    def of_product(self) -> str:
        """The name of a product without weights, in the module that runs."""
        return f"{self.frames[-1].name}.matmul".lstrip(".")

    def neurons(self) -> Row:
        """Where a comparison's spikes are counted: a module that holds nothing and only compares, a surrogate function,
        is a part of the one that calls it."""
        here = self.frames[-1]
        if len(self.frames) > 1 and not here.holds and not here.own_work and self.frames[-2].own_work:
            return self.frames[-2].rest
        return here.rest
