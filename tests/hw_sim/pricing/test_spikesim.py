from __future__ import annotations

import pytest

from hw_sim.pricing.equations import price
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.load import load_model
from tests.tolerances import ENERGY

SPIKESIM = load_model("spikesim")


def conv(**fields):
    sizes = {"input_shape": (65, 4, 6), "output_shape": (128, 4, 6), "kernel": (3, 3)}
    return LayerFacts("c", "conv", steps=2, reads="spike", **sizes, **fields)


def test_only_geometry_counts():
    silent, busy = price(SPIKESIM, [conv()]), price(SPIKESIM, [conv(acs=10**6, events_in=10**4)])
    assert silent == busy
    # 2 steps, 24 positions, 65 channels on two crossbars, 128 on two: 192 cycles of
    # 8 (9 x 1.76423 + 8 (2.03084 + 0.094245)) + 8 x 16 x 1.15e-6 + 397 + 8 x 0.2 + 4.64 + 157.12 + 5.096 = 828.486 pJ
    assert silent.total_j == pytest.approx(192 * 828.4861472e-12, rel=ENERGY)


def test_what_its_source_does_not_define_is_unpriced():
    matrix = LayerFacts("fc", "linear", reads="spike", acs=5)
    depthwise = conv(groups=5, acs=7)
    assert price(SPIKESIM, [matrix, depthwise]).unpriced == {"acs": 12}
    assert price(SPIKESIM, [LayerFacts("sum", "other", adds=3)]).left_out == {"adds": 3}
