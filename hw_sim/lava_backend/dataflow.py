"""What a process of ours computes: frames in, frames out, each node as soon as its frames are there. No Lava here.

One Dataflow serves one Leaf and one image at a time. Values, state over time steps and counts are its own; what a node
without state makes of one frame is computed by the simulator's rule for its kind.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.network import Affine, Array, NetworkError, Neuron, Node
from hw_sim.lava_backend.plan import Leaf, needs_all_frames
from hw_sim.lava_backend.records import Recorder
from hw_sim.simulator import execute_node

Frame = NDArray[np.generic]


class NeuronState:
    """The membranes (and currents) of one Neuron node, advanced one step at a time.

    `membrane` and `current`, (C, H, W), live in the arrays given, so that Lava can show them.
    """

    def __init__(self, node: Neuron, membrane: Frame, current: Frame) -> None:
        self.node = node
        self.membrane, self.current = torch.from_numpy(membrane), torch.from_numpy(current)
        dtype = self.membrane.dtype
        threshold = torch.tensor(node.threshold, dtype=dtype)
        if node.fires == ">=":  # H >= threshold is H > the next number below it, in the dtype that computes
            threshold = torch.nextafter(threshold, torch.full_like(threshold, -math.inf))
        self.threshold = threshold
        self.gain = _unless(node.gain, 1.0, dtype)
        self.bias = _unless(node.bias, 0.0, dtype)

    def reset(self) -> None:
        """Back to rest: the next step is the first of an image."""
        self.membrane.zero_()
        self.current.zero_()

    def step(self, x: Tensor) -> Tensor:
        """Integrate one frame (1, C, H, W); the spikes as booleans of that shape."""
        if self.node.current_decay:
            x = x[0] + self.node.current_decay * self.current
            self.current.copy_(x)
        else:
            x = x[0]
        if self.gain is not None:
            x = x * self.gain
        if self.bias is not None:
            x = x + self.bias
        torch.add(x, self.membrane, alpha=self.node.membrane_decay, out=self.membrane)
        spikes = self.membrane > self.threshold
        if self.node.reset == "to":
            self.membrane.masked_fill_(spikes, self.node.reset_value)
        else:
            self.membrane.sub_(spikes.to(self.membrane.dtype), alpha=self.node.reset_value)
        return spikes.unsqueeze(0)


def _unless(array: Array, neutral: float, dtype: torch.dtype) -> Tensor | None:
    """The constant, or None where it changes nothing."""
    return None if np.all(array == neutral) else torch.tensor(array, dtype=dtype)


def _at_frame(node: Node, frame: int) -> Node:
    """The node as it is at one frame: constants that change over time are those of that frame."""
    if not isinstance(node, Affine):
        return node
    return replace(node, scale=_constant_at(node.scale, frame), offset=_constant_at(node.offset, frame))


def _constant_at(array: Array, frame: int) -> Array:
    return array[frame : frame + 1] if array.ndim == 4 and len(array) > 1 else array


class Dataflow:
    """Runs the nodes of a leaf: `begin` starts an image, `receive` and `advance` take a step, `emit` is what to send.

    `kept`: membrane and current (C, H, W) of neurons whose state someone else keeps (Lava's variables).
    """

    def __init__(self, leaf: Leaf, kept: dict[str, tuple[Frame, Frame]] | None = None) -> None:
        self.leaf = leaf
        self.dtype: torch.dtype = getattr(torch, leaf.precision)
        self.states: dict[str, NeuronState] = {}
        for node in leaf.nodes:
            if isinstance(node, Neuron):
                membrane, current = (np.zeros(leaf.shapes[node.name][1:], leaf.precision) for _ in range(2))
                self.states[node.name] = self.new_state(node, *(kept or {}).get(node.name, (membrane, current)))
        self.readers = {name: [node for node in leaf.nodes if name in node.inputs] for name in leaf.shapes}
        self.outbox: dict[str, deque[Frame]] = {outlet.value.name: deque() for outlet in leaf.outlets}
        self.recorder = Recorder(leaf)
        self.begin()

    def new_state(self, node: Neuron, membrane: Frame, current: Frame) -> NeuronState:
        """The state of a neuron node, in the arrays given."""
        return NeuronState(node, membrane, current)

    def begin(self) -> None:
        """Forget the last image: states at rest, no frames. Frames that are still to be sent stay."""
        self.frames: dict[str, list[Tensor | None]] = {name: [] for name in self.leaf.shapes}
        self.recorder.begin()
        for state in self.states.values():
            state.reset()

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
            return self.states[node.name].step(inputs[0].to(self.dtype))
        return execute_node(_at_frame(node, len(self.frames[node.name])), inputs, 1, self.dtype)

    def _used(self, node: Node, name: str) -> int:
        """How many frames of `name` the node will not read again."""
        done, total = len(self.frames[node.name]), self.leaf.shapes[node.name][0]
        if done == total:
            return len(self.frames[name])
        return 0 if needs_all_frames(node) or self.leaf.shapes[name][0] == 1 else done
