from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from esdnet.command.errors import UserError
from hw_sim.pricing.energy import STATED, Conditions
from hw_sim.pricing.equations import weakest_grade
from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.model import GRADES
from hw_sim.pricing.prices import load_prices

ROOT = Path(__file__).resolve().parents[3]
MINIMAL = """
title = "mine"
equation = "price_list"
question = "?"
scope = "all"
prices = ["operations"]
"""
MAC = """
[constants.mac]
value = 4.6
unit = "pJ"
source = "a paper"
grade = "measured"
"""


def test_nothing_heavy_is_imported_for_it():
    code = (
        "import sys, hw_sim.pricing.verdicts, hw_sim.pricing.thresholds; print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", available_models())
def test_every_model_says_what_it_answers_where_its_numbers_come_from_and_what_it_leaves_out(name):
    model = load_model(name)
    assert "?" in model.question
    assert model.scope
    assert model.assumes
    assert model.not_priced
    for constant in model.constants.values():
        assert constant.source
        assert constant.grade in GRADES
    assert all(example.source for example in model.worked_examples)


@pytest.mark.parametrize("name", ["paper", "horowitz_fp32", "horowitz_int8"])
def test_price_lists_are_the_same_as_they_were(name):
    constants, prices = load_model(name).constants, load_prices(name).prices
    assert {key: constant.si for key, constant in constants.items()} == pytest.approx(
        {key: price.energy_j for key, price in prices.items()}
    )


def test_the_grade_is_that_of_the_weakest_number_in_use():
    horowitz = load_model("horowitz_fp32")
    assert weakest_grade(horowitz, STATED) == "simulated"
    assert weakest_grade(horowitz, Conditions(everything=True)) == "our reading"  # a word is half of 64 bits
    assert weakest_grade(load_model("loihi1"), STATED) == "simulated"
    assert weakest_grade(load_model("loihi1"), Conditions(step_seconds=1e-3)) == "secondary"
    assert weakest_grade(load_model("lemaire2022_banks"), STATED) == "our reading"  # the banks


def test_a_list_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + MAC)
    model = load_model(str(path))
    assert (model.name, model.si("mac")) == ("mine", pytest.approx(4.6e-12))
    assert model.with_constants({"mac": 9.2}).si("mac") == pytest.approx(9.2e-12)


def test_an_unknown_model_names_those_there_are():
    with pytest.raises(UserError, match=r"'gold' is unknown: expected one of horowitz_fp32, .*, or a .toml file"):
        load_model("gold")


LEMAIRE = MINIMAL.replace("price_list", "lemaire2022")
SRAM = '[sram]\nlaw = "banked"\nsource = "s"\ngrade = "measured"\n'
WORDS = "".join(
    f'[constants.{name}]\nvalue = 1\nunit = "{unit}"\nsource = "s"\ngrade = "measured"\n'
    for name, unit in (("add", "pJ"), ("mul", "pJ"), ("word", "bytes"), ("fifo", "words"))
)
CHOICES = '[choices]\nbias_memory = "own"\naddress_per_channel = true\n'
EXAMPLE = """
[[worked_example]]
name = "e"
source = "s"
by_hand = 4.6
unit = "pJ"
tolerance = 0
layers = [{ name = "m", kind = "conv", macs = 1 }]
"""


BAD = [
    ("not toml", "not a TOML file"),
    (MINIMAL.replace("scope", "scopes"), r"lacks \['scope'\], has unknown entries \['scopes'\]"),
    (MINIMAL.replace("price_list", "magic"), "equation 'magic', expected one of price_list, chip"),
    (MINIMAL.replace("operations", "heat"), r"prices \['heat'\], expected some of operations, addressing"),
    (MINIMAL + MAC.replace("mac", "flop"), r"lacks the constants \[\] and knows no \['flop'\]"),
    (MINIMAL.replace("price_list", "chip"), r"lacks the constants \['sop'\]"),
    (MINIMAL + MAC.replace("4.6", "-1"), r"\[constants.mac\] needs value, a number of at least 0, found -1"),
    (MINIMAL + MAC.replace("4.6", '"x"'), r"\[constants.mac\] needs value, .* found 'x'"),
    (MINIMAL + MAC.replace("pJ", "kWh"), r"\[constants.mac\] needs value, unit \(one of pJ"),
    (MINIMAL + MAC.replace("pJ", "MHz"), r"\[constants.mac\] needs value, unit \(one of pJ\)"),
    (MINIMAL + MAC.replace("mac", "add"), "the constants add and mul come together"),
    (MINIMAL + MAC.replace("measured", "sure"), "needs grade, one of measured, simulated, .* found 'sure'"),
    (MINIMAL + MAC.replace("a paper", ""), "needs source: every number says where it comes from"),
    (MINIMAL + MAC + SRAM, r"\[sram\] belongs to the equation lemaire2022"),
    (LEMAIRE + WORDS + CHOICES, r"\[sram\] belongs to the equation lemaire2022, which needs it"),
    (LEMAIRE + WORDS + CHOICES + SRAM, "law 'banked' needs capacity_bytes, access_pj, bank_bytes"),
    (LEMAIRE + WORDS + CHOICES + SRAM.replace("banked", "flat"), "law 'flat', expected one of interpolated"),
    (LEMAIRE + WORDS + SRAM, r"\[choices\] bias_memory is None, expected one of"),
    (MINIMAL + MAC + '[choices]\nx = 1\n', r"\[choices\] knows no \['x'\]"),
    (MINIMAL + MAC + '[[worked_example]]\nname = "e"\n', r"e needs published or by_hand, unit"),
    (MINIMAL + MAC + EXAMPLE.replace("[{", "{").replace("}]", "}"), "e needs layers, an array of tables"),
    (MINIMAL + MAC + EXAMPLE.replace("macs", "mac"), r"layer m: needs name and kind, unknown fields \['mac'\]"),
    (MINIMAL + MAC + EXAMPLE + "constants = { ac = 1 }\n", r"e: constants knows only mac, found \['ac'\]"),
    (MINIMAL + MAC + EXAMPLE + "parts = { mac = 1 }\n", "e: parts knows only operations, addressing"),
    (MINIMAL.replace('["operations"]', '"all"'), "prices must be a list"),
    (MINIMAL + "constants = 3\n", "constants must be a table"),
    (MINIMAL + "worked_example = [3]\n", "worked_example must be an array of tables"),
    (MINIMAL + MAC + '[[operating_point]]\nname = "p"\n', r"p needs pj_per_sop, a number"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_file_of_ones_own_is_refused_with_one_line(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_model(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("[8, 4]", "capacities rising from above 0"),
        ("[8]", "as many access_pj"),
        ('["8"]', "capacity_bytes is .* numbers"),
    ],
)
def test_the_points_of_an_sram_law_are_pairs_that_rise(tmp_path, sizes, message):
    path = tmp_path / "mine.toml"
    table = SRAM.replace("banked", "interpolated") + f"capacity_bytes = {sizes}\naccess_pj = [1, 2]\n"
    path.write_text(LEMAIRE + WORDS + CHOICES + table)
    with pytest.raises(UserError, match=message):
        load_model(str(path))
