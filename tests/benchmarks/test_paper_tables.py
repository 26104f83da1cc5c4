from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.paper_tables import (
    ESDNET_UJ,
    FLOP_J,
    NAFNET_UJ,
    dense_macs,
    main,
    profiler_totals,
    released,
    text_rule_uj,
)
from export.readers.esdnet import lower

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def network():
    return lower(released())


def test_what_the_profiler_sees_is_what_the_paper_prints(network):
    operations, parameters = profiler_totals(network)
    assert parameters == 165_911  # 0.165 M, and to the digit what the public issue 11 reports
    assert round(operations / 1e9, 6) == 7.320375
    assert round(operations * FLOP_J * 1e6, -1) == ESDNET_UJ  # in its four digits
    assert f"{1 - ESDNET_UJ / NAFNET_UJ:.0%}" == "54%"


def test_the_largest_part_by_hand(network):
    """The refinement's three 3x3 convolutions at 96 channels, 256 x 256: 96*96 + 96*12 + 12*96 taps of 9."""
    by_hand = 256 * 256 * 9 * (96 * 96 + 2 * 96 * 12)
    assert by_hand == 6_794_772_480
    assert profiler_totals(network)[0] > by_hand > 0.92 * profiler_totals(network)[0]


def test_growth_with_t_is_average_pooling_alone():
    """Two pools a block read all T*C*H*W values; in units of 256*256*48: 4 blocks + 4/2 + 10/4 + 2/2 + 2*2 = 13.5."""
    per_step = 2 * 13.5 * 48 * 256 * 256
    seen = {steps: profiler_totals(lower(released(steps)))[0] for steps in (4, 8)}
    assert (seen[8] - seen[4]) / 4 == pytest.approx(per_step, rel=1e-5)  # the rest: matrices of T x T/4


def test_the_whole_network(network):
    padded, valid = dense_macs(network)
    assert network.model_parameters == 12_811_463
    assert (round(padded / 1e9, 1), round(valid / 1e9, 1)) == (492.3, 486.6)
    assert f"{text_rule_uj(network):.4g}" == "9.714e+04"


def test_the_documentation_holds_what_the_command_prints(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 11
    assert printed in (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
