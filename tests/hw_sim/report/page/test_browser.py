"""Reports opened in headless Chromium: switches reprice to what Python says, tables sort and filter, nothing is loaded,
nothing complains, in light, dark and on a phone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hw_sim.energy import main
from hw_sim.pricing.counted import counted_of
from hw_sim.pricing.equations import EQUATIONS, price
from hw_sim.pricing.load import load_model
from hw_sim.pricing.scaling import AC_FACTORS, MEMORY_FACTORS, scaled
from hw_sim.pricing.verdicts import VARIANTS
from tests.browser import Page, shown

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SAMPLE = Path(__file__).parents[4] / "esdnet" / "sample" / "rainy.png"
MODULE = """
import snntorch as snn
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), snn.Leaky(beta=0.9, init_hidden=True, threshold=0.3),
                         nn.Linear(20, 4), snn.Leaky(beta=0.9, init_hidden=True, threshold=0.2))
"""


@pytest.fixture(scope="module")
def folder(browser, tmp_path_factory):
    """Reports of every kind: both bundled networks, tiles, a sequence, an ONNX model, a saved run."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("small_released", "small_spike_driven"):
        made(folder / name, "--image", str(SAMPLE), "--checkpoint", name)
    made(folder / "tiles", "--image", str(SAMPLE), "--checkpoint", "small_spike_driven", "--tile", "64")
    (folder / "net.py").write_text(MODULE)
    np.save(folder / "x.npy", np.random.default_rng(0).random((300, 12)) < 0.3)
    made(folder / "sequence", "--network", f"{folder}/net.py:network", "--input", str(folder / "x.npy"))
    saved = ["--from", str(folder / "tiles.json"), "--prices", "all", "--html", str(folder / "saved.html")]
    assert main(saved) == 0
    return folder


def made(path: Path, *options: str) -> None:
    assert main([*options, "--json", f"{path}.json", "--html", f"{path}.html"]) == 0


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "small_released.json").read_text())


@pytest.fixture
def page(browser, folder):
    return Page(browser, folder / "small_released.html")


@pytest.mark.parametrize("name", ["small_released", "small_spike_driven", "tiles"])
def test_a_photos_page_is_under_five_megabytes(folder, name):
    assert (folder / f"{name}.html").stat().st_size < 5_000_000


@pytest.mark.parametrize("look", [(1280, False), (1280, True), (400, False), (400, True)])
@pytest.mark.parametrize("name", ["small_released", "small_spike_driven", "tiles", "sequence", "saved"])
def test_no_page_complains_loads_anything_or_is_wider_than_the_screen(browser, folder, name, look):
    page = Page(browser, folder / f"{name}.html", *look)
    for section in page.js("return [...document.querySelectorAll('section')].map((section) => section.id)"):
        page.js("document.getElementById(arguments[0]).scrollIntoView()", section)
    for control in ("#scale", "#theme", "#theme", "#layer-table tbody button", "#layer-table thead button"):
        page.js("document.querySelector(arguments[0]).click()", control)
    page.set("#prices", "4")
    assert page.complaints() == []
    assert page.requests() == []
    assert page.js("return document.documentElement.scrollWidth <= window.innerWidth")
    charts = page.js(
        "return [...document.querySelectorAll('.chart')].map((chart) => chart.querySelector('canvas') !== null)"
    )
    assert charts
    assert all(charts)


def test_an_onnx_models_page(browser, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper

    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["p"], name="product"),
        helper.make_node("Relu", ["p"], ["y"], name="relu"),
    ]
    weights = onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    shapes = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, n]) for name, n in (("a", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "m.onnx"))
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    made(tmp_path / "onnx", "--network", str(tmp_path / "m.onnx"), "--input", str(tmp_path / "x.npy"))
    page = Page(browser, tmp_path / "onnx.html")
    layers = json.loads((tmp_path / "onnx.json").read_text())["layers"]
    assert page.column("#layer-table", 0) == [layer["name"] for layer in layers]
    assert page.column("#layer-table", 6)[0] == "24"
    assert page.js("return document.querySelector('#graph, #pictures, #spikes, #rates')") is None
    assert page.text("#model-table thead").count("reference") == 0
    assert page.complaints() == []


def test_a_page_that_loads_something_is_noticed(browser, tmp_path):
    (tmp_path / "loads.html").write_text("<img src='http://127.0.0.1:9/x.png'>")
    page = Page(browser, tmp_path / "loads.html")
    assert page.requests() == ["http://127.0.0.1:9/x.png"]
    assert "ERR_" in page.complaints()[0]


