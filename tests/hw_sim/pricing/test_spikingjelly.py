"""spikingjelly's cost models, on the same two convolutional networks, run by each side with its own neurons and counts.

Its version 2 is the first with energy models and needs Python 3.11. Where the two differ, the difference is worked out.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch

from export.graph.network import Network
from export.graph.nodes import Conv, Input, Neuron, Output, Repeat
from hw_sim.backends import simulator
from hw_sim.pricing.equations import price
from hw_sim.pricing.from_counts import layer_facts
from hw_sim.pricing.load import load_model
from tests.tolerances import ENERGY

STEPS = 3
PARTS = {"operations": "ops_pj", "addressing": "addressing_pj", "weights": "params_pj", "potentials": "potential_pj"}

pytest.importorskip("spikingjelly", reason="spikingjelly is not installed")
counters = pytest.importorskip(
    "spikingjelly.activation_based.op_counter", reason="spikingjelly < 2 has no energy models; 2.0.0 needs Python 3.11"
)


def weights(kernel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of two convolutions, 3 -> 8 with a bias and 8 -> 4 without: dyadic, so that no order of adding up matters."""
    rng = np.random.default_rng(kernel)
    first, bias, second = (
        rng.integers(-8, 17, shape) / 16 for shape in ((8, 3, kernel, kernel), 8, (4, 8, kernel, kernel))
    )
    return first, bias, second


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(7).integers(0, 17, (3, 8, 8)) / 16


def our_facts(kernel, image):
    """IF -> convolution -> LIF -> convolution -> IF in the graph, run by the simulator."""
    first, bias, second = weights(kernel)
    neuron = {"threshold": np.array(1.0)}
    padding = (kernel // 2, kernel // 2)
    nodes = (
        Input(name="x"),
        Repeat(name="r", inputs=("x",)),
        Neuron(name="n0", inputs=("r",), membrane_decay=1.0, **neuron),
        Conv(name="c1", inputs=("n0",), weight=first, bias=bias, padding=padding),
        Neuron(name="n1", inputs=("c1",), membrane_decay=0.5, **neuron),
        Conv(name="c2", inputs=("n1",), weight=second, padding=padding),
        Neuron(name="n2", inputs=("c2",), membrane_decay=1.0, **neuron),
        Output(name="y", inputs=("n2",)),
    )
    network = Network(name="two", nodes=nodes, steps=STEPS)
    result = simulator.run(network, image, precision="float64")
    return layer_facts(network, result.counts, (8, 8))


def their_network(kernel):
    from spikingjelly.activation_based import layer, neuron

    first, bias, second = weights(kernel)
    convolutions = [
        layer.Conv2d(3, 8, kernel, padding=kernel // 2, step_mode="m"),
        layer.Conv2d(8, 4, kernel, padding=kernel // 2, bias=False, step_mode="m"),
    ]
    convolutions[0].weight.data, convolutions[0].bias.data = torch.from_numpy(first), torch.from_numpy(bias)
    convolutions[1].weight.data = torch.from_numpy(second)
    spiking = {"v_threshold": 1.0, "v_reset": 0.0, "step_mode": "m"}
    return torch.nn.Sequential(
        neuron.IFNode(**spiking),
        convolutions[0],
        neuron.LIFNode(tau=2.0, decay_input=False, **spiking),
        convolutions[1],
        neuron.IFNode(**spiking),
    ).eval()


def frames(image):
    return torch.from_numpy(image).expand(STEPS, 1, -1, -1, -1).contiguous()


def with_whole_fan_out(facts):
    """The layers with K^2 Cout accumulations for every spike, at borders too, as the paper writes and it counts."""
    return [
        replace(layer, acs=layer.events_in * prod(layer.kernel) * layer.output_shape[0])
        if layer.kind == "conv"
        else layer
        for layer in facts
    ]


@pytest.mark.parametrize("kernel", [1, 3])
def test_lemaire_agrees_part_by_part(kernel, image):
    facts = our_facts(kernel, image)
    theirs = counters.estimate_lemaire_energy(their_network(kernel), frames(image))
    assert all(layer.events_in for layer in facts if layer.kind == "conv")
    ours = price(load_model("lemaire2022"), with_whole_fan_out(facts))
    found = {part: joules * 1e12 for part, joules in ours.parts.items() if joules is not None}
    expected = {part: theirs.breakdown_pj[name] for part, name in PARTS.items()}
    expected["input_output"] = theirs.breakdown_pj["inout_pj"]
    assert found == pytest.approx(expected, rel=ENERGY)
    exact = price(load_model("lemaire2022"), facts).total_j
    if kernel == 1:  # no border: the exact count is the paper's
        assert exact == ours.total_j
    else:  # taps on padding are no work: up to 1 - (22 / 24)^2 of 8 x 8 pixels with uniform spikes
        assert 0.75 * ours.total_j < exact < 0.95 * ours.total_j


@pytest.mark.parametrize("kernel", [1, 3])
def test_horowitz_agrees_on_synaptic_operations(kernel, image):
    """Its `ac` counts element-wise additions too, so its own energy is larger; `synop` is the count that we price."""
    theirs = counters.estimate_simple_energy(their_network(kernel), frames(image))
    facts = our_facts(kernel, image)
    ours = price(load_model("horowitz_fp32"), facts)
    assert ours.total_j * 1e12 == pytest.approx(0.9 * theirs.counts["synop"], rel=ENERGY)
    assert theirs.counts["ac"] > theirs.counts["synop"]


@pytest.mark.parametrize("kernel", [1, 3])
def test_spikesim_agrees(kernel, image):
    theirs = counters.estimate_spikesim_energy(their_network(kernel), frames(image))
    ours = price(load_model("spikesim"), our_facts(kernel, image))
    assert ours.total_j * 1e12 == pytest.approx(theirs.energy_total_pj, rel=ENERGY)
