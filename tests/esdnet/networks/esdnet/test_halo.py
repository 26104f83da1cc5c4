"""What ESDNet says of its halo is what its layer graph says, for every configuration that there is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from esdnet.networks.architectures import PRESETS, build
from esdnet.networks.esdnet.ablations import TABLES
from esdnet.networks.esdnet.config import ESDNetConfig, spike_driven
from esdnet.networks.esdnet.model import ESDNet
from export.graph import receptive_field
from export.readers.esdnet import lower

SMALL = ESDNetConfig(dim=1, steps=1, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))


def agrees(config: ESDNetConfig) -> bool:
    """Whether graph and configuration say the same; True or False: whether there is a halo."""
    model = ESDNet(config)
    network = lower(model)
    assert bool(model.without_halo) == bool(receptive_field.image_wide(network)) == (model.halo is None)
    if model.halo is None:
        return False
    assert model.halo == receptive_field.find_halo(network)
    return True


def test_every_combination() -> None:
    changes = {
        "encoder_blocks": [(2, 1, 3)],
        "decoder_blocks": [(1, 1, 1), (3, 2, 1)],
        "upsampling": ["bilinear", "nearest"],
        "attention": ["none", "static", "mixed"],
        "refinement": ["time_mean", "time_weights", "frb"],
    }
    configs = [replace(SMALL, **dict(zip(changes, values, strict=True))) for values in product(*changes.values())]
    assert sum(map(agrees, configs)) == 2 * 2 * 2 * 2


def test_blocks_and_what_the_output_reads() -> None:
    for block in ("ms_resnet", "sew_resnet", "ann_resnet"):
        assert agrees(replace(SMALL, block=block, attention="none", refinement="time_mean"))
    assert agrees(replace(SMALL, readout="spikes", attention="none", refinement="time_weights"))
    for table in TABLES.values():
        for row in table.rows:
            agrees(replace(row.config, dim=2, steps=1))


def test_a_learnt_gate_looks_around_and_the_rain_mask_at_everything() -> None:
    blocks = {"encoder_blocks": [(1, 1, 1), (2, 1, 3), (3, 2, 1)], "decoder_blocks": [(1, 1, 1), (3, 2, 1)]}
    for encoder, decoder in product(*blocks.values()):
        free = replace(spike_driven(SMALL), encoder_blocks=encoder, decoder_blocks=decoder)
        gated = replace(free, gate="learnt")
        assert agrees(free)
        assert agrees(gated)
        before, with_gate = ESDNet(free).halo, ESDNet(gated).halo
        assert before is not None
        assert with_gate is not None
        assert all(8 <= more - less <= 16 for less, more in zip(before, with_gate, strict=True))
        assert not agrees(replace(free, gate="morphological"))


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    config = PRESETS[name]
    if isinstance(config, ESDNetConfig):
        assert agrees(replace(config, dim=1, steps=1)) == ("spike_driven" in name or "gated" in name)
    else:
        model = build(config)
        assert model.halo is None
        assert model.without_halo
