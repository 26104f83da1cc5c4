"""One negative test per design rule, each with its remedy; all violations are raised at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet
from export.graph.network import Network
from export.graph.nodes import Conv, Input, Output, Reduce
from export.graph.rules import MAX_LISTED, Design, DesignRuleError, enforce, find_violations
from export.targets.nir.rules import NIR_RULES, neuron_modules_are_plain
from tests.export.networks import conv, neuron, stock_networks

CHAIN = stock_networks()["chain"]


def changed(name: str, **fields) -> Network:
    """The chain network with one node's fields replaced."""
    nodes = tuple(replace(node, **fields) if node.name == name else node for node in CHAIN.nodes)
    return replace(CHAIN, nodes=nodes)


def violations(network: Network, height: int = 8, width: int = 12) -> list[str]:
    return find_violations(NIR_RULES, Design(network, height, width))


def test_a_network_that_keeps_the_rules_has_no_violations(tiny_network):
    for network in [*stock_networks().values(), tiny_network]:
        assert violations(network) == []
    enforce("NIR", [])


@pytest.mark.parametrize(
    ("node", "fields", "expected"),
    [
        (
            "a.lif",
            {"reset": "by", "reset_value": 0.15},
            "a.lif (neuron): reset by subtraction of 0.15; train with a reset to zero",
        ),
        (
            "a.lif",
            {"reset_value": -0.5},
            "a.lif (neuron): reset to -0.5, expected 0; train with a reset to zero",
        ),
        ("a.lif", {"membrane_decay": 1.0}, "a.lif (neuron): beta 1, expected in [0, 1); lower beta"),
        ("a.lif", {"membrane_decay": -0.1}, "a.lif (neuron): beta -0.1, expected in [0, 1); lower beta"),
        ("a.lif", {"current_decay": 0.5}, "a.lif (neuron): current decay 0.5, expected 0; train without it"),
        (
            "a.lif",
            {"gain": np.ones((1, 8, 1))},
            "a.lif (neuron): gain of shape (1, 8, 1) varies over the pixels; make it (C, 1, 1)",
        ),
        (
            "a.conv",
            {"weight": np.zeros((4, 3, 3, 3), np.int8)},
            "a.conv (conv): weight is int8 (quantised); export the float network",
        ),
        (
            "a.conv",
            {"bias": np.array([0, np.nan, 0, 0])},
            "a.conv (conv): bias holds NaN or infinite values; take an earlier checkpoint",
        ),
    ],
)
def test_each_rule_names_node_finding_and_remedy(node, fields, expected):
    assert violations(changed(node, **fields)) == [expected]


def test_grouped_convolutions_are_refused_unless_they_run_on_the_host():
    rng = np.random.default_rng(0)
    grouped = Conv(name="g", inputs=("coding",), weight=rng.random((3, 1, 3, 3)), padding=(1, 1), groups=3)
    nodes = (*CHAIN.nodes[:2], grouped, Output(name="result", inputs=("g",)))
    expected = "g (conv): groups 3, expected 1; expand its weight to a dense one with zeros"
    assert violations(replace(CHAIN, nodes=nodes)) == [expected]
    mean = Reduce(name="mean", inputs=("coding",), axes="T")  # what comes after it runs once an image
    host = (*nodes[:2], mean, replace(grouped, inputs=("mean",)), nodes[3])
    assert violations(replace(CHAIN, nodes=host)) == []


@pytest.mark.parametrize("size", [(30, 20), (0, 16), (-4, 16)])
def test_sizes_that_the_levels_do_not_divide(tiny_network, size):
    (found,) = violations(tiny_network, *size)
    height, width = ((max(side, 1) + 3) // 4 * 4 for side in size)
    expected = f"size {size[0]}x{size[1]}, expected multiples of 4; use --input-size {height} {width}"
    assert found == f"tiny (network): {expected}"


def test_values_that_nothing_reads():
    rng = np.random.default_rng(0)
    nodes = (*CHAIN.nodes[:-1], conv(rng, "lost", "a.lif", (4, 4)), CHAIN.nodes[-1])
    assert violations(replace(CHAIN, nodes=nodes)) == ["lost (conv): its value is never read; remove the node"]


def test_names_that_hdf5_would_nest():
    nodes = (Input(name="image"), neuron("a/b", "image"), Output(name="result", inputs=("a/b",)))
    assert violations(Network(name="names", nodes=nodes, steps=1)) == [
        "a/b (neuron): not a name that HDF5 can hold; rename it without '/'"
    ]


def test_all_violations_are_raised_at_once():
    network = changed("a.lif", reset="by", reset_value=0.15)
    network = replace(
        network, nodes=tuple(replace(n, membrane_decay=1.0) if n.name == "b.lif" else n for n in network.nodes)
    )
    with pytest.raises(DesignRuleError) as caught:
        enforce("NIR", violations(replace(network, size_multiple=4), 9, 12))
    assert str(caught.value).splitlines() == [
        "NIR: 3 violations of its design rules:",
        "  a.lif (neuron): reset by subtraction of 0.15; train with a reset to zero",
        "  b.lif (neuron): beta 1, expected in [0, 1); lower beta",
        "  chain (network): size 9x12, expected multiples of 4; use --input-size 12 12",
    ]


def test_a_long_list_is_cut():
    with pytest.raises(DesignRuleError) as caught:
        enforce("NIR", [str(index) for index in range(MAX_LISTED + 5)])
    lines = str(caught.value).splitlines()
    assert len(lines) == MAX_LISTED + 2
    assert lines[-1] == "  and 5 more"


# --- settings of snnTorch modules -------------------------------------------------------------------------------------


def with_neuron(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), module)


def test_esdnet_modules_are_plain():
    assert list(neuron_modules_are_plain(ESDNet(preset("tiny")))) == []


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            snntorch.Leaky(0.5, reset_mechanism="subtract"),
            "1 (Leaky): reset 'subtract', expected 'zero'; train with reset_mechanism='zero'",
        ),
        (
            snntorch.Leaky(0.5, reset_mechanism="none"),
            "1 (Leaky): reset 'none', expected 'zero'; train with reset_mechanism='zero'",
        ),
        (LIF(beta=1.0), "1 (LIF): beta 1, expected below 1 (a leak, so a finite tau); lower beta"),
        (
            snntorch.Leaky(torch.tensor([0.5, 1.25]), reset_mechanism="zero"),
            "1 (Leaky): beta 1.25, expected below 1 (a leak, so a finite tau); lower beta",
        ),
        (
            snntorch.Leaky(0.5, reset_mechanism="zero", state_quant=torch.round),
            "1 (Leaky): quantised state, which no stock neuron has; set state_quant=False",
        ),
        (
            snntorch.Leaky(0.5, reset_mechanism="zero", graded_spikes_factor=2.0),
            "1 (Leaky): graded spikes (factor 2), expected spikes of 0 and 1; "
            "fold the factor into the next convolution's weights",
        ),
    ],
)
def test_each_setting_without_a_stock_form_is_named(module, expected):
    assert list(neuron_modules_are_plain(with_neuron(module))) == [expected]


def test_settings_are_found_all_at_once():
    odd = snntorch.Leaky(1.5, reset_mechanism="subtract", state_quant=torch.round, graded_spikes_factor=3.0)
    assert len(list(neuron_modules_are_plain(with_neuron(odd)))) == 4
