"""What a process of ours computes: frames in, frames out, each node as soon as its frames are there. No Lava here.

One Dataflow serves one Leaf and one image at a time. Values, state over time steps and counts are its own; what a node
without state makes of one frame is computed by the simulator's rule for its kind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph.execute import execute_node
from export.graph.neuron import NeuronState
from export.graph.nodes import Affine, Array, NetworkError, Neuron, Node
from hw_sim.backends.lava.plan import Leaf, needs_all_frames
from hw_sim.backends.lava.records import Recorder

Frame = NDArray[np.generic]


class State(Protocol):
    """The state of a neuron node over the steps of an image."""

    def rest(self) -> None:
        """The next step is the first of an image."""

    def step(self, x: Tensor) -> Tensor:
        """The spikes of one frame of currents, (C, H, W)."""


def _at_frame(node: Node, frame: int) -> Node:
    """The node as it is at one frame: constants that change over time are those of that frame."""
    if not isinstance(node, Affine):
        return node
    return replace(node, scale=_constant_at(node.scale, frame), offset=_constant_at(node.offset, frame))


def _constant_at(array: Array, frame: int) -> Array:
    return array[frame : frame + 1] if array.ndim == 4 and len(array) > 1 else array


class Dataflow:
    """Runs the nodes of a leaf: `begin` starts an image, `receive` and `advance` take a step, `emit` what to send."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.dtype: torch.dtype = getattr(torch, leaf.precision)
        self.states = {
            node.name: self.new_state(node, leaf.shapes[node.name][1:])
            for node in leaf.nodes
            if isinstance(node, Neuron)
        }
        self.readers = {name: [node for node in leaf.nodes if name in node.inputs] for name in leaf.shapes}
        self.outbox: dict[str, deque[Frame]] = {outlet.value.name: deque() for outlet in leaf.outlets}
        self.recorder = Recorder(leaf)
        self.begin()

    def new_state(self, node: Neuron, shape: Sequence[int]) -> State:
        """The state of a neuron node of this shape (C, H, W), at rest."""
        return NeuronState(node, torch.zeros(*shape, dtype=self.dtype))

    def begin(self) -> None:
        """Forget the last image: states at rest, no frames. Frames that are still to be sent stay."""
        self.frames: dict[str, list[Tensor | None]] = {name: [] for name in self.leaf.shapes}
        self.recorder.begin()
        for state in self.states.values():
            state.rest()

    def receive(self, name: str, frame: Frame) -> None:
        """The next frame of an input, (C, H, W)."""
        self._append(name, torch.from_numpy(frame).unsqueeze(0))

    def advance(self) -> None:
        """Compute every frame that can be computed now, then drop the frames that nobody will read again."""
        for node in self.leaf.nodes:
            while (inputs := self._available(node)) is not None:
                value = self._execute(node, inputs)
                for frame in value:
                    self._append(node.name, frame.unsqueeze(0))
        for name, readers in self.readers.items():
            used = min((self._used(node, name) for node in readers), default=len(self.frames[name]))
            self.frames[name][:used] = [None] * used

    def complete(self) -> bool:
        """Whether every frame of every node has been computed: true after the last step of an image."""
        return all(len(self.frames[node.name]) == self.leaf.shapes[node.name][0] for node in self.leaf.nodes)

    def emit(self, name: str) -> Frame:
        """The next frame of an output that has not been sent."""
        if not self.outbox[name]:
            raise NetworkError(f"{self.leaf.name}: a frame of {name} is due and not there: latencies are wrong")
        return self.outbox[name].popleft()

    def _append(self, name: str, frame: Tensor) -> None:
        self.recorder.see(name, len(self.frames[name]), frame)
        self.frames[name].append(frame)
        if name in self.outbox:
            self.outbox[name].append(frame[0].numpy())

    def _available(self, node: Node) -> list[Tensor] | None:
        """The node's inputs for its next frame (or for all of them, if it needs all), or None if it has to wait."""
        done = len(self.frames[node.name])
        if done == self.leaf.shapes[node.name][0]:
            return None
        inputs: list[Tensor] = []
        for name in node.inputs:
            frames, total = self.frames[name], self.leaf.shapes[name][0]
            if needs_all_frames(node):
                if len(frames) < total:
                    return None
                inputs.append(torch.cat([frame for frame in frames if frame is not None]))
                continue
            index = done if total > 1 else 0
            if len(frames) <= index:
                return None
            frame = frames[index]
            if frame is None:
                raise NetworkError(f"{node.name}: frame {index} of {name} was dropped too early")
            inputs.append(frame)
        return inputs

    def _execute(self, node: Node, inputs: list[Tensor]) -> Tensor:
        self.recorder.ran(node.name)
        if isinstance(node, Neuron):
            return self.states[node.name].step(inputs[0][0].to(self.dtype)).bool().unsqueeze(0)
        return execute_node(_at_frame(node, len(self.frames[node.name])), inputs, 1, self.dtype)

    def _used(self, node: Node, name: str) -> int:
        """How many frames of `name` the node will not read again."""
        done, total = len(self.frames[node.name]), self.leaf.shapes[node.name][0]
        if done == total:
            return len(self.frames[name])
        return 0 if needs_all_frames(node) or self.leaf.shapes[name][0] == 1 else done
