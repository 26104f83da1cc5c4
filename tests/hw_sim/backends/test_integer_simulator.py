from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph.counting import OF_VALUES
from export.graph.nodes import NetworkError, Neuron
from export.integer.calibrate import measure, quantize_on_images
from export.integer.neurons import Neurons
from export.integer.operations import SPIKE, IntegerNeuron, Rescale
from export.integer.quantize import quantize
from export.integer.run import execute, run_integer, to_pixels
from hw_sim.agreement import integer_oracle
from hw_sim.backends import integer_simulator, simulator
from tests.random_networks import RANDOM, random_network


def neuron_steps(operation, x):
    """Step by step: the membrane before the reset (C, H, W), and the spikes. x: whole numbers (T, C, H, W)."""
    neurons = Neurons(operation, x[:1], int(x.abs().max()), len(x))
    for frame in x.split(1):
        membrane = neurons.state.integrate(neurons.arrived(frame)) * neurons.state.unit
        fired = neurons.state.fire()
        yield membrane[0].to(torch.int64), fired[0].bool()
        neurons.state.reset(fired)


def compare_all(integer, pixels):
    """Every value and every membrane of the simulator against the oracle's; returns the oracle's trace."""
    trace = integer_oracle.run(integer, pixels)
    seen = set()

    def observe(operation, inputs, value):
        expected = trace.values[operation.name]
        assert np.array_equal(value.to(torch.int64).numpy(), expected), operation.name
        assert operation.output.low <= expected.min() <= expected.max() <= operation.output.high, operation.name
        if isinstance(operation, IntegerNeuron):
            membranes = torch.stack([membrane for membrane, _ in neuron_steps(operation, inputs[0])])
            assert np.array_equal(membranes.numpy(), trace.membranes[operation.name]), operation.name
        seen.add(operation.name)

    output = run_integer(integer, pixels, observe)
    assert seen == set(trace.values)
    assert np.array_equal(output, trace.values[integer.network.output.name][0])
    return trace


@pytest.mark.parametrize("kind", RANDOM)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.05, 0.3, 3.0]), calibrated=st.booleans())
def test_simulator_equals_the_oracle_bit_for_bit(kind, seed, size, calibrated):
    """Random weights, images and scales; without calibration the scales fit nothing, so that values saturate."""
    network = RANDOM[kind](seed, size)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (3, 8, 6), dtype=np.uint8)
    scattered = {node.name: float(10 ** rng.uniform(-3, 2)) for node in network.nodes}
    integer = quantize(network, measure(network, [pixels]).ranges if calibrated else scattered)
    compare_all(integer, pixels)


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("value", [0, 255])
def test_extreme_images(kind, value):
    """Black and white, under scales that fit nothing."""
    network = RANDOM[kind](1, 3.0)
    integer = quantize(network, {node.name: 0.0 for node in network.nodes})
    trace = compare_all(integer, np.full((3, 6, 8), value, np.uint8))
    largest = max(np.abs(trace.values[op.name]).max() for op in integer.operations if op.output.bits == 18)
    assert largest == (2**17 - 1 if value else largest)  # white saturates at least one value


def make_neuron(threshold, bias, du, dv) -> IntegerNeuron:
    node = Neuron(name="lif", inputs=("x",), threshold=np.array(0.5), membrane_decay=0.5)
    return IntegerNeuron(
        node=node, output=SPIKE, threshold=np.array(threshold), bias=np.array(bias), current_decay=du,
        membrane_decay=dv, rescale=None,
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    threshold=st.sampled_from([0, 1, 63, 2**17 - 1]), bias=st.sampled_from([0, -4096, 4095]),
    du=st.sampled_from([4095, 0, 1000]), dv=st.sampled_from([0, 2048, 4095, 1]),
    values=st.lists(st.integers(-(2**17), 2**17) | st.integers(-(2**23), 2**23) | st.integers(-70, 70), min_size=4),
)  # fmt: skip
def test_neuron_wraps_clips_and_rounds_as_the_oracle(threshold, bias, du, dv, values):
    neuron = make_neuron(threshold, bias, du, dv)
    x = np.array(values)[:, None, None, None]
    trace = integer_oracle.Trace()
    spikes = integer_oracle.Oracle(trace, 4).value(neuron, x)
    found = [(int(membrane), int(spike)) for membrane, spike in neuron_steps(neuron, torch.from_numpy(x))]
    assert found == list(zip(trace.membranes["lif"].ravel().tolist(), spikes.ravel().tolist(), strict=True))


