"""Random NIR graphs that nir itself writes: chains, branches, sums, cycles, nested graphs, every primitive."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from hypothesis import strategies as st

DT = 1e-4
VECTOR = 3  # features of every vector, so that any can feed any


class _Drawn:
    """A graph as it grows. Weights, thresholds and inputs are multiples of 1/8: sums of them do not round."""

    def __init__(self, draw: Any) -> None:
        self.draw, self.rng = draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.takes: dict[str, tuple[int, ...]] = {}

    def dyadic(self, shape: tuple[int, ...], low: float = -2, high: float = 2) -> np.ndarray:
        return self.rng.integers(int(8 * low), int(8 * high) + 1, shape) / 8

    def per_element(self, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        """A number per element, all the same, or one per channel."""
        kept = self.draw(st.sampled_from([shape, (1,) * len(shape), (shape[0],) + (1,) * (len(shape) - 1)]))
        return np.broadcast_to(self.dyadic(kept, low, high), shape).copy()

    def tau(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(
            self.rng.choice([DT, 2 * DT, 4 * DT, 3.3 * DT, 1e-3], shape[:1] + (1,) * (len(shape) - 1)), shape
        ).copy()

    def add(self, node: Any, source: str, shape: tuple[int, ...]) -> str:
        name = f"n{len(self.nodes)}.{type(node).__name__.lower()}"
        self.nodes[name], self.takes[name], self.shapes[name] = node, self.shapes[source], shape
        self.edges.append((source, name))
        return name

    def neuron(self, shape: tuple[int, ...], kinds: tuple[str, ...]) -> Any:
        kind = self.draw(st.sampled_from(kinds))
        fields: dict[str, Any] = {"r": self.per_element(shape, 0.5, 2)}
        if kind.startswith("Cuba"):
            fields |= {"tau_mem": self.tau(shape), "tau_syn": self.tau(shape), "w_in": self.per_element(shape, 0.5, 2)}
        elif "L" in kind:
            fields["tau"] = self.tau(shape)
        if "L" in kind:
            fields["v_leak"] = self.per_element(shape, -0.5, 0.5)
        if kind.endswith("F"):
            fields |= {"v_threshold": self.per_element(shape, 0.25, 1), "v_reset": self.per_element(shape, -0.5, 0.25)}
        return getattr(nir, kind)(**fields)

    def layer(self, source: str) -> str:
        """One node more that reads `source`."""
        shape = self.shapes[source]
        common = ["neuron", "neuron", "neuron", "state", "Scale", "Threshold", "Delay"]
        own = {
            1: ["matrix", "matrix", "nested"],
            2: ["Conv1d", "Flatten"],
            3: ["Conv2d", "Conv2d", "pool", "pool", "Flatten"],
        }
        choice = self.draw(st.sampled_from(common + own[len(shape)]))
        if choice in ("neuron", "state"):
            kinds = ("LIF", "LIF", "IF", "CubaLIF") if choice == "neuron" else ("I", "LI", "CubaLI")
            return self.add(self.neuron(shape, kinds), source, shape)
        if choice == "Scale":
            return self.add(nir.Scale(self.dyadic(shape)), source, shape)
        if choice == "Threshold":
            return self.add(nir.Threshold(self.per_element(shape, 0, 1)), source, shape)
        if choice == "Delay":
            least = self.draw(st.integers(0, 1))
            return self.add(nir.Delay(self.rng.integers(least, 4, shape) * DT), source, shape)
        if choice == "matrix":
            weight = self.dyadic((VECTOR, shape[0]))
            bias = self.draw(st.booleans())
            return self.add(
                nir.Affine(weight, self.dyadic((VECTOR,))) if bias else nir.Linear(weight), source, (VECTOR,)
            )
        if choice == "nested":
            return self.add(self.nested(shape), source, shape)
        if choice == "Flatten":
            size = int(np.prod(shape))
            flat = nir.Flatten(
                {"input": np.array(shape)}, start_dim=0, end_dim=self.draw(st.sampled_from([-1, len(shape) - 1]))
            )
            return self.add(flat, source, (size,))
        return self.pool(source) if choice == "pool" else self.conv(source)

    def nested(self, shape: tuple[int, ...]) -> nir.NIRGraph:
        """A recurrent layer as snnTorch writes it."""
        nodes = {
            "input": nir.Input(np.array(shape)), "lif": self.neuron(shape, ("LIF", "CubaLIF")),
            "w_rec": nir.Affine(self.dyadic(shape * 2), self.dyadic(shape)), "output": nir.Output(np.array(shape)),
        }  # fmt: skip
        edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
        return nir.NIRGraph(nodes, edges, type_check=False)

    def conv(self, source: str) -> str:
        channels, *sides = self.shapes[source]
        axes = len(sides)
        groups = self.draw(st.sampled_from([1, channels]))
        out = groups * self.draw(st.integers(1, 2))
        kernel, stride, dilation = ([int(v) for v in self.rng.integers(1, top + 1, axes)] for top in (3, 2, 2))
        padding: Any = [int(v) for v in self.rng.integers(0, 3, axes)]
        if self.draw(st.booleans()):
            padding, stride, kernel = "same", [1] * axes, [3] * axes
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [r // 2 for r in reach] if padding == "same" else padding
        size = [(s + 2 * p - r - 1) // t + 1 for s, p, r, t in zip(sides, pads, reach, stride, strict=True)]
        if min(size) < 1:
            return self.add(self.neuron((channels, *sides), ("LIF",)), source, (channels, *sides))
        fields = dict(weight=self.dyadic((out, channels // groups, *kernel)), groups=groups, bias=self.dyadic((out,)))
        if axes == 1:
            word = padding if isinstance(padding, str) else padding[0]
            node: Any = nir.Conv1d(input_shape=sides[0], stride=stride[0], padding=word, dilation=dilation[0], **fields)
        else:
            word = padding if isinstance(padding, str) else tuple(padding)
            node = nir.Conv2d(
                input_shape=tuple(sides), stride=tuple(stride), padding=word, dilation=tuple(dilation), **fields
            )
        return self.add(node, source, (out, *size))

    def pool(self, source: str) -> str:
        channels, *sides = self.shapes[source]
        kernel, stride = self.rng.integers(1, 4, 2), self.rng.integers(1, 3, 2)
        padding = np.array([int(self.rng.integers(0, k // 2 + 1)) for k in kernel])
        size = [(s + 2 * p - k) // t + 1 for s, p, k, t in zip(sides, padding, kernel, stride, strict=True)]
        kind = self.draw(st.sampled_from([nir.SumPool2d, nir.AvgPool2d]))
        if min(size) < 1:
            return self.add(nir.Scale(self.dyadic((channels, *sides))), source, (channels, *sides))
        return self.add(kind(kernel, stride, padding), source, (channels, *(int(side) for side in size)))

    def connect(self) -> None:
        """One edge more between shapes that fit: a branch, a sum, or a cycle."""
        fitting = [
            (source, reader)
            for source, shape in self.shapes.items()
            for reader, takes in self.takes.items()
            if shape == takes and (source, reader) not in self.edges
        ]
        if fitting:
            self.edges.append(self.draw(st.sampled_from(fitting)))


@st.composite
def random_nir(draw: Any) -> tuple[nir.NIRGraph, np.ndarray]:
    """A graph of 2 to 10 nodes and frames for it, of spikes or of numbers."""
    drawn = _Drawn(draw)
    shape = draw(st.sampled_from([(VECTOR,), (VECTOR,), (2, 5), (2, 4, 5)]))
    drawn.nodes["in"], drawn.shapes["in"] = nir.Input(np.array(shape)), shape
    for _ in range(draw(st.integers(2, 10))):
        names = list(drawn.shapes)
        drawn.layer(draw(st.sampled_from(names[-2:])))
    for _ in range(draw(st.integers(0, 4))):
        drawn.connect()
    read = {source for source, _ in drawn.edges}
    for name in [name for name in drawn.shapes if name not in read] or [list(drawn.shapes)[-1]]:
        output = f"out{len(drawn.nodes)}"
        drawn.nodes[output] = nir.Output(np.array(drawn.shapes[name]))
        drawn.edges.append((name, output))
    steps = draw(st.integers(1, 8))
    spikes = draw(st.booleans())
    frames = drawn.rng.random((steps, *shape)) < 0.5 if spikes else drawn.dyadic((steps, *shape))
    order = draw(st.permutations(drawn.edges))
    return nir.NIRGraph(drawn.nodes, list(order), type_check=False), frames
