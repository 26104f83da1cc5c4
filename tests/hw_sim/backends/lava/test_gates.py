"""Gates on Lava: there before the first frame that they shut, fresh for every image, counted as by the simulator."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from export.graph.network import Network
from export.graph.nodes import NetworkError, gate_of
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from hw_sim.backends.lava import LavaSession
from hw_sim.backends.lava.dataflow import Dataflow
from hw_sim.backends.lava.plan import Leaf, make_plan
from hw_sim.backends.result import Result, compare
from tests.gated import gated_model, rainy
from tests.hw_sim.backends.lava.networks import STEPS, gated, image
from tests.hw_sim.backends.lava.test_dataflow import play_images
from tests.random_networks import random_gated
from tests.tolerances import FLOAT64_OUTPUT

needs_lava = pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only")
MODELS = ("fused", "fine")
IMAGES = [image(seed, 10, 12) for seed in range(3)]


def check(network: Network, images: Sequence[np.ndarray], found: Sequence[Result], within: float = 0.0) -> None:
    for pixels, result in zip(images, found, strict=True):
        expected = simulator.run(network, pixels, precision="float64")
        comparison = compare(expected, result)
        assert comparison.equal_spikes, comparison
        assert np.abs(result.output - expected.output).max() <= within
        assert result.gates.keys() == expected.gates.keys()
        assert all(np.array_equal(result.gates[name], gate) for name, gate in expected.gates.items())


def played(network: Network, images: Sequence[np.ndarray], model: str) -> list[Result]:
    return play_images(network, make_plan(network, images[0].shape[1:], model=model), images)


@pytest.mark.parametrize("model", MODELS)
def test_images_with_gates_of_their_own_back_to_back(model: str) -> None:
    gates = [simulator.run(gated(), pixels, precision="float64").gates for pixels in IMAGES]
    assert all(0.1 < gate.mean() < 0.9 for found in gates for gate in found.values())
    assert not np.array_equal(gates[0]["look.any"], gates[1]["look.any"])
    check(gated(), IMAGES, played(gated(), IMAGES, model))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("model", MODELS)
def test_random_gates(seed: int, model: str) -> None:
    images = [np.random.default_rng(s).random((3, 12, 10)) for s in range(2)]
    check(random_gated(seed), images, played(random_gated(seed), images, model))


def test_what_a_gate_shuts_waits_for_it() -> None:
    """A maximum over the steps is there with the last of them: what reads it begins T - 1 steps later."""
    plan = make_plan(gated(), (10, 12), model="fine")
    leaves = {leaf.name: leaf for leaf in plan.leaves if isinstance(leaf, Leaf)}
    waits = {wire.value.name: wire.delay for wire in leaves["b.lif"].wires}
    assert (leaves["b.lif"].start, waits) == (STEPS - 1, {"a.out": STEPS - 1, "look.any": 0})
    assert leaves["a.lif"].start == 0
    assert plan.latency == 2 * (STEPS - 1)


@pytest.mark.parametrize("model", MODELS)
def test_every_gate_is_reported_once_by_a_process_that_reads_it(model: str) -> None:
    network = gated()
    reported = {
        gate: [leaf.name for leaf in make_plan(network, (10, 12), model=model).leaves
               if isinstance(leaf, Leaf) and any(item.node == gate for item in leaf.observations)
               and any(gate_of(node) == gate for node in leaf.nodes)]
        for gate in network.gates
    }  # fmt: skip
    assert {gate: len(leaves) for gate, leaves in reported.items()} == dict.fromkeys(network.gates, 1)


def test_a_gate_that_comes_a_step_late_ends_the_run(monkeypatch) -> None:
    receive = Dataflow.receive

    def held_back(self: Dataflow, name: str, frame) -> None:
        for late in self.__dict__.pop("held", []):
            receive(self, *late)
        if name == "look.any" and any(gate_of(node) == name for node in self.leaf.nodes):
            self.__dict__["held"] = [(name, frame)]
        else:
            receive(self, name, frame)

    monkeypatch.setattr(Dataflow, "receive", held_back)
    with pytest.raises(NetworkError, match=r"b\.lif: a frame of b\.lif is due and not there: latencies are wrong"):
        played(gated(), IMAGES, "fine")


def test_the_gate_of_the_image_before_would_be_noticed(monkeypatch) -> None:
    advance = Dataflow.advance

    def stale(self: Dataflow) -> None:
        mine = self.frames.get("early.gate")
        if mine and self.leaf.name == "a.lif":
            mine[0], self.__dict__["of_last"] = self.__dict__.get("of_last", mine[0]), mine[0]
        advance(self)

    monkeypatch.setattr(Dataflow, "advance", stale)
    first, second, _ = played(gated(), IMAGES, "fine")
    check(gated(), IMAGES[:1], [first])
    with pytest.raises(AssertionError):
        check(gated(), IMAGES[1:2], [second])


def test_a_membrane_kept_behind_a_shut_gate_would_be_noticed(monkeypatch) -> None:
    """An image later the gate is open there, and the membrane has to be as new."""
    begin = Dataflow.begin

    def keeps_what_was_shut(self: Dataflow, steps: int, continues: bool = False) -> None:
        kept = {}
        for node in self.leaf.nodes:
            if gate_of(node) and node.name in self.states:
                gate = next(frame for frame in self.__dict__["gate_was"] if frame is not None)
                state = self.states[node.name]
                state.membrane.mul_(1 - gate[0].to(self.dtype))
                kept[node.name] = state
        begin(self, steps, continues)
        self.states.update(kept)

    advance = Dataflow.advance

    def remembers(self: Dataflow) -> None:
        for node in self.leaf.nodes:
            if gate_of(node) and any(frame is not None for frame in self.frames[gate_of(node)]):
                self.__dict__["gate_was"] = list(self.frames[gate_of(node)])
        advance(self)

    monkeypatch.setattr(Dataflow, "begin", keeps_what_was_shut)
    monkeypatch.setattr(Dataflow, "advance", remembers)
    first, second, _ = played(gated(), IMAGES, "fine")
    check(gated(), IMAGES[:1], [first])
    with pytest.raises(AssertionError):
        check(gated(), IMAGES[1:2], [second])


SLOW = [pytest.param(choice, marks=pytest.mark.slow) for choice in ({"model": "fine"}, {"stock": True})]


@needs_lava
@pytest.mark.timeout(300)
@pytest.mark.parametrize("choice", [{"model": "fused"}, *SLOW])
def test_on_lava(choice) -> None:
    with LavaSession(gated(), (10, 12), precision="float64", **choice) as session:
        check(gated(), IMAGES, list(session.stream(IMAGES)))


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["learnt", "morphological"])
def test_a_gated_esdnet_on_lava(kind) -> None:
    network, pixels = lower(gated_model(kind)), rainy()
    with LavaSession(network, pixels.shape[1:], precision="float64") as session:
        check(network, [pixels], [session.run(pixels)], within=FLOAT64_OUTPUT)  # Lava adds up in another order
