from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from esdnet.images.files import save_image
from esdnet.networks.checkpoint import save_checkpoint
from export.targets.loihi.folder import read_integer
from export.to_lava_dl import main
from tests.gated import every_kind, gated_model


@pytest.fixture
def files(tmp_path, tiny_model, photo, monkeypatch):
    """A checkpoint, and a folder with one image to calibrate on; the working folder."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint("tiny.pt", tiny_model)
    Path("rainy").mkdir()
    save_image("rainy/x.png", photo.transpose(1, 2, 0)[:30, :21])
    return tmp_path


@pytest.fixture
def either_files(files, either_model):
    """The same, released or spike-driven."""
    save_checkpoint("tiny.pt", either_model)
    return files


def export(*options: str) -> int:
    return main(["tiny.pt", "--calibration", "rainy", "--image", "rainy/x.png", "--input-size", "20", "16", *options])


@pytest.mark.skipif(sys.version_info[:2] != (3, 10), reason="Lava-DL runs on Python 3.10 only")
@pytest.mark.timeout(600)
@pytest.mark.slow  # targets/loihi/test_check.py runs every kind of layer on real Lava, fast
def test_every_segment_runs_on_lava_without_a_mismatch(either_files, capsys):
    assert export("--target", "loihi2") == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if ".h5 " in line]
    assert len(rows) == 6
    assert all(row[-1] == "0" for row in rows)
    assert sum(int(row[2].replace(",", "")) for row in rows) > 100
    assert "ACs inside netx: " in out
    assert "signal to noise" in out
    assert "largest square tile on 8 chips: " in out
    manifest = json.loads((either_files / "tiny_lava_dl" / "manifest.json").read_text())
    assert 0 < manifest["acs"]["in_netx"] < manifest["acs"]["total"]
    assert min(loss for loss in manifest["signal_to_noise_db"].values() if loss is not None) > 10
    assert read_integer(either_files / "tiny_lava_dl").network.name == "tiny"


@pytest.mark.skipif(sys.version_info[:2] != (3, 10), reason="Lava-DL runs on Python 3.10 only")
@pytest.mark.timeout(600)
@pytest.mark.slow
@every_kind
def test_files_of_a_gated_network_run_with_the_hosts_clearing(files, capsys, kind):
    save_checkpoint("tiny.pt", gated_model(kind))
    assert export() == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if ".h5 " in line]
    assert len(rows) == {"learnt": 7, "morphological": 6}[kind]
    assert all(row[-1] == "0" for row in rows)
    manifest = json.loads((files / "tiny_lava_dl" / "manifest.json").read_text())
    gates = {step["gate"] for step in manifest["steps"] if "gate" in step}
    assert gates == {"gate.level1", "gate.level2", "gate.level3"}


def test_accumulations_are_the_simulators(either_files):
    from export.integer.calibrate import centre_pixels
    from hw_sim.backends import integer_simulator

    assert export("--no-check", "-o", "out") == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    integer = read_integer("out")
    pixels = centre_pixels(Path("rainy/x.png"), 20, 16)
    counts = integer_simulator.run(integer, pixels / 255.0).counts
    assert manifest["acs"]["total"] == sum(int(count.acs.sum()) for count in counts.values())


@pytest.mark.slow  # a second start of Lava
def test_mismatches_end_with_status_1_and_leave_nothing(files, capsys, monkeypatch):
    """A segment file that is not the network's: one weight is changed between writing and running it."""
    import h5py

    from export.targets.loihi import folder as lava_dl_folder
    from export.targets.loihi.netx import write_segment

    def write_changed(path, segment, shapes):
        write_segment(path, segment, shapes)
        with h5py.File(path, "r+") as file:
            file["layer/0/weight"][0] = 127

    monkeypatch.setattr(lava_dl_folder, "write_segment", write_changed)
    if sys.version_info[:2] != (3, 10):
        pytest.skip("Lava-DL runs on Python 3.10 only")
    assert export("-o", "out") == 1
    captured = capsys.readouterr()
    assert "check failed, nothing was written: 00_encoder_level1.0.residual.1.h5: " in captured.err
    assert "spikes differ, first at image 0, step 0" in captured.err
    assert sorted(path.name for path in files.iterdir()) == ["rainy", "tiny.pt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input-size", "18", "16"], "image of 18x16; both sides must be positive multiples of 4"),
        (["--calibration", "missing"], "--calibration missing: expected a folder of rainy images"),
        (["--calibration", "empty"], "empty: holds no image"),
        (["--image", "missing.png"], "missing.png: no such file"),
        (["--input-size", "64", "64"], "x.png: 30x21 pixels, --input-size needs 64x64; take a larger --image"),
        (["--target", "tpu"], "--target tpu: unknown, expected one of loihi2"),
        (["-o", "no/where"], "no/where: the folder that it goes to does not exist"),
        (["-o", "rainy"], "rainy: exists and is not a Lava-DL export of this program"),
    ],
)
def test_mistakes_are_one_line_and_status_2(files, capsys, options, message):
    Path("empty").mkdir()
    assert export("--no-check", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") <= 1  # a line of progress, a line of error
    assert not list(files.glob(".*part"))


def test_a_checkpoint_beyond_the_limits_names_its_nodes(files, capsys, tiny_model):
    """Batch norms that shrink a layer's weights far below its neurons' threshold, and not to nothing."""
    model = type(tiny_model)(tiny_model.config)
    model.load_state_dict(tiny_model.state_dict())
    with torch.no_grad():
        model.encoder_level1[0].residual[2].weight.mul_(1e-4)
    save_checkpoint("tiny.pt", model)
    assert export("--no-check") == 2
    error = capsys.readouterr().err
    assert "Loihi: 1 violation of its design rules" in error
    assert "encoder_level1.0.residual.3 (LIF): threshold" in error
    assert "bits, Loihi has 17 without sign" in error
    assert not Path("tiny_lava_dl").exists()


def test_an_earlier_export_is_replaced(files):
    assert export("--no-check", "-o", "out") == 0
    before = Path("out/manifest.json").stat().st_mtime_ns
    assert export("--no-check", "-o", "out") == 0
    assert Path("out/manifest.json").stat().st_mtime_ns > before
    assert not list(files.glob(".*"))
