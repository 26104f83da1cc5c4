"""Energy as a model states it: joules by part, what has no price in it, and the conditions it is asked under."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

PARTS = ("operations", "addressing", "weights", "potentials", "input_output", "static")
PART_TITLES = dict(zip(PARTS, ("operations", "addressing", "weights", "potentials", "in & out", "static"), strict=True))
Reuse = Literal["stated", "weights", "operands"]


@dataclass(frozen=True)
class Conditions:
    """What a model leaves to the one who asks.

    reuse: of memory accesses. "stated": as the model's source counts them; "weights": each weight word is read once
    per execution of its layer; "operands": so is each input of a layer that multiplies.
    everything: a price list also prices element-wise work and words moved, where it has prices for them.
    step_seconds: seconds that one time step takes; static power is priced only if it is given.
    """

    reuse: Reuse = "stated"
    everything: bool = False
    step_seconds: float | None = None


STATED = Conditions()  # as the source states it


@dataclass(frozen=True)
class Terms:
    """What a model says of one layer, or of what a network has beside its layers.

    joules: by part. unpriced: synaptic work that occurred and has no price, so that the total is a lower bound.
    left_out: other work that occurred and that the model does not price.
    """

    joules: dict[str, float] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Energy:
    """Joules of a network by part (None: this model does not price the part), and what it leaves without a price."""

    parts: dict[str, float | None]
    unpriced: dict[str, int]
    left_out: dict[str, int]

    @property
    def total_j(self) -> float:
        """Sum of the parts that are priced; a lower bound where `unpriced` is not empty."""
        return sum(joules for joules in self.parts.values() if joules is not None)


def add_up(terms: Iterable[Terms], priced: Iterable[str]) -> Energy:
    """One Energy of all terms. A priced part to which nothing was added is 0, a part without a price is None."""
    parts: dict[str, float | None] = {part: None for part in PARTS}
    for part in priced:
        parts[part] = 0.0
    unpriced: dict[str, int] = {}
    left_out: dict[str, int] = {}
    for term in terms:
        for part, joules in term.joules.items():
            parts[part] = (parts[part] or 0.0) + joules
        for total, counts in ((unpriced, term.unpriced), (left_out, term.left_out)):
            for name, count in counts.items():
                if count:
                    total[name] = total.get(name, 0) + count
    return Energy(parts, unpriced, left_out)


def occurred(**counts: int) -> dict[str, int]:
    """Those counts that are not 0."""
    return {name: count for name, count in counts.items() if count}
