"""What is sent into the network, and what a process reports of it, as bytes: its spikes, the spikes it received, and
how often its nodes ran.

A Recorder writes that inside the process, `read_record` reads it on the host: one message for all steps of a Feed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hw_sim.backends.lava.plan import Leaf, Observation

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]


NOTHING, BEGINS, CONTINUES = range(3)  # what enters the network in the steps to come
STARTS_BYTES = 8  # of the message that says so, with how many steps: two int32


@dataclass(frozen=True)
class Feed:
    """An image, or some steps of a sequence: frames (`steps` or 1, C, H, W), and whether they go on with the last."""

    frames: NDArray[Any]
    steps: int
    continues: bool = False


@dataclass(frozen=True)
class Record:
    """One process, one Feed. runs: executions of each node; spikes: bool (T, C, H, W) per spiking node;
    received: spikes per pixel that reached each convolution or matrix, int64 (T, H, W)."""

    runs: dict[str, int]
    spikes: dict[str, NDArray[np.bool_]]
    received: dict[str, NDArray[np.int64]]


@dataclass
class Flight:
    """A Feed on its way: the step before its first, its length, and what has come out so far: frames (C, H, W) of each
    Output, records.

    Both sides know this class: it lies here, where nothing imports Lava, which sets the start method of
    multiprocessing and fails in a host that has set one.
    """

    start: int
    steps: int
    frames: dict[str, list[NDArray[np.float64]]]
    records: dict[str, Bytes] = field(default_factory=dict)


def _frame_bytes(observation: Observation) -> int:
    channels, height, width = observation.value.frame_shape
    return (channels * height * width + 7) // 8 if observation.what == "spikes" else 4 * height * width


def record_size(leaf: Leaf) -> int:
    """Bytes of a process's message: four for each node's runs, then every observed frame; at least one."""
    observed = sum(item.value.shape[0] * _frame_bytes(item) for item in leaf.observations)
    return max(1, 4 * len(leaf.nodes) + observed)


class Recorder:
    """Collects the record of one Feed while its frames are computed."""

    def __init__(self, leaf: Leaf) -> None:
        self.message: Bytes = np.zeros(record_size(leaf), np.uint8)
        self.runs = self.message[: 4 * len(leaf.nodes)].view(np.int32)
        self.index = {node.name: number for number, node in enumerate(leaf.nodes)}
        self.seen: dict[str, list[tuple[Observation, int]]] = {}  # as a value comes
        self.read: dict[str, tuple[Observation, int]] = {}  # as a node of this process reads it, late perhaps
        start = 4 * len(leaf.nodes)
        for item in leaf.observations:
            if item.what == "received" and item.node in self.index:
                self.read[item.node] = (item, start)
            else:
                self.seen.setdefault(item.value.name, []).append((item, start))
            start += item.value.shape[0] * _frame_bytes(item)

    def begin(self) -> None:
        """Nothing seen yet."""
        self.message.fill(0)

    def ran(self, node: str, frame: int, data: Tensor) -> None:
        """A node computed its frame number `frame`; its first input was (n, C, H, W): that frame, or all."""
        self.runs[self.index[node]] += 1
        if node in self.read:
            self._write(*self.read[node], frame, data)

    def see(self, value: str, frame: int, data: Tensor) -> None:
        """Frame number `frame` of a value, (1, C, H, W), is there."""
        for item, start in self.seen.get(value, ()):
            self._write(item, start, frame, data)

    def _write(self, item: Observation, start: int, frame: int, data: Tensor) -> None:
        size = _frame_bytes(item)
        place = self.message[start + frame * size : start + (frame + len(data)) * size]
        if item.what == "spikes":
            place[:] = np.packbits(data.numpy())
        else:
            place[:] = data.sum(1).numpy().astype("<i4").ravel().view(np.uint8)


def read_record(leaf: Leaf, message: Bytes, steps: int) -> Record:
    """The inverse of a Recorder, for a Feed of so many steps."""
    start = 4 * len(leaf.nodes)
    runs = message[:start].view(np.int32)
    record = Record({node.name: int(count) for node, count in zip(leaf.nodes, runs, strict=True)}, {}, {})
    for item in leaf.observations:
        most, channels, height, width = item.value.shape
        frames = min(most, steps)
        data = message[start : start + frames * _frame_bytes(item)].reshape(frames, -1)
        if item.what == "spikes":
            bits = np.unpackbits(data, axis=1, count=prod(item.value.frame_shape))
            record.spikes[item.node] = bits.astype(bool).reshape(frames, channels, height, width)
        else:
            counts = np.ascontiguousarray(data).view("<i4").astype(np.int64)
            record.received[item.node] = counts.reshape(frames, height, width)
        start += most * _frame_bytes(item)
    return record
