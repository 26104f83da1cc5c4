"""Small networks for the NIR tests: every kind of stock node and joint, weights dyadic so that sums are exact.

Weights are multiples of 2^-3, images of 2^-4: in float32 as in float64 no sum rounds, whatever its order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array

THRESHOLD = 0.15  # between two multiples of 2^-k: no membrane of these networks ever lies on it


def dyadic(rng: np.random.Generator, *shape: int) -> Array:
    """Multiples of 2^-3 in [-1, 1]."""
    return rng.integers(-8, 9, shape) / 8.0


def image(channels: int = 3, height: int = 8, width: int = 12, seed: int = 7) -> Array:
    """Multiples of 2^-4 in [0, 1]."""
    return np.random.default_rng(seed).integers(0, 17, (channels, height, width)) / 16.0


def conv(rng: np.random.Generator, name: str, x: str, channels: tuple[int, int], **fields: Any) -> g.Conv:
    """A dyadic 3x3 convolution with a bias."""
    fields = {"padding": (1, 1), "bias": dyadic(rng, channels[1])} | fields
    kernel = fields.pop("kernel", 3)
    return g.Conv(name=name, inputs=(x,), weight=dyadic(rng, channels[1], channels[0], kernel, kernel), **fields)


def neuron(name: str, x: str, **fields: Any) -> g.Neuron:
    """The authors' LIF."""
    fields = {"threshold": np.array(THRESHOLD), "membrane_decay": 0.5, "inputs": (x,)} | fields
    return g.Neuron(name=name, **fields)


def network(name: str, *nodes: g.Node, steps: int = 4, channels: int = 3, **fields: Any) -> Network:
    """Input -> coding -> the nodes given -> Output, which reads the last of them."""
    start = (g.Input(name="image", channels=channels), g.Repeat(name="coding", inputs=("image",)))
    end = g.Output(name="result", inputs=(nodes[-1].name,))
    return Network(name=name, nodes=(*start, *nodes, end), steps=steps, **fields)


def stock_networks() -> dict[str, Network]:
    """Networks without host operations but the coding, by what they show; each is one segment."""
    rng = np.random.default_rng(3)
    found = [
        network(
            "chain",
            conv(rng, "a.conv", "coding", (3, 4)), neuron("a.lif", "a.conv"),
            conv(rng, "b.conv", "a.lif", (4, 5), stride=(2, 2), bias=None), neuron("b.lif", "b.conv"),
            conv(rng, "c.conv", "b.lif", (5, 2), kernel=1, padding=(0, 0)),
        ),
        network(
            "residual block",
            conv(rng, "x", "coding", (3, 4)), neuron("l1", "x"),
            conv(rng, "c1", "l1", (4, 4)), neuron("l2", "c1"), conv(rng, "c2", "l2", (4, 4)),
            conv(rng, "shortcut", "x", (4, 4)), g.Add(name="sum", inputs=("c2", "shortcut")),
            neuron("l3", "sum"), conv(rng, "c3", "l3", (4, 4)), g.Add(name="out", inputs=("c3", "sum")),
        ),
        network(
            "concatenation",
            conv(rng, "a", "coding", (3, 2)), conv(rng, "b", "coding", (3, 3)), conv(rng, "c", "coding", (3, 1)),
            g.Concat(name="two", inputs=("a", "b")), neuron("l", "two"),
            conv(rng, "d", "l", (5, 2), kernel=1, padding=(0, 0)),
            g.Concat(name="all", inputs=("c", "d", "l")),
        ),
        network(
            "signed pair",
            conv(rng, "x", "coding", (3, 3)), neuron("on", "x"), neuron("off", "x", gain=np.array(-1.0)),
            g.Concat(name="pair", inputs=("on", "off")), conv(rng, "c", "pair", (6, 3)),
            neuron("biased", "c", bias=dyadic(rng, 3, 1, 1)),
            g.Affine(name="scaled", inputs=("biased",), scale=dyadic(rng, 3, 1, 1), offset=dyadic(rng, 3, 1, 1)),
            g.Add(name="twice", inputs=("scaled", "scaled")),
        ),
        network(
            "threshold per channel",
            conv(rng, "c", "coding", (3, 3)),
            neuron("l", "c", threshold=np.array([0.15, 0.4, 1.3])[:, None, None], fires=">"),
            conv(rng, "d", "l", (3, 3)), neuron("m", "d", threshold=np.array([0.15, 0.4, 1.3])[:, None, None]),
        ),
        network(
            "sums of sums",
            conv(rng, "a", "coding", (3, 3)), conv(rng, "b", "coding", (3, 3)), g.Add(name="ab", inputs=("a", "b")),
            g.Add(name="abc", inputs=("ab", "coding")), neuron("l", "ab"), g.Add(name="end", inputs=("abc", "l")),
        ),
    ]  # fmt: skip
    return {item.name: item for item in found}


def gated_network() -> Network:
    """A gate that is a stock graph by itself, once an image, and its maximum at a lower level, on the host; neurons
    with a gain, behind sums and at both levels, and a convolution of real values that the host has to gate."""
    rng = np.random.default_rng(5)

    def behind(name: str, x: str, gate: str, **fields: Any) -> g.Neuron:
        return neuron(name, x, inputs=(x, gate), **fields)

    half = g.Pool(name="half", inputs=("open",), function="max", kernel=(2, 2), stride=(2, 2))
    return network(
        "gated",
        conv(rng, "look", "image", (3, 1), bias=np.full(1, 2.0)), neuron("open", "look"), half,
        conv(rng, "a", "coding", (3, 4)), conv(rng, "b", "coding", (3, 4)), g.Add(name="ab", inputs=("a", "b")),
        behind("on", "ab", "open"), behind("off", "ab", "open", gain=np.array(-1.0)),
        g.Concat(name="pair", inputs=("on", "off")), conv(rng, "down", "pair", (8, 4), stride=(2, 2)),
        behind("low", "down", "half", fires=">"), conv(rng, "deep", "low", (4, 4)),
        g.Resize(name="up", inputs=("deep",), mode="nearest"),
        g.Conv(name="mixed", inputs=("up", "open"), weight=dyadic(rng, 4, 4, 1, 1)),
        behind("last", "mixed", "open"), conv(rng, "end", "last", (4, 3)),
        size_multiple=2,
    )  # fmt: skip


def mixed_network() -> Network:
    """Host operations between segments, at two sizes; segments that share a value, and one with joined inputs."""
    rng = np.random.default_rng(11)
    return network(
        "mixed",
        conv(rng, "embed", "coding", (3, 4), block="embed"),
        neuron("l1", "embed"), conv(rng, "down", "l1", (4, 6), stride=(2, 2)),
        neuron("l2", "down"), conv(rng, "deep", "l2", (6, 6)),
        g.Resize(name="up", inputs=("deep",), mode="nearest", block="up"),
        neuron("l3", "up"), g.Concat(name="skip", inputs=("l3", "embed")), conv(rng, "c", "skip", (10, 4)),
        g.Reduce(name="mean", inputs=("c",), axes="T"),
        g.Add(name="restored", inputs=("mean", "mean")),
        size_multiple=2,
    )  # fmt: skip
