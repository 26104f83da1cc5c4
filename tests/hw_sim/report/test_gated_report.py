"""What a report says of gates, on the console, in JSON, in the page: open shares, and how often synapses are used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export.graph import nodes as g
from export.graph.network import infer_shapes
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from hw_sim.backends.spike_maps import SpikeMaps
from hw_sim.pricing.all_models import price_all
from hw_sim.pricing.prices import load_prices
from hw_sim.report.console import open_console, print_report
from hw_sim.report.energy_report import EnergyReport, Run, build_report
from hw_sim.report.page.pictures import Pictures
from hw_sim.report.page.write import write_report
from hw_sim.report.plots import firing_rates
from tests.equivalence.test_gated_networks import with_constant
from tests.gated import KINDS, gated_model, rainy
from tests.hw_sim.report.page.test_write import data_of


def priced(network, result) -> EnergyReport:
    run = Run("x.png", "net", "simulator", "float64", network.steps, 0, 8, 1, result.executed_size, 0.1)
    return build_report(network, result.counts, run, load_prices("paper"))


@pytest.fixture(scope="module", params=KINDS)
def network(request):
    return lower(gated_model(request.param), request.param)


@pytest.fixture(scope="module")
def result(network):
    return simulator.run(network, rainy(), precision="float64", keep_maps=True)


@pytest.fixture(scope="module")
def report(network, result):
    return priced(network, result)


def test_the_open_share_is_that_of_the_gates_pixels(report, result):
    expected = {name: pytest.approx(float(gate.mean())) for name, gate in result.gates.items()}
    assert report.open_shares == expected
    assert report.to_dict()["gates_open"] == expected
    assert len(expected) == 3
    assert all(0.05 < share < 0.95 for share in report.open_shares.values())


def test_spikes_per_synapse_are_additions_over_taps_of_one_pass(network, result, report):
    """Taps by brute force: a convolution of ones by ones. Of every layer that reads spikes, the gate's own too."""
    shapes, additions, taps = infer_shapes(network, *result.executed_size), 0, 0
    for node in network.of(g.Conv):
        if network.kinds[node.inputs[0]] is g.ValueKind.SPIKE:
            ones = torch.ones(1, *shapes[node.inputs[0]][1:], dtype=torch.float64)
            weight = torch.ones(node.weight.shape, dtype=torch.float64)
            taps += int(F.conv2d(ones, weight, None, node.stride, node.padding, node.dilation).sum())
            additions += int(result.counts[node.name].acs.sum())
    assert taps > 0
    assert report.spikes_per_synapse == pytest.approx(additions / taps)
    assert report.to_dict()["spikes_per_synapse"] == report.spikes_per_synapse


def test_the_console_says_how_much_was_open(report):
    console = open_console()
    with console.capture() as text:
        print_report(console, report, [])
    lines = text.get().splitlines()
    used = f"{report.spikes_per_synapse:.4f}"
    for name, share in report.open_shares.items():
        assert any(f"open: {name} " in line and f"{share:.2%}" in line for line in lines)
    assert any("spikes per synapse and inference" in line and used in line for line in lines)
    assert "Behind a shut gate nothing is updated" in text.get()


@pytest.mark.parametrize("open_", [True, False])
def test_of_a_gate_that_is_open_or_shut_everywhere(network, open_):
    """Rates are over all neurons, so that they are there, and 0, where none was updated."""
    constant = with_constant(network, open_)
    report = priced(constant, simulator.run(constant, rainy(), precision="float64"))
    assert set(report.open_shares.values()) == {float(open_)}
    assert (report.firing_rate > 0) == (report.spikes_per_synapse > 0) == open_
    assert len(firing_rates(report).axes[0].get_yticklabels()) == len(constant.neurons)


def test_a_network_without_a_gate_says_nothing_of_one(spike_driven_network, photo):
    report = priced(spike_driven_network, simulator.run(spike_driven_network, photo))
    assert "gates_open" not in report.to_dict()
    assert not any("gate" in line for line in report.to_dict()["assumptions"])


def test_the_page_has_maps_of_the_gates_and_their_shares(report, result, tmp_path):
    maps = SpikeMaps(result.executed_size)
    window = tuple(slice(0, side) for side in result.executed_size)
    maps.add({**result.gates, **result.spike_maps()}, window)
    pictures = Pictures(rainy().transpose(1, 2, 0), result.output.transpose(1, 2, 0), maps)
    content = report.to_dict()
    write_report(tmp_path / "x.html", content, price_all(content, None), "energy.py", pictures)
    page = (tmp_path / "x.html").read_text()
    data = data_of(page)
    for name, share in report.open_shares.items():
        assert f"<dt>open: {name}</dt><dd>{share:.1%}</dd>" in page
        assert len(data["spikes"]["layers"][name]["steps"]) == 1
    for layer in data["layers"]:
        fired = result.spikes.get(layer["name"])
        assert layer["chances"] == (0 if fired is None else fired.size)
    places = [data["layers"][place]["name"] for place in data["rates"]["layers"]]
    for name, rates in zip(places, data["rates"]["rates"], strict=True):
        assert rates == pytest.approx(np.asarray(result.spikes[name]).mean((1, 2, 3)), rel=1e-3)
