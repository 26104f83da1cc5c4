"""Does a backend compute what torch computes? Each is held against the promise that export/graph/agreement.py states.

In: what a backend is to execute (model, graph, image), and torch's answer to the undamaged original. Out: a row with
the spikes that differ, the first of them, the output's distance, and the verdict. A failed row names the layer.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from esdnet.command.errors import UserError
from export.graph.agreement import (
    FLOAT32_MEMBRANE,
    FLOAT64_OUTPUT,
    FloatPrecision,
    broken_promise,
    check_layers,
    suspects,
)
from export.graph.execute import execute_node
from export.graph.near_ties import astray
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError, Neuron, gate_of
from export.graph.witness import Values, Witness, witness
from hw_sim.backends import simulator, torch_model
from hw_sim.backends.result import Comparison, Result, compare

Precision = Literal["float64", "float32", "int8"]
Status = Literal["reference", "holds", "FAILED", "proves nothing", "not run"]
SILENT = "nothing spiked in the reference, so nothing of the neurons was compared"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is executed: a torch model, the graph lowered from it, an image (3, H, W) of sides that the graph takes."""

    model: nn.Module
    network: Network
    image: Array


@dataclass(frozen=True)
class Candidate:
    """One way to execute a network.

    `ready` raises UserError where it cannot run here: software that is absent, a limit that is known before the run.
    Whatever `run` raises is a failure. `run_layers`, if it can, runs each layer on inputs given.
    `note`: what must be said of a row that holds.
    """

    name: str
    precision: Precision
    run: Callable[[Subject], Result]
    run_layers: Callable[[Subject, Values], Values] | None = None
    ready: Callable[[Subject], None] = lambda subject: None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Reference:
    """Torch's answer: the result of a run, and the values inside (none in integers)."""

    subject: Subject
    result: Result
    witness: Witness
    seconds: float

    @property
    def silent(self) -> list[str]:
        """The neurons that fired no spike."""
        return [name for name, spikes in self.result.spikes.items() if not spikes.any()]

    @property
    def silent_run(self) -> bool:
        """True if there are neurons and not one fired."""
        return bool(self.result.spikes) and len(self.silent) == len(self.result.spikes)


@dataclass(frozen=True)
class Row:
    """What is said of one backend. Numbers are None where nothing was compared."""

    backend: str
    precision: str
    status: Status
    note: str = ""
    mismatches: int | None = None
    first: str = ""
    max_difference: float | None = None
    psnr_db: float | None = None
    seconds: float | None = None


def make_reference(subject: Subject, device: str = "cpu") -> Reference:
    """Run the torch model in float64 on this device. The model is left as it is."""
    started = time.perf_counter()
    result = torch_model.run(
        copy.deepcopy(subject.model), subject.network, subject.image, precision="float64", device=device
    )
    seconds = time.perf_counter() - started
    return Reference(subject, result, witness(subject.model, subject.network, subject.image, device), seconds)


def reference_row(name: str, precision: Precision, reference: Reference) -> Row:
    """What is said of the reference itself: which neurons no image of this kind tells anything about."""
    silent = reference.silent
    note = (
        f"{len(silent)} of {len(reference.result.spikes)} neuron layers silent, so not exercised: {', '.join(silent)}"
    )
    if reference.silent_run:
        note = SILENT
    return Row(name, precision, "reference", note if silent else "", seconds=reference.seconds)


def judge(reference: Reference, candidate: Candidate, subject: Subject) -> Row:
    """Run one backend and hold it against the promise."""
    return attempt(
        reference, candidate.name, candidate.precision, lambda: candidate.ready(subject),
        lambda: _compared(reference, candidate, subject),
    )  # fmt: skip


def attempt(
    reference: Reference, name: str, precision: Precision, ready: Callable[[], None], run: Callable[[], Row]
) -> Row:
    """The row that `run` makes. What cannot run here is 'not run' and says why; what fails once it runs has FAILED.

    A row that agrees with a reference in which nothing spiked 'proves nothing'.
    """
    try:
        ready()
    except NetworkError as error:  # a graph that the backend refuses
        return Row(name, precision, "FAILED", str(error))
    except UserError as error:
        return Row(name, precision, "not run", str(error))
    try:
        row = run()
    except Exception as error:  # whatever ends one backend must not hide the others' rows
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return Row(name, precision, "FAILED", f"stopped by {text}")
    return replace(row, status="proves nothing", note=SILENT) if reference.silent_run and row.status == "holds" else row


def _compared(reference: Reference, candidate: Candidate, subject: Subject) -> Row:
    started = time.perf_counter()
    result = candidate.run(subject)
    seconds = time.perf_counter() - started
    difference = compare(reference.result, result)
    failure, note = _verdict(reference, candidate, subject, result, difference)
    return Row(
        candidate.name, candidate.precision, "FAILED" if failure else "holds", failure or note,
        difference.spike_mismatches, difference.first, difference.max_difference, difference.psnr_db, seconds,
    )  # fmt: skip


