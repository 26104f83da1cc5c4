"""The charts, asked what they draw: energies side by side, shares that add up, every step of a firing rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

pytest.importorskip("matplotlib")

import itertools

from hw_sim.backends import simulator
from hw_sim.pricing.prices import load_prices
from hw_sim.report.energy_report import Run, build_report
from hw_sim.report.plots import COUNTED, chart_names, energy_by_block, firing_rates, write_plots


@pytest.fixture(scope="module")
def counts(either_network, photo):
    return simulator.run(either_network, photo, precision="float64").counts


def report_of(network, counts, prices="paper"):
    run = Run("x.png", "net", "simulator", "float64", 4, 0, 8, 1, (32, 24), 0.1)
    return build_report(network, counts, run, load_prices(prices))


def bars_of(axes):
    return {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}


@pytest.mark.parametrize("prices", ["paper", "horowitz_fp32", "loihi1"])
def test_bars_are_the_energies_of_their_blocks(either_network, counts, prices):
    report = report_of(either_network, counts, prices)
    left, right = energy_by_block(report).axes
    bars = bars_of(left)
    priced = [kind for kind in COUNTED if kind[0] in report.prices.prices and report.total()[kind[1]]]
    assert list(bars) == [label for _, _, label, _ in priced]
    for price, count, label, _ in priced:
        expected = report.total()[count] * report.prices.prices[price].energy_j * 1e6
        assert sum(bars[label]) == pytest.approx(expected)
    assert left.get_xscale() == "log"
    names = [label.get_text() for label in left.get_yticklabels()]
    assert "encoder_level1.0" in names
    assert len(names) == len(set(names))
    place = names.index("encoder_level1.0")
    block = report.energy_j(lambda row: row.block.removesuffix(".attn") == "encoder_level1.0") * 1e6
    assert sum(widths[place] for widths in bars.values()) == pytest.approx(block)
    (shares,) = bars_of(right).values()
    assert sum(shares) == pytest.approx(100)


def test_acs_are_seen_beside_macs(either_network, counts):
    """Bars lie side by side, none on or before another: a log scale cannot stack."""
    left = energy_by_block(report_of(either_network, counts)).axes[0]
    spans = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bars in left.containers for bar in bars)
    assert all(after >= end - 1e-9 for (_, end), (after, _) in itertools.pairwise(spans))
    assert {bar.get_x() for bars in left.containers for bar in bars} == {0}


def test_rates_and_each_of_their_steps(either_network, counts):
    report = report_of(either_network, counts)
    axes = firing_rates(report).axes[0]
    neurons = [node.name for node in either_network.neurons]
    assert [label.get_text() for label in axes.get_yticklabels()] == neurons
    (rates,) = bars_of(axes).values()
    fired = {name: counts[name] for name in neurons}
    assert rates == pytest.approx([100 * of.spikes.sum() / of.neuron_updates.sum() for of in fired.values()])
    dots = sorted(tuple(dot) for group in axes.collections for dot in group.get_offsets().tolist())
    steps = [
        (100 * s / u, place)
        for place, of in enumerate(fired.values())
        for s, u in zip(of.spikes, of.neuron_updates, strict=True)
        if of.spikes.any()
    ]
    assert dots == [pytest.approx(step) for step in sorted(steps)]


def test_a_run_in_which_nothing_is_priced_or_fires_is_drawn_too(either_network, counts, tmp_path):
    report = report_of(either_network, counts)
    rows = tuple(replace(row, counts={**row.counts, "spikes": 0, "macs": 0, "acs": 0}) for row in report.rows)
    write_plots(tmp_path, replace(report, rows=rows))
    for path in chart_names(tmp_path):
        with Image.open(path) as picture:
            assert picture.width > 500
