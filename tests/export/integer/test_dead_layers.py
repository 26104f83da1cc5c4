"""What training has switched off: layers and channels whose batch norm scales them to (almost) nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from export.graph.execute import execute_node
from export.graph.network import Network
from export.graph.nodes import Affine, Conv, Input, Linear, Output, Repeat
from export.integer.calibrate import quantize_on_images
from export.integer.formats import Formats
from export.integer.operations import IntegerConv, IntegerNeuron
from export.integer.quantize import quantize_node, rescale_by
from export.integer.run import run_integer, to_pixels
from export.readers.esdnet import lower
from hw_sim.agreement import integer_oracle
from hw_sim.backends import integer_simulator, simulator

SUMS = "encoder_level1.0.residual.4"  # joins the residual stream: rescaled, a step for each channel
RAW = "encoder_level1.0.residual.1"  # a neuron reads its sums as they are: one step for the layer
NORM = {SUMS: "encoder_level1.0.residual.5", RAW: "encoder_level1.0.residual.2"}


def with_norm(model, name: str, channel: slice, gamma: float, beta: float):
    """A copy of the model whose batch norm behind this convolution scales to gamma and shifts to beta."""
    changed = copy.deepcopy(model)
    norm = dict(changed.named_modules())[NORM[name]]
    with torch.no_grad():
        norm.weight[channel], norm.bias[channel] = gamma, beta
    return changed


def values_of(integer, pixels, name: str) -> np.ndarray:
    """The layer's integers; the output of the whole network is the oracle's."""
    found = {}

    def observe(operation, inputs, value):
        if operation.name == name:
            found[name] = value.numpy().copy()

    output = run_integer(integer, pixels, observe)
    assert np.array_equal(output, integer_oracle.run(integer, pixels).values[integer.network.output.name][0])
    return found[name]


@pytest.mark.parametrize("gamma", [0.0, pytest.param(1e-300, marks=pytest.mark.slow), 1e-17, 1e-10])
@pytest.mark.parametrize("beta", [pytest.param(0.0, marks=pytest.mark.slow), 0.25])
@pytest.mark.parametrize("channel", [slice(None), slice(1, 2)], ids=["layer", "channel"])
def test_a_dead_convolution_gives_its_bias_and_nothing_else(tiny_model, photo, gamma, beta, channel):
    """Exactly zero where float gives zero, to the unit of the integers; and no other neuron is disturbed."""
    network = lower(with_norm(tiny_model, SUMS, channel, gamma, beta))
    pixels = to_pixels(photo)
    integer = quantize_on_images(network, [pixels])
    unit = integer.by_name[SUMS].output.scale
    found = values_of(integer, pixels, SUMS)[:, channel]
    assert np.unique(found).tolist() == [round(beta / unit)]
    exact = execute_node(network[SUMS], [torch.ones(1, 8, 8, 8, dtype=torch.bool)], 4, torch.float64)
    assert np.abs(exact[:, channel].numpy() - found[0, 0, 0, 0] * unit).max() <= unit / 2
    operation = integer.by_name[SUMS]
    assert isinstance(operation, IntegerConv)
    assert not operation.weight[channel].any()
    alive = np.delete(np.arange(8), np.arange(8)[channel])
    assert all(operation.weight[index].any() for index in alive)
    assert all(np.abs(operation.weight[index]).max() >= 60 for index in alive)  # their steps are their own


@pytest.mark.parametrize("gamma", [0.0, 1e-17])
@pytest.mark.parametrize(("beta", "rates"), [(0.0, [0, 0, 0, 0]), (0.1, [0, 1, 0, 1]), (0.2, [1, 1, 1, 1])])
def test_neurons_behind_a_dead_convolution_fire_by_its_bias_alone(tiny_model, photo, gamma, beta, rates):
    """Threshold 0.15, decay 1/2: 0.1 fires at 0.1 + 0.05, exactly at the threshold; 0.2 in every step."""
    network = lower(with_norm(tiny_model, RAW, slice(None), gamma, beta))
    integer = quantize_on_images(network, [to_pixels(photo)])
    neuron = network.readers[RAW][0]
    exact = simulator.run(network, photo, precision="float64").spikes[neuron]
    found = integer_simulator.run(integer, photo).spikes[neuron]
    assert found.mean((1, 2, 3)).tolist() == rates
    if beta != 0.1:  # where float64 rounds a membrane that lies on the threshold
        assert np.array_equal(found, exact)
    operation = integer.by_name[neuron]
    assert isinstance(operation, IntegerNeuron)
    assert int(operation.threshold) <= 2**17 - 1


@pytest.mark.parametrize("gamma", [1e-8, 1e-6, 1e-5])
def test_an_almost_dead_channel_keeps_its_bias(tiny_model, photo, gamma):
    """Its multiplier has few bits, for it shares a shift with channels of a thousand times its weights."""
    network = lower(with_norm(tiny_model, SUMS, slice(1, 2), gamma, 0.25))
    pixels = to_pixels(photo)
    integer = quantize_on_images(network, [pixels])
    found = values_of(integer, pixels, SUMS)[:, 1] * integer.by_name[SUMS].output.scale
    assert np.abs(found - 0.25).max() < 0.25 / 16


def test_a_dead_matrix_and_a_dead_gain_are_zero():
    tiny = np.full((3, 3), 1e-17)
    nodes = (
        Input(name="image"),
        Repeat(name="coding", inputs=("image",)),
        Conv(name="c", inputs=("coding",), weight=np.ones((3, 3, 1, 1))),
        Linear(name="matrix", inputs=("c",), weight=tiny, bias=np.array([0.0, 0.5, -0.5])),
        Affine(name="gain", inputs=("matrix",), scale=tiny[0][:, None, None], offset=np.array(0.25)),
        Output(name="out", inputs=("gain",)),
    )
    network = Network(name="dead", nodes=nodes, steps=2)
    formats = Formats(network, dict.fromkeys(network.by_name, 1.0))
    operations = [quantize_node(node, formats) for node in network.nodes[:-1]]
    trace, value = integer_oracle.Trace(), np.full((1, 3, 4, 4), 255)
    for operation in operations:
        value = integer_oracle.Oracle(trace, 2).value(operation, value)
        scale = operation.output.scale
        if operation.name == "matrix":
            assert (value[:, :, 0, 0] * scale).tolist() == [[0.0, 0.5, -0.5]] * 2
    assert np.unique(value * scale).tolist() == [0.25]


def test_a_ratio_that_makes_nothing_of_the_largest_integer_is_zero():
    assert int(rescale_by(0.4 / 255, largest=255).multiplier) == 0
    assert int(rescale_by(0.5 / 255, largest=255).multiplier) > 0
    assert rescale_by(np.array([1.0, 1e-17]), (2,), largest=255).multiplier.tolist() == [1, 0]
