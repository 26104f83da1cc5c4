from __future__ import annotations

import numpy as np
import pytest

from export.graph.near_ties import describe_near_ties
from export.graph.nodes import Conv
from export.graph.witness import witness
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from tests.ties import NEURON, tied_model


def test_the_witness_saw_what_torch_computes(either_model, either_network, photo):
    reference = witness(either_model, either_network, photo)
    result = simulator.run(either_network, photo, precision="float64")
    for name, spikes in result.spikes.items():
        assert np.array_equal(reference.values[name], spikes), name
    assert np.abs(reference.values["derained"][0] - result.output).max() < 1e-12
    convs = {node.name for node in either_network.nodes if isinstance(node, Conv)}
    assert convs | set(result.spikes) <= set(reference.values) == set(reference.bounds)
    assert next(either_model.parameters()).dtype.itemsize == 4  # the model itself is left as it is
    assert reference.near_ties == ()


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_a_tie_is_found_counted_and_named(decay):
    """Torch fires at every step; each of the 64 membranes of that channel is at the threshold, and no other."""
    model = tied_model(decay)
    (ties,) = witness(model, lower(model), np.zeros((3, 8, 8))).near_ties
    assert ties.neuron == NEURON
    assert ties.by_step() == dict.fromkeys(range(4), (64, 0.0))
    channels = np.unique(ties.where % (8 * 64) // 64)
    assert len(channels) == 1
    assert describe_near_ties([ties])[0] == (
        f"{NEURON}, step 0: 64 within rounding of the threshold, the nearest 0.0e+00 off"
    )
    assert witness(model, lower(model), np.random.default_rng(0).random((3, 8, 8))).near_ties == ()


def test_the_terms_that_cancel_in_a_folded_bias_count(tiny_model, tiny_network, photo):
    """A batch norm whose mean and bias are huge and cancel: torch rounds both, the folded bias shows neither."""
    name = "encoder_level2.0.residual.1"
    norm = tiny_model.get_submodule("encoder_level2.0.residual.2")
    before = witness(tiny_model, tiny_network, photo[:, :16, :16]).bounds[name]
    kept = {key: value.clone() for key, value in norm.state_dict().items()}
    try:
        norm.weight.data.fill_(1.0)
        norm.running_var.fill_(1.0 - norm.eps)
        norm.running_mean.add_(1e6)
        norm.bias.data.add_(1e6)
        after = witness(tiny_model, lower(tiny_model), photo[:, :16, :16]).bounds[name]
    finally:
        norm.load_state_dict(kept)
    assert after > 1e3 * before
