"""How far rounding alone can move a value. In: a Network, and how large the values are. Out: a bound for each node.

Two float64 evaluations of one layer graph that start from the same values differ in the order of their sums, and in
whether a batch norm is folded into its convolution. A sum of n terms carries an error of at most n units of roundoff of
the sum of their magnitudes, in whatever order (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section
4.2), so two of them lie at most n EPS apart. `reach` carries that from node to node. It is a bound, not an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from math import expm1, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph import nodes as g
from export.graph.network import Network, infer_shapes
from export.graph.nodes import AXES, Array, NetworkError, Shape

EPS = 2.0**-52  # twice the unit roundoff of float64: once for each of the two evaluations
MOST = 1e-9  # of the largest magnitude: a worst case beyond that (gates of huge values) would excuse anything
EXTRA = 8  # roundings besides the terms of a sum: the fold of a batch norm, a scaled threshold, a sigmoid's last bits


@dataclass(frozen=True)
class Reach:
    """No magnitude of a value is above `peak`; two evaluations of it are at most `error` apart."""

    peak: float
    error: float = 0.0

    def summed(self, gain: float, offset: float, terms: int) -> Reach:
        """Of a sum of `terms` products: the magnitudes of its weights add up to `gain`, `offset` comes on top."""
        peak = gain * self.peak + offset
        return Reach(peak, gain * self.error + (terms + EXTRA) * EPS * peak)


class Rounding:
    """The bounds of one network for images of one size, where convolutions, matrices and neurons start from the same
    values, as far as these are known, and everything else from what they make of them.

    `offsets`: by convolution, the magnitudes that add up to its bias. In a folded bias the terms of a batch norm may
    have cancelled; without an entry they are the bias itself.
    """

    def __init__(self, network: Network, size: tuple[int, int], offsets: Mapping[str, float]) -> None:
        self.network, self.offsets, self.shapes = network, offsets, infer_shapes(network, *size)
        self._known: dict[str, float] = {}
        self._found: dict[str, Reach] = {}

    def know(self, name: str, value: NDArray[np.floating[Any]]) -> None:
        """Whoever reads this node starts from this value."""
        self._known[name] = float(np.abs(value).max())

    def knows(self, name: str) -> bool:
        """True for a value that is known."""
        return name in self._known

    def bound(self, name: str) -> float:
        """How far apart two evaluations of a node are; of a Neuron node, its membranes before the reset, as long as
        both fire alike."""
        node = self.network[name]
        if isinstance(node, g.Neuron):
            found = membrane_reach(node, self.reach(node.inputs[0]), self.network.steps)
        else:
            found = self.reach(name)
        return min(found.error, MOST * found.peak)

    def reach(self, name: str) -> Reach:
        """That of a node's value, of a neuron's its spikes."""
        if name not in self._found:
            node = self.network[name]
            inputs = [self._start(node, source) for source in node.inputs]
            found = reach(node, inputs, [self.shapes[source] for source in node.inputs], self.offsets.get(name))
            self._found[name] = Reach(self._known.get(name, found.peak), found.error)
        return self._found[name]

    def _start(self, node: g.Node, source: str) -> Reach:
        if source in self._known and isinstance(node, (g.Conv, g.Linear, g.LayerNorm, g.Neuron)):
            return Reach(self._known[source])
        return self.reach(source)


def peaks(network: Network) -> dict[str, float]:
    """The largest magnitude of every value, whatever the image in [0, 1]."""
    rounding = Rounding(network, network.probe_size, {})
    rounding.know(network.input.name, np.ones(1))
    return {node.name: rounding.reach(node.name).peak for node in network.nodes}


def membrane_reach(node: g.Neuron, current: Reach, steps: int) -> Reach:
    """The reach of a membrane that adds up `current` over so many steps and decays."""
    held = sum(abs(node.current_decay) ** step for step in range(steps))
    kept = sum(abs(node.membrane_decay) ** step for step in range(steps))
    offset = kept * (_largest(node.bias) + abs(node.reset_value))
    return current.summed(kept * held * _largest(node.gain), offset, 5 * steps)


def _largest(values: Array | None) -> float:
    return 0.0 if values is None else float(np.abs(values).max())


@singledispatch
def reach(node: g.Node, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """The reach of a node's value, given those of its inputs and their shapes. Unknown kinds are refused."""
    raise NetworkError(f"{node.name}: no rounding rule for kind {node.kind}; add one to export/graph/rounding.py")


