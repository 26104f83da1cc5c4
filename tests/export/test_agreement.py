from __future__ import annotations

import numpy as np
import pytest

from esdnet.model import ESDNet
from export.agreement import (
    check_layers,
    differing_spikes,
    layer_names,
    membranes,
    on_given_inputs,
    psnr_db,
    witness,
)
from export.network import Conv, Input, Network, Neuron, Output, Repeat
from hw_sim import simulator


@pytest.fixture(scope="module")
def reference(either_model, either_network, photo):
    return witness(either_model, either_network, photo)


def damaged(model: ESDNet, parameter: str, by: float) -> ESDNet:
    """A copy with one weight changed; all of a tensor where a single channel of spikes may be silent."""
    copy = ESDNet(model.config)
    copy.load_state_dict(model.state_dict())
    values = copy.get_parameter(parameter).data.view(-1)
    values[: values.numel() if model.config.polarity == "on_off" else 1] += by
    return copy.eval()


def test_the_witness_saw_what_torch_computes(either_model, either_network, photo, reference):
    result = simulator.run(either_network, photo, precision="float64")
    assert {name: int((reference[name] != spikes).sum()) for name, spikes in result.spikes.items()} == dict.fromkeys(
        result.spikes, 0
    )
    assert np.abs(reference["derained"][0] - result.output).max() < 1e-12
    convs = {node.name for node in either_network.nodes if isinstance(node, Conv)}
    assert convs | set(result.spikes) <= set(reference)
    assert next(either_model.parameters()).dtype.itemsize == 4  # the model itself is left as it is


def test_torch_in_float32_keeps_the_promise_layer_by_layer(either_model, either_network, reference):
    found = on_given_inputs(either_model, either_network, reference)
    check = check_layers(either_network, reference, found)
    assert check.failures == ()
    assert check.layers == len(reference) - 1
    assert 0 < check.membrane < 1e-5


IN_BOTH = [
    ("patch_embed.proj.weight", "patch_embed.proj"),
    ("encoder_level2.0.residual.1.weight", "encoder_level2.0.residual.1"),
    ("decoder_level3.0.shortcut.0.weight", "decoder_level3.0.shortcut.0"),
    ("down1_2.maxpool_conv.2.bias", "down1_2.maxpool_conv.1"),  # a batch norm belongs to its convolution
    ("output.0.bias", "output.0"),
]
RELEASED_ONLY = [
    ("decoder_level1.0.attn.sa.conv.weight", "decoder_level1.0.attn.sa.conv"),
    ("refinement.sa.3.weight", "refinement.sa.3"),
]
SPIKE_DRIVEN_ONLY = [
    ("up2_1.up.1.weight", "up2_1.up.1"),
    ("encoder_level1.0.residual.0.off.threshold", "encoder_level1.0.residual.0.off"),
    ("encoder_level2.0.residual.3.threshold", "encoder_level2.0.residual.3"),
    ("decoder_level1.0.attn.gain", "decoder_level1.0.attn.gain"),
    ("time_weights.weight", "time_weights"),
]


@pytest.mark.parametrize(
    ("either_model", "parameter", "layer"),
    [
        *[("released", *damage) for damage in IN_BOTH + RELEASED_ONLY],
        *[("spike_driven", *damage) for damage in IN_BOTH + SPIKE_DRIVEN_ONLY],
    ],
    indirect=["either_model"],
)
def test_a_changed_weight_is_found_and_its_layer_named(either_model, either_network, reference, parameter, layer):
    found = on_given_inputs(damaged(either_model, parameter, 0.01), either_network, reference)
    failures = check_layers(either_network, reference, found).failures
    assert failures
    assert failures[0].startswith(f"{layer}: ")


def test_a_changed_attention_matrix_is_among_the_layers_named(tiny_model, tiny_network, photo):
    reference = witness(tiny_model, tiny_network, photo)
    changed = damaged(tiny_model, "encoder_level1.0.attn.ta.sharedMLP.0.weight", 5.0)
    failures = check_layers(tiny_network, reference, on_given_inputs(changed, tiny_network, reference)).failures
    assert "encoder_level1.0.attn.ta.mean.sharedMLP.0" in failures[0].split(": ")[0].split(", ")


