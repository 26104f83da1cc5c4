"""Two runs side by side in headless Chromium: both repriced to what Python says, sorted, filtered, nothing loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hw_sim import compare, energy
from hw_sim.pricing.counted import counted_of
from hw_sim.pricing.equations import price
from hw_sim.pricing.load import load_model
from hw_sim.pricing.scaling import AC_FACTORS, scaled
from tests.browser import Page, shown

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SAMPLE = Path(__file__).parents[4] / "esdnet" / "sample" / "rainy_64.png"
RUNS = {
    "released": ("--checkpoint", "small_released"),
    "spike_driven": ("--checkpoint", "small_spike_driven"),
    "int8": ("--checkpoint", "small_released", "--precision", "int8"),
    "dual_stage": ("--checkpoint", "small_dual_stage"),
}
PAIRS = [("released", "spike_driven"), ("released", "int8"), ("dual_stage", "released")]


@pytest.fixture(scope="module")
def folder(browser, tmp_path_factory):
    """Reports of the bundled crop, and pages of pairs of them."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, options in RUNS.items():
        assert energy.main(["--image", str(SAMPLE), *options, "--json", str(folder / f"{name}.json")]) == 0
    for a, b in PAIRS:
        reports = [str(folder / f"{name}.json") for name in (a, b)]
        assert compare.main([*reports, "--html", str(folder / f"{a}_{b}.html")]) == 0
    return folder


@pytest.fixture
def page(browser, folder):
    return Page(browser, folder / "released_spike_driven.html")


@pytest.fixture(scope="module")
def reports(folder):
    return [json.loads((folder / f"{name}.json").read_text()) for name in ("released", "spike_driven")]


@pytest.mark.parametrize("look", [(1280, False), (1280, True), (400, False)])
@pytest.mark.parametrize("pair", PAIRS)
def test_no_page_complains_loads_anything_or_is_wider_than_the_screen(browser, folder, pair, look):
    page = Page(browser, folder / f"{pair[0]}_{pair[1]}.html", *look)
    for control in ("#scale", "#theme", "#theme", "#pair-table thead button"):
        page.js("document.querySelector(arguments[0]).click()", control)
    page.set("#prices", "4")
    assert page.complaints() == []
    assert page.requests() == []
    assert page.js("return document.documentElement.scrollWidth <= window.innerWidth")
    assert page.js("return [...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('canvas'))")


@pytest.mark.parametrize("ac", [16, 26])
@pytest.mark.parametrize("name", ["paper", "lemaire2022", "loihi1"])
def test_both_are_repriced_to_what_python_says(page, reports, name, ac):
    page.set("#axis-ac", str(ac))
    model = scaled(load_model(name), AC_FACTORS[ac], 1.0)
    page.set("#prices", page.js("return String(ROWS.findIndex((row) => row.title === arguments[0]))", model.title))
    first, second = (price(model, counted_of(report).layers) for report in reports)
    for side, energy_of in (("a", first), ("b", second)):
        sign = "> " if energy_of.unpriced else ""
        assert page.text(f"#energy-{side}") == f"{sign}{shown(energy_of.total_j)} uJ"
    ratio = page.text("#ratio")
    if first.unpriced or second.unpriced:
        assert ratio == "no answer"
    else:
        assert float(ratio.rstrip("x")) == pytest.approx(second.total_j / first.total_j, rel=5e-3)
    assert page.js("return document.querySelector('#model-table .chosen th').textContent") == model.title


def test_layers_stand_side_by_side_and_lack_what_is_not_there(page, reports):
    energies = [{layer["name"]: layer["energy_uj"] * 1e-6 for layer in report["layers"]} for report in reports]
    columns = [dict(zip(page.column("#pair-table", 0), page.column("#pair-table", at), strict=True)) for at in (7, 8)]
    assert len(columns[0]) > 100
    for side, texts in enumerate(columns):
        assert texts == {name: shown(energies[side][name]) if name in energies[side] else "" for name in texts}
    for where, names in (("a", set(energies[0]) - set(energies[1])), ("b", set(energies[1]) - set(energies[0]))):
        page.set("#filter-where", where)
        assert set(page.column("#pair-table", 0)) <= names
    page.set("#filter-where", "both")
    page.set("#filter", "LEVEL2.0.residual.3")
    assert page.column("#pair-table", 0) == ["encoder_level2.0.residual.3", "decoder_level2.0.residual.3"]


def test_sorted_by_the_ratio_what_has_none_is_last(page):
    page.js("document.querySelector('#pair-table thead th:nth-child(10) button').click()")
    ratios = [text.rstrip("x").replace(",", "") for text in page.column("#pair-table", 9)]
    having = [float(ratio) for ratio in ratios if ratio]
    assert having == sorted(having, reverse=True)
    assert not any(ratios[len(having) :])
    assert having[0] > 1 > having[-1]
