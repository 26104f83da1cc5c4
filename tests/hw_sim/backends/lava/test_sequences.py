"""Sequences: what the processes compute without Lava, and the real Lava, equal the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError
from hw_sim.backends import simulator
from hw_sim.backends.lava import plan as planning
from hw_sim.backends.lava.collected import Collected
from hw_sim.backends.lava.partition import takes_any_length
from hw_sim.backends.lava.plan import make_plan
from hw_sim.backends.lava.records import Feed
from hw_sim.backends.result import Result, compare
from tests.hw_sim.backends.lava.networks import dyadic, events, recurrent, relay
from tests.hw_sim.backends.lava.play import play
from tests.hw_sim.backends.lava.random_sequences import sequence_networks


def check(expected: Result, found: Result) -> None:
    comparison = compare(expected, found)
    assert comparison.equal_spikes, comparison
    assert set(found.counts) == set(expected.counts)
    assert np.array_equal(found.output, expected.output)
    assert found.outputs.keys() == expected.outputs.keys()
    assert all(np.array_equal(found.outputs[name], expected.outputs[name]) for name in expected.outputs)


def play_sequences(network: Network, sequences: Sequence[np.ndarray], model: str) -> Iterator[Result]:
    """Sequences one after the other through the same processes, some steps at a time."""
    plan = make_plan(network, network.probe_size, model=model)
    feeds = [
        Feed(part := frames[start : start + plan.steps], len(part), continues=start > 0)
        for frames in sequences
        for start in range(0, len(frames), plan.steps)
    ]
    flights = iter(play(plan, feeds))
    for frames in sequences:
        collected = Collected(network, plan, "float64")
        for _ in range(0, len(frames), plan.steps):
            collected.add(next(flights))
        yield collected.result(lambda values: values)


@settings(max_examples=80, deadline=None)
@given(drawn=sequence_networks(), model=st.sampled_from(["fused", "fine"]), at_once=st.integers(1, 4))
def test_random_networks_give_what_the_simulator_gives(drawn, model, at_once):
    """Two sequences, of other lengths where a network takes any."""
    network, frames = drawn
    second = frames[::-1].copy()[: 1 + at_once if takes_any_length(network) else None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "AT_ONCE", at_once)
        found = list(play_sequences(network, [frames, second], model))
    check(simulator.run_sequence(network, frames), found[0])
    check(simulator.run_sequence(network, second), found[1])


@pytest.mark.parametrize("model", ["fused", "fine"])
def test_cycles_delays_and_membranes(model):
    network, sequences = recurrent(), [events(0, 40), events(1, 9)]
    found = play_sequences(network, sequences, model)
    for frames, result in zip(sequences, found, strict=True):
        expected = simulator.run_sequence(network, frames)
        assert all(spikes.any() for spikes in expected.spikes.values())
        check(expected, result)


def behind_a_matrix() -> Network:
    """A cycle whose frames come all at once, beside one that could begin at once."""
    rng = np.random.default_rng(2)
    nodes = (
        g.Input(name="input", channels=2, size=(1, 1), every_step=True),
        g.Linear(name="matrix", inputs=("input",), weight=dyadic(rng, 4, 4), axis="T"),
        g.Add(name="early", inputs=("input", "sum"), late=("sum",)),
        g.Leaky(name="leaky", inputs=("early",), threshold=np.array(0.5), beta=np.array(0.5)),
        g.Add(name="sum", inputs=("matrix", "leaky")),
        g.Output(name="out", inputs=("early",), block="out"),
        g.Output(name="sums", inputs=("sum",), block="out"),
    )
    return Network(name="behind a matrix", nodes=nodes, steps=4)


@pytest.mark.parametrize("model", ["fused", "fine"])
def test_a_cycle_behind_what_waits_for_all_steps(model):
    network = behind_a_matrix()
    frames = dyadic(np.random.default_rng(0), 4, 2, 1, 1)
    (found,) = play_sequences(network, [frames], model)
    check(simulator.run_sequence(network, frames), found)
    assert make_plan(network, (1, 1), model=model).latency == 3


def test_in_the_fine_model_a_cycle_is_a_process_and_a_membrane_lives_in_its_neurons():
    leaves = {
        leaf.name: {node.name for node in leaf.nodes} for leaf in make_plan(recurrent(), (6, 6), model="fine").leaves
    }
    assert {"a.sum", "a.cuba", "a.delay", "a.back"} in leaves.values()
    assert {"b.feedback", "b.leaky", "b.u"} in leaves.values()
    assert leaves["c.late"] == {"c.late"}


def test_what_cannot_be_cut_into_processes_is_refused():
    waiting = relay(
        g.Repeat(name="coding", inputs=("image",)),
        g.Add(name="sum", inputs=("coding", "mean"), late=("mean",)),
        g.Linear(name="mean", inputs=("sum",), weight=np.ones((3, 3)), axis="T"),
    )
    with pytest.raises(
        NetworkError, match=r"mean \(linear\): waits for all steps on a cycle \(mean, sum\).*take it out"
    ):
        make_plan(waiting, (8, 8))
    leaky = g.Leaky(name="leaky", inputs=("image",), threshold=np.array(0.5), beta=np.array(0.5))
    late = relay(leaky, g.Membrane(name="u", inputs=("leaky",), late=("leaky",)))
    with pytest.raises(NetworkError, match=r"u \(membrane\): reads its neuron a step late.*Delay of 1"):
        make_plan(late, (8, 8))