def _verdict(
    reference: Reference, candidate: Candidate, subject: Subject, result: Result, difference: Comparison
) -> tuple[str, str]:
    """What breaks the promise, the layer named ("" if nothing does), and what to note if it holds."""
    network, precision = reference.subject.network, candidate.precision
    if precision == "int8":
        return _unequal(network, difference, 0.0), candidate.note
    notes = [candidate.note] if candidate.note else []
    if candidate.run_layers is not None:
        found = candidate.run_layers(subject, reference.witness.values)
        layers = check_layers(network, reference.witness, found, precision)
        if layers.failures:
            return layers.failures[0], ""
        within = f"membranes within {layers.membrane:.1e}" if network.neurons else "each within what it may deviate by"
        notes.append(f"{layers.layers} layers on torch's inputs: {within}")
    elif precision == "float32":
        margin, failure = unexplained(reference.subject, result)
        if failure:
            return failure, ""
        notes.append(
            f"every spike follows from its own earlier spikes, in float64, within {margin:.1e} of the threshold"
        )
    failure = broken_promise(network, reference.witness, precision, result.output, result.spikes)
    if not failure and precision == "float64" and difference.spike_mismatches:
        notes.append(
            f"{difference.spike_mismatches:,} spikes differ from torch's, by near-ties; none from the simulator's"
        )
        failure = _not_the_graphs(reference, result)
    elif not failure and not difference.spike_mismatches and difference.count_mismatches:
        failure = _miscounted(difference)
    return failure, "; ".join(notes)


def _not_the_graphs(reference: Reference, result: Result) -> str:
    """Where near-ties set a run apart from torch: it must be the graph's own run to the last spike, and that one must
    keep the promise layer by layer."""
    network, image = reference.subject.network, reference.subject.image
    found = simulate_layers(network, reference.witness.values, "float64")
    layers = check_layers(network, reference.witness, found, "float64")
    if layers.failures:
        return layers.failures[0]
    difference = compare(simulator.run(network, image, precision="float64"), result)
    failure = _unequal(network, difference, FLOAT64_OUTPUT)
    return f"{failure} (compared with the simulator: executors of one graph agree at near-ties too)" if failure else ""


def _unequal(network: Network, difference: Comparison, allowed: float) -> str:
    """A spike, a count or an output that differs, and the layers that it comes from; "" if none does."""
    if difference.spike_mismatches:
        return f"{suspects(network, next(iter(difference.mismatches)))}: {difference.first}, promised none"
    if difference.count_mismatches:
        return _miscounted(difference)
    if not difference.max_difference <= allowed:
        name = network.output.name
        return f"{suspects(network, name)}: output differs by {difference.max_difference:.1e}, promised {allowed:g}"
    return ""


def _miscounted(difference: Comparison) -> str:
    return f"{difference.count_mismatches[0]}: its counts differ, promised equal"


def simulate_layers(
    network: Network, given: Values, precision: FloatPrecision, device: str = "cpu"
) -> dict[str, NDArray[np.floating[Any]]]:
    """The simulator's value of every node that a neuron or a name given needs, each from the values given.

    What is given replaces what the simulator found, for all who read it; neurons' spikes are 0 and 1.
    """
    dtype = getattr(torch, precision)
    inputs = {name: torch.from_numpy(np.ascontiguousarray(value)).to(device, dtype) for name, value in given.items()}
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for node in network.nodes:
            read = [inputs[name] for name in node.inputs] or [inputs[node.name]]
            found[node.name] = execute_node(node, read, network.steps, dtype).to(dtype)
            inputs.setdefault(node.name, found[node.name])
    return {name: value.cpu().numpy() for name, value in found.items()}


def unexplained(subject: Subject, result: Result) -> tuple[float, str]:
    """Whether a float32 run follows, in float64, from its own earlier spikes: for backends whose values are not seen.

    Returns the largest distance from the threshold at which a spike is not what float64 says, and a failure in words if
    that, or the output's distance, is more than promised ("" if not).
    """
    network = subject.network
    spikes = {name: value.astype(np.float64) for name, value in result.spikes.items()}
    exact = simulate_layers(network, {network.input.name: subject.image[None], **spikes}, "float64")
    largest, failure = 0.0, ""
    for neuron in network.of(Neuron):
        gate = exact.get(gate_of(neuron) or "")
        _, distance = astray(neuron, exact[neuron.inputs[0]], spikes[neuron.name], gate)
        largest = max(largest, float(distance.max()))
        if not distance.max() <= FLOAT32_MEMBRANE and not failure:
            failure = (
                f"{suspects(network, neuron.name)}: {neuron.name}: a spike is {distance.max():.2g} off the threshold,"
                f" allowed {FLOAT32_MEMBRANE:g}"
            )
    name = network.output.name
    moved = float(np.abs(exact[name][0] - result.output).max())
    if not failure and not moved <= FLOAT32_MEMBRANE * max(1.0, float(np.abs(exact[name]).max())):
        failure = f"{suspects(network, name)}: its spikes make an output {moved:.2g} away, allowed {FLOAT32_MEMBRANE:g}"
    return largest, failure