def test_it_begins_with_what_the_console_printed(page, report):
    assert page.text("#energy") == f"{shown(report['totals']['energy_uj'] * 1e-6)} uJ"
    parts = dict(zip(page.column("#parts", 0), page.column("#parts", 1), strict=True))
    for label, count in (("analog MACs", "macs"), ("spike ACs", "acs"), ("signs (spikes)", "spikes")):
        assert parts[label] == f"{report['totals'][count]:,}"
    energies = dict(zip(page.column("#parts", 0), page.column("#parts", 2), strict=True))
    for label, place in (("on neurocores", "neurocore"), ("on the host processor", "host")):
        spent = sum(layer["energy_uj"] for layer in report["layers"] if layer["placement"] == place)
        assert energies[label] == shown(spent * 1e-6)
    named = dict(zip(page.column("#layer-table", 0), page.column("#layer-table", 8), strict=True))
    working = [
        layer for layer in report["layers"] if any(layer[key] for key in ("spikes", "acs", "macs", "elementwise"))
    ]
    assert named == {layer["name"]: shown(layer["energy_uj"] * 1e-6) for layer in working}
    assert "never: its MACs exceed the ANN's" in page.text("#totals")


@pytest.mark.parametrize("ac", [16, 24])
@pytest.mark.parametrize("sram", [3, 10])
@pytest.mark.parametrize("reuse", [0, 1])
def test_switches_and_sliders_reprice_to_what_python_says(page, report, ac, sram, reuse):
    layers = counted_of(report).layers
    titles = page.js("return ROWS.map((row) => row.title)")
    for axis, place in (("ac", ac), ("sram", sram), ("reuse", reuse)):
        page.set(f"#axis-{axis}", str(place))
    for name in ("paper", "lemaire2022", "loihi1", "spikesim"):
        model = scaled(load_model(name), AC_FACTORS[ac], MEMORY_FACTORS[sram])
        conditions = VARIANTS["lemaire2022"][reuse if name == "lemaire2022" else 0].network
        page.set("#prices", str(titles.index(model.title)))
        energy = price(model, layers, conditions)
        assert page.text("#energy") == f"{'> ' if energy.unpriced else ''}{shown(energy.total_j)} uJ"
        terms = EQUATIONS[model.equation].layer_terms
        expected = {layer.name: sum(terms(model, layer, conditions).joules.values()) for layer in layers}
        found = dict(
            zip(
                page.column("#layer-table", 0),
                page.js("return layerTable.sorted(shownLayers()).map((place) => page.layers[place])"),
                strict=True,
            )
        )
        assert found == pytest.approx({layer: expected[layer] for layer in found}, rel=1e-5, abs=1e-18)
        chosen = page.js("return document.querySelector('#model-table .chosen th').textContent")
        assert chosen == model.title


def test_sliders_go_back(page):
    before = page.text("#energy")
    page.set("#axis-ac", "30")
    page.set("#prices", "3")
    moved = page.text("#energy")
    page.js("document.querySelector('#axes button').click()")
    page.js("return new Promise((done) => setTimeout(done, 50))")
    page.set("#prices", page.js("return String(DATA.prices.start)"))
    assert moved != before
    assert page.text("#energy") == before


KEYS = "return layerTable.sorted(shownLayers()).map((place) => COLUMNS[arguments[0]][1](place))"


def numbers(texts):
    return [float(text.replace(",", "")) if text else 0.0 for text in texts]


def test_the_table_sorts_by_every_column_both_ways_and_back(page):
    as_it_runs = page.column("#layer-table", 0)
    for number, title in enumerate(page.js("return COLUMNS.map(([title]) => title)")):
        button = f"#layer-table thead th:nth-child({number + 1}) button"
        assert page.text(button) == title
        orders = []
        for _ in range(2):
            page.js("document.querySelector(arguments[0]).click()", button)
            orders.append(page.js("return document.querySelector(arguments[0]).parentElement.ariaSort", button))
            column = page.column("#layer-table", number)
            values = column if number < 4 else [float(value) for value in page.js(KEYS, number)]
            assert values == sorted(values, reverse=orders[-1] == "descending"), title
        assert sorted(orders) == ["ascending", "descending"]
        page.js("document.querySelector(arguments[0]).click()", button)
        assert page.column("#layer-table", 0) == as_it_runs
    energies = numbers(page.column("#layer-table", 8))
    page.js("document.querySelector('#layer-table thead th:nth-child(9) button').click()")
    assert numbers(page.column("#layer-table", 8)) == sorted(energies, reverse=True)


def test_the_table_filters_by_name_kind_and_what_is_read(page, report):
    layers = report["layers"]
    page.set("#filter", "Encoder_Level2")
    page.set("#filter-kind", "conv")
    expected = [layer for layer in layers if layer["kind"] == "conv" and "encoder_level2" in layer["name"]]
    assert page.column("#layer-table", 0) == [layer["name"] for layer in expected]
    page.set("#filter-reads", "spike")
    expected = [layer for layer in expected if layer["input"] == "spike"]
    assert expected
    assert page.column("#layer-table", 0) == [layer["name"] for layer in expected]
    assert page.text("#shown") == f"{len(expected)} of {len(layers)} layers"
    total = page.js("return document.querySelector('#layer-table tfoot tr').cells[5].textContent")
    assert total == f"{sum(layer['acs'] for layer in expected):,}"
    page.set("#filter", "no such layer")
    assert page.column("#layer-table", 0) == []
    page.set("#filter", ""), page.set("#filter-kind", ""), page.set("#filter-reads", "")
    page.js("document.querySelector('#filter-idle').click()")
    assert page.column("#layer-table", 0) == [layer["name"] for layer in layers]


