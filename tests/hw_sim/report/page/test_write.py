"""The page as a file: its data, what it leaves out where there is nothing, its size, and names that are markup."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from hw_sim.backends import simulator
from hw_sim.backends.spike_maps import SpikeMaps
from hw_sim.pricing.all_models import price_all
from hw_sim.pricing.prices import available, load_prices
from hw_sim.report.energy_report import Run, build_report
from hw_sim.report.page import write
from hw_sim.report.page.pictures import Pictures
from hw_sim.report.page.write import write_report

SECTIONS = [
    "totals", "pictures", "spikes", "graph", "blocks", "rates", "layers", "models", "assumptions",
]  # fmt: skip
WITHOUT_PICTURES = [name for name in SECTIONS if name not in ("pictures", "spikes")]


@pytest.fixture(scope="module")
def run(spike_driven_network, photo):
    """A report, and the pictures and maps of the run."""
    result = simulator.run(spike_driven_network, photo, precision="float64", keep_maps=True)
    size = result.executed_size
    facts = Run("x.png", "net", "simulator", "float64", 4, 0, 8, 1, size, 0.1)
    report = build_report(spike_driven_network, result.counts, facts, load_prices("paper")).to_dict()
    maps = SpikeMaps(size)
    maps.add(result.spike_maps(), (slice(0, size[0]), slice(0, size[1])))
    return report, Pictures(photo.transpose(1, 2, 0), result.output.transpose(1, 2, 0), maps)


def written(tmp_path, report, pictures=None, against=None, command="energy.py --html x.html"):
    path = tmp_path / "page.html"
    write_report(path, report, price_all(report, against), command, pictures)
    return path.read_text(encoding="utf-8")


def data_of(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(data)


def sections_of(page):
    return re.findall(r'<section id="(\w+)">', page)


def test_a_report_with_pictures_has_every_section(run, tmp_path):
    page = written(tmp_path, *run, against="nafnet")
    assert sections_of(page) == SECTIONS
    assert re.findall(r'<a href="#(\w+)">', page) == SECTIONS
    data = data_of(page)
    assert data["spikes"]["layers"].keys() == {layer["name"] for layer in data["layers"] if layer["kind"] == "neuron"}
    assert data["prices"]["rows"][data["prices"]["start"]]["model"] == "paper"
    assert "energy.py --html x.html" in page
    for line in run[0]["assumptions"]:
        assert line.replace("'", "&#39;") in page


def test_what_is_not_there_is_left_out_not_empty(run, tmp_path):
    report = run[0]
    assert sections_of(written(tmp_path, report)) == WITHOUT_PICTURES
    unread = [layer | {"inputs": []} for layer in report["layers"]]
    page = written(tmp_path, report | {"layers": unread})
    assert sections_of(page) == [name for name in WITHOUT_PICTURES if name != "graph"]
    assert "beginGraph" not in page
    assert "beginSpikes" not in page
    silent = [facts | {"kind": "other"} for facts in report["facts"]]
    assert "rates" not in sections_of(written(tmp_path, report | {"facts": silent}))


def test_a_report_of_an_earlier_version_is_shown_with_what_it_has(run, tmp_path):
    """Saved before layers said what they read, prices what they were, and assumptions were kept."""
    old = {key: value for key, value in run[0].items() if key not in ("assumptions", "extent", "prices_pj")}
    old["layers"] = [{key: value for key, value in layer.items() if key != "inputs"} for layer in run[0]["layers"]]
    assert sections_of(written(tmp_path, old)) == [name for name in WITHOUT_PICTURES if name != "graph"]


@pytest.mark.parametrize("name", available())
def test_every_price_list_that_ships_is_a_row_with_its_energies_layer_by_layer(name, run, tmp_path):
    prices = load_prices(name)
    report = run[0] | {"prices": name, "prices_pj": prices.to_record()}
    tables = data_of(written(tmp_path, report))["prices"]
    row = tables["rows"][tables["start"]]
    assert row["model"] == name
    found = [sum(pair) for pair in zip(row["layers"]["fixed"][0][0], row["layers"]["per_ac"], strict=True)]
    assert found == pytest.approx([prices.energy_j(layer | counts(layer)) for layer in report["layers"]], rel=1e-6)


def counts(layer):
    return {"adds": layer["adds"], "muls": layer["muls"]}


def test_prices_of_the_users_own_are_a_row_and_where_the_page_begins(run, tmp_path):
    report = run[0] | {"prices": "paper", "prices_pj": {"mac": 2.0, "neuron_update": 1.5}}
    tables = data_of(written(tmp_path, report))["prices"]
    row = tables["rows"][tables["start"]]
    assert row["title"] == "paper (own prices)"
    totals = report["totals"]
    expected = (totals["macs"] * 2.0 + totals["neuron_updates"] * 1.5) * 1e-12
    fixed, per_ac = row["sides"]["network"]["energies"][0][0]
    assert fixed + per_ac == pytest.approx(expected)
    assert [part["label"] for part in row["parts"]] == ["analog MACs", "neuron updates"]
    assert row["lower_bound"]
    assert row["grade"] == "yours"


def test_names_and_commands_that_are_markup_stay_text(run, tmp_path):
    report = run[0]
    evil = "</script><img src=x onerror=alert(1)>"
    layers = [
        layer | {"name": evil if layer["name"] == report["layers"][-1]["name"] else layer["name"]}
        for layer in report["layers"]
    ]
    facts = [*report["facts"][:-1], report["facts"][-1] | {"name": evil}]
    page = written(tmp_path, report | {"layers": layers, "facts": facts, "image": evil, "network": evil}, command=evil)
    assert "<img src=x" not in page
    assert data_of(page)["layers"][-1]["name"] == evil


def test_a_page_that_would_be_too_large_has_coarser_maps(run, tmp_path, monkeypatch):
    report, pictures = run
    whole = data_of(written(tmp_path, report, pictures))["spikes"]
    assert whole["layers"]["encoder_level1.0.residual.0.on"]["cells"] == [24, 32]
    monkeypatch.setattr(write, "PAGE_BYTES", 1)
    monkeypatch.setattr(write, "LEAST", 12)
    coarse = data_of(written(tmp_path, report, pictures))["spikes"]
    assert coarse["most"] == 12
    assert coarse["coarser"]
    assert coarse["layers"]["encoder_level1.0.residual.0.on"]["cells"] == [6, 8]
    rates = [layer["elsewhere"] for layer in coarse["layers"].values()]
    assert rates == [layer["elsewhere"] for layer in whole["layers"].values()]  # of all cells, however coarse the map


def test_what_could_not_be_counted_is_said_at_the_top(run, tmp_path):
    page = written(tmp_path, run[0] | {"unknown": {"Einsum": 1200, "Foo": 3}})
    assert "in no figure of this page: Einsum (1,200 values), Foo (3 values)." in page
    assert "in no figure of this page" not in written(tmp_path, run[0] | {"unknown": {}})


def test_nothing_in_a_page_comes_from_elsewhere(run, tmp_path):
    page = re.sub("<script>.*?</script>", "", written(tmp_path, *run, against="nafnet"), flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert not re.findall(r"url\(|@import|https?:", page)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_maps_are_of_the_run(run, photo, spike_driven_network):
    """The maps that a page shows add up to the spikes that its table counts."""
    report, pictures = run
    for name, mean in pictures.maps.means().items():
        (layer,) = (layer for layer in report["layers"] if layer["name"] == name)
        assert int(np.rint(mean.sum(dtype=np.float64))) == layer["spikes"]
