"""What a process of ours computes: frames in, frames out, each node as soon as its frames are there. No Lava here.

One Dataflow serves one Leaf and one Feed at a time: an image, or some steps of a sequence. When a value is there is its
own affair; what a node makes of a frame, and what it remembers, is computed by the simulator's rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph.execute import advance, execute_node
from export.graph.nodes import Affine, Array, Membrane, NetworkError, Node
from export.graph.states import STATEFUL, State, open_state
from hw_sim.backends.lava.partition import needs_all_frames
from hw_sim.backends.lava.plan import Leaf
from hw_sim.backends.lava.records import Recorder

Frame = NDArray[np.generic]


def _at_frame(node: Node, frame: int) -> Node:
    """The node as it is at one frame: constants that change over time are those of that frame."""
    if not isinstance(node, Affine):
        return node
    return replace(node, scale=_constant_at(node.scale, frame), offset=_constant_at(node.offset, frame))


def _constant_at(array: Array, frame: int) -> Array:
    return array[frame : frame + 1] if array.ndim == 4 and len(array) > 1 else array


class Dataflow:
    """Runs the nodes of a leaf: `begin` starts a Feed, `receive` and `advance` take a step, `emit` what to send."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.dtype: torch.dtype = getattr(torch, leaf.precision)
        self.readers = {name: [node for node in leaf.nodes if name in node.inputs] for name in leaf.values}
        self.late = {name for node in leaf.nodes for name in node.late}
        self.watchers = {
            name: [node.name for node in readers if isinstance(node, Membrane)]
            for name, readers in self.readers.items()
        }
        self.outbox: dict[str, deque[Frame]] = {outlet.value.name: deque() for outlet in leaf.outlets}
        self.recorder = Recorder(leaf)
        self.last: dict[str, Tensor] = {}  # the newest frame of what is read late
        self.states: dict[str, State] = {}

    def begin(self, steps: int, continues: bool = False) -> None:
        """Frames of so many steps are to come. Unless they continue, nothing is remembered of those before. Frames that
        are still to be sent stay."""
        self.frames: dict[str, list[Tensor | None]] = {name: [] for name in self.leaf.values}
        self.length = {name: min(value.shape[0], steps) for name, value in self.leaf.values.items()}
        self.recorder.begin()
        if not continues:
            self.states.clear()
            self.last.clear()
        self.before = dict(self.last)
        self.membranes: dict[str, deque[Tensor]] = {
            name: deque() for watchers in self.watchers.values() for name in watchers
        }

    def receive(self, name: str, frame: Frame) -> None:
        """The next frame of an input, (C, H, W)."""
        self._append(name, torch.from_numpy(frame).unsqueeze(0))

    def advance(self) -> None:
        """Compute every frame that can be computed now, then drop the frames that nobody will read again."""
        while self._compute_available() and self.late:
            pass  # what came last may be what an earlier node of a cycle waits for
        for name, readers in self.readers.items():
            used = min((self._used(node, name) for node in readers), default=len(self.frames[name]))
            self.frames[name][:used] = [None] * used

    def complete(self) -> bool:
        """Whether every frame of every node has been computed: true after the last step of a Feed."""
        return all(len(self.frames[node.name]) == self.length[node.name] for node in self.leaf.nodes)

    def emit(self, name: str) -> Frame:
        """The next frame of an output that has not been sent."""
        if not self.outbox[name]:
            raise NetworkError(f"{self.leaf.name}: a frame of {name} is due and not there: latencies are wrong")
        return self.outbox[name].popleft()

    def _append(self, name: str, frame: Tensor) -> None:
        self.recorder.see(name, len(self.frames[name]), frame)
        self.frames[name].append(frame)
        if name in self.late:
            self.last[name] = frame
        if name in self.outbox:
            self.outbox[name].append(frame[0].numpy())

    def _compute_available(self) -> bool:
        """One pass over the nodes; whether there was anything to compute."""
        found = False
        for node in self.leaf.nodes:
            while (inputs := self._available(node)) is not None:
                found = True
                frame = len(self.frames[node.name])
                self.recorder.ran(node.name, frame, inputs[0])
                for value in self.value(node, inputs, frame):
                    self._append(node.name, value.unsqueeze(0))
        return found

    def _available(self, node: Node) -> list[Tensor] | None:
        """The node's inputs for its next frame (or for all of them, if it needs all), or None if it has to wait."""
        done = len(self.frames[node.name])
        if done == self.length[node.name]:
            return None
        inputs: list[Tensor] = []
        for name in node.inputs:
            found = self._all(node, name) if needs_all_frames(node) else self._one(node, name, done)
            if found is None:
                return None
            inputs.append(found)
        return inputs

    def _all(self, node: Node, name: str) -> Tensor | None:
        frames = self.frames[name]
        if len(frames) < self.length[name]:
            return None
        kept = [frame for frame in frames if frame is not None]
        return torch.cat([self._frame_before(name), *kept[:-1]] if name in node.late else kept)

    def _one(self, node: Node, name: str, frame: int) -> Tensor | None:
        """What a node reads of an input to make frame number `frame`."""
        index = (frame if self.leaf.values[name].shape[0] > 1 else 0) - (name in node.late)
        if index < 0:
            return self._frame_before(name)
        if len(self.frames[name]) <= index:
            return None
        found = self.frames[name][index]
        if found is None:
            raise NetworkError(f"{node.name}: frame {index} of {name} was dropped too early")
        return found

    def _frame_before(self, name: str) -> Tensor:
        """The frame of the step before the first: zeros where there was none."""
        if name not in self.before:
            value = self.leaf.values[name]
            dtype = torch.bool if value.dtype == "bool" else self.dtype
            self.before[name] = torch.zeros((1, *value.frame_shape), dtype=dtype)
        return self.before[name]

    def value(self, node: Node, inputs: Sequence[Tensor], frame: int) -> Tensor:
        """What a node makes of its inputs for frame number `frame`: (1, C, H, W), or all frames at once."""
        if isinstance(node, Membrane):
            return self.membranes[node.name].popleft()
        if isinstance(node, STATEFUL):
            return self._remember(node, inputs)
        return execute_node(_at_frame(node, frame), inputs, 1, self.dtype)

    def _remember(self, node: Node, inputs: Sequence[Tensor]) -> Tensor:
        """One step of a node that remembers; its membranes go to the Membranes that read it."""
        shape = inputs[0].shape
        if node.name not in self.states:
            self.states[node.name] = open_state(node, torch.empty(shape[1:], dtype=self.dtype))
        watchers = self.watchers[node.name]
        membranes = torch.empty(shape, dtype=self.dtype) if watchers else None
        value = advance(node, self.states[node.name], inputs, self.dtype, membranes)
        if membranes is not None:
            for name in watchers:
                self.membranes[name].append(membranes)
        return value

    def _used(self, node: Node, name: str) -> int:
        """How many frames of `name` the node will not read again."""
        done = len(self.frames[node.name])
        if done == self.length[node.name]:
            return len(self.frames[name])
        if needs_all_frames(node) or self.leaf.values[name].shape[0] == 1:
            return 0
        return max(0, done - (name in node.late))