def test_neuron_by_hand():
    """Threshold 10, dv 2048, bias 1: v = 64 (a + 1), halved toward zero, compared with 640."""
    neuron = make_neuron(10, 1, 4095, 2048)
    x = torch.tensor([8, 4, 4, -9, 2**17, -(2**17)])[:, None, None, None]
    # 576; 288 + 320 = 608; 304 + 320 = 624; 312 - 512 = -200; -100 + 2^23 (not wrapped) + 64: fires;
    # 0 + (-2^23, wrapped to 2^23) + 64, clipped to 2^23 - 1: fires
    membranes = [int(membrane) for membrane, _ in neuron_steps(neuron, x)]
    assert membranes == [576, 608, 624, -200, 2**23 - 36, 2**23 - 1]
    spikes = execute(neuron, [x], 6).flatten().tolist()
    assert spikes == [False, False, False, False, True, True]


@pytest.mark.parametrize(
    ("either_model", "alike"),
    [("released", 0.97), ("spike_driven", 0.85)],  # random weights behind neurons: a spike that flips flips others
    indirect=["either_model"],
)
def test_counts_follow_the_float_simulators_rules(either_model, either_network, alike, photo):
    """Same nodes, same dense work; spikes and ACs are those of the integer run."""
    integer = quantize_on_images(either_network, [to_pixels(photo)])
    counted = integer_simulator.run(integer, photo)
    reference = simulator.run(either_network, to_pixels(photo) / 255.0, precision="float64")
    assert list(counted.counts) == list(reference.counts)
    for name, counts in reference.counts.items():
        found, expected = counted.counts[name].totals(), counts.totals()
        varying = ("spikes", "acs", "events_in", *OF_VALUES)
        assert {k: v for k, v in found.items() if k not in varying} == {
            k: v for k, v in expected.items() if k not in varying
        }
        if name in counted.spikes:
            assert found["spikes"] == int(counted.spikes[name].sum())
    assert counted.executed_size == (32, 24)
    agree = np.mean([np.mean(counted.spikes[name] == spikes) for name, spikes in reference.spikes.items()])
    assert agree > alike
    assert np.array_equal(np.rint(counted.output * 255) / 255, counted.output)


@pytest.mark.parametrize("pixels", [np.zeros((3, 8, 8)), np.zeros((1, 8, 8), np.uint8), np.zeros((8, 8), np.uint8)])
def test_images_of_another_kind_are_refused(pixels):
    integer = quantize(random_network(0), None)
    with pytest.raises(NetworkError, match=r"random0: image .* expected uint8 \(3, height, width\)"):
        run_integer(integer, pixels)


def test_an_odd_size_is_refused():
    with pytest.raises(NetworkError, match="multiples of 2"):
        integer_simulator.run(quantize(random_network(0), None), np.zeros((3, 7, 8)))


def test_rescale_rounds_half_up():
    network = random_network(0)
    integer = quantize(network, None)
    conv = next(op for op in integer.operations if getattr(op, "rescale", None) is not None)
    assert isinstance(conv.rescale, Rescale)
    x = np.arange(-6, 7)
    expected = np.floor(x * 3 / 4 + 0.5).astype(int)
    assert np.array_equal(integer_oracle.rescaled(x, Rescale(np.array(3), 2)), expected)
