"""Other counters where their definition is ours: synaptic operations of a spiking network (docs/count_anything.md)."""

from __future__ import annotations

import pytest
import torch

import hw_sim
from benchmarks.count_peers import networks, with_neurobench, with_spikingjelly


@pytest.fixture(scope="module")
def spiking():
    return networks()["snnTorch, 5 steps"]


@pytest.mark.filterwarnings("ignore")
def test_neurobench_on_values_that_are_not_0(spiking):
    pytest.importorskip("neurobench")
    totals = hw_sim.count(*spiking).totals
    found = with_neurobench("", *spiking)
    assert (found["Effective_ACs"], found["Effective_MACs"]) == (totals["acs"], totals["nonzero_macs"])


@pytest.mark.filterwarnings("ignore")
def test_spikingjelly_2_on_spikes(spiking):
    pytest.importorskip("torch.utils.module_tracker", reason="spikingjelly 2.0 needs torch 2.4")
    pytest.importorskip(
        "spikingjelly.activation_based.op_counter", reason="spikingjelly before 2.0 has no such counter"
    )
    assert with_spikingjelly("", *spiking)["SynOpCounter"] == hw_sim.count(*spiking).totals["acs"] > 0


@pytest.mark.filterwarnings("ignore")
def test_both_take_a_binarised_image_for_spikes():
    pytest.importorskip("neurobench")
    model, image = networks()["binarised image"]
    assert with_neurobench("", model, image)["Effective_ACs"] == hw_sim.count(model, image).totals["nonzero_macs"]
    assert hw_sim.count(model, image).totals["acs"] == 0
    assert set(image.unique().tolist()) == {0.0, 1.0}
    assert torch.is_grad_enabled()
