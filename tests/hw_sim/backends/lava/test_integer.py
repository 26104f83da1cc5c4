"""An integer network on Lava: our processes played without Lava, and the real one with its fixed-point models."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph.nodes import ValueKind
from export.integer.calibrate import quantize_on_images
from export.integer.operations import IntegerConv, IntegerNeuron
from export.integer.quantize import quantize
from export.integer.run import to_pixels
from hw_sim.agreement import integer_oracle
from hw_sim.backends import integer_simulator
from hw_sim.backends.lava.integer_session import IntegerLavaSession, make_integer_plan
from hw_sim.backends.lava.plan import Leaf, StockLeaf
from hw_sim.backends.result import Result, compare
from tests.hw_sim.backends.lava.test_dataflow import play_images
from tests.random_networks import RANDOM

needs_lava = pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only")


@pytest.mark.parametrize("kind", RANDOM)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.3, 3.0]), model=st.sampled_from(["fused", "fine"]))
def test_frame_by_frame_equals_the_oracle(kind, seed, size, model):
    """Two images back to back through the plan's processes, under scales that fit nothing."""
    network = RANDOM[kind](seed, size)
    rng = np.random.default_rng(seed)
    integer = quantize(network, {node.name: float(10 ** rng.uniform(-3, 2)) for node in network.nodes})
    images = [rng.integers(0, 256, (3, 8, 6), dtype=np.uint8) for _ in range(2)]
    plan = make_integer_plan(integer, (8, 6), model, stock=False)
    played = play_images(network, plan, [image.astype(np.int64) for image in images])
    for image, result in zip(images, played, strict=True):
        trace = integer_oracle.run(integer, image)
        assert np.array_equal(result.output, trace.values[network.output.name][0])
        for neuron in network.neurons:
            assert np.array_equal(result.spikes[neuron.name], trace.values[neuron.name] == 1), neuron.name


@pytest.fixture(scope="module")
def integer(either_network, photo):
    return quantize_on_images(either_network, [to_pixels(photo)])


def test_lavas_own_processes_take_all_spikes_and_all_plain_neurons(integer):
    plan = make_integer_plan(integer, (16, 16), "fused", stock=True)
    stock = {leaf.name for leaf in plan.leaves if isinstance(leaf, StockLeaf)}
    neurons = {op.name for op in integer.operations if isinstance(op, IntegerNeuron) and op.rescale is None}
    off = {node.name for node in integer.network.neurons if node.gain == -1}  # Lava's LIF adds what it reads
    assert neurons == {node.name for node in integer.network.neurons} - off
    kinds = integer.network.kinds
    convs = {
        op.name
        for op in integer.operations
        if isinstance(op, IntegerConv) and kinds[op.node.inputs[0]] is ValueKind.SPIKE
    }
    assert stock == neurons | convs
    after = {leaf.name for leaf in plan.leaves if isinstance(leaf, Leaf)}
    assert "encoder_level1.0.residual.4" in after  # its rescaling stays with us
    assert "encoder_level1.0.residual.1" not in after  # its sums go straight to Lava's neuron


def check(expected: Result, found: Result) -> None:
    comparison = compare(expected, found)
    assert comparison.equal_spikes, comparison
    assert np.array_equal(found.output, expected.output)
    assert set(found.counts) == set(expected.counts)


@needs_lava
@pytest.mark.timeout(300)
@pytest.mark.parametrize("choice", [{"model": "fused"}, pytest.param({"stock": True}, marks=pytest.mark.slow)])
def test_real_lava_equals_the_integer_simulator_bit_for_bit(integer, choice):
    """`stock`: Lava's bit-accurate neurons and fixed-point convolutions, the independent witness."""
    images = [np.random.default_rng(seed).random((3, 16, 20)) for seed in range(2)]
    with IntegerLavaSession(integer, (16, 20), **choice) as session:
        for image, result in zip(images, session.stream(images), strict=True):
            check(integer_simulator.run(integer, image), result)
