"""An energy model as data: constants with their sources, what it assumes and does not price, figures to reproduce."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hw_sim.pricing.energy import STATED, Conditions
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.sram import Sram

GRADES = ("measured", "simulated", "secondary", "yours", "our reading")  # best known first
UNITS = {  # unit -> what it measures, SI units in one of it
    "pJ": ("energy", 1e-12),
    "mW": ("power", 1e-3),
    "uW": ("power", 1e-6),
    "uW/MHz": ("energy per cycle", 1e-12),
    "MHz": ("frequency", 1e6),
    "neurons": ("number", 1.0),
    "words": ("number", 1.0),
    "bytes": ("number", 1.0),
    "rows": ("number", 1.0),
}


@dataclass(frozen=True)
class Constant:
    """One number, in the unit of its source; `si` is the same in joules, watts, hertz or a plain count."""

    value: float
    unit: str
    source: str
    grade: str

    @property
    def si(self) -> float:
        """The value in SI units."""
        return self.value * UNITS[self.unit][1]


@dataclass(frozen=True)
class OperatingPoint:
    """Energy per synaptic operation averaged at one operating point: all power of the chip over its operations."""

    name: str
    joules: float
    source: str
    grade: str


@dataclass(frozen=True)
class WorkedExample:
    """Layers whose energy is known. `published`: the figure stands in a source; else we worked it out by hand.

    joules: the figure. tolerance: relative. constants: values that the example sets in place of the model's own.
    parts: joules by part, where the source gives them.
    """

    name: str
    source: str
    published: bool
    joules: float
    tolerance: float
    layers: tuple[LayerFacts, ...]
    conditions: Conditions = STATED
    constants: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EnergyModel:
    """One published model. `equation` names the functions that use its constants; `prices` the parts it prices.

    question: which question it answers. no_ann: why it has no answer for a network that multiplies, or "".
    choices: where implementations of one paper differ, which way this one goes.
    """

    name: str
    title: str
    equation: str
    question: str
    scope: str
    assumes: tuple[str, ...]
    not_priced: tuple[str, ...]
    no_ann: str
    prices: tuple[str, ...]
    constants: dict[str, Constant]
    choices: dict[str, Any]
    sram: Sram | None
    operating_points: tuple[OperatingPoint, ...]
    worked_examples: tuple[WorkedExample, ...]

    def si(self, name: str) -> float:
        """A constant in SI units."""
        return self.constants[name].si

    def prices_constant(self, name: str) -> bool:
        """True if the model has that constant."""
        return name in self.constants

    @property
    def memory(self) -> Sram:
        """Its SRAM law; ValueError where the model has none."""
        if self.sram is None:
            raise ValueError(f"{self.name}: the model has no SRAM law")
        return self.sram

    def with_constants(self, values: dict[str, float]) -> EnergyModel:
        """The same model with other values of some constants, in their own units: for sensitivity."""
        changed = {name: replace(self.constants[name], value=value) for name, value in values.items()}
        return replace(self, constants={**self.constants, **changed})
