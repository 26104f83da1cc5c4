"""What NIR's equations become at each time step: the choices that the format leaves open, by who made them.

Every semantics has a reference, a program or its recording, that it equals spike for spike (docs/semantics.md);
what has none is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np

from esdnet.command.errors import UserError
from export.graph import nodes as g
from export.graph.nodes import Array
from export.readers.nir_file import FileNode
from export.readers.nir_shapes import Side, constant, numbers

Reset = Literal["v_reset", "subtract"]
Fields = dict[str, Any]
SPIKING = ("IF", "LIF", "CubaLIF")
STATEFUL = (*SPIKING, "I", "LI", "CubaLI")
SYNAPSES = ("Affine", "Linear", "Conv1d", "Conv2d")


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
    """The kind and the fields of a node with a state."""
    chosen = SEMANTICS[reading.semantics]
    if node.type not in chosen.types:
        node.refuse(
            f"semantics {reading.semantics!r} has no reference for it, expected {' or '.join(chosen.types)}; "
            "read the file by semantics 'nir'"
        )
    for field in ("tau", "tau_mem", "tau_syn"):
        if field in node.fields and (numbers(node, field) <= 0).any():
            node.refuse(f"{field} has values of 0 or below, expected seconds above 0")
    return chosen.rule(_Parameters(node, shape, reading), reading)


class _Parameters:
    """The fields of one node, as arrays that broadcast over (C, H, W); those that are left out have NIR's defaults."""

    def __init__(self, node: FileNode, shape: Side, reading: Reading) -> None:
        self.node, self.dt = node, reading.dt
        found = {field: constant(node, field, shape) for field in node.fields}
        self.tau = found.get("tau", found.get("tau_mem"))
        self.tau_syn = found.get("tau_syn")
        self.r = found["r"]
        self.v_leak = found.get("v_leak", np.zeros(()))
        self.w_in = found.get("w_in", np.ones(()))
        self.threshold = found.get("v_threshold")
        self.v_reset = found.get("v_reset", np.zeros(()))

    @property
    def rate(self) -> Array:
        """dt / tau of the membrane."""
        return self.dt / self._known(self.tau)

    @property
    def rate_syn(self) -> Array | None:
        """dt / tau of the current, if it has one."""
        return None if self.tau_syn is None else self.dt / self.tau_syn

    @property
    def fires_above(self) -> Array:
        """The threshold of a spiking node."""
        return self._known(self.threshold)

    def need(self, field: str, value: Array, expected: float, who: str) -> None:
        """Refuse what `who` does not compute."""
        if (value != expected).any():
            self.node.refuse(f"{field} is not {expected:g}, which {who} cannot run; read the file by semantics 'nir'")

    @staticmethod
    def _known(value: Array | None) -> Array:
        assert value is not None  # nir_file.FIELDS: every file has it
        return value


def _euler(p: _Parameters, reading: Reading) -> tuple[type[g.Node], Fields]:
    """Forward Euler in norse's order of operations. IF and I add r x each step: their exporters know no dt there."""
    fields: Fields = dict(dt=p.dt, tau=p.tau, r=p.r, v_leak=p.v_leak, tau_syn=p.tau_syn, w_in=p.w_in)
    if p.threshold is None:
        return g.Euler, fields
    by = reading.reset == "subtract"
    after: Fields = dict(reset="by" if by else "to", v_reset=p.threshold if by else p.v_reset)
    return g.EulerNeuron, {**fields, **after, "threshold": p.threshold}


def _exact(p: _Parameters, reading: Reading) -> tuple[type[g.Node], Fields]:
    """The solution for an input that is constant over a step, v = a v + (1 - a)(v_leak + r x), a = exp(-dt / tau)."""
    kind, fields = _euler(p, reading)
    return kind, {**fields, "tau": p.dt / -np.expm1(-p.rate)}


def _exact_decay(p: _Parameters, reading: Reading) -> tuple[type[g.Node], Fields]:
    """v = exp(-dt / tau) v + (dt / tau) r x: an exact decay and an Euler step of the input."""
    p.need("v_leak", p.v_leak, 0.0, reading.semantics)
    kind, fields = _exact(p, reading)
    return kind, {**fields, "r": p.r * p.rate / -np.expm1(-p.rate)}


def _snntorch(p: _Parameters, reading: Reading) -> tuple[type[g.Node], Fields]:
    """snnTorch 1.0, import_from_nir: v = (1 - dt / tau) v + x, the scale of x being put into the threshold; Synaptic
    for CubaLIF. It refuses what has more than one threshold."""
    for field, value in (("v_leak", p.v_leak), ("v_reset", p.v_reset)):
        p.need(field, value, 0.0, "snnTorch")
    if p.rate_syn is None:
        scale = p.r * p.dt / p.tau
    else:
        scale = p.w_in * p.rate_syn
        if not np.allclose(p.r, p.tau / p.dt):
            p.node.refuse("r is not tau_mem / dt, which snnTorch cannot run; read the file by semantics 'nir'")
    threshold = p.fires_above if np.allclose(scale, 1.0) else p.fires_above / scale
    if threshold.size != 1:
        p.node.refuse("its scaled threshold varies, which snnTorch cannot run; read the file by semantics 'nir'")
    decay = None if p.rate_syn is None else 1 - p.rate_syn
    return g.Leaky, dict(beta=1 - p.rate, current_decay=decay, threshold=threshold, reset="zero", delayed=False)


def _lava(p: _Parameters, reading: Reading) -> tuple[type[g.Node], Fields]:
    """Lava's floating-point LIF: u = (1 - du) u + a; v = (1 - dv) v + u; reset to 0."""
    for field, value in (("v_leak", p.v_leak), ("v_reset", p.v_reset)):
        p.need(field, value, 0.0, "Lava")
    gain, decay = p.r * p.rate, None
    if p.rate_syn is not None:
        gain, decay = gain * p.w_in * p.rate_syn, 1 - p.rate_syn
    return g.Leaky, dict(
        beta=1 - p.rate, current_decay=decay, gain=gain, threshold=p.fires_above, reset="zero", delayed=False
    )


def _spyx(p: _Parameters, reading: Reading) -> tuple[type[g.Node], Fields]:
    """Spyx: s = [v > v_threshold]; v = (1 - dt / tau) v + (dt / tau) r x - s v_threshold: it fires a step later."""
    p.need("v_leak", p.v_leak, 0.0, "Spyx")
    return g.Leaky, dict(beta=1 - p.rate, gain=p.r * p.rate, threshold=p.fires_above, reset="subtract", delayed=True)


@dataclass(frozen=True)
class Semantics:
    """Whose arithmetic: the rule, the types of nodes that it knows, the one reset that it has, if it has but one, and
    which values come a step later than in 'nir'."""

    rule: Callable[[_Parameters, Reading], tuple[type[g.Node], Fields]]
    types: tuple[str, ...]
    reset: Reset | None = None
    cycles: bool = False
    late_into: tuple[str, ...] = ()
    late_out_of: tuple[str, ...] = ()


SEMANTICS: dict[str, Semantics] = {
    "nir": Semantics(_euler, STATEFUL, cycles=True),
    "snntorch": Semantics(_snntorch, ("LIF", "CubaLIF"), "v_reset", cycles=True),
    "lava": Semantics(_lava, ("LIF", "CubaLIF"), "v_reset", late_into=SYNAPSES),
    "nengo": Semantics(_exact, ("LIF",), "v_reset"),
    "sinabs": Semantics(_exact_decay, ("LIF",), "subtract"),
    "spyx": Semantics(_spyx, ("LIF",), "subtract", late_out_of=("LIF",)),
}
