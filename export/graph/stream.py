"""Frames on their way through a network: node by node over all steps, and step by step where nodes feed each other.

In: a Network and frames, all at once or chunk after chunk; states stay in between. Out: the values of its Outputs, and
every value as it comes, for whoever counts or compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph import nodes as g
from export.graph.as_numbers import numbers
from export.graph.execute import advance, execute_in, execute_node
from export.graph.frames import check_sequence
from export.graph.network import Network, infer_shapes
from export.graph.nodes import NetworkError, ValueKind
from export.graph.schedule import needs_all_steps, schedule
from export.graph.states import STATEFUL, State, frame_at, open_state

VIEWS = (g.Flatten, g.Chunk, g.DepthToSpace)  # of their input, or they may be


class Stream:
    """One input on its way. Subclasses look at values as they come: `see` and `forget`."""

    def __init__(self, network: Network, size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.network, self.dtype, self.device = network, dtype, device
        self.shapes = infer_shapes(network, *size)
        self.groups = schedule(network)
        for node in (network[name] for group in self.groups if len(group) > 1 for name in group):
            if needs_all_steps(node):
                raise NetworkError(f"{node.name} ({node.kind}): on a cycle, but it looks at all steps; take it off")
        self.values: dict[str, Tensor] = {}
        self.states: dict[str, State] = {}
        self.last = self._nothing_yet()  # of values that are read late: the frame of the step before
        self.watched = {node.inputs[0] for node in network.nodes if isinstance(node, g.Membrane)}
        self.membranes: dict[str, Tensor] = {}

    def see(self, node: g.Node, value: Tensor) -> None:
        """The value of a node for all steps of the chunk, (T or 1, C, H, W)."""

    def forget(self, name: str) -> None:
        """Nobody reads that value any more."""

    def steps_of(self, frames: Tensor) -> int:
        """How many steps so many frames are: an image is the same at all of them."""
        return len(frames) if self.network.input.every_step else self.network.steps

    def feed(self, frames: Tensor) -> dict[str, Tensor]:
        """The values of the Outputs for the next frames (T, C, H, W), or for an image (1, C, H, W)."""
        self.readers = Counter(name for node in self.network.nodes for name in node.inputs)
        self.values, self.newest = {self.network.input.name: frames}, dict[str, Tensor]()
        self.membranes.clear()
        for group in self.groups:
            if len(group) == 1 and group[0] not in self.network[group[0]].inputs:
                self._run_alone(self.network[group[0]])
            else:
                self._run_together([self.network[name] for name in group])
            self._let_go(group)
        self.last |= self.newest
        return {node.name: self.values[node.name] for node in self.network.outputs}

    def _nothing_yet(self) -> dict[str, Tensor]:
        """Zeros in the place of what was before the first step."""
        late = {name for node in self.network.nodes for name in node.late}
        return {name: self._blank(name, 1)[0] for name in late}

    def _blank(self, name: str, steps: int) -> Tensor:
        dtype = torch.bool if self.network.kinds[name] is ValueKind.SPIKE else self.dtype
        return torch.zeros((steps, *self.shapes[name][1:]), dtype=dtype, device=self.device)

    def _run_alone(self, node: g.Node) -> None:
        """All steps of the chunk at once."""
        if isinstance(node, g.Input):
            value = self.values[node.name]
        elif isinstance(node, g.Membrane):
            value = self.membranes[node.inputs[0]]
        else:
            value = self._execute(node, [self._read(node, name) for name in node.inputs])
        self.values[node.name] = value
        self.see(node, value)

    def _read(self, node: g.Node, name: str) -> Tensor:
        if name not in node.late:
            return self.values[name]
        return torch.cat([self.last[name][None], self.values[name][:-1]])

    def _execute(self, node: g.Node, inputs: Sequence[Tensor]) -> Tensor:
        if isinstance(node, (g.Add, g.Mul, g.Activation)) and not node.late:
            spare = self._spare(node)
            if spare is not None:
                return execute_in(spare, node, inputs)
        if not isinstance(node, STATEFUL):
            return execute_node(node, inputs, self.network.steps, self.dtype)
        membranes = self._blank_membranes(node, len(inputs[0])) if node.name in self.watched else None
        value = advance(node, self._state(node), inputs, self.dtype, membranes)
        if not self.network.input.every_step:  # an image is whole: nothing comes after it, and membranes are large
            del self.states[node.name]
        return value

    def _blank_membranes(self, node: g.Node, steps: int) -> Tensor:
        blank = torch.empty((steps, *self.shapes[node.name][1:]), dtype=self.dtype, device=self.device)
        return self.membranes.setdefault(node.name, blank)

    def _state(self, node: g.Node) -> State:
        if node.name not in self.states:
            like = torch.empty(self.shapes[node.inputs[0]][1:], dtype=self.dtype, device=self.device)
            self.states[node.name] = open_state(node, like)
        return self.states[node.name]

    def _spare(self, node: g.Node) -> Tensor | None:
        """An input that this node is the last to read, and that its result fits into: memory need not be had anew."""
        shape = np.broadcast_shapes(*(tuple(self.values[name].shape) for name in node.inputs))
        for name in node.inputs:
            value = self.values[name]
            own = not isinstance(self.network[name], (g.Input, g.Repeat, *VIEWS)) and value.dtype is self.dtype
            viewed = any(isinstance(self.network[other], (g.Output, *VIEWS)) for other in self.network.readers[name])
            if own and not viewed and self.readers[name] == 1 and name not in self.last and tuple(value.shape) == shape:
                return value
        return None

    def _run_together(self, nodes: Sequence[g.Node]) -> None:
        """Step by step: the nodes of a cycle."""
        names = {node.name for node in nodes}
        outside = {name: self.values[name] for node in nodes for name in node.inputs if name not in names}
        shifted = {
            (node.name, name): self._read(node, name)
            for node in nodes
            for name in node.inputs
            if name in outside and name in node.late
        }
        steps = max(map(len, outside.values()))
        whole = {name: self._blank(name, steps) for name in names}
        for name in names & self.watched:
            self._blank_membranes(self.network[name], steps)
        last = {name: self.last[name][None] for name in names if name in self.last}
        for step in range(steps):
            now: dict[str, Tensor] = {}
            for node in nodes:
                inputs = [
                    (last if name in node.late else now)[name]
                    if name in names
                    else frame_at(shifted.get((node.name, name), outside[name]), step)[None]
                    for name in node.inputs
                ]
                value = self._step(node, inputs)
                now[node.name] = whole[node.name][step : step + 1] = value
                if node.name in self.watched:
                    self.membranes[node.name][step] = self.states[node.name].membrane
            last = {name: whole[name][step : step + 1] for name in last}
        self.values |= whole
        for node in nodes:
            self.see(node, whole[node.name])

    def _step(self, node: g.Node, inputs: Sequence[Tensor]) -> Tensor:
        if isinstance(node, g.Membrane):
            return self.states[node.inputs[0]].membrane[None]
        if not isinstance(node, STATEFUL):
            return execute_node(node, inputs, self.network.steps, self.dtype)
        value = self._state(node).step(*(numbers(frame[0], self.dtype) for frame in inputs))[None]
        return value.bool() if self.network.kinds[node.name] is ValueKind.SPIKE else value.clone()

    def _let_go(self, group: Sequence[str]) -> None:
        """Values that nobody reads any more; of those read late the last frame stays."""
        for name in group:
            if name in self.last:
                self.newest[name] = self.values[name][-1].clone()
        for name in (source for member in group for source in self.network[member].inputs):
            self.readers[name] -= 1
            if not self.readers[name]:
                self.values.pop(name, None)
                self.forget(name)


class _Kept(Stream):
    """Keeps outputs and spikes."""

    outputs: dict[str, NDArray[Any]]
    spikes: dict[str, NDArray[np.bool_]]

    def see(self, node: g.Node, value: Tensor) -> None:
        if isinstance(node, g.Output):
            self.outputs[node.name] = numbers(value, self.dtype).numpy()
        elif isinstance(node, g.Spiking):
            self.spikes[node.name] = value.numpy()


def run_once(network: Network, frames: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]]]:
    """Outputs and the spikes of every neuron by name, (T, C, H, W), in float64, all steps at once, nothing counted."""
    frames = check_sequence(network, frames)
    network = network.with_steps(len(frames)) if network.input.every_step else network
    stream = _Kept(network, (frames.shape[2], frames.shape[3]), torch.float64, torch.device("cpu"))
    stream.outputs, stream.spikes = {}, {}
    x = torch.from_numpy(np.ascontiguousarray(frames))
    with torch.inference_mode():
        stream.feed(x.bool() if network.input.carries == "spike" else x.double())
    return stream.outputs, stream.spikes
