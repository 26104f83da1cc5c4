"""What a process reports of an image, as bytes: its spikes, the spikes it received, and how often its nodes ran.

A Recorder writes it inside the process, `read_record` reads it on the host. One message per process and image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hw_sim.backends.lava.plan import Leaf, Observation

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Record:
    """One process, one image. runs: executions of each node; spikes: bool (T, C, H, W) per Neuron;
    received: spikes per pixel that reached each convolution or matrix, int64 (T, H, W)."""

    runs: dict[str, int]
    spikes: dict[str, NDArray[np.bool_]]
    received: dict[str, NDArray[np.int64]]


@dataclass
class Flight:
    """An image on its way: the step before its first, and what has come out so far: frames (C, H, W), records.

    Both sides know this class: it lies here, where nothing imports Lava, which sets the start method of
    multiprocessing and fails in a host that has set one.
    """

    start: int
    frames: list[NDArray[np.float64]] = field(default_factory=list)
    records: dict[str, Bytes] = field(default_factory=dict)


def _frame_bytes(observation: Observation) -> int:
    channels, height, width = observation.value.frame_shape
    return (channels * height * width + 7) // 8 if observation.what == "spikes" else 4 * height * width


def record_size(leaf: Leaf) -> int:
    """Bytes of a process's message: four for each node's runs, then every observed frame; at least one."""
    observed = sum(item.value.shape[0] * _frame_bytes(item) for item in leaf.observations)
    return max(1, 4 * len(leaf.nodes) + observed)


class Recorder:
    """Collects one image's record while its frames are computed."""

    def __init__(self, leaf: Leaf) -> None:
        self.message: Bytes = np.zeros(record_size(leaf), np.uint8)
        self.runs = self.message[: 4 * len(leaf.nodes)].view(np.int32)
        self.index = {node.name: number for number, node in enumerate(leaf.nodes)}
        self.places: dict[str, list[tuple[Observation, int]]] = {}
        start = 4 * len(leaf.nodes)
        for item in leaf.observations:
            self.places.setdefault(item.value.name, []).append((item, start))
            start += item.value.shape[0] * _frame_bytes(item)

    def begin(self) -> None:
        """Nothing seen yet."""
        self.message.fill(0)

    def ran(self, node: str) -> None:
        """A node computed something."""
        self.runs[self.index[node]] += 1

    def see(self, value: str, frame: int, data: Tensor) -> None:
        """Frame number `frame` of a value, (1, C, H, W), is there."""
        for item, start in self.places.get(value, ()):
            size = _frame_bytes(item)
            place = self.message[start + frame * size : start + (frame + 1) * size]
            if item.what == "spikes":
                place[:] = np.packbits(data.numpy())
            else:
                place[:] = data[0].sum(0).numpy().astype("<i4").ravel().view(np.uint8)


def read_record(leaf: Leaf, message: Bytes) -> Record:
    """The inverse of a Recorder."""
    start = 4 * len(leaf.nodes)
    runs = message[:start].view(np.int32)
    record = Record({node.name: int(count) for node, count in zip(leaf.nodes, runs, strict=True)}, {}, {})
    for item in leaf.observations:
        steps, channels, height, width = item.value.shape
        end = start + steps * _frame_bytes(item)
        data = message[start:end].reshape(steps, -1)
        if item.what == "spikes":
            bits = np.unpackbits(data, axis=1, count=prod(item.value.frame_shape))
            record.spikes[item.node] = bits.astype(bool).reshape(steps, channels, height, width)
        else:
            counts = np.ascontiguousarray(data).view("<i4").astype(np.int64)
            record.received[item.node] = counts.reshape(steps, height, width)
        start = end
    return record
