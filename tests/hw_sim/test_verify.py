from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.images.files import load_image, save_image
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.esdnet.model import ESDNet
from export.integer import calibrate as calibration
from hw_sim.agreement.judge import Row
from hw_sim.agreement.records import identity, make_record, write_record
from hw_sim.agreement.report import exit_status, summary
from hw_sim.backends import simulator
from hw_sim.verify import main, middle
from tests.ties import NEURON, tied_model

ROOT = Path(__file__).parents[2]
SIDE = 16


@pytest.fixture
def files(tmp_path, tiny_model, photo):
    save_checkpoint(tmp_path / "tiny.pt", tiny_model)
    save_image(tmp_path / "x.png", photo.transpose(1, 2, 0))
    return tmp_path


@pytest.fixture
def either_files(files, either_model):
    """The same, released or spike-driven."""
    save_checkpoint(files / "tiny.pt", either_model)
    return files


def run(files: Path, *options: str) -> int:
    return main(
        ["--image", str(files / "x.png"), "--checkpoint", str(files / "tiny.pt"), "--crop", str(SIDE), *options]
    )


@pytest.mark.slow  # Lava four times, netx once
def test_one_row_per_backend_and_a_record_that_differs_fails_the_command(either_files, either_network, capsys):
    files = either_files
    part = middle(load_image(files / "x.png"), SIDE, 4)
    result = simulator.run(either_network, part, precision="float64")
    name = next(iter(result.spikes))
    wrong = dataclasses.replace(result, spikes={**result.spikes, name: ~result.spikes[name]})
    facts = {"device": "some GPU", "torch": "2", "cuda": "12", **identity(either_network, part)}
    write_record(files / "gpu.npz", make_record(facts, {"float64": wrong}))
    assert run(files, "--reference", str(files / "gpu.npz"), "--json", str(files / "rows.json")) == 1
    content = json.loads((files / "rows.json").read_text())
    assert content["size"] == [SIDE, SIDE]
    rows = {(row["backend"], row["precision"]): row for row in content["rows"]}
    device = content["device"]
    assert rows.pop((f"torch on {device}", "float64"))["status"] == "reference"
    failed = rows.pop(("recorded some GPU", "float64"))
    assert (failed["status"], failed["first"].split(",")[0]) == ("FAILED", name)
    assert set(rows) >= {
        (backend, precision)
        for backend in ("snnTorch, step by step", f"simulator on {device}", "ONNX Runtime", "Lava")
        for precision in ("float64", "float32")
    } | {("NumPy oracle", "int8"), ("Lava", "int8"), ("netx segments on Lava", "int8")}
    assert rows.pop((f"torch and simulator on {device}", "int8"))["status"] == "reference"
    assert rows.pop(("recorded some GPU", "int8"))["note"] == "the record holds float64 only"
    for key, row in rows.items():
        if row["status"] == "not run":  # Lava exists for Python 3.10 alone
            assert "Lava" in key[0]
            assert row["note"]
            assert row["mismatches"] is None
        else:
            assert row["status"] == "holds", row
    out = capsys.readouterr().out
    assert "1 failed" in out
    assert f"{name}, step 0" in out
    assert "snnTorch, step by step" in out


