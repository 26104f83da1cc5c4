"""The promise of exactness as code: how far another executor may be from what torch computes, and what breaks it.

In: a witness (export/graph/witness.py), and what another executor found: values layer by layer on torch's inputs, or
the spikes of a run of its own. Out: the layers that break the promise, by name, and the largest deviations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from export.graph.near_ties import astray, behind, explained, find_near_choices, membranes
from export.graph.network import Network
from export.graph.nodes import Affine, ArgMax, Array, Conv, LayerNorm, Linear, Neuron, gate_of
from export.graph.witness import Values, Witness

# float64, layer by layer: what rounding alone can do, derived for each layer in rounding.py (ESDNet: some 1e-13)
FLOAT64_OUTPUT = 1e-9  # float64, whole network: the output, times its largest magnitude where that is above 1
FLOAT32_MEMBRANE = 1e-5  # float32, layer by layer: membranes, and how near to the threshold a spike may differ
FREE_RUN_PSNR_DB = 60.0  # float32, whole network, where no spike differs: output against torch's, images in [0, 1]

NONE = np.zeros(0, np.int64)
FloatPrecision = Literal["float64", "float32"]


def output_within(expected: NDArray[np.floating[Any]], found: NDArray[np.floating[Any]]) -> bool:
    """True if an output keeps float64's promise."""
    largest = max(1.0, float(np.abs(expected).max()))
    return bool((np.abs(found - expected) <= FLOAT64_OUTPUT * largest).all())  # False for NaN


def psnr_db(reference: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """Peak signal to noise ratio of images in [0, 1]; infinite if they are equal."""
    mse = float(np.mean((np.asarray(reference, np.float64) - other) ** 2))
    return float("inf") if mse == 0 else 10 * float(np.log10(1 / mse))


def differing_spikes(
    reference: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, int], str]:
    """Neuron -> how many of its spikes differ (if any), and the first neuron, step and number in words ("" if none).

    Both hold (T, C, H, W) for the same neurons; the order is the reference's.
    """
    counts: dict[str, int] = {}
    first = ""
    for name, expected in reference.items():
        differs = np.asarray(expected, bool) != np.asarray(found[name], bool)
        if not differs.any():
            continue
        counts[name] = int(differs.sum())
        if not first:
            first = in_words(name, differs)
    return counts, first


def in_words(name: str, differs: NDArray[np.bool_]) -> str:
    """Neuron, first step and number of spikes that differ, bool (T, C, H, W)."""
    step = int(np.flatnonzero(differs.reshape(len(differs), -1).any(1))[0])
    return f"{name}, step {step}: {int(differs.sum())} spikes differ"


def no_near_tie(network: Network, reference: Witness, spikes: Mapping[str, NDArray[Any]]) -> tuple[str, str]:
    """Of a run of its own in float64: the first neuron with a spike that differs from torch's and that no near-tie
    explains, and that in words; empty if there is none.

    Judged are the neurons that no earlier difference has reached. What follows from one, `check_layers` judges on
    torch's inputs.
    """
    ties = {tie.neuron: tie.where for tie in reference.near_ties}
    reached: set[str] = set()
    for node in network.nodes:
        if not reached.isdisjoint(node.inputs):
            reached.add(node.name)
        elif isinstance(node, Neuron):
            differs = np.asarray(reference.values[node.name], bool) != np.asarray(spikes[node.name], bool)
            if differs.any():
                reached.add(node.name)
                rest = differs & ~explained(differs, ties.get(node.name, NONE))
                if rest.any():
                    return node.name, in_words(node.name, rest)
    return "", ""


def broken_promise(
    network: Network,
    reference: Witness,
    precision: FloatPrecision,
    output: NDArray[np.floating[Any]],
    spikes: Mapping[str, NDArray[Any]],
) -> str:
    """What breaks the promise in a run of its own, layers named; "" if nothing does.

    output: (3, h, w), at most the size that the witness saw. In float64 no spike differs but by near-ties. Where no
    spike differs and no choice is a near-tie, the output is as near as promised; else it depends on what follows.
    """
    if precision == "float64":
        neuron, words = no_near_tie(network, reference, spikes)
        if neuron:
            return f"{suspects(network, neuron)}: {words}, promised none but at near-ties"
    if differing_spikes({key: reference.values[key] for key in spikes}, spikes)[0]:
        return ""
    if any(
        find_near_choices(node, reference.values[node.inputs[0]], _of_choice(node, reference, precision))
        for node in network.of(ArgMax)
    ):
        return ""
    name = network.output.name
    expected = reference.values[name][0, :, : output.shape[1], : output.shape[2]]
    if precision == "float32":
        psnr = psnr_db(expected, output)
        return "" if psnr >= FREE_RUN_PSNR_DB else f"output at {psnr:.1f} dB, promised {FREE_RUN_PSNR_DB:g}"
    if output_within(expected, output):
        return ""
    difference = float(np.abs(output - expected).max())
    return f"{suspects(network, name)}: output differs by {difference:.1e}, promised {FLOAT64_OUTPUT:g}"


