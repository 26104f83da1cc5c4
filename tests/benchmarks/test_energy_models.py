"""The verdict tables of docs/energy.md: from recorded counts at every run, from new counts in the slow ones."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from benchmarks import energy_models
from benchmarks.energy_models import (
    PAGE,
    RECORD,
    ROOT,
    Network,
    main,
    measure,
    page_parts,
    put,
    read_record,
    write_record,
)
from esdnet.command.errors import UserError
from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.verdicts import Verdict, judge

COUNTED = ("acs", "events_in", "events_out")  # what spikes decide
SPIKES_VARY = 0.01  # another processor may add up in another order


@pytest.fixture(scope="module")
def recorded():
    return read_record(RECORD)


def test_the_page_has_the_tables_that_the_command_makes_of_the_recorded_counts(recorded):
    page = PAGE.read_text(encoding="utf-8")
    assert put(page, page_parts(recorded)) == page


def test_the_verdicts_in_the_readme_are_rows_of_the_page():
    against_nafnet = PAGE.read_text(encoding="utf-8").split("Over that of **its own layers")[0].splitlines()
    shown = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    verdicts = [line for line in shown if "wins," in line or "loses," in line or "no answer" in line]
    assert len(verdicts) == 9
    assert set(verdicts) <= set(against_nafnet)


def test_no_page_says_a_twentieth():
    """The ratio under the paper's prices holds where memory is free; alone it misleads."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert "twentieth" not in page.read_text(encoding="utf-8"), page


def test_a_changed_count_changes_the_page(recorded):
    """So that the test above can fail."""
    page = PAGE.read_text(encoding="utf-8")
    last = recorded[-1]
    twice = [replace(layer, acs=2 * layer.acs) for layer in last.images[0]]
    found = page_parts([*recorded[:-1], Network(last.name, [twice])])
    for name, text in found.items():
        assert put(page, {name: text}) != page


def test_a_record_is_read_as_it_was_written(recorded, tmp_path):
    write_record(tmp_path / "record.json", recorded)
    assert (tmp_path / "record.json").read_bytes() == RECORD.read_bytes()


def test_the_answer_in_words_holds(recorded):
    """Dim 16 saves as each source states it; dim 48 where, and only where, nothing but operations has a price."""
    nafnet = energy_models.nafnet_on((256, 256)).layers
    models = [load_model(name) for name in available_models()]
    rows = {network.name: judge(network.images[0], models, nafnet) for network in recorded}
    stated = [row for row in rows["spike-driven, dim 16"] if row.variant == "as its source states it"]
    ratios = [row.against_reference.ratio for row in stated if row.against_reference.ratio]
    assert [f"{ratio:.2g}" for ratio in (min(ratios), max(ratios))] == ["0.0078", "0.68"]
    for row in rows["spike-driven, dim 48"]:
        memory = any(row.energy.parts[part] is not None for part in ("weights", "potentials", "input_output"))
        if row.against_reference.word != "no answer":
            assert row.against_reference.word == ("loses" if memory else "wins"), (row.model.name, row.variant)


@pytest.mark.slow
def test_the_recorded_counts_are_those_of_the_networks_that_ship(recorded):
    measured = measure()
    assert [network.name for network in measured] == [network.name for network in recorded]
    for found, expected in zip(measured, recorded, strict=True):
        for layer, known in zip(found.images[0], expected.images[0], strict=True):
            same = {name: value for name, value in asdict(layer).items() if name not in COUNTED}
            assert same == {name: value for name, value in asdict(known).items() if name not in COUNTED}
        for count in COUNTED:
            counts = [sum(getattr(layer, count) for layer in each.images[0]) for each in (found, expected)]
            assert counts[0] == pytest.approx(counts[1], rel=SPIKES_VARY)


def test_several_images_give_the_lowest_and_the_highest():
    cell = energy_models._cell([Verdict("loses", 1.2), Verdict("wins", 0.5), Verdict("wins", 0.7)])
    assert cell == "wins, 0.5x to loses, 1.2x"


def test_images_of_ones_own_do_not_go_into_the_page(tmp_path, capsys):
    assert main(["--images", str(tmp_path), "--write"]) == 2
    assert "--images: the recorded counts and the page are of the photo that ships" in capsys.readouterr().err


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(UserError, match="expected the lines <!-- verdicts"):
        put("no marks here", {"verdicts": "text"})
