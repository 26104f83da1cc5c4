"""`energy.py --prices all` and `--from`: what they print, write and refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from esdnet.images.files import save_image
from esdnet.networks.checkpoint import save_checkpoint
from hw_sim.energy import main
from hw_sim.pricing.counted import counted_of, nafnet_on
from hw_sim.pricing.energy import PARTS
from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.verdicts import judge, variants
from tests.tolerances import ENERGY

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def files(tmp_path_factory, spike_driven_model):
    """A checkpoint, an image, and the report of a run with --prices all."""
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(folder / "tiny.pt", spike_driven_model)
    save_image(folder / "x.png", np.random.default_rng(0).random((30, 21, 3)))
    command = ["--image", str(folder / "x.png"), "--checkpoint", str(folder / "tiny.pt"), "--prices", "all"]
    assert main([*command, "--json", str(folder / "e.json"), "--html", str(folder / "e.html")]) == 0
    return folder


@pytest.fixture(scope="module")
def report(files):
    return json.loads((files / "e.json").read_text())


def test_the_report_has_a_row_for_every_model_and_way_of_asking(report):
    asked = [(name, way.label) for name in available_models() for way in variants(load_model(name))]
    assert [(row["model"], row["variant"]) for row in report["models"]] == asked
    for row in report["models"]:
        priced = [row["parts_uj"][part] or 0.0 for part in PARTS]
        assert row["energy_uj"] == pytest.approx(sum(priced), rel=ENERGY)
        assert row["against_own"]["word"] in ("wins", "loses", "no answer")
        assert row["against_reference"]["word"] in ("wins", "loses", "no answer")
    assert {standing["quantity"] for standing in report["thresholds"]} == {
        "spikes per synapse and inference", "spikes per neuron and step",
    }  # fmt: skip


def test_the_rows_are_those_of_judge_on_the_counted_layers(report):
    layers = counted_of(report).layers
    rows = judge(layers, [load_model(name) for name in available_models()], nafnet_on((32, 24)).layers)
    assert [row.to_record() for row in rows] == report["models"]
    assert report["prices"] == "paper"  # of the table layer by layer


def test_a_saved_run_is_priced_again_without_torch_and_gives_the_same_file(files, report, capsys):
    code = (
        "import sys\nfrom hw_sim.energy import main\nstatus = main(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules\nsys.exit(status)"
    )
    again, page = files / "again.json", files / "again.html"
    options = ["--from", str(files / "e.json"), "--prices", "all", "--json", str(again), "--html", str(page)]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == (files / "e.json").read_bytes()
    for name in available_models():
        assert f"\n {name} " in done.stdout
    assert "reference: NAFNet, width 32, 1 x 32x32 pixels" in done.stdout
    assert "Davidson and Furber 2021" in done.stdout
    assert "NO PRICE, so the energy is too low" in done.stdout  # MACs on chips
    shown = re.sub("<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)  # ECharts knows averages
    assert re.findall("average(?!s)", shown) == ["average"]  # "there is no average and no rank"


def test_another_report_is_the_reference(files, report, capsys):
    again = files / "own.json"
    options = ["--prices", "all", "--against", str(files / "e.json"), "--json", str(again)]
    assert main(["--from", str(files / "e.json"), *options]) == 0
    rows = json.loads(again.read_text())["models"]
    assert {row["against_reference"]["word"] for row in rows} <= {"loses", "no answer"}  # a ratio of 1 is no saving
    stated = next(row for row in rows if row["model"] == "paper")
    assert stated["against_reference"]["ratio"] == 1.0


def test_a_time_per_step_prices_static_power(files):
    timed = files / "timed.json"
    options = ["--prices", "all", "--step-time", "1e-3", "--json", str(timed)]
    assert main(["--from", str(files / "e.json"), *options]) == 0
    rows = {row["model"]: row for row in json.loads(timed.read_text())["models"]}
    assert rows["truenorth"]["parts_uj"]["static"] == pytest.approx(rows["truenorth"]["chips"] * 64.43e3 * 4e-3)
    assert rows["seneca"]["parts_uj"]["static"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "nowhere.json", "--prices", "all"], "--from nowhere.json: cannot be read as a report"),
        (["--from", "x.png", "--prices", "all"], "--from x.png: cannot be read as a report"),
        (["--from", "folder.json", "--prices", "all"], "folder.json: is the report of a folder; expected that of one"),
        (["--from", "other.json", "--prices", "all"], "other.json: is not a report of energy.py --json"),
        (["--from", "old.json", "--prices", "all"], "did not count for energy models; run it again"),
        (["--from", "lacks.json", "--prices", "all"], "the report lacks acs"),
        (["--from", "number.json", "--prices", "all"], "number.json: facts are 3, expected a list of layers"),
        (["--from", "e.json"], "expected --prices all, found paper"),
        (["--from", "e.json", "--prices", "all", "--tile", "16"], "runs nothing, so --tile has no meaning beside it"),
        (["--from", "e.json", "--prices", "all", "--json", "e.json"], "--json e.json: would overwrite an input"),
        (["--from", "e.json", "--prices", "all", "--step-time", "0"], "--step-time 0.0: expected seconds above 0"),
        (["--from", "e.json", "--prices", "all", "--against", "no.json"], "--against no.json: cannot be read"),
        (["--from", "e.json", "--prices", "all", "--against", "big.json"], "ran on 2 x 32x24 pixels, expected 1 x 32"),
        (["--image", "x.png", "--against", "e.json"], "--against: is for --prices all, found --prices paper"),
        (["--image", "x.png", "--step-time", "1"], "--step-time: is for --prices all"),
        (["--image", ".", "--prices", "all"], "--prices all is for one image; give --image a file"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(files, report, capsys, monkeypatch, options, message):
    monkeypatch.chdir(files)
    old = {key: value for key, value in report.items() if key != "facts"}
    lacking = [{key: value for key, value in layer.items() if key != "acs"} for layer in report["facts"]]
    for name, content in {
        "folder.json": {"settings": {}, "runs": []}, "other.json": [], "old.json": old,
        "big.json": report | {"tiles": 2}, "lacks.json": report | {"facts": lacking},
        "number.json": report | {"facts": 3},
    }.items():  # fmt: skip
        (files / name).write_text(json.dumps(content))
    assert main(options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_nafnet_is_padded_to_what_it_needs_and_run_in_the_same_tiles():
    reference = nafnet_on((36, 16), tiles=3)
    assert (reference.size, reference.tiles) == ((48, 16), 3)
    once = nafnet_on((48, 16)).layers
    assert [layer.macs for layer in reference.layers] == [3 * layer.macs for layer in once]
    assert [layer.executions for layer in reference.layers] == [3] * len(once)
