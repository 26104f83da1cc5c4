"""What every executor returns, and the one comparison of two such results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph.agreement import differing_spikes, psnr_db
from export.graph.counting import NodeCounts

SpikeMap = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Result:
    """One image through one executor.

    output: (C, H, W) in the executor's dtype; (T, C, H, W) where the network's Output has several frames. spikes: for
    every Neuron node, bool (T, C, H, W); empty if they were not kept. counts: for every node. executed_size: (height,
    width) that was really run, padding included. outputs: by name, where the network has several. kept_maps: what
    `spike_maps` gives, of an executor that was asked for that and not for the spikes. of_core: of a tile that is part
    of an image, what its core adds to the counts of one run of the whole (export/graph/part.py). gates: by name of
    each node that is a gate, where it is open, (1, H, W) of 0 and 1.
    """

    output: NDArray[np.floating[Any]]
    spikes: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    counts: dict[str, NodeCounts] = field(default_factory=dict)
    executed_size: tuple[int, int] = (0, 0)
    outputs: dict[str, NDArray[np.floating[Any]]] = field(default_factory=dict)
    kept_maps: dict[str, SpikeMap] = field(default_factory=dict)
    of_core: dict[str, NodeCounts] = field(default_factory=dict)
    gates: dict[str, SpikeMap] = field(default_factory=dict)

    def spike_maps(self) -> dict[str, SpikeMap]:
        """Where every neuron node fired, (T, H, W): its spikes summed over channels; empty if nothing was kept."""
        return self.kept_maps or {name: as_map(spikes.sum(1, dtype=np.uint16)) for name, spikes in self.spikes.items()}


def as_map(counts: NDArray[np.integer[Any]]) -> SpikeMap:
    """Spikes per step and pixel in as few bytes as hold them."""
    return counts.astype(np.uint8 if counts.max(initial=0) < 256 else np.uint16)


@dataclass(frozen=True)
class Comparison:
    """Where two results differ. `first` names node, step and number of mismatches of the first node that differs."""

    spike_mismatches: int
    mismatches: dict[str, int]
    first: str
    count_mismatches: tuple[str, ...]
    max_difference: float
    psnr_db: float

    @property
    def equal_spikes(self) -> bool:
        """True if no spike and no count differs."""
        return not self.spike_mismatches and not self.count_mismatches


def compare(reference: Result, other: Result) -> Comparison:
    """Spikes neuron by neuron in the order of the reference, counts node by node, and the output."""
    if set(reference.spikes) != set(other.spikes):
        odd = sorted(set(reference.spikes) ^ set(other.spikes))
        raise ValueError(f"the two results do not hold the same neurons: {odd[0]} is in one only ({len(odd)} such)")
    mismatches, first = differing_spikes(reference.spikes, other.spikes)
    counts = tuple(
        name
        for name, expected in reference.counts.items()
        if name in other.counts and not expected.agrees(other.counts[name])
    )
    difference = np.asarray(reference.output, np.float64) - np.asarray(other.output, np.float64)
    return Comparison(
        spike_mismatches=sum(mismatches.values()),
        mismatches=mismatches,
        first=first,
        count_mismatches=counts,
        max_difference=float(np.abs(difference).max()),
        psnr_db=psnr_db(reference.output, other.output),
    )
