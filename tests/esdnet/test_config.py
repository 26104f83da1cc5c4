from __future__ import annotations

import pytest

from esdnet.config import PRESETS, ESDNetConfig, preset
from esdnet.errors import UserError


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