@pytest.mark.slow
def test_as_a_script_it_exits_0_and_says_that_no_gpu_was_recorded(files):
    command = [sys.executable, str(ROOT / "hw_sim" / "verify.py"), "--image", "x.png", "--checkpoint", "tiny.pt"]
    done = subprocess.run(
        [*command, "--crop", str(SIDE)], cwd=files, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "recorded GPU, float64: not run: no --reference given" in done.stdout
    last = done.stdout.rstrip().splitlines()[-1]
    assert ", 0 failed, " in last
    assert last.endswith("recorded GPU float64, recorded GPU int8")
    assert done.stderr == ""  # no bar, since it is no terminal


@pytest.mark.slow
def test_an_image_that_makes_nothing_spike_is_no_pass(files, capsys, tiny_model):
    silent = ESDNet(dataclasses.replace(tiny_model.config, threshold=1e6))
    silent.load_state_dict(tiny_model.state_dict())
    save_checkpoint(files / "tiny.pt", silent)
    assert run(files) == 1
    out = capsys.readouterr().out
    assert "0 hold, 0 failed" in out
    assert " prove nothing: nothing spiked in the reference" in out


@pytest.mark.slow
def test_a_missing_file_of_our_own_fails(files, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "DEFAULT_IMAGE", files / "gone.png")
    assert run(files, "--json", str(files / "rows.json")) == 1
    (row,) = (row for row in json.loads((files / "rows.json").read_text())["rows"] if row["status"] == "FAILED")
    assert row["precision"] == "int8"
    assert "gone.png" in row["note"]


@pytest.mark.slow
def test_near_ties_are_told(files, capsys):
    save_checkpoint(files / "tiny.pt", tied_model())
    save_image(files / "x.png", np.zeros((SIDE, SIDE, 3)))
    run(files, "--json", str(files / "rows.json"))
    told = json.loads((files / "rows.json").read_text())
    assert [(tie["neuron"], tie["step"], tie["membranes"]) for tie in told["near_ties"]] == [
        (NEURON, step, SIDE**2) for step in range(4)
    ]
    assert {row["status"] for row in told["rows"] if row["precision"] == "float64"} <= {"reference", "holds", "not run"}
    out = capsys.readouterr().out
    assert f"near-ties of torch in float64: {NEURON}, step 0: {SIDE**2} within rounding of the threshold" in out
    assert "spikes differ from torch's, by near-ties; none from the simulator's" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "nowhere.png"], "nowhere.png: no such file"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt: expected a checkpoint file, found nothing"),
        (["--crop", "30"], "--crop 30: expected 0 (the whole image) or a multiple of 4"),
        (["--crop", "-4"], "--crop -4: expected"),
        (["--crop", "4096"], "--crop 4096: the image has 32x24 pixels; take a smaller crop, or 0 for all of it"),
        (["--reference", "nowhere.npz"], "nowhere.npz: there is no such file"),
        (["--json", "nowhere/rows.json"], "--json nowhere/rows.json: there is no folder nowhere"),
        (["--record", "gpu.npz", "--device", "cpu"], "--record: keeps the answer of a GPU"),
        (["--device", "cuda"], "no CUDA device is available"),
    ],
)
def test_mistakes_are_one_line_and_status_2(files, capsys, monkeypatch, options, message):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    monkeypatch.chdir(files)
    defaults = {"--image": "x.png", "--checkpoint": "tiny.pt"}
    given = [word for key, value in defaults.items() if key not in options for word in (key, value)]
    assert main([*given, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert captured.out == ""
    assert sorted(path.name for path in files.iterdir()) == ["tiny.pt", "x.png"]


def test_the_middle_is_the_middle():
    image = np.arange(10 * 6 * 3, dtype=np.float64).reshape(10, 6, 3)
    assert np.array_equal(middle(image, 4, 4), image[3:7, 1:5].transpose(2, 0, 1))
    whole = middle(image, 0, 4)
    assert whole.shape == (3, 12, 8)
    assert np.array_equal(whole[:, :10, :6], image.transpose(2, 0, 1))
    assert np.array_equal(whole[:, 11, :6], image[9].T)
    assert np.array_equal(middle(image, None, 4), whole)  # smaller than the crop that is the default
    assert middle(np.zeros((100, 50, 3)), None, 4).shape == (3, 64, 52)
    with pytest.raises(UserError, match="--crop 6: expected"):
        middle(image, 6, 4)
    with pytest.raises(UserError, match="--crop 8: the image has 10x6 pixels"):
        middle(image, 8, 4)


def rows(*statuses: str) -> list[Row]:
    return [Row(f"backend {number}", "float64", status) for number, status in enumerate(statuses)]


def test_the_last_line_counts_what_was_not_run_by_name():
    found = rows("reference", "holds", "holds", "not run")
    assert (summary(found), exit_status(found)) == ("2 hold, 0 failed, 1 not run: backend 3 float64", 0)
    assert summary(rows("holds")) == "1 hold, 0 failed, 0 not run"
    found = rows("holds", "FAILED", "not run", "not run")
    expected = "1 hold, 1 failed, 2 not run: backend 2 float64, backend 3 float64"
    assert (summary(found), exit_status(found)) == (expected, 1)
    found = rows("reference", "proves nothing", "not run")
    assert summary(found).startswith("0 hold, 0 failed, 1 prove nothing: nothing spiked in the reference")
    assert exit_status(found) == 1


def test_help_promises_no_record_that_does_not_ship(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "ships" not in capsys.readouterr().out.split("--reference", 2)[2]


def test_a_network_without_neurons_holds_where_it_runs(tmp_path, dual_stage_model, capsys):
    save_checkpoint(tmp_path / "dual.pt", dual_stage_model)
    save_image(tmp_path / "x.png", np.random.default_rng(0).random((40, 33, 3)))
    command = ["--image", str(tmp_path / "x.png"), "--checkpoint", str(tmp_path / "dual.pt"), "--device", "cpu"]
    assert main([*command, "--json", str(tmp_path / "rows.json")]) == 0
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["size"] == [64, 64]  # padded to multiples of 32
    status = {(row["backend"], row["precision"]): row["status"] for row in content["rows"]}
    held = {key for key, word in status.items() if word == "holds"}
    assert held == {("torch on cpu", "float32"), ("simulator on cpu", "float64"), ("simulator on cpu", "float32")}
    assert {word for key, word in status.items() if key not in held} == {"reference", "not run"}
    assert all(row["note"] for row in content["rows"] if row["status"] == "not run")
    assert "3 hold, 0 failed, 9 not run" in capsys.readouterr().out
    assert main([*command, "--crop", "36"]) == 2
    assert "--crop 36: expected 0 (the whole image) or a multiple of 32" in capsys.readouterr().err
