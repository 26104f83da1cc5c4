"""Gates in integers: what is shut is 0 whatever it was, bounds stay, and a mask of 8-bit pixels is everybody's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import gate_of
from export.integer import operations as ops
from export.integer import run as executor
from export.integer.calibrate import quantize_on_images
from export.integer.formats import QuantizationError
from export.integer.network import IntegerNetwork, largest_product
from export.integer.quantize import quantize
from export.integer.run import run_integer, to_pixels
from export.integer.store import decode_integer, encode_integer, integer_digest
from export.readers.esdnet import lower
from export.targets.loihi.netx import find_segments, why_not
from hw_sim.agreement import integer_oracle
from hw_sim.agreement.integers import judge_oracle
from hw_sim.agreement.judge import Subject
from hw_sim.backends import integer_simulator, simulator
from hw_sim.backends.lava import integer_dataflow
from hw_sim.backends.lava.integer_session import make_integer_plan
from tests.gated import KINDS, gated_model, rainy
from tests.hw_sim.backends.lava.test_dataflow import play_images
from tests.random_networks import random_gated

PIXELS = to_pixels(rainy())


@pytest.fixture(scope="module", params=KINDS)
def subject(request) -> Subject:
    model = gated_model(request.param)
    return Subject(model, lower(model, request.param), rainy())


@pytest.fixture(scope="module")
def integer(subject) -> IntegerNetwork:
    return quantize_on_images(subject.network, [PIXELS])


def same_scales(network: Network) -> IntegerNetwork:
    return quantize(network, {node.name: 4.0 for node in network.nodes})


def with_gate(network: Network, gates: dict[str, int]) -> Network:
    """Every gate replaced by the spikes of a neuron that always fires, or never."""
    nodes: list[g.Node] = [network.nodes[0]]
    for name, fires in gates.items():
        first = network.input.name
        nodes += [
            g.Conv(name=f"{name}.one", inputs=(first,), weight=np.zeros((1, 3, 1, 1)), bias=np.ones(1)),
            g.Neuron(name=name, inputs=(f"{name}.one",), threshold=np.array(0.5 if fires else 2.0), membrane_decay=0.5),
        ]
    nodes += [node for node in network.nodes[1:] if node.name not in gates]
    return replace(network, nodes=tuple(nodes))


def constant(seed: int, fires: int) -> Network:
    """At the first level only: the second has its own pool of it."""
    network = random_gated(seed)
    return with_gate(network, {network.gates[0]: fires})


def test_the_gate_of_morphology_is_that_of_floating_point() -> None:
    network = lower(gated_model("morphological"))
    floats = simulator.run(network, rainy(), precision="float64")
    for ranges in (4.0, 0.3):  # whatever becomes of the rest
        integer = quantize(network, {node.name: ranges for node in network.nodes})
        found = integer_simulator.run(integer, rainy())
        assert found.gates.keys() == floats.gates.keys()
        assert all(np.array_equal(found.gates[name], gate) for name, gate in floats.gates.items())
        assert all(0 < gate.mean() < 1 for gate in found.gates.values())


def test_values_are_zero_where_a_gate_is_shut_and_the_oracles_everywhere(integer) -> None:
    trace = integer_oracle.run(integer, PIXELS)
    seen = dict.fromkeys(integer.network.gates, 0)

    def observe(operation, inputs, value) -> None:
        assert np.array_equal(value.numpy(), trace.values[operation.name]), operation.name
        gate = gate_of(operation.node)
        if gate is not None:
            shut = np.broadcast_to(trace.values[gate] == 0, value.shape)
            assert not value.numpy()[shut].any(), operation.name
            assert value.numpy()[~shut].any(), operation.name
            seen[gate] += 1

    run_integer(integer, PIXELS, observe)
    assert all(seen.values())


@pytest.mark.parametrize("seed", [0, 2])
def test_a_gate_of_ones_is_no_gate(seed: int) -> None:
    network = constant(seed, 1)
    free = replace(network, nodes=tuple(replace(node, inputs=node.inputs[:1]) if gate_of(node) else node
                                        for node in network.nodes))  # fmt: skip
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 12, 10), dtype=np.uint8)
    found, expected = run_integer(same_scales(network), pixels), run_integer(same_scales(free), pixels)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, pixels)


@pytest.mark.parametrize("seed", [0, 2])
def test_a_gate_of_zeros_gives_the_picture_back(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 12, 10), dtype=np.uint8)
    integer = same_scales(constant(seed, 0))
    assert np.array_equal(run_integer(integer, pixels), pixels)
    counts = integer_simulator.run(integer, pixels / 255.0).counts
    for node in integer.network.nodes:
        if gate_of(node):
            assert not any(counts[node.name].totals()[name] for name in ("spikes", "macs", "adds", "neuron_updates"))


def test_bounds_are_those_without_gates(integer) -> None:
    """A gated value is 0 or what it was, and every format holds 0."""
    for operation in integer.operations:
        if gate_of(operation.node) is not None:
            sources = [integer.by_name[name].output for name in operation.node.inputs]
            assert largest_product(operation, sources) == largest_product(operation, sources[:1])
            assert operation.output.low <= 0 <= operation.output.high


def test_an_export_of_it_is_the_same_to_the_last_bit(integer) -> None:
    assert integer_digest(decode_integer(*encode_integer(integer))) == integer_digest(integer)


def test_netx_holds_what_fires_behind_a_gate_and_a_learnt_gate_itself(integer) -> None:
    """A layer behind a gate ends its segment: what it fires where it is shut must not go on."""
    segments = find_segments(integer)
    blocks = [f"{side}_level{level}.0" for side, levels in (("encoder", "123"), ("decoder", "321")) for level in levels]
    gated = {segment.nodes: segment.gate for segment in segments if segment.gate}
    assert gated == {
        (f"{block}.residual.1", f"{block}.residual.3"): f"gate.level{block.split('_level')[1][0]}" for block in blocks
    }
    others = [segment for segment in segments if not segment.gate]
    if integer.network.name == "learnt":
        (learnt,) = others
        assert learnt.nodes[0] == "gate.layers.1"
        assert (learnt.target, len(learnt.layers)) == ("gate.fires", 5)
        assert "pool and average" in why_not(integer.by_name["gate.level2"], integer)
    else:
        assert others == []
        assert "comparisons" in why_not(integer.by_name["gate.mask"], integer)
        assert "comparisons" in why_not(integer.by_name["gate.level1"], integer)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((g.Conv(name="c", inputs=("x",), weight=np.ones((3, 3, 1, 1))),
          g.RainMask(name="m", inputs=("c",), angles=(0,), across=3, along=3, clip=9, threshold=4)),
         r"m \(rainmask\): reads c \(conv\), expected grey levels; let it read the image"),
        ((g.Pool(name="p", inputs=("x",), function="mean", kernel=(2, 2), stride=(2, 2)),),
         r"p \(pool\): a mean of analog values, expected a maximum of spikes; convolve instead"),
    ],
)  # fmt: skip
def test_what_integers_have_no_form_for_is_refused(nodes, message) -> None:
    network = Network(
        name="n", nodes=(g.Input(name="x"), *nodes, g.Output(name="y", inputs=(nodes[-1].name,))), steps=1
    )
    with pytest.raises(QuantizationError, match=message):
        quantize(network, {node.name: 1.0 for node in network.nodes})


def test_a_gate_that_the_executor_forgets_is_found_by_the_oracle(integer, subject, monkeypatch) -> None:
    assert judge_oracle(integer, subject).status == "holds"
    monkeypatch.setattr(executor, "behind_gate", lambda operation, inputs, value: value)
    row = judge_oracle(integer, subject)
    assert row.status == "FAILED"
    assert "encoder_level1.0.residual.0.on" in row.note


def test_a_gate_that_a_process_of_lava_forgets_is_found(integer, monkeypatch) -> None:
    expected = integer_simulator.run(integer, rainy())
    plan = make_integer_plan(integer, PIXELS.shape[1:], "fused", stock=False)

    def lava() -> dict[str, np.ndarray]:
        (found,) = play_images(integer.network, plan, [PIXELS.astype(np.int64)])
        return found.spikes

    assert all(np.array_equal(fired, expected.spikes[name]) for name, fired in lava().items())
    monkeypatch.setattr(integer_dataflow, "behind_gate", lambda operation, inputs, value: value)
    assert not all(np.array_equal(fired, expected.spikes[name]) for name, fired in lava().items())


def test_operations_of_masks_are_those_of_their_nodes(integer) -> None:
    kinds = {type(operation) for operation in integer.operations if operation.node.block == "gate"}
    morphology = {ops.IntegerRainMask, ops.IntegerFlood}
    assert ops.IntegerPool in kinds
    assert (morphology <= kinds) == (integer.network.name == "morphological")
