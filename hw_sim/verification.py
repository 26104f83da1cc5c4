"""Does a backend compute what torch computes? Each is held against the promise that export/agreement.py states.

In: what a backend is to execute (model, graph, image), and torch's answer to the undamaged original. Out: a row with
the spikes that differ, the first of them, the output's distance, and the verdict. A failed row names the layer.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from esdnet.errors import UserError
from esdnet.model import ESDNet
from export.agreement import (
    FLOAT32_MEMBRANE,
    FLOAT64_OUTPUT,
    FREE_RUN_PSNR_DB,
    Values,
    check_layers,
    layer_names,
    membranes,
    witness,
)
from export.network import Array, Network
from hw_sim import torch_backend
from hw_sim.result import Comparison, Result, compare
from hw_sim.simulator import execute_node

FloatPrecision = Literal["float64", "float32"]
Precision = Literal["float64", "float32", "int8"]
Status = Literal["reference", "holds", "FAILED", "not run"]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is executed: a torch model, the graph lowered from it, an image (3, H, W) of sides that the graph takes."""

    model: ESDNet
    network: Network
    image: Array


@dataclass(frozen=True)
class Candidate:
    """One way to execute a network. `run_layers`, if it can, runs each layer on inputs given (export/agreement.py)."""

    name: str
    precision: Precision
    run: Callable[[Subject], Result]
    run_layers: Callable[[Subject, Values], Values] | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """Torch's answer: the result of a run, and the values inside, by node name (float64; none in integers)."""

    subject: Subject
    result: Result
    values: Values
    seconds: float


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
    result = torch_backend.run(
        copy.deepcopy(subject.model), subject.network, subject.image, precision="float64", device=device
    )
    seconds = time.perf_counter() - started
    return Reference(subject, result, witness(subject.model, subject.network, subject.image, device), seconds)


def judge(reference: Reference, candidate: Candidate, subject: Subject) -> Row:
    """Run one backend and hold it against the promise. One that cannot run is 'not run'; one that dies has FAILED."""
    started = time.perf_counter()
    try:
        result = candidate.run(subject)
        seconds = time.perf_counter() - started
        difference = compare(reference.result, result)
        failure, note = _verdict(reference, candidate, subject, result, difference)
    except UserError as error:
        return Row(candidate.name, candidate.precision, "not run", str(error))
    except Exception as error:  # whatever ends one backend must not hide the others' rows
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return Row(candidate.name, candidate.precision, "FAILED", f"stopped by {text}")
    return Row(
        candidate.name, candidate.precision, "FAILED" if failure else "holds", failure or note,
        difference.spike_mismatches, difference.first, difference.max_difference, difference.psnr_db, seconds,
    )  # fmt: skip


def _verdict(
    reference: Reference, candidate: Candidate, subject: Subject, result: Result, difference: Comparison
) -> tuple[str, str]:
    """What breaks the promise, the layer named ("" if nothing does), and what to note if it holds."""
    failure = note = ""
    if candidate.run_layers is not None:
        layers = check_layers(
            reference.subject.network, reference.values, candidate.run_layers(subject, reference.values)
        )
        if layers.failures:
            return layers.failures[0], ""
        note = f"{layers.layers} layers on torch's inputs: membranes within {layers.membrane:.1e}"
    elif candidate.precision == "float32":
        margin, failure = unexplained(reference.subject, result)
        note = f"every spike follows from its own earlier spikes, in float64, within {margin:.1e} of the threshold"
    if candidate.precision != "float32":
        failure = failure or _not_exact(
            reference, difference, FLOAT64_OUTPUT if candidate.precision == "float64" else 0.0
        )
    elif not difference.psnr_db >= FREE_RUN_PSNR_DB:
        failure = failure or f"output at {difference.psnr_db:.1f} dB, promised {FREE_RUN_PSNR_DB:g}"
    return failure, note


def _not_exact(reference: Reference, difference: Comparison, allowed: float) -> str:
    """For float64 and int8: a spike, a count or an output that differs, and the layers that it comes from."""
    network = reference.subject.network
    if difference.spike_mismatches:
        name = next(iter(difference.mismatches))
        return f"{suspects(network, name)}: {difference.first}, promised none"
    if difference.count_mismatches:
        return f"{difference.count_mismatches[0]}: its counts differ, promised equal"
    if not difference.max_difference <= allowed:
        name = network.output.name
        return f"{suspects(network, name)}: output differs by {difference.max_difference:.1e}, promised {allowed:g}"
    return ""


def suspects(network: Network, name: str) -> str:
    """The layers that can have made the first difference: before this node, not before a neuron that still agreed."""
    agreeing: set[str] = set()
    for node in network.nodes:
        if node.name == name:
            break
        if node in network.neurons:
            agreeing.add(node.name)
    known = set(agreeing)
    for node in reversed(network.nodes):
        if node.name in known:
            known.update(node.inputs)
    return layer_names(network, name, list(known))


def simulate_layers(network: Network, given: Values, precision: FloatPrecision) -> dict[str, NDArray[np.floating[Any]]]:
    """The simulator's value of every node that a neuron or a name given needs, each from the values given.

    What is given replaces what the simulator found, for all who read it; neurons' spikes are 0 and 1.
    """
    dtype = getattr(torch, precision)
    inputs = {name: torch.from_numpy(np.ascontiguousarray(value)).to(dtype) for name, value in given.items()}
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for node in network.nodes:
            read = [inputs[name] for name in node.inputs] or [inputs[node.name]]
            found[node.name] = execute_node(node, read, network.steps, dtype).to(dtype)
            inputs.setdefault(node.name, found[node.name])
    return {name: value.numpy() for name, value in found.items()}


def unexplained(subject: Subject, result: Result) -> tuple[float, str]:
    """Whether each spike of a float32 run follows, in float64, from the run's own earlier spikes.

    For backends whose values cannot be seen. Returns the largest distance from the threshold at which a spike is not
    what float64 says, and a failure in words if that is more than promised ("" if not).
    """
    network = subject.network
    spikes = {name: value.astype(np.float64) for name, value in result.spikes.items()}
    exact = simulate_layers(network, {network.input.name: subject.image[None], **spikes}, "float64")
    largest, failure = 0.0, ""
    for neuron in network.neurons:
        level = membranes(neuron, exact[neuron.inputs[0]], spikes[neuron.name]) - neuron.threshold
        fires = level >= 0 if neuron.fires == ">=" else level > 0
        distance = np.where(fires != result.spikes[neuron.name], np.abs(level), 0.0)
        largest = max(largest, float(distance.max()))
        if not distance.max() <= FLOAT32_MEMBRANE and not failure:
            failure = (
                f"{suspects(network, neuron.name)}: {neuron.name}: a spike is {distance.max():.2g} off the threshold,"
                f" allowed {FLOAT32_MEMBRANE:g}"
            )
    return largest, failure
