"""What the processes compute, without Lava: a plan played step by step gives what the simulator gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph import nodes as g
from export.graph.frames import output_of
from export.graph.network import Network
from export.graph.nodes import NetworkError
from hw_sim.backends import simulator
from hw_sim.backends.lava.collected import Collected
from hw_sim.backends.lava.dataflow import Dataflow
from hw_sim.backends.lava.plan import Plan, make_plan
from hw_sim.backends.lava.records import Feed
from hw_sim.backends.result import Result, compare
from tests.hw_sim.backends.lava.networks import every_kind, image
from tests.hw_sim.backends.lava.play import play


def play_images(network: Network, plan: Plan, images: Sequence[np.ndarray]) -> list[Result]:
    """Images fed back to back."""
    results = []
    for flight in play(plan, [Feed(pixels[None], plan.steps) for pixels in images]):
        collected = Collected(network, plan, plan.precision)
        collected.add(flight)
        results.append(collected.result(output_of))
    return results


def check(network: Network, images: Sequence[np.ndarray], model: str) -> None:
    plan = make_plan(network, images[0].shape[1:], model=model)
    for pixels, found in zip(images, play_images(network, plan, images), strict=True):
        expected = simulator.run(network, pixels, precision="float64")
        assert np.array_equal(found.output, expected.output)
        assert compare(expected, found).equal_spikes


@pytest.mark.parametrize("model", ["fused", "fine"])
def test_every_kind_of_node_gives_what_the_simulator_gives(model):
    check(every_kind(), [image(seed) for seed in range(3)], model)


KINDS = ("conv", "neuron", "gain", "space", "time", "matrix", "add", "mul", "concat", "relu")


@st.composite
def networks(draw) -> Network:
    """Random graphs of two channels: dyadic numbers, values of 1 to T frames, blocks and placements at random."""
    steps = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    nodes: list[g.Node] = [g.Input(name="image", channels=2), g.Repeat(name="n0", inputs=("image",))]
    shapes = {"image": (1, 4), "n0": (steps, 4)}  # frames and side
    for number in range(1, draw(st.integers(3, 12))):
        name, x, y = f"n{number}", draw(st.sampled_from(list(shapes)[-4:])), draw(st.sampled_from(list(shapes)))
        where = {
            "block": draw(st.sampled_from(["p", "q", "q.inner", ""])),
        }
        kind = draw(st.sampled_from(KINDS))
        if kind == "concat" and shapes[x] != shapes[y]:
            kind = "add"
        if kind in ("add", "mul") and not all(
            1 in pair or len({*pair}) == 1 for pair in zip(shapes[x], shapes[y], strict=True)
        ):
            kind = "relu"
        made, shapes[name] = make_node(kind, name, (x, y), (shapes[x], shapes[y]), rng, where)
        nodes += made
    nodes.append(g.Output(name="out", inputs=(name,)))
    return Network(name="random", nodes=tuple(nodes), steps=steps)


def make_node(kind, name, sources, shapes, rng, where) -> tuple[list[g.Node], tuple[int, int]]:
    """One node of a random graph (two for a concat, which a convolution brings back to two channels), and its shape."""
    (x, y), (time, side) = sources, shapes[0]
    here = {"name": name, "inputs": (x,), **where}
    if kind == "conv":
        return [g.Conv(weight=rng.integers(-2, 3, (2, 2, 3, 3)) / 4, padding=(1, 1), **here)], (time, side)
    if kind == "neuron":
        threshold, decay = np.array(rng.integers(-1, 4) / 4), float(rng.integers(0, 2) / 2)
        return [g.Neuron(threshold=threshold, membrane_decay=0.5, current_decay=decay, **here)], (time, side)
    if kind == "gain":
        return [g.Affine(scale=rng.integers(-2, 3, (time, 2, 1, 1)) / 2, **here)], (time, side)
    if kind in ("space", "time"):
        function = ("mean", "max")[rng.integers(2)]
        shape = (time, 1) if kind == "space" else (1, side)
        return [g.Reduce(function=function, axes="HW" if kind == "space" else "T", **here)], shape
    if kind == "matrix":
        rows = int(rng.choice([1, time]))
        return [g.Linear(weight=rng.integers(-2, 3, (rows, time)) / 2, axis="T", **here)], (rows, side)
    if kind in ("add", "mul"):
        node = (g.Add if kind == "add" else g.Mul)(name=name, inputs=(x, y), **where)
        return [node], (max(time, shapes[1][0]), max(side, shapes[1][1]))
    if kind == "concat":
        both = g.Concat(name=f"{name}.both", inputs=(x, y), **where)
        weight = rng.integers(-2, 3, (2, 4, 1, 1)) / 2
        return [both, g.Conv(name=name, inputs=(both.name,), weight=weight, **where)], (time, side)
    return [g.Activation(**here)], (time, side)


@settings(max_examples=60, deadline=None)
@given(network=networks(), model=st.sampled_from(["fused", "fine"]), count=st.integers(1, 3))
def test_random_graphs_give_what_the_simulator_gives(network, model, count):
    rng = np.random.default_rng(1)
    check(network, [rng.integers(0, 17, (2, 8, 8)) / 16 for _ in range(count)], model)


def test_a_frame_that_is_not_there_when_it_is_due_is_an_error():
    leaf = next(part for part in make_plan(every_kind(), (8, 8)).leaves if part.name == "b")
    with pytest.raises(NetworkError, match=r"b: a frame of b\.out is due and not there"):
        Dataflow(leaf).emit("b.out")
