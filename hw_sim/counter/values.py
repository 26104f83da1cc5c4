"""What is known of a value by who made it, never by what it holds: spikes, sums of spikes, one constant, or numbers.

Shared by the torch and the ONNX counter. Rules give the Value of a result from the Values of what was read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from export.graph.nodes import ValueKind


@dataclass(eq=False)
class Firing:
    """One comparison: spikes that nobody has received yet. They are emitted once, when something first reads them.

    row: where neurons are counted. fired: the comparison's result, kept until it is emitted. updates: its elements.
    parents: of what was made of several firings, those.
    """

    row: Any = None
    fired: Any = None
    updates: int = 0
    parents: tuple[Firing, ...] = ()

    @property
    def waits(self) -> bool:
        """Nobody has received its spikes yet."""
        return self.fired is not None or any(parent.waits for parent in self.parents)


class Value(NamedTuple):
    """A kind, and of spikes where they came from. `fill`: every element is this number (a state before the first step,
    say), and kind has no meaning."""

    kind: ValueKind = ValueKind.ANALOG
    fill: float | None = None
    firing: Firing | None = None

    @property
    def is_spikes(self) -> bool:
        """0 and 1, made by comparisons."""
        return self.fill is None and self.kind is ValueKind.SPIKE


NUMBERS = Value()
GATED = Value(ValueKind.SPIKE)  # spikes made of other spikes: whose they are, the counter says
ZERO = Value(fill=0.0)
ONE = Value(fill=1.0)


@lru_cache(maxsize=1024)
def constant(number: float) -> Value:
    """The same number everywhere."""
    return Value(fill=float(number))


def joined(values: Iterable[Value]) -> Value:
    """Side by side, one after the other, or one of them at each place: zeros go with anything."""
    return _together([value for value in values if value.fill != 0.0], ZERO)


def _together(values: list[Value], nothing: Value) -> Value:
    if not values:
        return nothing
    if len(values) == 1:
        return values[0]
    if any(value.fill is not None for value in values):
        same = len({value.fill for value in values}) == 1
        return values[0] if same else NUMBERS
    kinds = {value.kind for value in values}
    for kind in (ValueKind.ANALOG, ValueKind.GRADED, ValueKind.SPIKE):
        if kind in kinds:
            return NUMBERS if kind is ValueKind.ANALOG else Value(kind, firing=_firing(values))
    return NUMBERS


def _firing(values: list[Value]) -> Firing | None:
    found = tuple({id(v.firing): v.firing for v in values if v.firing is not None}.values())
    return found[0] if len(found) == 1 else Firing(parents=found) if found else None


def added(values: Iterable[Value]) -> Value:
    """The sum: spikes and sums of spikes give a sum of spikes; a constant 0 changes nothing."""
    values = list(values)
    if NUMBERS in values:
        return NUMBERS
    parts = [value for value in values if value.fill != 0.0]
    if not parts:
        return ZERO
    if len(parts) == 1:
        return parts[0] if parts[0].fill is None else NUMBERS
    if any(part.fill is not None or part.kind is ValueKind.ANALOG for part in parts):
        return NUMBERS
    return Value(ValueKind.GRADED, firing=_firing(parts))


def complement(whole: Value, part: Value) -> Value:
    """The difference: 1 - spikes is 1 where nothing fired; minus 0 changes nothing."""
    if part.fill == 0.0:
        return whole if whole.fill is None else NUMBERS
    return GATED if whole.fill == 1.0 and part.is_spikes else NUMBERS


def summed(value: Value) -> Value:
    """The sum over some of its elements."""
    if value.fill == 0.0:
        return ZERO
    if value.fill is not None or value.kind is ValueKind.ANALOG:
        return NUMBERS
    return Value(ValueKind.GRADED, firing=value.firing)


def multiplied(values: Iterable[Value]) -> Value:
    """The product: spikes gated by spikes are spikes; a constant 1 changes nothing, 0 leaves nothing."""
    values = list(values)
    if values.count(NUMBERS) == len(values):
        return NUMBERS
    parts = [value for value in values if value.fill != 1.0]
    if not parts:
        return ONE
    if any(part.fill == 0.0 for part in parts):
        return ZERO
    if len(parts) == 1:
        return parts[0] if parts[0].fill is None else NUMBERS
    return GATED if all(part.is_spikes for part in parts) else NUMBERS


def chosen(condition: Value, yes: Value, no: Value) -> Value:
    """One of two at each place: 1 where a comparison holds and 0 elsewhere are the comparison's spikes."""
    if condition.is_spikes and {yes.fill, no.fill} == {0.0, 1.0}:
        return condition if yes.fill else GATED
    return joined([yes, no])
