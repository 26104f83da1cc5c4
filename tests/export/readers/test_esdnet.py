from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from esdnet.networks.esdnet.config import PRESETS, preset
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet
from export.graph.network import infer_shapes
from export.graph.nodes import Conv, NetworkError, Neuron, ValueKind, gate_of
from export.graph.placement import on_host, place_of
from export.readers.esdnet import lower
from export.readers.lowering import GraphBuilder, fold_batch_norm, lower_module

READOUT = replace(preset("tiny_spike_driven"), readout="spikes")
MORPHOLOGICAL = replace(preset("tiny_gated"), gate="morphological")
CONFIGS = {**PRESETS, "tiny, spikes read out": READOUT, "tiny, gated by morphology": MORPHOLOGICAL}
SPIKE_DRIVEN = [name for name in PRESETS if name.endswith(("spike_driven", "gated"))]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_counted_once(name):
    model = ESDNet(CONFIGS[name])
    network = lower(model)
    assert sum(node.source_parameters for node in network.nodes) == sum(p.numel() for p in model.parameters())


def test_names_of_neurons_and_convolutions_are_the_authors(golden, golden_network):
    assert {node.name for node in golden_network.neurons} == set(golden.spikes)
    assert {node.name for node in golden_network.nodes if isinstance(node, Conv)} == set(golden.operations)


def test_operands_are_what_the_golden_counts_say(golden, golden_network):
    for name, (_, acs) in golden.operations.items():
        source = golden_network[name].inputs[0]
        assert (golden_network.kinds[source] is ValueKind.SPIKE) == (acs >= 0), name


def test_batch_norm_folds_in_float64():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3, bias=True), nn.BatchNorm2d(5)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 2)
    nn.init.normal_(norm.weight)
    both = nn.Sequential(conv, norm).double().eval()
    weight, bias = fold_batch_norm(conv, norm)
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    folded = nn.functional.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias))
    assert weight.dtype == bias.dtype == np.float64
    assert (folded - both(x)).abs().max() < 1e-13  # rounding of float64, values of order 1


def test_the_threshold_stays_exact_even_in_a_float32_model(tiny_model):
    neurons = lower(tiny_model).neurons
    assert all(isinstance(node, Neuron) and node.threshold == 0.15 and node.fires == ">=" for node in neurons)


def test_blocks_and_placement(tiny_network):
    placement = {node.block: place_of(tiny_network, node) for node in tiny_network.nodes if isinstance(node, Conv)}
    assert placement["encoder_level1.0"] == placement["down1_2"] == placement["up2_1"] == "neurocore"
    assert placement["encoder_level1.0.attn"] == placement["refinement"] == placement["output"] == "host"


def analog_convolutions(network) -> list[str]:
    convs = [node for node in network.nodes if isinstance(node, Conv)]
    return [node.name for node in convs if network.kinds[node.inputs[0]] is not ValueKind.SPIKE]


@pytest.mark.parametrize("name", SPIKE_DRIVEN)
def test_every_convolution_but_the_first_and_the_last_is_fed_by_spikes(name):
    network = lower(ESDNet(PRESETS[name]))
    convs = [node.name for node in network.nodes if isinstance(node, Conv)]
    assert analog_convolutions(network) == ["patch_embed.proj", "output.0"] == [convs[0], convs[-1]]
    assert analog_convolutions(lower(ESDNet(preset("tiny")))) != ["patch_embed.proj", "output.0"]


def test_with_spikes_read_out_only_the_first_convolution_is_not():
    network = lower(ESDNet(READOUT))
    assert analog_convolutions(network) == ["patch_embed.proj"]
    assert network["time_weights"].inputs == ("output.1",)
    assert {"output.0.on", "output.0.off"} <= {node.name for node in network.neurons}


def test_a_spike_driven_network_has_the_names_of_its_modules(spike_driven_model, spike_driven_network):
    modules = dict(spike_driven_model.named_modules())
    lifs = {name for name, module in modules.items() if isinstance(module, LIF)}
    assert {node.name for node in spike_driven_network.neurons} == lifs
    convs = {node.name for node in spike_driven_network.nodes if isinstance(node, Conv)}
    assert convs == {name for name, module in modules.items() if isinstance(module, nn.Conv2d)}
    for node in spike_driven_network.neurons:
        assert node.threshold == float(modules[node.name].threshold.detach())  # what was learnt, to the last bit
        assert (node.fires, node.membrane_decay) == (">", 0.5)
        assert node.gain == (-1 if node.name.endswith(".off") else 1)
    assert len({float(node.threshold) for node in spike_driven_network.neurons}) > 20


def test_in_a_spike_driven_network_only_what_reads_all_steps_is_on_the_host(spike_driven_network):
    host = [node.name for node in spike_driven_network.nodes if node.name in on_host(spike_driven_network)]
    assert host == ["time_weights", "output.0", "restored", "derained"]
    embedded = spike_driven_network["coding"]
    assert embedded.inputs == ("patch_embed.proj",)  # convolved once, then repeated


def test_a_module_without_a_rule_is_refused_by_name():
    with pytest.raises(NetworkError, match=r"deep.pool \(MaxPool2d\): no lowering rule"):
        lower_module(nn.MaxPool2d(2), GraphBuilder(nn.Module()), "deep.pool", "x")


def test_a_batch_norm_without_its_convolution_is_refused():
    with pytest.raises(NetworkError, match=r"s\.0: batch norm without a convolution before it"):
        lower_module(nn.Sequential(nn.BatchNorm2d(3)), GraphBuilder(nn.Module()), "s", "x")


@pytest.mark.parametrize("name", ["tiny_gated", "tiny, gated by morphology"])
def test_everything_that_fires_behind_a_gate_has_that_of_its_level(name):
    network = lower(ESDNet(CONFIGS[name]))
    assert network.gates == ("gate.level1", "gate.level2", "gate.level3")
    sizes = infer_shapes(network, 32, 24)
    gated = {node.name: gate_of(node) for node in network.nodes if gate_of(node)}
    assert set(gated) == {"time_weights", "output.0"} | {
        node.name for node in network.neurons if not node.name.startswith("gate.")
    }
    assert all(sizes[gate][2:] == sizes[node][2:] for node, gate in gated.items())
    assert set(gated.values()) == set(network.gates)
    once = [node.name for node in network.nodes if node.block == "gate" and sizes[node.name][0] != 1]
    assert not once


def test_a_learnt_gate_is_on_cores_but_for_its_maxima_and_a_morphological_one_on_the_host():
    learnt, other = lower(ESDNet(preset("tiny_gated"))), lower(ESDNet(MORPHOLOGICAL))
    host = {node.name for node in learnt.nodes if node.block == "gate"} & on_host(learnt)
    assert host == {"gate.level2", "gate.level3"}
    assert {node.name for node in other.nodes if node.block == "gate"} <= on_host(other)
    assert [node.kind for node in other.nodes if node.block == "gate"] == ["rainmask", "pool", "flood", "pool", "pool"]
