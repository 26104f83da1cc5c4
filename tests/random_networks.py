"""Small random networks that use every primitive, for the executors to agree on. One seed, one network."""

from __future__ import annotations

import numpy as np

from export.graph import nodes as g
from export.graph.network import Network

STEPS = 3


class Builder:
    """Adds nodes with random constants of a given size."""

    def __init__(self, seed: int, size: float) -> None:
        self.rng, self.size, self.nodes = np.random.default_rng(seed), size, list[g.Node]()
        self.channels: dict[str, int] = {}

    def add(self, node: g.Node, channels: int) -> str:
        self.nodes.append(node)
        self.channels[node.name] = channels
        return node.name

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.nodes)}"

    def conv(self, x: str, out: int, kernel: int = 3, bias: bool = True, gate: str | None = None, **fields) -> str:
        weight = self.rng.normal(0, self.size, (out, self.channels[x] // fields.get("groups", 1), kernel, kernel))
        offset = self.rng.normal(0, self.size, out) if bias else None
        node = g.Conv(name=self.name("conv"), inputs=(x, gate) if gate else (x,), weight=weight, bias=offset,
                    **{"padding": (kernel // 2, kernel // 2), **fields})  # fmt: skip
        return self.add(node, out)

    def neuron(self, x: str, plain: bool = False, gate: str | None = None) -> str:
        rng, channels = self.rng, self.channels[x]
        varied = {} if plain else {
            "current_decay": float(rng.choice([0.0, 0.25, 0.9])),
            "gain": rng.choice([-1.0, 1.0, 0.7], (channels, 1, 1)),
            "bias": rng.normal(0, 0.2, (channels, 1, 1)),
        }  # fmt: skip
        threshold = rng.uniform(0.05, 1.0, () if plain else (channels, 1, 1))
        decay, fires = float(rng.choice([0.5, 0.9])), rng.choice([">=", ">"])
        node = g.Neuron(
            name=self.name("lif"), inputs=(x, gate) if gate else (x,), threshold=threshold, membrane_decay=decay,
            fires=fires, **varied,
        )  # fmt: skip
        return self.add(node, channels)

    def on_off(self, x: str, gate: str | None = None) -> str:
        """Spikes of both signs of one value, side by side."""
        rng = self.rng
        pair = [
            self.add(
                g.Neuron(name=self.name("lif"), inputs=(x, gate) if gate else (x,), membrane_decay=0.5,
                         threshold=rng.uniform(0.05, 1.0, ()), gain=np.array(gain), fires=">"),
                self.channels[x],
            )
            for gain in (1.0, -1.0)
        ]  # fmt: skip
        return self.concat(*pair)

    def two(self, kind: type[g.Node], x: str, y: str) -> str:
        return self.add(
            kind(name=self.name(kind.__name__.lower()), inputs=(x, y)), max(self.channels[x], self.channels[y])
        )

    def one(self, kind: type[g.Node], x: str, channels: int | None = None, **fields) -> str:
        node = kind(name=self.name(kind.__name__.lower()), inputs=(x,), **fields)
        return self.add(node, self.channels[x] if channels is None else channels)

    def concat(self, *inputs: str) -> str:
        return self.add(g.Concat(name=self.name("concat"), inputs=inputs), sum(self.channels[x] for x in inputs))

    def gate(self, x: str, axis: str) -> str:
        """x * sigmoid(linear(mean) + linear(max)) over all axes but one."""
        size = STEPS if axis == "T" else self.channels[x]
        weight = self.rng.normal(0, 1.0, (size, size))
        pooled = []
        for function in ("mean", "max"):
            kept = 1 if axis == "T" else size
            y = self.one(g.Reduce, x, kept, function=function, axes="TCHW".replace(axis, ""))
            y = self.one(g.Linear, y, kept, weight=weight, axis=axis, bias=self.rng.normal(0, 0.1, size))
            pooled.append(self.one(g.Activation, y, function="relu"))
        return self.two(g.Mul, x, self.one(g.Activation, self.two(g.Add, *pooled), function="sigmoid"))

    def attention(self, x: str, order: str, *mask: str, **fields) -> str:
        """Conv1x1(attention(Conv1x1(norm(x))))."""
        channels = self.channels[x]
        weight, bias = self.rng.normal(1, 0.3, channels), self.rng.normal(0, 0.3, channels)
        qkv = self.conv(self.one(g.LayerNorm, x, weight=weight, bias=bias), 3 * channels, 1)
        node = g.WindowAttention(name=self.name("attention"), inputs=(qkv, order, *mask), **fields)
        return self.conv(self.add(node, channels), channels, 1)


def random_network(seed: int, size: float = 0.3) -> Network:
    """Image (3, H, W), H and W even. `size`: standard deviation of the weights; large ones saturate and wrap."""
    b = Builder(seed, size)
    image = b.add(g.Input(name="input"), 3)
    x = b.conv(b.one(g.Repeat, image), 4, bias=False)
    # a residual block: convolution sums that only a neuron reads, an analog shortcut, gates
    spikes = b.neuron(b.conv(b.neuron(x, plain=True), 4), plain=True)
    total = b.two(g.Add, b.conv(spikes, 4), b.conv(x, 4))
    gated = b.gate(b.gate(total, "T"), "C")
    pooled = b.concat(*(b.one(g.Reduce, gated, 1, function=f, axes="TC") for f in ("mean", "max")))
    gated = b.two(g.Mul, gated, b.one(g.Activation, b.conv(pooled, 1, bias=False), function="sigmoid"))
    x = b.two(g.Add, b.one(g.Activation, gated, function="relu"), x)
    # down and up; neurons of every kind, on streams and on sums; grouped and dilated convolutions
    low = b.conv(b.neuron(x), 6, stride=(2, 2))
    low = b.neuron(b.conv(b.neuron(low, plain=True), 6, groups=2, dilation=(2, 2), padding=(2, 2)))
    mode = "bilinear" if seed % 2 else "nearest"
    high = b.one(g.Resize, b.conv(low, 6, 1) if mode == "bilinear" else low, factor=2, mode=mode)
    both = b.concat(high, x) if mode == "bilinear" else b.concat(high, b.neuron(x))
    if mode == "nearest":  # graded: a sum of spikes
        both = b.two(g.Add, both, both)
    y = b.conv(b.neuron(both), 4, 1)
    mean = b.one(g.Reduce, y, function="mean", axes="T")
    mask = b.one(g.Activation, b.conv(mean, 4), function="sigmoid")
    rest = b.one(g.Affine, mask, scale=np.array(-1.0), offset=np.array(1.0))
    mixed = b.two(
        g.Add, b.two(g.Mul, rest, b.one(g.Reduce, mean, function="mean", axes="HW")), b.two(g.Mul, mask, mean)
    )
    restored = b.two(g.Add, b.conv(mixed, 3), image)
    b.one(g.Output, restored)
    return Network(name=f"random{seed}", nodes=tuple(b.nodes), steps=STEPS, size_multiple=2)


def random_spike_driven(seed: int, size: float = 0.3) -> Network:
    """The same, with spikes of both signs before every convolution but the first and the last, and nothing acausal."""
    b = Builder(seed, size)
    image = b.add(g.Input(name="input"), 3)
    x = b.one(g.Repeat, b.conv(image, 4, bias=bool(seed % 2)))
    # a residual block: its shortcut reads the same spikes; a gain per step and channel
    spikes = b.on_off(x)
    total = b.two(g.Add, b.conv(b.neuron(b.conv(spikes, 4), plain=True), 4), b.conv(spikes, 4))
    gained = b.one(g.Affine, total, scale=b.rng.normal(1.0, 0.5, (STEPS, 4, 1, 1)))
    x = b.two(g.Add, b.one(g.Activation, gained, function="relu"), x)
    # down; a pair that reads a convolution; up again as spikes
    low = b.on_off(b.conv(b.on_off(x), 6, stride=(2, 2)))
    high = b.conv(b.one(g.Resize, low, factor=2, mode="nearest"), 4)
    y = b.conv(b.on_off(b.concat(high, x)), 4, 1)
    merged = b.one(g.Linear, y, weight=b.rng.normal(1 / STEPS, 0.3, (1, STEPS)), axis="T")
    b.one(g.Output, b.two(g.Add, b.conv(merged, 3), image))
    return Network(name=f"spike_driven{seed}", nodes=tuple(b.nodes), steps=STEPS, size_multiple=2)


def random_gated(seed: int, size: float = 0.3) -> Network:
    """Spiking layers of one step, or with odd seeds morphology, say where everything else runs, at two levels: neurons
    of every kind, convolutions and matrices of real values, grouped, strided and dilated."""
    b = Builder(seed, size)
    image = b.add(g.Input(name="input"), 3)
    embedded = b.conv(image, 4)
    gate = morphological_gate(b, image) if seed % 2 else learnt_gate(b, embedded)
    low_gate = b.one(g.Pool, gate, function="max", kernel=(2, 2), stride=(2, 2))
    x = b.one(g.Repeat, embedded)
    x = b.conv(x, 4, gate=gate, groups=2, dilation=(2, 2), padding=(2, 2))
    spikes = b.on_off(x, gate)
    total = b.two(g.Add, b.conv(b.neuron(b.conv(spikes, 4), plain=True, gate=gate), 4), b.conv(spikes, 4))
    low = b.neuron(b.conv(total, 6, stride=(2, 2), gate=low_gate), gate=low_gate)
    low = b.on_off(b.conv(low, 6), low_gate)
    high = b.conv(b.one(g.Resize, low, factor=2, mode="nearest"), 4)
    y = b.two(g.Add, b.conv(b.neuron(b.concat(high, total), gate=gate), 4, 1), x)
    matrix = g.Linear(name="mix", inputs=(y, gate), weight=b.rng.normal(0, size, (4, 4)), bias=b.rng.normal(0, 0.1, 4))
    weights = b.rng.normal(1 / STEPS, 0.3, (1, STEPS))
    merged = b.add(g.Linear(name="merge", inputs=(b.add(matrix, 4), gate), weight=weights, axis="T"), 4)
    b.one(g.Output, b.two(g.Add, b.conv(merged, 3, gate=gate), image))
    return Network(name=f"gated{seed}", nodes=tuple(b.nodes), steps=STEPS, size_multiple=2)


def morphological_gate(b: Builder, image: str) -> str:
    mask = b.one(g.RainMask, image, 1, angles=(-30, 0, 30), across=3, along=5, clip=38, threshold=24)
    wide = b.one(g.Pool, mask, function="max", kernel=(3, 3), stride=(1, 1), padding=(1, 1))
    return b.one(g.Flood, wide, most=0.9)


def learnt_gate(b: Builder, features: str) -> str:
    """Open in blocks of two, looking at 11 pixels."""
    spikes = b.on_off(b.conv(b.on_off(features), 4, stride=(2, 2)))
    return b.one(g.Resize, b.neuron(b.conv(spikes, 1), plain=True), factor=2, mode="nearest")


def random_local(seed: int, spiking: bool = True) -> Network:
    """Nothing looks at the whole image: convolutions and pools of odd shapes, one without padding and one that mends
    it, both enlargements, joins across levels. Dyadic constants; without `spiking` every value is a sum or maximum."""
    rng, b = np.random.default_rng(seed), Builder(seed, 0.0)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(1, 9, shape) * (rng.choice([-1, 1], shape) if spiking else 1) / 8.0

    def conv(x: str, out: int, kernel: tuple[int, int], **fields) -> str:
        weight = weights(out, b.channels[x], *kernel)
        return b.add(g.Conv(name=b.name("conv"), inputs=(x,), weight=weight, **fields), out)

    def fire(x: str) -> str:
        return b.neuron(x, plain=True) if spiking else x

    image = b.add(g.Input(name="input"), 3)
    x = fire(conv(b.one(g.Repeat, image), 2, (3, 5), padding=(1, 2)))
    shrunk = conv(x, 2, (1, 3) if seed % 2 else (3, 1))
    whole = fire(conv(shrunk, 2, (1, 3) if seed % 2 else (3, 1), padding=(0, 2) if seed % 2 else (2, 0)))
    factor = 2 + seed % 3
    if seed % 4 < 2:
        low = conv(whole, 2, (3, 3), stride=(factor, factor), padding=(1, 1))
    else:
        function = ("max", "sum")[seed % 2]
        low = b.one(g.Pool, whole, function=function, kernel=(factor, factor), stride=(factor, factor))
    low = fire(conv(fire(low), 2, (3, 3), dilation=(1, 2), padding=(1, 2)))
    mode = "bilinear" if seed % 3 < 2 and factor != 3 else "nearest"  # a third is not dyadic
    high = b.one(g.Resize, low, factor=factor, mode=mode)
    y = fire(b.concat(high, x) if seed % 2 else b.two(g.Add, high, x))
    merged = b.one(g.Reduce, conv(y, 3, (3, 3), padding=(1, 1)), function="max", axes="T")
    b.one(g.Output, b.two(g.Add, merged, image))
    return Network(name=f"local{seed}", nodes=tuple(b.nodes), steps=STEPS, size_multiple=factor)


def random_without_neurons(seed: int, size: float = 0.3) -> Network:
    """Image (3, H, W), H and W multiples of 4: a mask, norms, attention in windows of the image, then of clusters."""
    b = Builder(seed, size)
    image = b.add(g.Input(name="input"), 3)
    mask = b.one(g.RainMask, image, 1, angles=(-20, 0, 20), across=3, along=5, clip=38, threshold=8)
    x = b.conv(image, 8)
    near = b.add(g.WindowOrder(name="squares", inputs=(x,), side=4), 1)
    x = b.two(g.Add, x, b.attention(x, near, mask, heads=2, window=16))
    scores = b.one(g.Linear, x, 5, weight=b.rng.normal(0, 1.0, (5, 8)), bias=b.rng.normal(0, 1.0, 5))
    order = b.one(g.SortOrder, b.one(g.ArgMax, scores, 1))
    x = b.two(g.Sub, x, b.attention(x, order, heads=4, window=10, overlap=7))
    halves = [b.one(g.Chunk, x, 4, part=part, parts=2) for part in (0, 1)]
    fine = b.one(g.DepthToSpace, b.two(g.Mul, *halves), 1, factor=2)
    b.one(g.Output, b.two(g.Add, image, b.conv(b.conv(fine, 3, stride=(2, 2)), 3)))
    return Network(name=f"without_neurons{seed}", nodes=tuple(b.nodes), steps=1, size_multiple=4)


RANDOM = {"released": random_network, "spike_driven": random_spike_driven, "gated": random_gated}
