"""What NIR's equations become at each time step: the choices that the format leaves open, by who made them.

Every semantics has a reference, a program or its recording, that it equals spike for spike (docs/semantics.md);
what has none is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np

from esdnet.command.errors import UserError
from export.graph import nodes as g
from export.graph.nodes import Array
from export.readers.nir_file import FIELDS, FileNode
from export.readers.nir_shapes import Side, constant, numbers

INSTEAD = "which the program of this semantics does not run; read the file by semantics 'nir'"
Reset = Literal["v_reset", "subtract"]
Fields = dict[str, Any]
STATEFUL = ("IF", "LIF", "CubaLIF", "I", "LI", "CubaLI")


@dataclass(frozen=True)
class Reading:
    """What NIR leaves open: seconds per step, what a spike leaves behind, and whose arithmetic."""

    dt: float
    reset: Reset
    semantics: str

    def __post_init__(self) -> None:
        if not (isfinite(self.dt) and self.dt > 0):
            raise UserError(f"dt: found {self.dt}, expected seconds per step above 0, as 1e-4")
        if self.reset not in ("v_reset", "subtract"):
            raise UserError(f"reset: found {self.reset!r}, expected 'v_reset' or 'subtract'")
        if self.semantics not in SEMANTICS:
            raise UserError(f"semantics: found {self.semantics!r}, expected one of {', '.join(SEMANTICS)}")
        only = SEMANTICS[self.semantics].reset
        if only not in (None, self.reset):
            raise UserError(
                f"semantics {self.semantics!r}: found reset {self.reset!r}, expected {only!r}, as it resets"
            )


def neuron(node: FileNode, shape: Side, reading: Reading) -> tuple[type[g.Node], Fields]:
    """The kind and the fields of a node with a state, one of STATEFUL."""
    for field in ("tau", "tau_mem", "tau_syn"):
        if field in node.fields and (numbers(node, field) <= 0).any():
            node.refuse(f"{field} has values of 0 or below, expected seconds above 0")
    fields = {field.removesuffix("_mem"): constant(node, field, shape) for field in node.fields}
    defaults = dict(v_leak=np.zeros(()), v_reset=np.zeros(()), w_in=np.ones(()))
    return SEMANTICS[reading.semantics].rule(_Equation(node, reading, {**defaults, **fields}))


@dataclass(frozen=True)
class _Equation:
    """One node's equation: its fields as arrays that broadcast over (C, H, W); `tau` is the membrane's."""

    node: FileNode
    reading: Reading
    fields: Mapping[str, Array]

    def __getitem__(self, field: str) -> Array:
        return self.fields[field]

    def rate(self, tau: str = "tau") -> Array:
        """dt / tau."""
        return self.reading.dt / self[tau]

    @property
    def has_current(self) -> bool:
        """Whether the input passes through a current that decays."""
        return "tau_syn" in self.fields

    def need_zero(self, *fields: str) -> None:
        """Refuse what the program that the semantics is named for does not compute."""
        for field in fields:
            if self[field].any():
                self.node.refuse(f"{field} is not 0, {INSTEAD}")


def _euler(e: _Equation) -> tuple[type[g.Node], Fields]:
    """Forward Euler in norse's order of operations. IF and I add r x each step, as norse, sinabs and snnTorch do, which
    write r = 1 and know no dt there; or r dt x where that is x, as spikingjelly writes it."""
    r = np.ones(()) if "tau" not in e.fields and np.allclose(e["r"] * e.reading.dt, 1, rtol=1e-6) else e["r"]
    given = {field: e.fields.get(field) for field in ("tau", "tau_syn")}
    fields = dict(dt=e.reading.dt, r=r, v_leak=e["v_leak"], w_in=e["w_in"], **given)
    if "v_threshold" not in e.fields:
        return g.Euler, fields
    if e.reading.reset == "subtract":
        return g.EulerNeuron, dict(fields, threshold=e["v_threshold"], reset="by", v_reset=e["v_threshold"])
    return g.EulerNeuron, dict(fields, threshold=e["v_threshold"], reset="to", v_reset=e["v_reset"])


def _exact(e: _Equation) -> tuple[type[g.Node], Fields]:
    """The solution for an input that is constant over a step, v = a v + (1 - a)(v_leak + r x), a = exp(-dt / tau): an
    Euler step of a longer tau."""
    kind, fields = _euler(e)
    return kind, dict(fields, tau=e.reading.dt / -np.expm1(-e.rate()))


def _exact_decay(e: _Equation) -> tuple[type[g.Node], Fields]:
    """v = exp(-dt / tau) v + (dt / tau) r x: an exact decay, but an Euler step of the input."""
    e.need_zero("v_leak")
    kind, fields = _exact(e)
    return kind, dict(fields, r=e["r"] * e.rate() / -np.expm1(-e.rate()))


def _spikingjelly(e: _Equation) -> tuple[type[g.Node], Fields]:
    """spikingjelly 2.0, import_from_nir: IFNode, LIFNode, CUBALIFNode, which fire at the threshold too."""
    rate = e["r"] * (e.rate() if "tau" in e.fields else e.reading.dt)
    if e.has_current:
        e.need_zero("v_leak", "v_reset")
        if not (np.allclose(rate, 1, rtol=1e-6) and np.allclose(e["w_in"] * e.rate("tau_syn"), 1, rtol=1e-6)):
            e.node.refuse(f"r is not tau_mem / dt, or w_in not tau_syn / dt, {INSTEAD}")
        return g.Leaky, dict(_decays(e), threshold=e["v_threshold"], fires=">=", reset="zero", delayed=False)
    if "tau" in e.fields and not np.allclose(e["v_leak"], e["v_reset"], rtol=1e-6):
        e.node.refuse(f"v_leak is not v_reset, {INSTEAD}")
    if not np.allclose(rate, 1, rtol=1e-6) and not ("tau" in e.fields and np.allclose(e["r"], 1, rtol=1e-6)):
        e.node.refuse(f"r is neither 1 nor what makes its input's factor 1 in a step, {INSTEAD}")
    kind, fields = _euler(e)
    return kind, dict(fields, fires=">=")


# RSynaptic of snnTorch 1.0, whatever its reset_delay: a step after a spike the membrane is erased, new input included.
RSYNAPTIC: Fields = dict(reset="erase", delayed=True)


def _snntorch(e: _Equation) -> tuple[type[g.Node], Fields]:
    """snnTorch 1.0, import_from_nir: Leaky, v = (1 - dt / tau) v + x, or Synaptic, whose input is not scaled: the
    threshold is, unless the factor is nearly 1. It runs one threshold per layer."""
    e.need_zero("v_leak", "v_reset")
    scale = e["w_in"] * e.rate("tau_syn") if e.has_current else e["r"] * e.rate()
    if e.has_current and not np.allclose(e["r"] * e.rate(), 1.0):
        e.node.refuse(f"r is not tau_mem / dt, {INSTEAD}")
    threshold = e["v_threshold"] if np.allclose(scale, 1.0) else e["v_threshold"] / scale
    if threshold.size != 1:
        e.node.refuse(f"its threshold over the input's factor varies, {INSTEAD}")
    return g.Leaky, dict(_decays(e), threshold=threshold, reset="zero", delayed=False)


def _lava(e: _Equation) -> tuple[type[g.Node], Fields]:
    """Lava's floating-point LIF: u = (1 - du) u + a; v = (1 - dv) v + u; reset to 0."""
    e.need_zero("v_leak", "v_reset")
    gain = e["r"] * e.rate() * (e["w_in"] * e.rate("tau_syn") if e.has_current else 1.0)
    return g.Leaky, dict(_decays(e), gain=gain, threshold=e["v_threshold"], reset="zero", delayed=False)


