"""The arithmetic of the page: its own script, run by node, gives Python's figures at every position tried."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import pytest

from hw_sim.pricing.all_models import price_all, verdict_words
from hw_sim.pricing.ann import as_ann
from hw_sim.pricing.equations import EQUATIONS, price
from hw_sim.pricing.load import load_model
from hw_sim.pricing.scaling import scaled
from hw_sim.pricing.sensitivity import sensitivity
from hw_sim.pricing.verdicts import compare, variants
from hw_sim.report.page.write import FOLDER
from tests.hw_sim.pricing.test_lemaire import NETWORK
from tests.hw_sim.pricing.test_sensitivity import REPORT, start_of
from tests.tolerances import ENERGY

PROGRAM = """
const { tables, positions } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const { axes, rows } = tables, sides = ["own", "reference"];
console.log(JSON.stringify(positions.map((position) => rows.map((row) => ({
  network: energyAt(row, "network", axes, position),
  own: energyAt(row, "own", axes, position),
  reference: energyAt(row, "reference", axes, position),
  layers: layersAt(row, axes, position),
  parts: partsAt(row, axes, position),
  verdicts: sides.map((side) => verdictAt(row, side, axes, position)),
  words: sides.map((side) => verdictWords(verdictAt(row, side, axes, position))),
  ratio: ratioAt(row, axes, position),
})))));
"""
MOVED = ((0, 10, 0, 0), (32, 10, 1, 4), (16, 0, 2, 0), (11, 14, 1, 6), (20, 5, 0, 1))


@pytest.fixture(scope="module")
def found():
    return price_all(REPORT)


@pytest.fixture(scope="module")
def tables(found):
    return sensitivity(found)


def in_node(tables, positions):
    """What the page's script computes of the tables at these positions."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's script cannot be run")
    script = "".join((FOLDER / "assets" / name).read_text(encoding="utf-8") for name in ("format.js", "reprice.js"))
    done = subprocess.run(
        [node, "-e", script + PROGRAM], input=json.dumps({"tables": tables, "positions": positions}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_where_the_sliders_start_the_page_has_the_rows_of_the_table(found, tables):
    (rows,) = in_node(tables, [start_of(tables)])
    asked = [row for row in found.rows if row.variant == "as its source states it" or "element" in row.variant]
    assert len(rows) == len(asked) > 15
    for row, expected in zip(rows, asked, strict=True):
        assert row["network"] == pytest.approx(expected.energy.total_j, rel=ENERGY)
        assert row["own"] == pytest.approx(expected.own_ann.total_j, rel=ENERGY)
        assert row["reference"] == pytest.approx(expected.reference.total_j, rel=ENERGY)
        python = (expected.against_own, expected.against_reference)
        assert row["words"] == [verdict_words(verdict) for verdict in python]
        for verdict, record in zip(row["verdicts"], (each.to_record() for each in python), strict=True):
            assert verdict["ratio"] == (record["ratio"] and pytest.approx(record["ratio"], rel=ENERGY))
            price_pj = record["break_even_mac_pj"]
            assert verdict["break_even_mac_pj"] == (price_pj and pytest.approx(price_pj, rel=ENERGY))


def test_a_network_without_spikes_is_not_held_against_itself():
    """Reuse is its own, too; where a chip prices nothing of it, there is no price of a MAC to break even at."""
    tables = sensitivity(price_all(REPORT | {"facts": [layer.to_record() for layer in as_ann(NETWORK)]}))
    start = start_of(tables)
    for position in (start, start | {"reuse": 2}):
        (rows,) = in_node(tables, [position])
        assert all(row["verdicts"][0]["word"] == "no answer" for row in rows)
        assert all(row["network"] == pytest.approx(row["own"], rel=ENERGY) for row in rows)
        assert all(sum(row["layers"]) == pytest.approx(row["network"], rel=1e-5) for row in rows)
        assert all(verdict["break_even_mac_pj"] is None for row in rows for verdict in row["verdicts"])
        assert {row["verdicts"][1]["word"] for row in rows} == {"wins", "no answer"}


def test_everywhere_else_the_page_has_what_python_says_of_such_a_model(found, tables):
    axes = {axis["name"]: axis["positions"] for axis in tables["axes"]}
    positions = [dict(zip(("ac", "sram", "reuse", "time"), places, strict=True)) for places in MOVED]
    sides = {"network": NETWORK, "own": as_ann(NETWORK), "reference": found.reference.layers}
    for position, rows in zip(positions, in_node(tables, positions), strict=True):
        for row, table in zip(rows, tables["rows"], strict=True):
            model, way = asked_of(table, position)
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


def test_everywhere_layers_and_parts_are_pythons_too(tables):
    axes = {axis["name"]: axis["positions"] for axis in tables["axes"]}
    positions = [dict(zip(("ac", "sram", "reuse", "time"), places, strict=True)) for places in MOVED]
    for position, rows in zip(positions, in_node(tables, positions), strict=True):
        for row, table in zip(rows, tables["rows"], strict=True):
            model, way = asked_of(table, position)
            model = scaled(model, axes["ac"][position["ac"]], axes["sram"][position["sram"]])
            terms = EQUATIONS[model.equation].layer_terms
            expected = [sum(terms(model, layer, way.network).joules.values()) for layer in NETWORK]
            assert row["layers"] == pytest.approx(expected, rel=1e-5, abs=1e-18), (model.name, position)
            assert sum(part["joules"] for part in row["parts"]) == pytest.approx(row["network"], rel=ENERGY)


def asked_of(table, position):
    """The model of a row, and the way in which the slider of reuse asks it."""
    model = load_model(table["model"])
    ways = variants(model)
    if model.equation == "lemaire2022":
        return model, ways[position["reuse"]]
    return model, next(way for way in ways if way.network.everything == table["everything"])