@reach.register(g.Repeat)
@reach.register(g.Output)
@reach.register(g.Concat)
@reach.register(g.Flatten)
@reach.register(g.Chunk)
@reach.register(g.DepthToSpace)
@reach.register(g.Delay)
def _(node: g.Node, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    return Reach(max(x.peak for x in inputs), max(x.error for x in inputs))


@reach.register
def _(node: g.Input, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """Everybody's; its peak is known."""
    return Reach(0.0)


@reach.register(g.Spiking)
@reach.register(g.EulerNeuron)
@reach.register(g.Threshold)
def _(node: g.Node, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """Spikes that both evaluations fire."""
    return Reach(1.0)


@reach.register
def _(node: g.Flood, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """It counts ones: whole numbers."""
    return inputs[0]


@reach.register
def _(node: g.RainMask, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """Whole grey levels of one image are the same for everybody."""
    if inputs[0].error:
        raise NetworkError(f"{node.name} (rainmask): reads what rounding can move, expected the image itself")
    return Reach(1.0)


@reach.register
def _(node: g.Pool, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    if node.function == "max":
        return inputs[0]
    window = prod(node.kernel)
    return inputs[0].summed(window if node.function == "sum" else 1.0, 0.0, window)


@reach.register(g.Conv)
@reach.register(g.Linear)
def _(node: g.Conv | g.Linear, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    gain = float(np.abs(node.weight).reshape(len(node.weight), -1).sum(1).max())
    return inputs[0].summed(gain, _largest(node.bias) if offset is None else offset, node.weight[0].size)


@reach.register
def _(node: g.Affine, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    return inputs[0].summed(_largest(node.scale), _largest(node.offset), 2)


@reach.register(g.Add)
@reach.register(g.Sub)
def _(node: g.Node, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    x, y = inputs
    return Reach(x.peak + y.peak, x.error + y.error).summed(1.0, 0.0, 1)


@reach.register
def _(node: g.Mul, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    x, y = inputs
    error = x.peak * y.error + y.peak * x.error + x.error * y.error
    return Reach(x.peak * y.peak, error).summed(1.0, 0.0, 1)


@reach.register
def _(node: g.Reduce, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    if node.function == "max":
        return inputs[0]
    return inputs[0].summed(1.0, 0.0, prod(shapes[0][AXES.index(axis)] for axis in node.axes))


@reach.register
def _(node: g.Activation, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """A sigmoid is nowhere steeper than 1/4."""
    return inputs[0] if node.function == "relu" else Reach(1.0, inputs[0].error / 4 + EXTRA * EPS)


@reach.register
def _(node: g.LayerNorm, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """Centred values c are at most e apart, standard deviations s at most e + e^2 / 2s and their own rounding, since
    the mean of |c| is at most s; c / s is at most sqrt(n), and s at least sqrt(epsilon)."""
    x, terms = inputs[0], shapes[0][1]
    of_sums, most = (terms + EXTRA) * EPS, sqrt(terms)
    apart = (2 * x.error + (of_sums + 2 * EPS) * x.peak) / sqrt(node.epsilon)
    error = apart + most * (apart + apart**2 / 2 + of_sums)
    return Reach(most, error).summed(_largest(node.weight), _largest(node.bias), 2)


@reach.register(g.ArgMax)
@reach.register(g.WindowOrder)
@reach.register(g.SortOrder)
def _(node: g.Node, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """Numbers of channels, or of pixels, that both evaluations choose."""
    return Reach(float(shapes[0][1] if isinstance(node, g.ArgMax) else prod(shapes[0][2:])))


@reach.register
def _(node: g.WindowAttention, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    """Logits e apart have weights that are expm1(2 e) of themselves apart; the weights add up to 1. Keys are those that
    both evaluations shut."""
    x, depth = inputs[0], shapes[0][1] // (3 * node.heads)
    largest = sqrt(depth) * x.peak**2 + node.penalty
    logits = sqrt(depth) * (2 * x.peak * x.error + x.error**2) + (depth + EXTRA) * EPS * largest
    summed = 2 * (node.window + 2 * node.overlap) + EXTRA
    return Reach(x.peak, x.error + x.peak * (expm1(min(2 * logits, 1.0)) + summed * EPS))


@reach.register
def _(node: g.Resize, inputs: Sequence[Reach], shapes: Sequence[Shape], offset: float | None) -> Reach:
    return inputs[0] if node.mode == "nearest" else inputs[0].summed(1.0, 0.0, 4)