def small(**fields) -> Network:
    values = {"threshold": np.array(0.75), "membrane_decay": 0.5, **fields}
    return Network(
        name="small",
        nodes=(
            Input(name="image", channels=1),
            Repeat(name="code", inputs=("image",)),
            Conv(name="conv", inputs=("code",), weight=np.ones((1, 1, 1, 1))),
            Neuron(name="lif", inputs=("conv",), **values),
            Output(name="out", inputs=("lif",)),
        ),
        steps=3,
    )


CURRENTS = np.array([0.5, 0.5, 0.75])[:, None, None, None]
# H = .5, .75 (fires exactly at the threshold), .75 (fires again)
SPIKES = np.array([0.0, 1.0, 1.0])[:, None, None, None]


def check(network: Network, currents: np.ndarray, spikes: np.ndarray):
    reference = {"image": CURRENTS[:1], "conv": CURRENTS, "lif": SPIKES}
    return check_layers(network, reference, {"conv": currents, "lif": spikes})


def test_membranes_by_hand():
    network = small()
    assert membranes(network["lif"], CURRENTS, SPIKES).ravel().tolist() == [0.5, 0.75, 0.75]
    soft = small(reset="by", reset_value=0.5)["lif"]
    assert membranes(soft, CURRENTS, SPIKES).ravel().tolist() == [0.5, 0.75, 0.875]
    slow = small(current_decay=0.5, gain=np.array(2.0), bias=np.array(1.0), reset_value=-1.0)["lif"]
    # I = .5, .75, 1.125; H = 2, 2.5 + .5*2 (no spike) = 3.5, 3.25 + .5*-1 = 2.75
    assert membranes(slow, CURRENTS, SPIKES).ravel().tolist() == [2.0, 3.5, 2.75]


def test_a_spike_may_differ_at_the_threshold_and_nowhere_else():
    flipped = SPIKES.copy()
    flipped[1] = 0  # its membrane is at the threshold
    allowed = check(small(), CURRENTS, flipped)
    assert allowed.failures == ()
    assert (allowed.spikes, allowed.margin) == (1, 0.0)
    flipped[0] = 1  # 0.25 below it
    refused = check(small(), CURRENTS, flipped)
    assert refused.failures == (
        "lif: lif, step 0: a spike differs where the membrane is off the threshold by 0.25 in 1 places, allowed 1e-05",
    )


def test_a_membrane_that_deviates_names_the_convolution_before_it():
    moved = CURRENTS.copy()
    moved[1] += 2e-5
    found = check(small(), moved, SPIKES)
    assert found.failures[-1].startswith("conv: lif, step 1: a membrane deviates by 2e-05 in 1 places")
    assert found.membrane == pytest.approx(2e-5)


def test_not_a_number_is_a_failure():
    broken = CURRENTS.copy()
    broken[2] = np.nan
    assert check(small(), broken, SPIKES).failures


def test_layers_between_a_value_and_what_is_known(tiny_network):
    assert layer_names(tiny_network, "encoder_level1.0.residual.3", ["encoder_level1.0.residual.0"]) == (
        "encoder_level1.0.residual.1"
    )
    assert layer_names(tiny_network, "coding", []) == "coding"


def test_differing_spikes_names_neuron_step_and_number():
    one, other = np.zeros((3, 2, 2, 2), bool), np.zeros((3, 2, 2, 2), bool)
    other[1:, 0, 0, 0] = True
    assert differing_spikes({"a": one, "b": one}, {"a": one, "b": other}) == ({"b": 2}, "b, step 1: 2 spikes differ")
    assert differing_spikes({"a": one}, {"a": one}) == ({}, "")


def test_psnr_by_hand():
    assert psnr_db(np.zeros(4), np.full(4, 0.1)) == pytest.approx(20.0)
    assert psnr_db(np.ones(4), np.ones(4)) == np.inf


def test_a_value_that_was_not_found_is_no_pass():
    with pytest.raises(KeyError, match="lif"):
        check_layers(small(), {"image": CURRENTS[:1], "conv": CURRENTS, "lif": SPIKES}, {"conv": CURRENTS})
