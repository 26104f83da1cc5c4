"""Small networks that exercise the Lava backend: one with every kind of node, three frames an image, and broken ones.

The engine imports this module when it reads a plan that holds one of the broken nodes.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from export.graph import nodes as g
from export.graph.execute import execute_node
from export.graph.network import Network

STEPS = 3


def dyadic(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Multiples of 1/16 in [-1, 1]: sums of their products are exact in float64, in any order."""
    return rng.integers(-16, 17, shape) / 16


def image(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    """An image (3, H, W) of multiples of 1/16."""
    return np.abs(dyadic(np.random.default_rng(seed), 3, height, width))


def neuron(name: str, x: str, block: str, **more) -> g.Neuron:
    """A neuron with threshold and decay of a half."""
    return g.Neuron(name=name, inputs=(x,), block=block, threshold=np.array(0.5), membrane_decay=0.5, **more)


def every_kind() -> Network:
    """Every kind of node, on both sides of every kind of border between processes; values of 1, 2 and 3 frames."""
    rng = np.random.default_rng(3)

    def conv(
        name: str, x: str, inputs: int, outputs: int, block: str, kernel: int = 3, bias: bool = False, **more
    ) -> g.Conv:
        return g.Conv(
            name=name, inputs=(x,), block=block, weight=dyadic(rng, outputs, inputs, kernel, kernel),
            bias=dyadic(rng, outputs) if bias else None, **{"padding": (kernel // 2, kernel // 2), **more},
        )  # fmt: skip

    soft_reset = {"reset": "by", "reset_value": 0.5}
    host = {"block": "b.attn"}
    nodes: list[g.Node] = [
        g.Input(name="image"),
        conv("patch.conv", "image", 3, 4, "patch"),  # once an image
        g.Repeat(name="coding", inputs=("patch.conv",)),
        neuron("a.on", "coding", "a"),
        neuron("a.off", "coding", "a", gain=np.array(-1.0)),
        g.Concat(name="a.pair", inputs=("a.on", "a.off"), block="a"),
        conv("a.conv1", "a.pair", 8, 4, "a", bias=True),
        neuron("a.slow", "a.conv1", "a", current_decay=0.25, bias=dyadic(rng, 4, 1, 1), fires=">", **soft_reset),
        conv("a.conv2", "a.slow", 4, 4, "a"),
        g.Affine(
            name="a.gain", inputs=("a.conv2",), block="a", scale=dyadic(rng, STEPS, 4, 1, 1), offset=np.array(0.25)
        ),
        g.Add(name="a.out", inputs=("a.gain", "coding"), block="a"),
        conv("b.shortcut", "a.out", 4, 4, "b", bias=True),
        g.Reduce(name="b.attn.mean", inputs=("b.shortcut",), axes="CHW", **host),
        g.Linear(name="b.attn.squeeze", inputs=("b.attn.mean",), weight=dyadic(rng, 2, STEPS), axis="T", **host),
        g.Activation(name="b.attn.relu", inputs=("b.attn.squeeze",), **host),
        g.Linear(name="b.attn.expand", inputs=("b.attn.relu",), weight=dyadic(rng, STEPS, 2), axis="T", **host),
        g.Activation(name="b.attn.sigmoid", inputs=("b.attn.expand",), function="sigmoid", **host),
        g.Mul(name="b.attn.timed", inputs=("b.shortcut", "b.attn.sigmoid"), **host),
        g.Reduce(name="b.attn.max", inputs=("b.attn.timed",), function="max", axes="THW", **host),
        g.Linear(name="b.attn.mix", inputs=("b.attn.max",), weight=dyadic(rng, 4, 4), bias=dyadic(rng, 4), **host),
        g.Mul(name="b.attn.out", inputs=("b.attn.timed", "b.attn.mix"), **host),
        g.Add(name="b.out", inputs=("b.attn.out", "a.out"), block="b"),
        neuron("down.lif", "b.out", "down"),
        conv("down.conv", "down.lif", 4, 8, "down", stride=(2, 2)),
        neuron("up.lif", "down.conv", "up"),
        g.Resize(name="up.nearest", inputs=("up.lif",), mode="nearest", block="up"),
        conv("up.conv", "up.nearest", 8, 4, "up"),
        g.Resize(name="up.bilinear", inputs=("down.conv",), block="up"),
        conv("up.thin", "up.bilinear", 8, 4, "up", kernel=1),
        g.Add(name="up.sum", inputs=("up.conv", "up.thin"), block="up"),
        g.Concat(name="skip", inputs=("up.sum", "b.out", "coding")),
        conv("c.grouped", "skip", 6, 4, "c", dilation=(2, 2), padding=(2, 2), groups=2),
        g.Activation(name="c.relu", inputs=("c.grouped",), block="c"),
        g.Linear(name="c.two", inputs=("c.relu",), weight=dyadic(rng, 2, STEPS), axis="T", block="c"),
        conv("c.mixed", "c.two", 4, 4, "c", kernel=1),  # two frames over a border of processes
        g.Linear(name="c.one", inputs=("c.mixed",), weight=dyadic(rng, 1, 2), axis="T", block="c"),
        neuron("c.lif", "c.one", "c", gain=np.array(-1.0)),  # a neuron and a convolution of spikes, once an image
        conv("c.last", "c.lif", 4, 3, "c", bias=True),
        g.Add(name="c.restored", inputs=("c.last", "image"), block="c"),
        g.Output(name="out", inputs=("c.restored",), block="c"),
    ]
    return Network(name="every kind", nodes=tuple(nodes), steps=STEPS, size_multiple=2)


def recurrent() -> Network:
    """A frame of spikes for every step; a cycle of Euler neurons with a Delay, a Membrane on a cycle, three Outputs."""
    rng = np.random.default_rng(5)
    euler = {"dt": 0.25, "tau": np.array(0.5), "tau_syn": np.array(1.0), "w_in": np.array(4.0)}
    nodes: list[g.Node] = [
        g.Input(name="events", channels=2, size=(6, 6), carries="spike", every_step=True),
        g.Conv(name="a.conv", inputs=("events",), block="a", weight=dyadic(rng, 4, 2, 3, 3), padding=(1, 1)),
        g.Add(name="a.sum", inputs=("a.conv", "a.back"), late=("a.back",), block="a"),
        g.EulerNeuron(name="a.cuba", inputs=("a.sum",), block="a", threshold=np.array(0.5), **euler),
        g.Delay(name="a.delay", inputs=("a.cuba",), block="a", steps=np.array([0, 1, 2, 3]).reshape(4, 1, 1)),
        g.Conv(name="a.back", inputs=("a.delay",), block="a", weight=dyadic(rng, 4, 4, 1, 1)),
        g.Pool(name="b.pool", inputs=("a.cuba",), block="b", function="sum", kernel=(2, 2), stride=(2, 2)),
        g.Flatten(name="b.flat", inputs=("b.pool",), block="b"),
        g.Linear(name="b.fc", inputs=("b.flat",), block="b", weight=dyadic(rng, 5, 36)),
        g.Linear(name="b.feedback", inputs=("b.u",), late=("b.u",), block="b", weight=dyadic(rng, 5, 5) / 4),
        g.Leaky(name="b.leaky", inputs=("b.fc", "b.feedback"), block="b", threshold=np.array(1.0), beta=np.array(0.5)),
        g.Membrane(name="b.u", inputs=("b.leaky",), block="b"),
        g.Linear(name="c.late", inputs=("b.leaky",), late=("b.leaky",), block="c", weight=dyadic(rng, 3, 5)),
        g.Euler(name="c.li", inputs=("c.late",), block="c", dt=0.25, tau=np.array(0.5), v_leak=np.array(0.25)),
        g.Leaky(name="c.leaky", inputs=("c.late",), block="c", threshold=np.array(0.75), beta=np.array(0.5)),
        g.Membrane(name="c.u", inputs=("c.leaky",), block="d"),
        g.Output(name="out.spikes", inputs=("b.leaky",), block="c"),
        g.Output(name="out.u", inputs=("c.u",), block="c"),
        g.Output(name="out.li", inputs=("c.li",), block="c"),
    ]
    return Network(name="recurrent", nodes=tuple(nodes), steps=1)


def events(seed: int, steps: int) -> np.ndarray:
    """Spikes for it, (steps, 2, 6, 6)."""
    return np.random.default_rng(seed).random((steps, 2, 6, 6)) < 0.3


def gated() -> Network:
    """Gates that are there at once, and one that is there when all steps have been: a pixel is open to what comes after
    if a neuron has fired in it at any step."""
    rng = np.random.default_rng(9)

    def conv(name: str, inputs: tuple[str, ...], channels: tuple[int, int], block: str, **more) -> g.Conv:
        weight = dyadic(rng, channels[1], channels[0], 3, 3)
        return g.Conv(name=name, inputs=inputs, block=block, weight=weight, **{"padding": (1, 1), **more})

    def behind(name: str, x: str, gate: str, block: str) -> g.Neuron:
        return g.Neuron(name=name, inputs=(x, gate), block=block, threshold=np.array(0.5), membrane_decay=0.5)

    nodes: list[g.Node] = [
        g.Input(name="image"),
        conv("embed", ("image",), (3, 4), "embed"),
        neuron("early.fires", "embed", "early"),
        conv("early.decide", ("early.fires",), (4, 1), "early"),
        neuron("early.gate", "early.decide", "early", bias=np.array(1.75)),
        g.Repeat(name="coding", inputs=("embed",)),
        behind("a.lif", "coding", "early.gate", "a"),
        conv("a.conv", ("a.lif",), (4, 4), "a"),
        g.Add(name="a.out", inputs=("a.conv", "coding"), block="a"),
        conv("look.conv", ("a.lif",), (4, 1), "look"),
        neuron("look.lif", "look.conv", "look", gain=np.array(-1.0), bias=np.array(-0.25)),
        g.Reduce(name="look.any", inputs=("look.lif",), function="max", axes="T", block="look"),
        g.Pool(name="look.half", inputs=("look.any",), function="max", kernel=(2, 2), stride=(2, 2), block="look"),
        behind("b.lif", "a.out", "look.any", "b"),
        conv("b.down", ("b.lif",), (4, 6), "b", stride=(2, 2)),
        behind("b.low", "b.down", "look.half", "b"),
        g.Resize(name="b.high", inputs=("b.low",), mode="nearest", block="b"),
        conv("b.conv", ("b.high",), (6, 4), "b"),
        conv("c.mixed", ("a.out", "look.any"), (4, 4), "c"),
        g.Add(name="c.sum", inputs=("c.mixed", "b.conv"), block="c"),
        g.Linear(name="c.one", inputs=("c.sum", "early.gate"), weight=dyadic(rng, 1, STEPS), axis="T", block="c"),
        conv("c.last", ("c.one", "look.any"), (4, 3), "c", bias=dyadic(rng, 3)),
        g.Add(name="c.restored", inputs=("c.last", "image"), block="c"),
        g.Output(name="out", inputs=("c.restored",), block="c"),
    ]
    return Network(name="gated", nodes=tuple(nodes), steps=STEPS, size_multiple=2)


def relay(*middle: g.Node, steps: int = STEPS) -> Network:
    """image -> the nodes given, one process each in the fine model -> output."""
    last = middle[-1].name if middle else "image"
    nodes = (g.Input(name="image"), *middle, g.Output(name="out", inputs=(last,), block="out"))
    return Network(name="relay", nodes=nodes, steps=steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Raising(g.Affine):
    """A node whose computation raises."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dying(g.Affine):
    """A node whose process is killed while it computes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sleeping(g.Affine):
    """A node that never comes back."""


@execute_node.register
def _(node: Raising, inputs, steps, dtype):
    raise ValueError("the cause")


@execute_node.register
def _(node: Dying, inputs, steps, dtype):
    os.kill(os.getpid(), signal.SIGKILL)


@execute_node.register
def _(node: Sleeping, inputs, steps, dtype):
    time.sleep(3600)
