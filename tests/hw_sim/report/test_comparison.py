"""Two reports side by side: layers by name, ratios that are ratios, and prices that are the same for both."""

from __future__ import annotations

import pytest

from hw_sim.backends import simulator
from hw_sim.pricing.load import load_model
from hw_sim.pricing.prices import load_prices
from hw_sim.report.comparison import compare_reports, pair_by_name
from hw_sim.report.energy_report import Run, build_report


@pytest.fixture(scope="module")
def reports(tiny_network, spike_driven_network, photo):
    """Of the released and the spike-driven tiny network, at prices of their own each."""

    def report(network, prices):
        result = simulator.run(network, photo, precision="float64")
        run = Run("x.png", network.name, "simulator", "float64", 4, 0, 8, 1, result.executed_size, 0.1)
        return build_report(network, result.counts, run, load_prices(prices)).to_dict()

    return report(tiny_network, "paper"), report(spike_driven_network, "horowitz_int8")


@pytest.fixture(scope="module")
def found(reports):
    return compare_reports(*reports, load_prices("paper"))


def layers(*names):
    return [{"name": name} for name in names]


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ("abc", "abc", "a b c"),
        ("abc", "axbc", "a x+ b c"),
        ("abc", "xabc", "x+ a b c"),
        ("abc", "abcx", "a b c x+"),
        ("abc", "xyz", "x+ y+ z+ a- b- c-"),
        ("abc", "bxac", "a b x+ c"),  # moved: what follows it stays behind the furthest that has come
        ("abc", "", "a- b- c-"),
        ("", "ab", "a+ b+"),
    ],
)
def test_layers_are_paired_by_name_in_the_order_of_the_first(first, second, order):
    signs = {(False, True): "-", (True, False): "+", (False, False): ""}
    pairs = pair_by_name(layers(*first), layers(*second))
    assert " ".join(name + signs[a is None, b is None] for name, (a, b) in pairs.items()) == order


def test_every_layer_of_both_is_there_once(found, reports):
    first, second = ({layer["name"] for layer in report["layers"]} for report in reports)
    assert [pair.name for pair in found.pairs] == list(dict.fromkeys(pair.name for pair in found.pairs))
    assert {pair.name for pair in found.pairs if pair.where == "both"} == first & second
    assert {pair.name for pair in found.pairs if pair.where == "a"} == first - second
    assert {pair.name for pair in found.pairs if pair.where == "b"} == second - first


def test_both_are_priced_by_the_same_list_whatever_they_were_made_with(found, reports):
    prices = load_prices("paper")
    expected = tuple(prices.energy_j(report["totals"]) * 1e6 for report in reports)
    assert found.energies_uj == pytest.approx(expected)
    assert reports[1]["totals"]["energy_uj"] != pytest.approx(expected[1])
    sums = [sum(pair.energies_uj[side] for pair in found.pairs) for side in (0, 1)]
    assert sums == pytest.approx(expected)


def test_a_ratio_of_bounds_is_no_answer(found, reports):
    models = {(pair.title, pair.variant): pair for pair in found.models}
    stated = "as its source states it"
    loihi = models[load_model("loihi1").title, stated]
    assert loihi.energies[0].unpriced  # MACs
    assert loihi.ratio is None
    paper = models[load_model("paper").title, stated]
    assert paper.ratio == pytest.approx(found.energies_uj[1] / found.energies_uj[0])
    same = compare_reports(reports[0], reports[0], load_prices("paper"))
    assert {pair.ratio for pair in same.models} <= {1.0, None}


def test_own_prices_are_a_model_of_both(reports, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[mac]\npj = 2\nsource = 'mine'\ngrade = 'guess'\n[ac]\npj = 1\nsource = 'mine'\ngrade = 'guess'\n")
    found = compare_reports(*reports, load_prices(str(path)))
    assert found.models[0].title == "mine (own prices)"
    energies = [energy.total_j * 1e6 for energy in found.models[0].energies]
    assert energies == pytest.approx(found.energies_uj)


def test_another_input_is_said(reports, found):
    assert found.same_input
    other = {**reports[1], "executed_size": [64, 64]}
    assert not compare_reports(reports[0], other, load_prices("paper")).same_input


def test_what_was_run_is_said_in_words(found, reports):
    height, width = reports[0]["executed_size"]
    rows = {title: said for title, *said in found.run_rows()}
    assert rows["executed size"] == [f"{height}x{width}"] * 2
    assert rows["tile"] == ["whole", "whole"]
    assert rows["network"] == [report["network"] for report in reports]
    lacking = compare_reports(reports[0], {k: v for k, v in reports[1].items() if k != "tile"}, load_prices("paper"))
    assert {title: said for title, *said in lacking.run_rows()}["tile"] == ["whole", ""]


def test_the_record_holds_all_of_it(found):
    record = found.to_record()
    assert [run["network"] for run in record["runs"]] == ["tiny", "tiny"]
    assert len(record["layers"]) == len(found.pairs)
    row = next(row for row in record["layers"] if row["in"] == "b")
    assert row["a"] is None
    assert row["b"]["kind"]
    assert record["totals"]["energy_uj"] == list(found.energies_uj)
    assert {"title", "variant", "energy_uj", "unpriced", "ratio"} == record["models"][0].keys()
