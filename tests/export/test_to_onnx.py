from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from esdnet.images.files import load_image, save_image
from esdnet.networks.checkpoint import save_checkpoint
from export.targets.onnx import export as onnx_export
from export.targets.onnx import write as onnx_format
from export.to_onnx import main
from tests.gated import every_kind, gated_model
from tests.ties import NEURON, tied_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, tiny_model, monkeypatch):
    save_checkpoint(tmp_path / "tiny.pt", tiny_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_a_checkpoint_becomes_a_checked_file(folder, capsys, precision):
    assert main(["tiny.pt", "--precision", precision]) == 0
    out = capsys.readouterr().out
    assert re.search(r"45x30: \d+ of [\d,]+ spikes differ", out)
    assert f"ONNX opset 18, {precision}, 4 steps" in out
    if precision == "float64":
        assert out.count(": 0 of") == 7
    assert out.endswith("for images of any height and width\n")
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.onnx", "tiny.pt"]
    onnx.checker.check_model(onnx.load(folder / "tiny.onnx"), full_check=True)


@pytest.mark.slow
def test_a_spike_driven_checkpoint_becomes_a_checked_file(folder, spike_driven_model, capsys):
    save_checkpoint(folder / "tiny.pt", spike_driven_model)
    assert main(["tiny.pt", "--precision", "float64"]) == 0
    assert capsys.readouterr().out.count(": 0 of") == 7


@pytest.mark.slow
@every_kind
def test_a_gated_checkpoint_becomes_a_checked_file(folder, kind, capsys):
    save_checkpoint(folder / "gated.pt", gated_model(kind).float())
    assert main(["gated.pt", "--precision", "float64"]) == 0
    assert capsys.readouterr().out.count(": 0 of") == 7


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("layer", ["encoder_level2.0.residual.1", "decoder_level1.0.shortcut.0", "output.0"])
def test_a_damaged_weight_is_found_named_and_nothing_is_left(folder, capsys, monkeypatch, layer, precision):
    write = onnx_export.to_model

    def write_damaged(network, precision):
        weight = network[layer].weight.copy()
        weight[0, 0, 0, 0] += 0.01
        nodes = [dataclasses.replace(n, weight=weight) if n.name == layer else n for n in network.nodes]
        return write(dataclasses.replace(network, nodes=tuple(nodes)), precision)

    monkeypatch.setattr(onnx_export, "to_model", write_damaged)
    assert main(["tiny.pt", "--precision", precision]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith(f"check failed, nothing was written: 32x48: {layer}: ")
    assert [path.name for path in folder.iterdir()] == ["tiny.pt"]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_changed_constant_of_the_file_is_found_and_its_layer_named(folder, capsys, monkeypatch, precision):
    """The network is right; in the file one number of a weight is off by a thousandth."""
    write, layer = onnx_export.to_model, "encoder_level2.0.residual.1"

    def write_damaged(network, precision):
        model = write(network, precision)
        (constant,) = (one for one in model.graph.initializer if one.name == f"{layer}/weight")
        values = onnx.numpy_helper.to_array(constant).copy()
        values.flat[np.abs(values).argmax()] *= 1.001
        constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
        return model

    monkeypatch.setattr(onnx_export, "to_model", write_damaged)
    assert main(["tiny.pt", "--precision", precision]) == 1
    assert f"check failed, nothing was written: 32x48: {layer}: " in capsys.readouterr().err


@pytest.mark.slow  # to_nir has the same, fast
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_tie_is_named_and_the_file_is_written(folder, capsys, precision):
    """Torch fires where the graph, with its folded batch norm, does not: on black images, a whole channel."""
    save_checkpoint("tied.pt", tied_model())
    assert main(["tied.pt", "--precision", precision]) == 0
    out = capsys.readouterr().out
    if precision == "float64":  # in float32 the tie is rounded once more, to either side
        assert re.search(r"black: [1-9]\d+ of [\d,]+ spikes differ", out)
    assert f"  near-tie: {NEURON}, step 0: 256 within rounding of the threshold, the nearest 0.0e+00 off" in out


def test_a_mismatch_beside_a_near_tie_fails(folder, capsys, monkeypatch):
    write, layer = onnx_export.to_model, "encoder_level2.0.residual.1"

    def write_damaged(network, precision):
        nodes = [dataclasses.replace(n, weight=n.weight * 1.001) if n.name == layer else n for n in network.nodes]
        return write(dataclasses.replace(network, nodes=tuple(nodes)), precision)

    save_checkpoint("tied.pt", tied_model())
    monkeypatch.setattr(onnx_export, "to_model", write_damaged)
    monkeypatch.setattr(onnx_export, "CHECK_SIZES", ())  # the black image alone would show it
    assert main(["tied.pt", "--precision", "float64"]) == 1
    assert f"check failed, nothing was written: black: {layer}: " in capsys.readouterr().err


def test_an_earlier_file_survives_a_failed_check(folder, capsys, monkeypatch):
    (folder / "tiny.onnx").write_text("earlier")
    monkeypatch.setattr(onnx_format, "OPSET", 5)  # some operators did not exist then
    assert main(["tiny.pt"]) == 1
    assert "check failed, nothing was written: onnx.checker: " in capsys.readouterr().err
    assert (folder / "tiny.onnx").read_text() == "earlier"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere.pt"], "nowhere.pt: expected a checkpoint file, found nothing"),
        (["text.pt"], "text.pt: cannot be read as a checkpoint"),
        (["tiny.pt", "-o", "nowhere/x.onnx"], "-o nowhere/x.onnx: there is no folder nowhere"),
        (["tiny.pt", "-o", "."], "-o .: is a folder"),
    ],
)
def test_mistakes_are_one_line_and_status_2(folder, capsys, options, message):
    (folder / "text.pt").write_text("hello")
    assert main(options) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    assert not list(folder.glob("*.onnx"))


@pytest.mark.slow
def test_the_lines_of_the_documentation_run_without_torch(folder, tiny_model, photo):
    """docs/onnx.md as written, in a folder with the file and a picture, and in an interpreter that never sees torch."""
    assert main(["tiny.pt", "-o", "esdnet.onnx"]) == 0
    save_image(folder / "rainy.png", photo.transpose(1, 2, 0)[:29, :22])
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 10
    proof = "\nimport sys; assert not {'torch', 'esdnet', 'export', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code + proof], cwd=folder, check=True, timeout=60)
    derained, rainy = load_image(folder / "derained.png"), load_image(folder / "rainy.png")
    with torch.no_grad():
        image = torch.from_numpy(rainy.transpose(2, 0, 1)[None]).float()
        expected = tiny_model(image)[0].permute(1, 2, 0).clamp(0, 1).double().numpy()
    assert np.abs(derained - expected).max() < 1.5 / 255


def test_it_runs_as_a_script_from_anywhere(folder):
    command = [sys.executable, str(ROOT / "export" / "to_onnx.py"), "nowhere.pt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere.pt: ")
