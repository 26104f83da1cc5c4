from __future__ import annotations

from dataclasses import asdict

import pytest

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import PRESETS, ESDNetConfig, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_its_dictionary(name):
    assert ESDNetConfig.from_dict(preset(name).to_dict()) == preset(name)


def test_unknown_preset_lists_those_there_are():
    with pytest.raises(UserError, match=r"'huge' is unknown: expected one of tiny, small_released, released"):
        preset("huge")


@pytest.mark.parametrize("values", [{"dim": 0}, {"steps": 0}, {"encoder_blocks": (1, 0, 1)}, {"membrane_decay": 1.0}])
def test_impossible_values_are_refused(values):
    with pytest.raises(UserError, match="config:"):
        ESDNetConfig(**values)


def test_unknown_field_is_refused():
    with pytest.raises(UserError, match="unexpected keyword argument 'depth'"):
        ESDNetConfig.from_dict({"depth": 3})


@pytest.mark.parametrize(("attention", "frb"), [(True, True), (False, True), (True, False)])
def test_the_switches_of_earlier_checkpoints_are_read_as_the_names_of_today(attention, frb):
    old = {"dim": 16, "encoder_blocks": [1, 1, 1], "attention": attention, "refinement": frb}
    config = ESDNetConfig.from_dict(old)
    assert config.attention == ("mixed" if attention else "none")
    assert config.refinement == ("frb" if frb else "time_mean")
    assert (config.shortcut, config.polarity, config.readout, config.learn_thresholds) == (
        "analog",
        "on",
        "analog",
        False,
    )


@pytest.mark.parametrize(
    "name", ["block", "norm", "shortcut", "polarity", "attention", "upsampling", "refinement", "coding", "readout"]
)
def test_unknown_choices_are_refused_with_those_there_are(name):
    known = getattr(ESDNetConfig(), name)
    with pytest.raises(UserError, match=rf"^config: {name} must be one of .*{known}.*, found 'odd'$"):
        ESDNetConfig(**{name: "odd"})


@pytest.mark.parametrize("block", ["ms_resnet", "sew_resnet", "ann_resnet"])
@pytest.mark.parametrize("choice", [{"shortcut": "spikes"}, {"polarity": "on_off"}])
def test_choices_of_srb_are_refused_for_other_blocks(block, choice):
    with pytest.raises(UserError, match=f"shortcut and polarity belong to block srb, found block {block}"):
        ESDNetConfig(block=block, **choice)


SPIKE_DRIVEN = {
    "shortcut": "spikes",
    "polarity": "on_off",
    "learn_thresholds": True,
    "attention": "static",
    "upsampling": "nearest",
    "refinement": "time_weights",
    "coding": "features",
}


@pytest.mark.parametrize(
    ("name", "released", "size"),
    [
        ("tiny_spike_driven", "tiny", {}),
        ("small_spike_driven", "small_released", {}),
        ("wide_spike_driven", "released", {"dim": 32}),
        ("spike_driven", "released", {}),
    ],
)
def test_spike_driven_presets_differ_from_the_released_ones_in_these_fields_only(name, released, size):
    one, other = asdict(preset(name)), asdict(preset(released))
    assert {key: value for key, value in one.items() if value != other[key]} == {**SPIKE_DRIVEN, **size}
    assert one["membrane_decay"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readout": "spikes"}, "readout spikes leaves nothing for refinement frb"),
        ({"block": "ann_resnet", "learn_thresholds": True}, "learn_thresholds needs spiking neurons, found block ann"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        ESDNetConfig(**changes)
