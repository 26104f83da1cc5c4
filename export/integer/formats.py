"""Which integers stand for which value: the format of every node of a Network, before any operation is built.

In: the Network and the largest |value| of every node. Values that are added, joined or gated share one power-of-two
scale, so that a residual stream keeps one format from the first block of its level to the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError, ValueKind
from export.integer.operations import GATE, MEAN_BITS, PIXEL, SPIKE, Format

STREAM_BITS = 18  # what fits into a 24-bit membrane after << 6
RAW_BITS = 24  # sums that a neuron reads as they are
HEADROOM = 2.0  # a range on the calibration images may grow by this factor before it saturates
FINEST, FINEST_PIXEL = 2.0**-14, 2.0**-8  # of 1 and of a pixel: no shared scale is finer, whatever the images showed
WIDE_BITS, WIDE_SCALE = 28, 2.0**-14  # the formats of the network that measures ranges

KEEP = (g.Repeat, g.Resize, g.Pool)  # their values have the format of what they read

Ranges = Mapping[str, float]  # the largest |value| of every node, in real units


class QuantizationError(NetworkError):
    """A network that integers of the stated widths cannot hold: node, value, limit."""


class Formats:
    """Formats of all values: shared scales are chosen here, weight scales are added while operations are built."""

    def __init__(self, network: Network, ranges: Ranges | None) -> None:
        self.network = network
        self.raw_scales: dict[str, float] = {}
        self._ranges = ranges
        self._groups = _group_by_scale(network)
        self._scales: dict[str, float] = {}

    def of(self, name: str) -> Format:
        """The format of a node's value."""
        node = self.network[name]
        if isinstance(node, g.Input):
            return PIXEL
        if isinstance(node, (g.Neuron, g.RainMask, g.Flood)):
            return SPIKE
        if isinstance(node, g.Output):
            return PIXEL
        if isinstance(node, KEEP) or _is(node, g.Reduce, "max") or _is(node, g.Activation, "relu"):
            return self.of(node.inputs[0])
        if _is(node, g.Activation, "sigmoid"):
            return GATE
        if _is(node, g.Reduce, "mean"):
            bits = WIDE_BITS if self._ranges is None else STREAM_BITS + MEAN_BITS
            return Format(bits, self.of(node.inputs[0]).scale * 2.0**-MEAN_BITS)
        if name in self.raw_scales:
            return Format(RAW_BITS, self.raw_scales[name])
        if isinstance(node, g.Concat) and name not in self._groups:
            inputs = [self.of(source) for source in node.inputs]
            finest = min(inputs, key=lambda found: found.scale)
            bits = max(found.bits + round(math.log2(found.scale / finest.scale)) for found in inputs)
            return Format(bits, finest.scale, any(found.signed for found in inputs))
        return self._shared(name)

    def _shared(self, name: str) -> Format:
        if name not in self._groups:
            kind = self.network[name].kind
            raise QuantizationError(f"{name} ({kind}): no rule for its format; add one to export/integer/formats.py")
        group = self._groups[name]
        base, finest = (PIXEL.scale, FINEST_PIXEL) if self._has_pixels(group) else (1.0, FINEST)
        if self._ranges is None:
            return Format(WIDE_BITS, base * WIDE_SCALE)
        key = group[0]
        if key not in self._scales:
            largest = max([self._ranges[member] for member in group] + self._thresholds(group))
            steps = HEADROOM * largest / base / (2 ** (STREAM_BITS - 1) - 1)
            self._scales[key] = base * max(2.0 ** math.ceil(math.log2(steps)) if steps else 0.0, finest)
        return Format(STREAM_BITS, self._scales[key])

    def _has_pixels(self, group: tuple[str, ...]) -> bool:
        """An Add with the image itself, repeated or not, keeps to the scale of pixels."""
        return any(
            isinstance(self.network[_root(self.network, source)], g.Input)
            for member in group
            if isinstance(self.network[member], g.Add)
            for source in self.network[member].inputs
        )

    def _thresholds(self, group: tuple[str, ...]) -> list[float]:
        """Thresholds that the values are compared with: they must fit into the scale too."""
        found = []
        for neuron in self.network.of(g.Neuron):
            if _root(self.network, neuron.inputs[0]) in group:
                found.append(float(np.max(np.abs(neuron.threshold / neuron.gain))) / HEADROOM)
        return found


def _is(node: g.Node, kind: type[g.Reduce] | type[g.Activation], function: str) -> bool:
    return isinstance(node, kind) and node.function == function


def _root(network: Network, name: str) -> str:
    """The node whose format decides that of `name`, past operations that keep the scale."""
    node = network[name]
    while isinstance(node, KEEP) or _is(node, g.Reduce, "max") or _is(node, g.Activation, "relu"):
        node = network[node.inputs[0]]
    return node.name


def is_raw(network: Network, node: g.Node) -> bool:
    """A convolution of spikes whose sums only neurons read: it keeps them, and one scale for the layer."""
    if not isinstance(node, g.Conv) or network.kinds[node.inputs[0]] is not ValueKind.SPIKE:
        return False
    readers = [network[name] for name in network.readers[node.name]]
    return all(isinstance(reader, g.Neuron) and np.all(reader.gain == 1.0) for reader in readers)


def _group_by_scale(network: Network) -> dict[str, tuple[str, ...]]:
    """Groups of values that share a scale: sums with their operands, products with what is gated, joined channels."""
    groups = DisjointSet()
    for node in network.nodes:
        if isinstance(node, (g.Conv, g.Linear)) and not is_raw(network, node):
            groups.add(node.name)
            continue
        if not isinstance(node, (g.Add, g.Mul, g.Affine, g.Concat)):
            continue
        sources = [_root(network, name) for name in node.inputs]
        if isinstance(node, g.Affine):
            sources = []
        shared = [name for name in sources if name in groups]
        if isinstance(node, g.Concat) and len(shared) < len(sources):
            continue
        groups.add(node.name)
        for name in shared:
            groups.merge(name, node.name)
    order = {name: place for place, name in enumerate(groups)}
    members = (tuple(sorted(group, key=order.__getitem__)) for group in groups.subsets())
    return {name: group for group in members for name in group}
