from __future__ import annotations

import pytest
import torch

from export.graph.counting import OF_VALUES
from export.graph.nodes import NetworkError
from hw_sim.backends import simulator, torch_model


def test_counts_are_those_of_the_golden_network(golden, golden_model, golden_network):
    result = torch_model.run(golden_model, golden_network, golden.input[0], precision="float64")
    for name, (macs, acs) in golden.operations.items():
        totals = result.counts[name].totals()
        assert (totals["acs"], totals["macs"]) == ((acs, 0) if acs >= 0 else (0, macs)), name


def test_what_a_convolution_really_read_must_be_spikes(golden, golden_model, golden_network):
    spoiler = golden_model.down1_2.maxpool_conv[0].register_forward_hook(lambda m, i, out: out * 0.5)
    try:
        with pytest.raises(NetworkError, match=r"down1_2\.maxpool_conv\.\d: declared to carry spikes"):
            torch_model.run(golden_model, golden_network, golden.input[0], precision="float64")
    finally:
        spoiler.remove()


def of_spikes(counts):
    """The counts that do not hang on values, which torch's modules are not asked for."""
    return {name: number for name, number in counts.totals().items() if name not in OF_VALUES}


def test_counts_are_the_simulators(either_model, either_network, photo):
    model = type(either_model)(either_model.config)
    model.load_state_dict(either_model.state_dict())
    found = torch_model.run(model, either_network, photo, precision="float64").counts
    expected = simulator.run(either_network, photo, precision="float64").counts
    assert {name: of_spikes(counts) for name, counts in found.items()} == {
        name: of_spikes(counts) for name, counts in expected.items()
    }


def test_enlarged_spikes_of_both_signs_must_be_spikes(spike_driven_model, spike_driven_network, photo):
    """The convolution after the enlargement reads what torch made of it, not what the graph says."""
    model = type(spike_driven_model)(spike_driven_model.config)
    model.load_state_dict(spike_driven_model.state_dict())
    model.up2_1.up[0].register_forward_hook(lambda m, i, out: out * 0.5)
    with pytest.raises(NetworkError, match=r"^up2_1\.up\.1: declared to carry spikes"):
        torch_model.run(model, spike_driven_network, photo, precision="float64")


def test_a_changed_weight_is_found_and_its_layer_named(golden, golden_model, golden_network):
    from hw_sim.backends.result import compare

    reference = simulator.run(golden_network, golden.input[0], precision="float64")
    weight = golden_model.encoder_level2[0].residual[1].weight
    with torch.no_grad():
        weight[0, 0, 0, 0] += 1.0
    try:
        found = compare(reference, torch_model.run(golden_model, golden_network, golden.input[0], precision="float64"))
    finally:
        with torch.no_grad():
            weight[0, 0, 0, 0] -= 1.0
    assert found.first.startswith("encoder_level2.0.residual.3, step ")
