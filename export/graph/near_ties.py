"""Near-ties: membranes so near to their threshold that rounding decides whether they fire; channels so nearly equal
that it decides which one is the largest.

In: a neuron, the currents (T, C, H, W) that it reads, the spikes that it fired; or an ArgMax and what it reads. Out:
membranes, the near-ties among them, and the spikes or numbers that do not follow. How near is near,
export/graph/rounding.py says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.graph.neuron import NeuronState
from export.graph.nodes import ArgMax, Array, Neuron


def membranes(neuron: Neuron, current: NDArray[np.floating[Any]], spikes: NDArray[Any]) -> Array:
    """H before the reset, (T, C, H, W) float64, of a neuron that reads `current` and was reset by these `spikes`."""
    frames = torch.from_numpy(np.asarray(current, np.float64))
    state, found = NeuronState(neuron, frames[0]), np.empty(current.shape)
    for step, frame in enumerate(frames):
        found[step] = state.integrate(frame).numpy()
        state.reset(torch.from_numpy(np.asarray(spikes[step], np.float64)))
    return found


def astray(
    neuron: Neuron, current: NDArray[np.floating[Any]], spikes: NDArray[Any], gate: NDArray[Any] | None = None
) -> tuple[NDArray[np.bool_], Array]:
    """Where a spike is not what its membrane says, and how far that membrane is off the threshold (0 elsewhere; a spike
    where the gate is shut is infinitely far off).

    The membranes are reset by the same spikes: one that fell the other way is counted once, not with all that follow.
    """
    level = membranes(neuron, current, spikes) - neuron.threshold
    if gate is not None:
        level[np.broadcast_to(gate == 0, level.shape)] = -np.inf
    wrong = (level >= 0 if neuron.fires == ">=" else level > 0) != np.asarray(spikes, bool)
    return wrong, np.where(wrong, np.abs(level), 0.0)


@dataclass(frozen=True, eq=False)
class NearTies:
    """The near-ties of one neuron node, or ArgMax: flat indices into its value (T, C, H, W), ascending, and how far off
    each one is, of its threshold or of another channel."""

    neuron: str
    shape: tuple[int, ...]
    where: NDArray[np.int64]
    distances: Array
    off: str = "the threshold"

    def by_step(self) -> dict[int, tuple[int, float]]:
        """Step -> number of near-ties, and the distance of the nearest."""
        steps = self.where // prod(self.shape[1:])
        return {
            int(step): (int((steps == step).sum()), float(self.distances[steps == step].min()))
            for step in np.unique(steps)
        }


def explained(differs: NDArray[np.bool_], where: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of spikes that differ, bool (T, C, H, W): those at near-ties (flat indices), and later ones of the same elements,
    whose membranes were reset there, or were not."""
    here = np.zeros(differs.shape, bool)
    here.flat[where] = True
    return differs & np.logical_or.accumulate(differs & here, axis=0)


def find_near_ties(neuron: Neuron, membrane: Array, bound: float, gate: NDArray[Any] | None = None) -> NearTies | None:
    """Where a membrane before the reset, (T, C, H, W), lies within `bound` of the threshold, and its gate is open; None
    if nowhere."""
    distance = np.abs(membrane - neuron.threshold)
    if gate is not None:
        distance[np.broadcast_to(gate == 0, distance.shape)] = np.inf
    where = np.flatnonzero(distance <= bound)
    return NearTies(neuron.name, membrane.shape, where, distance.flat[where]) if where.size else None


def behind(values: NDArray[np.floating[Any]], chosen: NDArray[Any]) -> Array:
    """How far below the largest of the channels (T, C, H, W) those chosen lie, by their numbers (T, 1, H, W); infinite
    for what is no channel's number."""
    there = np.isin(chosen, np.arange(values.shape[1]))
    numbers = np.where(there, chosen, 0).astype(np.int64)
    below = values.max(1, keepdims=True) - np.take_along_axis(values, numbers, 1)
    return np.where(there, below, np.inf)


def find_near_choices(choice: ArgMax, values: NDArray[np.floating[Any]], bound: float) -> NearTies | None:
    """Where the two largest channels of what an ArgMax reads, (T, C, H, W), lie within `bound` of each other; None if
    nowhere."""
    if values.shape[1] < 2:
        return None
    second, first = np.partition(values, (-2, -1), axis=1)[:, -2:].transpose(1, 0, 2, 3)
    distance = (first - second)[:, None]
    where = np.flatnonzero(distance <= bound)
    if not where.size:
        return None
    return NearTies(choice.name, distance.shape, where, distance.flat[where], "another channel")


def describe_near_ties(ties: Sequence[NearTies]) -> list[str]:
    """A line per node and step: how many membranes are near-ties, and how far off the nearest is."""
    return [
        f"{tie.neuron}, step {step}: {count:,} within rounding of {tie.off}, the nearest {distance:.1e} off"
        for tie in ties
        for step, (count, distance) in tie.by_step().items()
    ]
