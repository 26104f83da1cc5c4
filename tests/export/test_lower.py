from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from esdnet.config import preset
from esdnet.model import ESDNet
from export.lower import GraphBuilder, fold_batch_norm, lower, lower_module
from export.network import Conv, NetworkError, Neuron, ValueKind


@pytest.mark.parametrize("name", ["tiny", "small_released", "released"])
def test_every_parameter_is_counted_once(name):
    model = ESDNet(preset(name))
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
    placement = {node.block: node.placement for node in tiny_network.nodes if isinstance(node, Conv)}
    assert placement["encoder_level1.0"] == placement["down1_2"] == placement["up2_1"] == "neurocore"
    assert placement["encoder_level1.0.attn"] == placement["refinement"] == placement["output"] == "host"


def test_a_module_without_a_rule_is_refused_by_name():
    with pytest.raises(NetworkError, match=r"deep.pool \(MaxPool2d\): no lowering rule"):
        lower_module(nn.MaxPool2d(2), GraphBuilder(), "deep.pool", "x")


def test_a_batch_norm_without_its_convolution_is_refused():
    with pytest.raises(NetworkError, match=r"s\.0: batch norm without a convolution before it"):
        lower_module(nn.Sequential(nn.BatchNorm2d(3)), GraphBuilder(), "s", "x")
