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
from hw_sim.backends.lava.dataflow import Dataflow
from hw_sim.backends.lava.integer_dataflow import make_dataflow
from hw_sim.backends.lava.plan import Leaf, Plan, make_plan
from hw_sim.backends.lava.records import read_record
from tests.hw_sim.backends.lava.networks import every_kind, image


def play(plan: Plan, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Output and spikes of images fed back to back, each process stepped at the times that the plan states."""
    messages: dict[tuple[str, int], np.ndarray] = {}  # (value, step) -> the frame sent in that step
    for number, pixels in enumerate(images):
        messages[plan.image.name, number * plan.steps] = pixels
    spikes: list[dict[str, np.ndarray]] = [{} for _ in images]
    for leaf in plan.leaves:  # topological order: all that a process will receive has been sent
        assert isinstance(leaf, Leaf)
        flow = make_dataflow(leaf)
        last = max([leaf.start, *(outlet.latency for outlet in leaf.outlets)]) + plan.steps * len(images)
        for step in range(last):
            number, frame = divmod(step - leaf.start, plan.steps)
            if 0 <= number < len(images):
                if frame == 0:
                    flow.begin(plan.steps)
                for wire in leaf.wires:
                    if frame < wire.value.shape[0]:
                        flow.receive(wire.value.name, messages[wire.value.name, step - wire.delay])
                flow.advance()
                if frame + 1 == plan.steps:
                    assert flow.complete()
                    spikes[number] |= read_record(leaf, flow.recorder.message.copy(), plan.steps).spikes
            for outlet in leaf.outlets:
                number, frame = divmod(step - outlet.latency, plan.steps)
                if 0 <= number < len(images) and frame < outlet.value.shape[0]:
                    messages[outlet.value.name, step] = flow.emit(outlet.value.name)
        assert not any(flow.outbox.values())
    (output,) = plan.outputs
    frames = range(output.value.shape[0])
    first = [output.latency + number * plan.steps for number in range(len(images))]
    outputs = [np.stack([messages[output.value.name, step + frame] for frame in frames]) for step in first]
    return list(zip(map(output_of, outputs), spikes, strict=True))


def check(network: Network, images: Sequence[np.ndarray], model: str) -> None:
    size = images[0].shape[1:]
    for pixels, (output, spikes) in zip(images, play(make_plan(network, size, model=model), images), strict=True):
        expected = simulator.run(network, pixels, precision="float64")
        assert np.array_equal(output, expected.output)
        assert all(np.array_equal(spikes[name], expected.spikes[name]) for name in expected.spikes)


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
