from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from esdnet.checkpoint import save_checkpoint
from esdnet.errors import UserError
from esdnet.images import load_image, save_image
from hw_sim import simulator
from hw_sim.gpu_record import identity, make_record, write_record
from hw_sim.verify import main, middle

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
    facts = {"device": "some GPU", **identity(either_network, part)}
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
    } | {("Lava", "int8"), ("netx segments on Lava", "int8")}
    assert rows.pop((f"torch on {device}", "int8"))["status"] == "reference"
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
    assert "recorded GPU, float64: not run: " in done.stdout
    assert "0 failed" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "nowhere.png"], "nowhere.png: no such file"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt: expected a checkpoint file, found nothing"),
        (["--crop", "30"], "--crop 30: expected 0 (the whole image) or a multiple of 4"),
        (["--crop", "-4"], "--crop -4: expected"),
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
    assert middle(image, 8, 4).shape == (3, 8, 8)  # 6 columns, all of them, and two more
    with pytest.raises(UserError, match="--crop 6"):
        middle(image, 6, 4)
