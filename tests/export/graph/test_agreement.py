from __future__ import annotations

import copy

import numpy as np
import pytest

from esdnet.networks.esdnet.model import ESDNet
from export.graph import agreement
from export.graph.agreement import (
    broken_promise,
    check_layers,
    differing_spikes,
    layer_names,
    no_near_tie,
    output_within,
    psnr_db,
    suspects,
)
from export.graph.near_ties import find_near_ties, membranes
from export.graph.network import Network
from export.graph.nodes import Conv, Input, Neuron, Output, Repeat
from export.graph.witness import Witness, on_given_inputs, witness


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


def test_torch_in_float32_keeps_the_promise_layer_by_layer(either_model, either_network, reference):
    found = on_given_inputs(either_model, either_network, reference.values)
    check = check_layers(either_network, reference, found, "float32")
    assert check.failures == ()
    assert check.layers == len(reference.values) - 1
    assert 0 < check.membrane < 1e-5
    strict = check_layers(either_network, reference, found, "float64")
    assert strict.failures  # float64 allows no more than rounding


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
    found = on_given_inputs(damaged(either_model, parameter, 0.01), either_network, reference.values)
    failures = check_layers(either_network, reference, found, "float32").failures
    assert failures
    assert failures[0].startswith(f"{layer}: ")


@pytest.fixture(scope="module")
def of_tiny(tiny_model, tiny_network, photo):
    return witness(tiny_model, tiny_network, photo[:, :16, :16])


@pytest.mark.parametrize(("parameter", "layer"), IN_BOTH)
def test_float64_finds_a_weight_changed_in_its_last_digits(of_tiny, tiny_model, tiny_network, parameter, layer):
    reference = of_tiny
    changed = copy.deepcopy(tiny_model).double()
    changed.get_parameter(parameter).data.view(-1)[0] += 1e-9
    found = on_given_inputs(changed, tiny_network, reference.values)
    failures = check_layers(tiny_network, reference, found, "float64").failures
    assert failures[0].startswith(f"{layer}: ")


def test_a_changed_attention_matrix_is_among_the_layers_named(of_tiny, tiny_model, tiny_network):
    reference = of_tiny
    changed = damaged(tiny_model, "encoder_level1.0.attn.ta.sharedMLP.0.weight", 5.0)
    found = on_given_inputs(changed, tiny_network, reference.values)
    failures = check_layers(tiny_network, reference, found, "float32").failures
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


VALUES = {"image": CURRENTS[:1], "conv": CURRENTS, "lif": SPIKES, "out": SPIKES}
WITNESS = Witness(VALUES, dict.fromkeys(VALUES, 1e-15), ())


def check(network: Network, currents: np.ndarray, spikes: np.ndarray, precision="float32"):
    return check_layers(network, WITNESS, {"conv": currents, "lif": spikes, "out": SPIKES}, precision)


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


@pytest.mark.parametrize(("by", "holds"), [(5e-16, True), (5e-15, False)])
def test_float64_allows_what_rounding_can_do_and_no_more(by, holds):
    moved = CURRENTS.copy()
    moved[1] += by
    assert (check(small(), moved, SPIKES, "float64").failures == ()) is holds


def test_a_spike_that_is_no_spike_is_a_failure():
    graded = SPIKES.copy()
    graded[2] = 0.5
    assert check(small(), CURRENTS, graded).failures == ("lif: lif: gives values other than 0 and 1",)


def run_of(spikes: np.ndarray, output: np.ndarray = SPIKES[0], precision="float64", ties=()) -> str:
    reference = Witness(VALUES, WITNESS.bounds, ties)
    return broken_promise(small(), reference, precision, output, {"lif": spikes.astype(bool)})


def test_in_a_run_of_its_own_a_spike_differs_at_near_ties_alone():
    """At step 1 the membrane is at the threshold; a spike missed there moves the membrane of step 2."""
    tie = find_near_ties(small()["lif"], membranes(small()["lif"], CURRENTS, SPIKES), 1e-15)
    late, early = SPIKES.copy(), SPIKES.copy()
    late[1:] = 0
    early[0] = 1
    assert run_of(late, ties=(tie,)) == ""
    assert run_of(late) == "conv: lif, step 1: 2 spikes differ, promised none but at near-ties"
    assert run_of(early, ties=(tie,)) == "conv: lif, step 0: 1 spikes differ, promised none but at near-ties"
    assert run_of(late, precision="float32") == ""  # reported, not promised


def test_where_no_spike_differs_the_output_is_promised():
    assert run_of(SPIKES, SPIKES[0] + 1e-10) == ""
    assert run_of(SPIKES, SPIKES[0] + 2e-9) == "out: output differs by 2.0e-09, promised 1e-09"
    assert run_of(SPIKES, SPIKES[0] + np.nan) == "out: output differs by nan, promised 1e-09"
    assert run_of(SPIKES, SPIKES[0] + 1e-2, "float32") == "output at 40.0 dB, promised 60"


def test_an_output_is_measured_by_its_largest_magnitude_where_that_is_above_1():
    assert output_within(np.array([1e6]), np.array([1e6 + 1e-4]))
    assert not output_within(np.array([1e6]), np.array([1e6 + 1e-2]))
    assert not output_within(np.array([1e-6]), np.array([1e-6 + 2e-9]))


def test_a_neuron_that_an_earlier_difference_has_reached_is_left_to_the_layers(of_tiny, tiny_network):
    reference = of_tiny
    fired = {node.name: reference.values[node.name] > 0 for node in tiny_network.neurons}
    first, second, beside = "encoder_level1.0.residual.0", "encoder_level1.0.residual.3", "down2_3.maxpool_conv.0"
    assert no_near_tie(tiny_network, reference, fired) == ("", "")
    wrong = {**fired, second: ~fired[second], beside: ~fired[beside]}
    assert no_near_tie(tiny_network, reference, wrong)[0] == second
    assert no_near_tie(tiny_network, reference, {**wrong, first: ~fired[first]})[0] == first


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
        check_layers(small(), WITNESS, {"conv": CURRENTS}, "float32")


def test_suspects_are_what_no_agreeing_neuron_has_seen(tiny_network):
    assert suspects(tiny_network, "encoder_level1.0.residual.0") == "patch_embed.proj"
    assert suspects(tiny_network, "encoder_level1.0.residual.3") == "encoder_level1.0.residual.1"
    accused = suspects(tiny_network, "down1_2.maxpool_conv.0").split(", ")
    assert accused[:2] == ["encoder_level1.0.residual.4", "encoder_level1.0.shortcut.0"]
    assert all(name.startswith("encoder_level1.0.") for name in accused)


def test_suspects_of_spikes_of_both_signs(spike_driven_network):
    assert suspects(spike_driven_network, "encoder_level1.0.residual.0.on") == "patch_embed.proj"
    off = "encoder_level1.0.residual.0.off"  # the ON half saw the same value and agreed: this neuron's own constants
    assert suspects(spike_driven_network, off) == off
    assert suspects(spike_driven_network, "encoder_level1.0.residual.3") == "encoder_level1.0.residual.1"


def test_the_promise_is_what_the_pages_say():
    """Tests and code read these numbers from one place: who loosens them changes docs/exactness.md, and this line."""
    assert (agreement.FLOAT64_OUTPUT, agreement.FLOAT32_MEMBRANE, agreement.FREE_RUN_PSNR_DB) == (1e-9, 1e-5, 60.0)
