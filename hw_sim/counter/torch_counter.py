"""`hw_sim.count`: runs a torch module and counts every operation that torch executes, spikes told by their producer.

In: a module, its inputs, and which of them are spikes. Out: a Report. torch_table.py says which rule counts what.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from esdnet.command.errors import UserError
from export.graph.nodes import ValueKind
from hw_sim.counter.report import Report
from hw_sim.counter.torch_context import Call, Context
from hw_sim.counter.torch_rules import Rule, nothing
from hw_sim.counter.torch_table import find_rule, is_composite, list_unknown
from hw_sim.counter.torch_values import storage_of
from hw_sim.counter.values import NUMBERS, Value

KINDS: dict[
    str, tuple[str, Callable[[Tensor], bool]]
] = {  # what an input may be declared to be, and what it must hold then
    "analog": ("numbers", lambda tensor: True),
    "spike": ("0 and 1", lambda tensor: bool(((tensor == 0) | (tensor == 1)).all())),
    "graded": ("whole numbers of at least 0", lambda tensor: bool(((tensor >= 0) & (tensor.double() % 1 == 0)).all())),
}
_IMPLICIT = torch._C.DispatchKey.CompositeImplicitAutograd


def count(
    module: Callable[..., Any],
    *inputs: Any,
    input_kinds: Sequence[str | None] | None = None,
    strict: bool = False,
    name: str = "",
) -> Report:
    """Run `module(*inputs)` once, without gradients, and count what ran.

    module: a torch module, or any function that calls some; it is run as it is: call `.eval()` first for what it does
        at inference.
    input_kinds: "spike" (0 and 1), "graded" (numbers of events) or "analog" for each tensor of the inputs, in order; it
        is checked. None, or nothing at all: bool tensors are spikes, others analog.
    strict: raise UserError for operations that there is no rule for; else they are listed in `Report.unknown`, and what
        they return is analog.
    name: of the network, in reports.

    The result of the run is `Report.output`. The rules: docs/counting.md.

    >>> import hw_sim, torch
    >>> report = hw_sim.count(torch.nn.Linear(8, 4), torch.ones(2, 8, dtype=torch.bool).float(), input_kinds=["spike"])
    >>> report.totals["acs"], report.totals["macs"]
    (64, 0)
    """
    if not callable(module):
        raise UserError(
            f"count: found a {type(module).__name__}, expected a torch module, or a function that calls some"
        )
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    kinds = _check_kinds(tensors, input_kinds)
    if hasattr(module, "_orig_mod"):
        raise UserError("count: found a compiled module, expected the module itself: count it before torch.compile")
    run = Context(module)
    for tensor, kind in zip(tensors, kinds, strict=True):
        run.values.write(tensor, NUMBERS if kind == "analog" else Value(ValueKind(kind)))
    started = time.perf_counter()
    with running(run):
        output = module(*inputs)
    seconds = time.perf_counter() - started
    if strict:
        run.ledger.refuse_unknown("count")
    return _report(module, run, tensors, kinds, name, seconds, output)


def _report(
    module: Any, run: Context, tensors: list[Tensor], kinds: list[str], name: str, seconds: float, output: Any
) -> Report:
    parameters = list(module.parameters()) if isinstance(module, torch.nn.Module) else []
    for reading in run.readings.values():
        reading.book()
    return Report(
        network=name or run.names.root,
        engine="torch",
        inputs=", ".join("x".join(map(str, tensor.shape)) for tensor in tensors),
        input_kinds=tuple(kinds),
        dtype=str(tensors[0].dtype).removeprefix("torch.") if tensors else "",
        parameters=sum(p.numel() for p in parameters),
        counted_parameters=sum(p.numel() for p in parameters if storage_of(p) in run.values.read),
        rows=tuple(run.ledger.rows()),
        unknown=dict(run.ledger.unknown),
        by_shape=tuple(sorted(run.ledger.by_shape)),
        seconds=seconds,
        output=output,
    )


def _check_kinds(tensors: list[Tensor], given: Sequence[str | None] | None) -> list[str]:
    if isinstance(given, str):
        raise UserError(f"count: input_kinds is {given!r}, expected one kind for each tensor: [{given!r}]")
    if given is not None and len(given) != len(tensors):
        raise UserError(f"count: {len(given)} input_kinds, expected one for each of {len(tensors)} tensors")
    kinds = []
    for index, (tensor, kind) in enumerate(zip(tensors, given or [None] * len(tensors), strict=True)):
        if kind is None:
            kind = "spike" if tensor.dtype is torch.bool else "analog"
        if kind not in KINDS:
            raise UserError(f"count: input_kinds[{index}] is {kind!r}, expected one of {', '.join(KINDS)}")
        held, holds = KINDS[kind]
        if not holds(tensor):
            raise UserError(f"count: input {index} is declared {kind}, but holds values other than {held}")
        kinds.append(kind)
    return kinds


class Counter(TorchDispatchMode):
    """While it is open, every operation passes here; it is executed unchanged, then counted.

    Inside a handler torch leaves out keys that composite operations depend on: those that make views of weights require
    gradients, which chooses kernels, and those of autocast. They get them back, and compute what they compute alone.
    """

    def __init__(self, run: Context) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._run = run
        self._known: dict[int, tuple[Rule | None, Any, bool, bool]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Every line here runs for every operation: calls in Python take as long as small operations.
        rule, execute, composite, fresh = self._known.get(id(func)) or self._look_up(func)
        kwargs = kwargs or {}
        if rule is None:
            with self, _as_called():
                return func._op_dk(_IMPLICIT, *args, **kwargs)
        if composite:
            with _as_called(), _without_counter():
                out = execute(*args, **kwargs)
        else:
            out = execute(*args, **kwargs)
        if rule is nothing:
            return out
        result = out
        if isinstance(out, Tensor):
            if out.is_sparse or out.is_nested:
                rule = list_unknown  # not all of its elements are there
        elif isinstance(out, (tuple, list)) and out:
            result = out[0]
        first = args[0] if args else None
        if isinstance(first, Tensor) and (first.is_sparse or first.is_nested):
            rule = list_unknown
        rule(self._run, tuple.__new__(Call, (func, args, kwargs, out, result, fresh)))
        return out

    def _look_up(self, func: Any) -> tuple[Rule | None, Any, bool, bool]:
        """By id: operations are hashed in Python."""
        found = self._known[id(func)] = _how_to_count(func)
        return found


@cache
def _how_to_count(func: Any) -> tuple[Rule | None, Any, bool, bool]:
    """Its rule, how it is executed, whether as composite, whether what it returns is new. Once for all runs."""
    return find_rule(func), func._op, _makes_views_inside(func), not func._schema.is_mutable


_as_called: Callable[[], Any] = torch._C._RestorePythonTLSSnapshot  # type: ignore[attr-defined]
_without_counter: Callable[[], Any] = torch._C._DisableTorchDispatch


def _makes_views_inside(func: Any) -> bool:
    """A composite operation whose views torch does not mark after the handler (`chunk` it does); `to` makes none."""
    marked = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "ADInplaceOrView")
    return is_composite(func) and not marked and func._schema.name != "aten::to"


@contextmanager
def running(run: Context) -> Iterator[None]:
    """No gradients, and operations as modules call them: `linear`, not the pieces that autograd makes of it."""
    below_autograd = torch._C._AutoDispatchBelowAutograd
    guard = below_autograd()  # type: ignore[no-untyped-call]
    with torch.no_grad(), guard, run.names.watch(run.emit_output), Counter(run):
        yield