def _of_choice(node: ArgMax, reference: Witness, precision: FloatPrecision) -> float:
    """How far behind the largest channel a chosen one may be."""
    source = node.inputs[0]
    if precision == "float64":
        return 2 * reference.bounds[source]
    return FLOAT32_MEMBRANE * max(1.0, float(np.abs(reference.values[source]).max()))


@dataclass(frozen=True)
class LayerCheck:
    """How one executor did layer by layer: failures in words, the network's first layer first.

    `spikes`: how many are not what their membrane says (allowed ones included). `membrane`: the largest deviation of a
    membrane; `margin`: the largest distance from the threshold of such a spike.
    """

    failures: tuple[str, ...]
    layers: int
    spikes: int
    membrane: float
    margin: float


def check_layers(network: Network, reference: Witness, found: Values, precision: FloatPrecision) -> LayerCheck:
    """Values that were found on the reference's inputs against the reference's own.

    A value may deviate by what rounding can do (float64), or by FLOAT32_MEMBRANE times its largest magnitude, if that
    is more than 1. The same holds for a neuron's membranes, and a spike must be what they say, but where they are that
    near to the threshold (float32: FLOAT32_MEMBRANE). What an ArgMax chooses must be the largest, or that near to it.
    KeyError: a value of the reference was not found.
    """
    failures: list[str] = []
    differing, deviation, margin = 0, 0.0, 0.0
    exact, values = precision == "float64", reference.values
    for name in (name for name in values if name != network.input.name):
        node, expected = network[name], np.asarray(values[name], np.float64)
        if isinstance(node, Neuron):
            source, gate = node.inputs[0], values.get(gate_of(node) or "")
            allowed = reference.bounds[name] if exact else FLOAT32_MEMBRANE
            moved = np.abs(membranes(node, found[source], expected) - membranes(node, values[source], expected))
            moved = moved if gate is None else np.where(gate > 0, moved, 0.0)
            wrong, distance = astray(node, values[source], found[name], gate)
            deviation, margin = max(deviation, float(moved.max())), max(margin, float(distance.max()))
            differing += int(wrong.sum())
            failures += _failure(network, values, source, name, "a membrane deviates by", moved, allowed)
            what = "a spike differs where the membrane is off the threshold by"
            failures += _failure(network, values, name, name, what, distance, allowed)
            if not np.isin(found[name], (0, 1)).all():
                failures.append(f"{layer_names(network, name, values)}: {name}: gives values other than 0 and 1")
        elif isinstance(node, ArgMax):
            short = behind(np.asarray(values[node.inputs[0]], np.float64), found[name])
            what = "chooses a channel that is behind the largest by"
            failures += _failure(network, values, name, name, what, short, _of_choice(node, reference, precision))
        else:
            allowed = reference.bounds[name] if exact else FLOAT32_MEMBRANE * max(1.0, float(np.abs(expected).max()))
            failures += _failure(network, values, name, name, "deviates by", np.abs(found[name] - expected), allowed)
    return LayerCheck(tuple(failures), len(values) - 1, differing, deviation, margin)


def _failure(
    network: Network, given: Values, layer: str, name: str, what: str, error: Array, allowed: float
) -> list[str]:
    """One line if `error` is anywhere above what is allowed (or no number)."""
    wrong = ~(error <= allowed)
    if not wrong.any():
        return []
    step = int(np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))[0])
    where = layer_names(network, layer, given)
    return [
        f"{where}: {name}, step {step}: {what} {error.max():.3g} in {int(wrong.sum())} places, allowed {allowed:.3g}"
    ]


def layer_names(network: Network, name: str, known: Values | Sequence[str]) -> str:
    """The layers with weights between a node's value and the values known before it; the node if there are none."""
    found: list[str] = []
    waiting, visited = [name], {name}
    while waiting:
        node = network[waiting.pop()]
        if isinstance(node, (Conv, Linear, LayerNorm)) or (isinstance(node, Affine) and node.source_parameters):
            found.append(node.name)
        fresh = [source for source in node.inputs if source not in known and source not in visited]
        visited.update(fresh)
        waiting.extend(fresh)
    order = [node.name for node in network.nodes]
    return ", ".join(sorted(found, key=order.index)) or name


def suspects(network: Network, name: str) -> str:
    """The layers that can have made the first difference: before this node, not before a neuron that still agreed."""
    agreeing: set[str] = set()
    for node in network.nodes:
        if node.name == name:
            break
        if isinstance(node, Neuron):
            agreeing.add(node.name)
    known = set(agreeing)
    for node in reversed(network.nodes):
        if node.name in known:
            known.update(node.inputs)
    return layer_names(network, name, list(known))
