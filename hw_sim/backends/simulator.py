"""The hardware simulator: executes a Network node by node and counts what each node really did.

It reads only the layer graph, never the torch model. torch serves as its array library: CPU or GPU, float32 or float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph import nodes as g
from export.graph.as_numbers import numbers
from export.graph.counting import NodeCounts, multiplies, reads_spikes
from export.graph.frames import check_image, check_sequence, output_of
from export.graph.network import Network
from export.graph.nodes import NetworkError, ValueKind, gate_of
from export.graph.part import Part, PartCounter
from export.graph.schedule import needs_all_steps
from export.graph.spike_maps import map_true
from export.graph.stream import Stream
from export.graph.words import Counts
from hw_sim.backends.count_plan import make_count_plan
from hw_sim.backends.result import Result, SpikeMap, as_map

Precision = Literal["float32", "float64"]
MAPPED = (g.Spiking, g.RainMask)  # where a report may show that spikes are
AT_ONCE = 2**24  # numbers of all values together that a chunk of steps may make


def run(
    network: Network,
    image: NDArray[np.floating[Any]],
    *,
    precision: Precision = "float32",
    device: str = "cpu",
    keep_spikes: bool = True,
    keep_maps: bool = False,
    count: bool = True,
    part: Part | None = None,
) -> Result:
    """Execute the network on one image (3, H, W) in [0, 1] whose sides `network.size_multiple` divides.

    `keep_spikes=False` drops the spike tensors as soon as nothing reads them; `keep_maps` keeps where neurons fired,
    summed over channels (`Result.spike_maps`); `count=False` skips the counting. `part`: which part of a larger image
    this one is; its core is counted apart.
    """
    frames = np.ascontiguousarray(image)[None]
    with torch.inference_mode():
        run = _Run(network, check_image(network, image), precision, device, keep_spikes, count, keep_maps)
        run.part = PartCounter(network, part) if part and count else None
        run.feed(torch.from_numpy(frames).to(run.device, run.dtype))
        return run.result(output_of)


def run_sequence(
    network: Network,
    frames: NDArray[Any],
    *,
    precision: Precision = "float64",
    device: str = "cpu",
    keep_spikes: bool = True,
    count: bool = True,
) -> Result:
    """Execute the network on a frame for every step, (T, *shape of its input); T is what the frames say.

    Frames of spikes hold 0 and 1, of whatever dtype. Memory does not grow with T but for what is returned: the outputs,
    the counts of each step, and the spikes unless `keep_spikes` is false.
    """
    frames = check_sequence(network, frames)
    network = network.with_steps(len(frames)) if network.input.every_step else network
    size = (frames.shape[2], frames.shape[3])
    with torch.inference_mode():
        run = _Run(network, size, precision, device, keep_spikes, count)
        for chunk in _chunks(network, frames, run):
            dtype = torch.bool if network.kinds[network.input.name] is ValueKind.SPIKE else run.dtype
            run.feed(torch.from_numpy(np.ascontiguousarray(chunk)).to(run.device, dtype))
        return run.result(lambda value: value)


def _chunks(network: Network, frames: NDArray[Any], run: Stream) -> Iterator[NDArray[Any]]:
    """The frames in chunks whose values fit in memory, or all of them where a node needs all steps."""
    of_step = sum(prod(shape[1:]) for shape in run.shapes.values())
    steps = len(frames) if any(map(needs_all_steps, network.nodes)) else max(1, AT_ONCE // of_step)
    return (frames[start : start + steps] for start in range(0, len(frames), steps))


class _Run(Stream):
    """One input on its way through the graph, and what has been counted and kept of it."""

    def __init__(
        self, network: Network, size: tuple[int, int], precision: str, device: str, keep: bool, count: bool,
        keep_maps: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(network, size, getattr(torch, precision), torch.device(device))
        self.size, self.keep, self.count, self.keep_maps = size, keep, count, keep_maps
        self.kept_maps: dict[str, list[SpikeMap]] = {}
        self.maps: dict[tuple[str, str], Counts] = {}
        self.spikes: dict[str, list[NDArray[np.bool_]]] = {}
        self.counts: dict[str, NodeCounts] = {}
        self.part: PartCounter | None = None
        self.of_core: dict[str, NodeCounts] = {}
        self.gates: dict[str, SpikeMap] = {}
        self.outputs: dict[str, list[Tensor]] = {node.name: [] for node in network.outputs}

    def result(self, form: Any) -> Result:
        """What was found; `form` makes of an output's frames what is returned."""
        outputs = {name: form(torch.cat(parts)).cpu().numpy() for name, parts in self.outputs.items()}
        spikes = {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in self.spikes.items()}
        first = next(iter(outputs.values()))
        maps = {name: np.concatenate(parts) for name, parts in self.kept_maps.items()}
        several = outputs if len(outputs) > 1 else {}
        return Result(first, spikes, self.counts, self.size, several, maps, self.of_core, self.gates)

    def see(self, node: g.Node, value: Tensor) -> None:
        self._check(node, value)
        if self.count:
            seen = self._maps_of(node)
            found = self.plan.count(node, seen)
            self.counts[node.name] = self.counts[node.name].then(found) if node.name in self.counts else found
            if self.part is not None:
                self.of_core[node.name] = self.part.count(node, **seen)
        if self.keep and isinstance(node, g.Spiking):
            self.spikes.setdefault(node.name, []).append(value.cpu().numpy())
        if self.keep_maps and isinstance(node, MAPPED):
            self.kept_maps.setdefault(node.name, []).append(as_map(self._map_of(node.name, "spikes")))
        if node.name in self.network.gates:
            self.gates[node.name] = as_map(self._map_of(node.name, "spikes"))
        if node.name in self.outputs:
            self.outputs[node.name].append(numbers(value, self.dtype))

    def feed(self, frames: Tensor) -> dict[str, Tensor]:
        self.plan = make_count_plan(self.network, self.size, self.steps_of(frames))
        self.maps.clear()
        return super().feed(frames)

    def forget(self, name: str) -> None:
        for of in ("spikes", "others", "sum"):
            self.maps.pop((name, of), None)

    def _check(self, node: g.Node, value: Tensor) -> None:
        """A value that is declared as spikes holds only 0 and 1: its tensor is boolean, or the run ends here."""
        declared = self.plan.operands[node.name].output_shape
        if tuple(value.shape) != declared:
            raise NetworkError(f"{node.name}: value has shape {tuple(value.shape)}, declared {declared}")
        if (self.network.kinds[node.name] is ValueKind.SPIKE) != (value.dtype is torch.bool):
            raise NetworkError(
                f"{node.name}: declared {self.network.kinds[node.name].value}, found {value.dtype} values"
            )

    def _map(self, value: Tensor, of: str) -> Counts:
        """Per step and pixel, (steps, H, W), of a value's elements: 'spikes' or 'others', how many are not 0; 'sum'."""
        if of == "sum":  # step by step: torch widens all that it sums
            return np.stack([step.sum(0, dtype=torch.int64).cpu().numpy() for step in value])
        return map_true(value if of == "spikes" else value != 0)

    def _map_of(self, name: str, of: str) -> Counts:
        """That of a node's value, kept while the value is: torch widens all that it sums, so it is done once."""
        if (name, of) not in self.maps:
            self.maps[name, of] = self._map(self.values[name], of)
        return self.maps[name, of]

    def _map_read(self, node: g.Node, of: str) -> Counts:
        """That of what a node read: its first input, perhaps a step late."""
        name = node.inputs[0]
        now = self._map_of(name, of)
        return np.concatenate([self._map(self.last[name][None], of), now[:-1]]) if name in node.late else now

    def _maps_of(self, node: g.Node) -> dict[str, Counts]:
        """The maps that the counts of a node hang on: its gate, and of the spikes that it fired or of what it read."""
        gate = gate_of(node)
        return ({} if gate is None else {"gate": self._map_of(gate, "spikes")[0]}) | self._maps_beside_gate(node)

    def _maps_beside_gate(self, node: g.Node) -> dict[str, Counts]:
        if isinstance(node, (g.Spiking, g.Threshold)):
            return {"fired": self._map_of(node.name, "spikes")}
        if reads_spikes(self.network, node):
            return {"spike_map": self._map_read(node, "spikes")}
        if not multiplies(self.network, node):
            return {}
        graded = self.network.kinds[node.inputs[0]] is ValueKind.GRADED
        sums = {"sum_map": self._map_read(node, "sum")} if graded else {}
        return {"value_map": self._map_read(node, "others"), **sums}
