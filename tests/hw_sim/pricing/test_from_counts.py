from __future__ import annotations

import numpy as np
import pytest
import torch

from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from export.graph.network import Network
from export.graph.nodes import Conv, Input, Linear, Neuron, Output, ValueKind, WindowAttention
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from hw_sim.pricing.energy import Conditions
from hw_sim.pricing.equations import price
from hw_sim.pricing.from_counts import layer_facts, steps_of
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.load import load_model
from hw_sim.pricing.prices import available, load_prices
from hw_sim.report.energy_report import sum_counts
from tests.random_networks import random_without_neurons
from tests.tolerances import ENERGY


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return lower(ESDNet(preset("tiny_spike_driven")).eval())


@pytest.fixture(scope="module")
def result(network):
    return simulator.run(network, np.random.default_rng(0).random((3, 32, 24), np.float32))


def test_events_are_the_spikes_that_neurons_emitted_and_synapses_read(network, result):
    """Against the spikes themselves: what a neuron emits, every convolution that reads it alone receives."""
    facts = {layer.name: layer for layer in layer_facts(network, result.counts, (32, 24))}
    readers = 0
    for node in network.nodes:
        if isinstance(node, Neuron):
            assert facts[node.name].events_out == result.spikes[node.name].sum()
        elif isinstance(node, Conv) and isinstance(network[node.inputs[0]], Neuron):
            readers += 1
            assert facts[node.name].events_in == result.spikes[node.inputs[0]].sum()
            per_step = result.spikes[node.inputs[0]].sum((1, 2, 3)).tolist()
            assert steps_of(result.counts[node.name]).get("events_in", [0] * 4) == per_step
    assert readers > 5


def test_facts_of_a_small_network_by_hand():
    nodes = (
        Input(name="x"),
        Conv(name="c", inputs=("x",), weight=np.ones((4, 3, 3, 3)), bias=np.ones(4), padding=(1, 1), stride=(2, 2)),
        Neuron(name="n", inputs=("c",), threshold=np.array(0.5), membrane_decay=0.5),
        Linear(name="l", inputs=("n",), weight=np.ones((2, 4)), axis="C"),
        Output(name="y", inputs=("l",)),
    )
    network = Network(name="small", nodes=nodes, steps=1)
    counts = simulator.run(network, np.ones((3, 8, 8))).counts
    _, conv, neuron, matrix, _ = layer_facts(network, counts, (8, 8))
    taps = (8 + 4 - 1) ** 2 * 3 * 4  # of four rows of three one is on padding
    assert conv == LayerFacts(
        "c", "conv", input_shape=(3, 8, 8), output_shape=(4, 4, 4), kernel=(3, 3), stride=(2, 2), weight_words=108,
        bias_words=4, macs=taps, nonzero_macs=taps, taps=taps, adds=64, activation_words=192 + 64,
    )  # fmt: skip
    assert (neuron.events_out, neuron.state_words, neuron.leaky, neuron.neuron_updates) == (64, 64, True, 64)
    assert (matrix.reads, matrix.events_in, matrix.acs, matrix.taps) == ("spike", 64, 128, 128)
    record = matrix.to_record()
    assert (record["accumulator_reads"], record["accumulator_writes"]) == (128, 128)
    assert (record["inputs"], record["outputs"], record["parameters"]) == (64, 32, 8)


@pytest.mark.parametrize("name", [name for name in available() if name != "loihi1"])  # which prices updates in two ways
def test_a_price_list_and_the_model_of_its_name_agree_on_a_counted_run(network, result, name):
    """The same constants stand in hw_sim/pricing/lists and hw_sim/pricing/models; the counts reach both."""
    totals = sum_counts(counts.totals() for counts in result.counts.values())
    facts, model, prices = layer_facts(network, result.counts, (32, 24)), load_model(name), load_prices(name)
    assert price(model, facts).total_j == pytest.approx(prices.energy_j(totals), rel=ENERGY)
    everything = prices.energy_j(totals, elementwise=True, memory=True)
    assert price(model, facts, Conditions(everything=True)).total_j == pytest.approx(everything, rel=ENERGY)
    for kind, each in prices.prices.items():
        assert model.si(kind) == each.energy_j


def test_loihi_has_the_constants_of_its_price_list():
    model, prices = load_model("loihi1"), load_prices("loihi1").prices
    assert (model.si("sop"), model.si("spike")) == (prices["ac"].energy_j, prices["spike"].energy_j)
    assert model.si("update_active") == prices["neuron_update"].energy_j


def test_runs_add_counts_up_and_leave_sizes(network, result):
    twice = {name: counts.plus(counts) for name, counts in result.counts.items()}
    once = layer_facts(network, result.counts, (32, 24))
    assert layer_facts(network, twice, (32, 24), runs=2) == [layer.repeated(2) for layer in once]


def test_what_reads_spikes_is_what_the_graph_declares(network, result):
    for layer, node in zip(layer_facts(network, result.counts, (32, 24)), network.nodes, strict=True):
        if isinstance(node, (Conv, Linear)):
            assert (layer.reads == "spike") == (network.kinds[node.inputs[0]] is ValueKind.SPIKE)
            assert layer.taps * layer.executions == result.counts[node.name].dense_taps.sum()


def test_attention_is_two_products_of_no_weights_and_the_rest():
    network = random_without_neurons(0)
    result = simulator.run(network, np.random.default_rng(0).random((3, 16, 16)), precision="float64")
    facts = layer_facts(network, result.counts, (16, 16))
    node, *_ = network.of(WindowAttention)
    products, rest = (layer for layer in facts if layer.name.startswith(node.name))
    totals = result.counts[node.name].totals()
    assert (products.kind, products.macs, products.weight_words) == ("linear", totals["macs"], 0)
    assert (rest.name, rest.kind, rest.macs) == (f"{node.name}: the rest", "other", 0)
    assert (products.adds + rest.adds, products.muls + rest.muls) == (totals["adds"], totals["muls"])
    assert products.adds == products.muls == 0 < rest.adds
    for count in ("macs", "adds", "muls", "activation_words"):
        assert (
            sum(getattr(layer, count) for layer in facts)
            == sum_counts(counts.totals() for counts in result.counts.values())[count]
        )