def _spyx(e: _Equation) -> tuple[type[g.Node], Fields]:
    """Spyx: s = [v > v_threshold]; v = (1 - dt / tau) v + (dt / tau) r x - s v_threshold: it fires a step later."""
    e.need_zero("v_leak")
    gain = e["r"] * e.rate()
    return g.Leaky, dict(_decays(e), gain=gain, threshold=e["v_threshold"], reset="subtract", delayed=True)


def _decays(e: _Equation) -> Fields:
    return dict(beta=1 - e.rate(), current_decay=1 - e.rate("tau_syn") if e.has_current else None)


@dataclass(frozen=True)
class Semantics:
    """Whose arithmetic: the rule for what has a state, the types of nodes that there is a reference for, the one reset
    that it has if it has but one, whether it runs cycles, and which values come a step later than in 'nir'."""

    rule: Callable[[_Equation], tuple[type[g.Node], Fields]]
    types: tuple[str, ...]
    reset: Reset | None = None
    cycles: bool = False
    late_into: tuple[str, ...] = ()
    late_out_of: tuple[str, ...] = ()


MATRICES = ("Affine", "Linear")
FRAME = ("Input", "Output", *MATRICES)
SEMANTICS: dict[str, Semantics] = {
    "nir": Semantics(_euler, tuple(FIELDS), cycles=True),
    "snntorch": Semantics(
        _snntorch, (*FRAME, "Conv2d", "AvgPool2d", "Flatten", "LIF", "CubaLIF"), "v_reset", cycles=True
    ),
    "spikingjelly": Semantics(
        _spikingjelly, (*FRAME, "Conv1d", "Conv2d", "AvgPool2d", "Flatten", "IF", "LIF", "CubaLIF"), "v_reset"
    ),
    "lava": Semantics(_lava, (*FRAME, "LIF", "CubaLIF"), "v_reset", cycles=True, late_into=MATRICES),
    "nengo": Semantics(_exact, (*FRAME, "LIF"), "v_reset"),
    "sinabs": Semantics(_exact_decay, (*FRAME, "LIF"), "subtract"),
    "spyx": Semantics(_spyx, (*FRAME, "LIF"), "subtract", late_out_of=("LIF",)),
}
