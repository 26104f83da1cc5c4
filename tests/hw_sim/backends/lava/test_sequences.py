"""Sequences: what the processes compute without Lava, and the real Lava, equal the simulator."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.readers.netx import read_netx
from export.readers.nir import read_nir
from export.readers.snntorch import read_snntorch
from hw_sim.backends import simulator
from hw_sim.backends.lava import LavaSession
from hw_sim.backends.lava import plan as planning
from hw_sim.backends.lava.collected import Collected
from hw_sim.backends.lava.memory import channel_sizes
from hw_sim.backends.lava.partition import takes_any_length
from hw_sim.backends.lava.plan import AT_ONCE, StockLeaf, make_plan
from hw_sim.backends.lava.records import Feed
from hw_sim.backends.result import Result, compare
from tests.export.readers.public_nir import EXTERNAL, needs_external
from tests.export.readers.snntorch_networks import NETWORKS, make, run_plainly
from tests.export.readers.test_netx import INTERVAL, RECORDED, needs_pilotnet, pilotnet, recorded
from tests.export.readers.test_netx import SHARED as PILOTNET
from tests.hw_sim.backends.lava.networks import dyadic, events, recurrent, relay
from tests.hw_sim.backends.lava.play import play
from tests.hw_sim.backends.lava.random_sequences import sequence_networks
from tests.tolerances import FLOAT32_MEMBRANE

needs_lava = pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only")


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
    leaves = [{node.name for node in leaf.nodes} for leaf in make_plan(recurrent(), (6, 6), model="fine").leaves]
    assert [nodes for nodes in leaves if len(nodes) > 1] == [
        {"a.sum", "a.cuba", "a.delay", "a.back"},
        {"b.feedback", "b.leaky", "b.u"},
        {"c.leaky", "c.u"},
        {"out.spikes", "out.u", "out.li"},
    ]


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


def test_integers_of_36_bits_are_float64_alone():
    loihi = g.LoihiNeuron(
        name="cuba", inputs=("image",), threshold=np.array(1.0), current_decay=1024, membrane_decay=128
    )
    with pytest.raises(NetworkError, match=r"cuba \(loihineuron\): found float32, expected float64"):
        make_plan(relay(loihi), (8, 8), precision="float32")


@needs_lava
@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["fused", pytest.param("fine", marks=pytest.mark.slow)])
def test_sequences_on_lava(model):
    """Longer than what is sent at once, then a short one, then what is refused; the session goes on."""
    network, sequences = recurrent(), [events(0, AT_ONCE + 30), events(1, 9)]
    with LavaSession(network, (6, 6), precision="float64", model=model) as session:
        assert session.facts["shared_bytes"] == sum(channel_sizes(session.plan))
        assert session.facts["processes"] == sum(1 for _ in session.plan.leaves) + 4  # injector and extractors
        for frames in sequences:
            expected = simulator.run_sequence(network, frames)
            assert all(spikes.any() for spikes in expected.spikes.values())
            check(expected, session.run_sequence(frames))
        assert (session.facts["sequences"], session.facts["steps"]) == (2, AT_ONCE + 39)
        with pytest.raises(NetworkError, match=r"input of shape \(9, 2, 6, 7\), expected \(T, 2, 6, 6\)"):
            session.run_sequence(np.zeros((9, 2, 6, 7), bool))
        with pytest.raises(NetworkError, match="takes a frame for every step, found one image; run_sequence does"):
            session.run(np.zeros((2, 6, 6)))
        lean = session.run_sequence(sequences[1], keep_spikes=False)
        assert not lean.spikes
        assert np.array_equal(lean.output, expected.output)


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["fused", "fine"])
@pytest.mark.parametrize("name", NETWORKS)
def test_snntorch_networks_on_lava(name, model):
    """Five networks as tutorials write them: from the module to Lava's spikes, which are the module's."""
    module, x = make(name)
    network = read_snntorch(module, x, name=name)
    expected = simulator.run_sequence(network, x)
    with LavaSession(network, expected.executed_size, precision="float64", model=model) as session:
        found = session.run_sequence(x)
        assert found.counts.keys() == expected.counts.keys()
        check(expected, found)
    for key, spikes in run_plainly(module, x, name).items():
        assert np.array_equal(found.spikes[key].reshape(spikes.shape), spikes), key


def lava_runs(network: Network, frames: np.ndarray) -> Result:
    """Checked against the simulator."""
    expected = simulator.run_sequence(network, frames)
    with LavaSession(network, expected.executed_size, precision="float64", model="fine") as session:
        found = session.run_sequence(frames)
    check(expected, found)
    return found


@needs_lava
@needs_external
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["braille_noDelay_bias_zero", "cnn_sinabs", "scnn_mnist_old_encoding", "lif_norse"])
def test_public_nir_files_on_lava(name):
    frames = np.load(EXTERNAL / f"{name}.input.npy")
    carries: Literal["analog", "spike"] = "spike" if np.isin(frames, (0, 1)).all() else "analog"
    found = lava_runs(read_nir(EXTERNAL / f"{name}.nir", carries=carries), frames)
    assert sum(int(spikes.sum()) for spikes in found.spikes.values()) >= 100


@needs_lava
@needs_pilotnet
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pilotnet_on_lava_fires_what_was_recorded():
    """A .net file, in integers: every layer reads the one before a step late, over borders of processes."""
    found = lava_runs(read_netx(PILOTNET / "network.net", INTERVAL), pilotnet())
    for spikes, name in zip(found.spikes.values(), RECORDED, strict=False):
        assert np.array_equal(spikes, recorded(name)), name


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_float32_on_lava_is_float32():
    """Spikes need not be equal: sums of one frame and of many may round differently."""
    module, x = make("autoencoder")
    network = read_snntorch(module, x)
    expected = simulator.run_sequence(network, x, precision="float32")
    with LavaSession(network, expected.executed_size, precision="float32") as session:
        found = session.run_sequence(x)
    assert found.output.dtype == np.float32
    assert np.abs(found.output - expected.output).max() <= FLOAT32_MEMBRANE


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=8, deadline=None)
@given(drawn=sequence_networks(), model=st.sampled_from(["fused", "fine"]))
def test_random_networks_on_lava(drawn, model):
    network, frames = drawn
    with LavaSession(network, network.probe_size, precision="float64", model=model) as session:
        for some in (frames, frames[::-1]):
            check(simulator.run_sequence(network, some.copy()), session.run_sequence(some))


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_lavas_own_processes_and_a_number_of_steps_that_is_fixed():
    """Lava's own neurons reset every T steps, so that a session with them takes T steps, no more and no less."""
    rng = np.random.default_rng(4)
    nodes = (
        g.Input(name="events", channels=2, size=(6, 6), carries="spike", every_step=True),
        g.Conv(name="conv", inputs=("events",), weight=dyadic(rng, 4, 2, 3, 3)),
        g.Neuron(name="lif", inputs=("conv",), threshold=np.array(0.5), membrane_decay=0.5),
        g.Conv(name="late", inputs=("lif",), late=("lif",), weight=dyadic(rng, 3, 4, 1, 1)),
        g.Output(name="out", inputs=("late",), block="out"),
    )
    network = Network(name="stock", nodes=nodes, steps=12)
    with LavaSession(network, (6, 6), precision="float64", stock=True) as session:
        stock = {leaf.name for leaf in session.plan.leaves if isinstance(leaf, StockLeaf)}
        assert stock == {"conv", "lif"}
        for seed in (0, 1):
            frames = events(seed, 12)
            check(simulator.run_sequence(network, frames), session.run_sequence(frames))
        with pytest.raises(NetworkError, match=r"stock: 13 steps, this session takes 12.*network.with_steps"):
            session.run_sequence(events(2, 13))
