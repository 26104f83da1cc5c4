"""Random networks that take a frame for every step: cycles, late inputs, every kind that remembers, several Outputs."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from export.graph import nodes as g
from export.graph.network import Network

CHANNELS, SIDE = 2, 5  # of every value, so that any node can read any other
ALONE = (
    "conv", "linear", "neuron", "euler", "lif", "cuba", "leaky", "membrane", "threshold", "delay", "pool", "affine",
)  # fmt: skip
OF_TWO = ("add", "recurrent", "concat")


class _Drawn:
    """A network as it grows. Numbers are multiples of 1/8, and small: sums of their products do not round."""

    def __init__(self, draw) -> None:
        self.draw, self.rng, self.nodes = draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))), list[g.Node]()
        self.leaky: list[str] = []

    def dyadic(self, *shape: int, low: int = -4, high: int = 4) -> np.ndarray:
        return self.rng.integers(low, high + 1, shape) / 8

    def per_element(self, low: int, high: int) -> np.ndarray:
        return self.dyadic(
            *self.draw(st.sampled_from([(), (CHANNELS, 1, 1), (CHANNELS, SIDE, SIDE)])), low=low, high=high
        )

    def reads(self, earlier: list[str], later: list[str]) -> tuple[str, bool]:
        """A value, and whether it is read late: one that is made later, always."""
        name = self.draw(st.sampled_from([*earlier[-4:], *later[:3]]))
        return name, name in later or self.draw(st.integers(0, 4)) == 0

    def node(self, name: str, kind: str, earlier: list[str], later: list[str]) -> list[g.Node]:
        where = {"block": self.draw(st.sampled_from(["p", "q", "q.inner", ""]))}
        x, late = self.draw(st.sampled_from(earlier[-4:])), False
        if kind == "membrane" and not self.leaky:
            kind = "leaky"
        if kind in OF_TWO:
            y, late = self.reads(earlier, [] if kind == "concat" else later)  # of a concat no shape can be guessed
            both = {"inputs": (x, y), "late": (y,) if late and y != x else (), **where}
            if kind == "add":
                return [g.Add(name=name, **both)]
            if kind == "concat":
                weight = self.dyadic(CHANNELS, 2 * CHANNELS, 1, 1)
                joined = g.Concat(name=f"{name}.both", **both)
                return [joined, g.Conv(name=name, inputs=(joined.name,), weight=weight, **where)]
            return [self.leaky_node(name, both)]
        if kind == "membrane":
            return [g.Membrane(name=name, inputs=(self.leaky.pop(),), **where)]
        late = self.draw(st.integers(0, 5)) == 0
        return [self.alone(name, kind, {"name": name, "inputs": (x,), "late": (x,) if late else (), **where})]

    def leaky_node(self, name: str, where: dict) -> g.Leaky:
        self.leaky.append(name)
        return g.Leaky(
            **{"name": name, **where},
            threshold=self.per_element(1, 6),
            beta=self.per_element(2, 6),
            current_decay=self.draw(st.sampled_from([None, np.array(0.5)])),
            reset=self.draw(st.sampled_from(["subtract", "zero", "erase", "none"])),
            delayed=self.draw(st.booleans()),
        )

    def alone(self, name: str, kind: str, here: dict) -> g.Node:
        draw = self.draw
        if kind == "conv":
            return g.Conv(
                weight=self.dyadic(CHANNELS, CHANNELS, 3, 3), bias=self.dyadic(CHANNELS), padding=(1, 1), **here
            )
        if kind == "linear":
            return g.Linear(weight=self.dyadic(CHANNELS, CHANNELS), **here)
        if kind == "neuron":
            return g.Neuron(threshold=self.per_element(-1, 6), membrane_decay=0.5, gain=self.per_element(-8, 8), **here)
        if kind == "leaky":
            return self.leaky_node(name, here)
        if kind == "threshold":
            return g.Threshold(threshold=self.per_element(0, 6), **here)
        if kind == "delay":
            return g.Delay(steps=self.per_element(0, 16).round(), **here)
        if kind == "pool":
            return g.Pool(
                function=draw(st.sampled_from(["sum", "mean", "max"])),
                kernel=(3, 3),
                stride=(1, 1),
                padding=(1, 1),
                **here,
            )
        if kind == "affine":
            return g.Affine(scale=self.per_element(-4, 4), offset=self.per_element(-4, 4), **here)
        constants = {"dt": 0.25, "tau": np.array(0.5), "r": self.per_element(1, 8), "v_leak": self.per_element(-1, 1)}
        if kind == "cuba":
            constants |= {"tau_syn": np.array(1.0), "w_in": self.per_element(1, 8)}
        if kind == "euler":
            return g.Euler(**constants, **here)
        reset = draw(st.sampled_from(["to", "by"]))
        return g.EulerNeuron(
            threshold=self.per_element(1, 6), reset=reset, v_reset=self.per_element(0, 4), **constants, **here
        )


@st.composite
def sequence_networks(draw, most: int = 7) -> tuple[Network, np.ndarray]:
    """A network and frames for it. Some have a matrix over all steps in their middle."""
    drawn, steps = _Drawn(draw), draw(st.integers(1, 9))
    carries = draw(st.sampled_from(["spike", "analog"]))
    nodes: list[g.Node] = [
        g.Input(name="input", channels=CHANNELS, size=(SIDE, SIDE), carries=carries, every_step=True)
    ]
    known, number = ["input"], 0
    for part in range(draw(st.sampled_from([1, 1, 2]))):
        if part:
            matrix = g.Linear(name="matrix", inputs=(known[-1],), weight=drawn.dyadic(steps, steps), axis="T")
            nodes.append(matrix)
            known.append(matrix.name)
        names = [f"n{number + index}" for index in range(draw(st.integers(2, most)))]
        number += len(names)
        for index, name in enumerate(names):
            kind = draw(st.sampled_from([*ALONE, *OF_TWO, *OF_TWO]))
            nodes += drawn.node(name, kind, known, names[index:])
            known.append(name)
    read = {name for node in nodes for name in node.inputs}
    ends = [name for name in known if name not in read] or known[-1:]
    nodes += [g.Output(name=f"out.{name}", inputs=(name,)) for name in ends[:3]]
    frames = drawn.dyadic(steps, CHANNELS, SIDE, SIDE, low=0, high=8)
    network = Network(name="random", nodes=tuple(nodes), steps=steps)
    return network, frames > 0.5 if carries == "spike" else frames