def test_maps_show_the_rates_of_the_layer_and_step(page, report):
    """Mean over the cells of the map that is drawn: the firing rate that the table counts."""
    for place, layer in enumerate(report["layers"]):
        if layer["kind"] == "neuron" and place % 3 == 0:
            rates = page.js("return ratesOf(arguments[0], 'mean')", layer["name"])
            assert sum(rates) / len(rates) == pytest.approx(layer["spikes"] / layer["neuron_updates"], rel=1e-5)
            steps = report["facts"][place]["per_step"]["spikes"]
            second = page.js("return ratesOf(arguments[0], 1)", layer["name"])
            assert sum(second) / len(second) == pytest.approx(4 * steps[1] / layer["neuron_updates"], rel=1e-5)
    page.set("#map-layer", "encoder_level2.1.residual.3")
    page.js("return new Promise((done) => setTimeout(done, 300))")
    assert page.text("#map-words").startswith("encoder_level2.1.residual.3: ")
    assert "where rain is" in page.text("#map-words")
    sizes = page.js("const c = document.querySelector('#map canvas'); return [c.width, c.height]")
    assert sizes == [192, 128]
    colours = page.js(
        "const c = document.querySelector('#map canvas');"
        "return new Set(c.getContext('2d').getImageData(0, 0, 192, 128).data).size"
    )
    assert colours > 20


def test_a_click_in_the_graph_shows_the_layer_or_the_block(page, report):
    page.js("document.getElementById('graph').scrollIntoView()")
    click = (
        "const chart = drawn.get('graph-chart'), series = chart.getModel().getSeriesByIndex(0);"
        "const spot = series.getData().getItemLayout(arguments[0]);"
        "const view = series.coordinateSystem.dataToPoint(spot), box = chart.getDom().getBoundingClientRect();"
        "return [box.left + view[0], box.top + view[1]]"
    )
    names = page.js("return DATA.pieces.map((piece) => piece.name)")
    for nodes, place, title in (
        ("blocks", names.index("encoder_level1.1"), "encoder_level1.1: "),
        ("layers", 30, report["layers"][30]["name"]),
    ):
        page.set("#graph-nodes", nodes)
        at_x, at_y = page.js(click, place)
        for kind in ("mousePressed", "mouseReleased"):
            page.browser.execute_cdp_cmd(
                "Input.dispatchMouseEvent", {"type": kind, "x": at_x, "y": at_y, "button": "left", "clickCount": 1}
            )
        assert page.text("#layer h2").startswith(title)
        assert not page.js("return document.getElementById('layer').hidden")
    page.browser.switch_to.active_element.send_keys("\ue00c")  # Escape
    assert page.js("return document.getElementById('layer').hidden")


def test_the_graph_is_coloured_by_the_prices_chosen(page):
    script = "return drawn.get('graph-chart').getOption().series[0].data.map((node) => node.value)"
    before = page.js(script)
    assert max(before) == pytest.approx(1.0)
    page.set("#prices", page.js("return String(ROWS.findIndex((row) => row.model === 'truenorth'))"))
    assert page.js(script) != before
    page.js("document.getElementById('scale').click()")
    linear = page.js(script)
    joules = page.js("return graphParts().joules")
    assert linear == pytest.approx([energy / max(joules) for energy in joules])


def test_dark_is_the_systems_or_the_switchs(browser, folder):
    back = "return getComputedStyle(document.body).backgroundColor"
    page = Page(browser, folder / "sequence.html", dark=True)
    dark = page.js(back)
    page.js("document.getElementById('theme').click()")
    light = page.js(back)
    assert page.text("#theme") == "theme: light"
    assert dark != light
    assert Page(browser, folder / "sequence.html").js(back) == light


def test_the_keyboard_reaches_every_control(page):
    """No control is skipped or traps: Tab goes through the head of the page in order, and buttons are buttons."""
    seen = []
    for _ in range(6):
        page.browser.switch_to.active_element.send_keys("\ue004")  # Tab
        seen.append(page.js("return document.activeElement.id || document.activeElement.textContent"))
    assert seen[:4] == ["to the report", "prices", "scale", "theme"]
    unnamed = page.js(
        "return [...document.querySelectorAll('button, select, input')].filter((control) =>"
        " !control.textContent && !control.labels?.length && !control.ariaLabel).map((control) => control.outerHTML)"
    )
    assert unnamed == []
    slider = page.browser.find_element("css selector", "#before-after input")
    slider.send_keys("\ue014" * 5)  # arrow right
    assert page.js("return document.getElementById('before-after').style.getPropertyValue('--shown')") == "55%"


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only")
def test_a_run_on_lava_shows_where_spikes_fire_too(browser, tmp_path):
    made(
        tmp_path / "lava",
        "--image",
        str(SAMPLE.with_name("rainy_64.png")),
        "--backend",
        "lava",
        "--checkpoint",
        "small_spike_driven",
    )
    page = Page(browser, tmp_path / "lava.html")
    assert page.js("return MAPPED.length") == page.js(
        "return DATA.layers.filter((layer) => layer.kind === 'neuron').length"
    )
    assert page.complaints() == []
