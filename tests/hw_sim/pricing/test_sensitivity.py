"""The sliders of the page: its own JavaScript, run by node, gives Python's figures at every position tried."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from hw_sim.pricing.all_models import price_all, verdict_words
from hw_sim.pricing.ann import as_ann
from hw_sim.pricing.equations import price
from hw_sim.pricing.load import load_model
from hw_sim.pricing.sensitivity import scaled, sensitivity
from hw_sim.pricing.verdicts import compare, variants
from hw_sim.report.model_page import write_page
from tests.hw_sim.pricing.test_lemaire import NETWORK
from tests.tolerances import ENERGY

REPORT = {
    "network": "three layers", "image": "x.png", "executed_size": [16, 16], "tiles": 1,
    "facts": [layer.to_record() for layer in NETWORK],
}  # fmt: skip
PROGRAM = """
const positions = JSON.parse(require("fs").readFileSync(0, "utf8"));
const { axes, rows } = SENSITIVITY, sides = ["own", "reference"];
console.log(JSON.stringify(positions.map((position) => rows.map((row) => ({
  network: energyAt(row, "network", axes, position),
  own: energyAt(row, "own", axes, position),
  reference: energyAt(row, "reference", axes, position),
  verdicts: sides.map((side) => verdictAt(row, side, axes, position)),
})))));
"""

SHOWN = """
const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
const cells = Array.from({ length: SENSITIVITY.rows.length + 1 }, () => ({
  cells: Array.from({ length: 7 }, () => ({ textContent: "", className: "" })),
}));
const elements = { sensitivity: { rows: cells } };
for (const axis of SENSITIVITY.axes) {
  elements[`axis-${axis.name}`] = { value: String(input[axis.name]) };
  elements[`at-${axis.name}`] = { textContent: "" };
}
show({ getElementById: (id) => elements[id] });
console.log(JSON.stringify({ rows: cells.slice(1).map((row) => row.cells.map((cell) => cell.textContent)),
  at: SENSITIVITY.axes.map((axis) => elements[`at-${axis.name}`].textContent) }));
"""


@pytest.fixture(scope="module")
def found():
    return price_all(REPORT)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path, REPORT, found)
    return path


def in_node(path, positions, program=PROGRAM):
    """What a program after the script of the written page prints, given these positions."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's script cannot be run")
    script = re.search(r'<script id="sensitivity-script">(.*?)</script>', path.read_text(), re.S)
    done = subprocess.run(
        [node, "-e", script[1] + program], input=json.dumps(positions), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_page_of_a_network_without_spikes_does_not_hold_it_against_itself(tmp_path):
    """Reuse is its own, too; where a chip prices nothing of it, there is no price of a MAC to break even at."""
    layers = as_ann(NETWORK)
    found = price_all(REPORT | {"facts": [layer.to_record() for layer in layers]})
    write_page(tmp_path / "page.html", REPORT, found)
    start = {axis["name"]: axis["start"] for axis in sensitivity(found)["axes"]}
    for position in (start, start | {"reuse": 2}):
        (rows,) = in_node(tmp_path / "page.html", [position])
        assert all(row["verdicts"][0]["word"] == "no answer" for row in rows)
        assert all(row["network"] == row["own"] for row in rows)
        assert all(verdict["break_even_mac_pj"] is None for row in rows for verdict in row["verdicts"])
        assert {row["verdicts"][1]["word"] for row in rows} == {"wins", "no answer"}


def test_where_the_sliders_start_the_page_has_the_rows_of_the_table(found, page):
    axes = sensitivity(found)["axes"]
    start = {axis["name"]: axis["start"] for axis in axes}
    (rows,) = in_node(page, [start])
    asked = [row for row in found.rows if row.variant == "as its source states it" or "element" in row.variant]
    assert len(rows) == len(asked) > 15
    for row, expected in zip(rows, asked, strict=True):
        assert row["network"] == pytest.approx(expected.energy.total_j, rel=ENERGY)
        assert row["own"] == pytest.approx(expected.own_ann.total_j, rel=ENERGY)
        assert row["reference"] == pytest.approx(expected.reference.total_j, rel=ENERGY)
        for verdict, python in zip(row["verdicts"], (expected.against_own, expected.against_reference), strict=True):
            record = python.to_record()
            assert verdict["word"] == record["word"]
            assert verdict["ratio"] == (record["ratio"] and pytest.approx(record["ratio"], rel=ENERGY))
            price_pj = record["break_even_mac_pj"]
            assert verdict["break_even_mac_pj"] == (price_pj and pytest.approx(price_pj, rel=ENERGY))


def test_everywhere_else_the_page_has_what_python_says_of_such_a_model(found, page):
    tables = sensitivity(found)
    axes = {axis["name"]: axis["positions"] for axis in tables["axes"]}
    positions = [
        dict(zip(("ac", "sram", "reuse", "time"), places, strict=True))
        for places in ((0, 10, 0, 0), (32, 10, 1, 4), (16, 0, 2, 0), (11, 14, 1, 6), (20, 5, 0, 1))
    ]
    sides = {"network": NETWORK, "own": as_ann(NETWORK), "reference": found.reference.layers}
    for position, rows in zip(positions, in_node(page, positions), strict=True):
        for row, table in zip(rows, tables["rows"], strict=True):
            model = load_model(table["model"])
            ways = variants(model)
            if model.equation == "lemaire2022":
                way = ways[position["reuse"]]
            else:
                way = next(way for way in ways if way.network.everything == table["everything"])
            model = scaled(model, axes["ac"][position["ac"]], axes["sram"][position["sram"]])
            seconds = axes["time"][position["time"]] or None
            energies = {
                side: price(model, layers, replace(way.network if side == "network" else way.ann, step_seconds=seconds))
                for side, layers in sides.items()
            }
            for side, energy in energies.items():
                assert row[side] == pytest.approx(energy.total_j, rel=ENERGY), (model.name, side, position)
            for side, verdict in zip(("own", "reference"), row["verdicts"], strict=True):
                expected = compare(model, NETWORK, energies["network"], sides[side], energies[side])
                assert verdict["word"] == expected.word, (model.name, side, position)


def test_the_page_shows_what_it_computes(found, page):
    """Without a browser: the elements that the script writes to stand in for the page."""
    start = {axis["name"]: axis["start"] for axis in sensitivity(found)["axes"]}
    shown = in_node(page, start, SHOWN)
    assert shown["at"] == ["as stated", "as stated", "as its source states it", "static power not priced"]
    rows = dict(zip([table["title"] for table in sensitivity(found)["rows"]], shown["rows"], strict=True))
    lemaire = next(row for row in found.rows if row.model.name == "lemaire2022")
    assert rows[lemaire.model.title][4] == verdict_words(lemaire.against_own)
    tianjic = next(row for row in found.rows if row.model.name == "tianjic")
    assert rows[tianjic.model.title][3:5] == ["no price", verdict_words(tianjic.against_own)]
    moved = in_node(page, start | {"ac": 32}, SHOWN)
    assert moved["at"][0] == "16 x"
    assert moved["rows"] != shown["rows"]


def test_a_time_given_is_where_its_slider_starts():
    axis = sensitivity(price_all(REPORT, step_seconds=2e-4))["axes"][3]
    assert axis["positions"][axis["start"]] == 2e-4
    assert axis["labels"][axis["start"]] == "0.0002 s"
