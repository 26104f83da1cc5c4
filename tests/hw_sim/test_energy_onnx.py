"""`energy.py --network model.onnx`: an array, several, or an image; every mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from hw_sim.energy import main
from tests.hw_sim.counter.test_onnx_counter import FLOAT, helper, save, trace

SAMPLE = Path(__file__).resolve().parents[2] / "esdnet" / "sample" / "rainy_64.png"


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    how = {"input_names": ["image"], "dynamic_axes": {"image": [2, 3]}}
    return trace(net, torch.rand(1, 3, 8, 8), tmp_path / "net.onnx", **how)


def test_an_image(model, tmp_path, capsys):
    out = tmp_path / "r.json"
    assert main(["--network", str(model), "--image", str(SAMPLE), "--json", str(out), "--strict"]) == 0
    report = json.loads(out.read_text())
    macs = (3 * 64 - 2) ** 2 * 12 + 64 * 64 * 12
    assert report["totals"]["macs"] == macs
    assert report["executed_size"] == [64, 64]
    assert report["unknown"] == {}
    printed = capsys.readouterr().out
    assert f"{macs:,}" in printed
    assert "2 of 2 convolutions read real values" in printed


def test_an_array_its_output_and_all_models(model, tmp_path):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    x = np.random.default_rng(0).random((1, 3, 5, 7)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    given = ["--network", str(model), "--input", str(tmp_path / "x.npy")]
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    assert main([*given, "--json", str(first), "--save-output", str(tmp_path / "y.npy")]) == 0
    assert np.load(tmp_path / "y.npy").shape == (1, 3, 5, 7)
    against = ["--prices", "all", "--against", str(first)]
    assert main([*given, *against, "--json", str(second), "--html", str(tmp_path / "r.html")]) == 0
    content = json.loads(second.read_text())
    assert {row["model"] for row in content["models"]} >= {"loihi1", "horowitz_fp32"}
    assert main(["--from", str(first), *against]) == 0


def test_several_inputs_by_name_spikes_where_they_are_boolean(tmp_path):
    nodes = [helper.make_node("MatMul", ["a", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    path = save(
        tmp_path / "m.onnx", nodes, {"a": (FLOAT, [2, 4]), "b": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])},
        {"w": np.arange(12, dtype=np.float32).reshape(4, 3)},
    )  # fmt: skip
    spikes = np.array([[1, 0, 1, 0], [0, 0, 1, 1]], bool)
    np.savez(tmp_path / "x.npz", a=spikes, b=np.ones((2, 3), np.float32))
    out = tmp_path / "r.json"
    assert main(["--network", str(path), "--input", str(tmp_path / "x.npz"), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert (report["totals"]["acs"], report["totals"]["macs"]) == (4 * 3, 0)
    assert report["input_kinds"] == ["spike", "analog"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backend", "lava"], "--backend: is not for --network"),
        (["--tile", "32"], "--tile: is not for --network"),
        (["--prices", "all"], "what to compare with? give --against REPORT, or --image"),
        (["--input-kind", "spike"], "declared spike, but holds values other than 0 and 1"),
        (["--json", "{model}"], "would overwrite"),
    ],
)
def test_mistakes_in_one_line(model, tmp_path, capsys, more, message):
    np.save(tmp_path / "x.npy", np.full((1, 3, 5, 5), 0.5, np.float32))
    given = ["--network", str(model), "--input", str(tmp_path / "x.npy")]
    before = model.read_bytes()
    assert main([*given, *(word.format(model=model) for word in more)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert model.read_bytes() == before


@pytest.mark.parametrize("missing", ["network", "input", "image", "folder"])
def test_what_is_not_there(model, tmp_path, capsys, missing):
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 5, 5), np.float32))
    network = tmp_path / "no.onnx" if missing == "network" else model
    given = {
        "network": ["--input", str(tmp_path / "x.npy")], "input": ["--input", str(tmp_path / "no.npy")],
        "image": ["--image", str(tmp_path / "no.png")], "folder": ["--image", str(tmp_path)],
    }[missing]  # fmt: skip
    assert main(["--network", str(network), *given]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_strict_is_for_onnx_alone(capsys):
    assert main(["--image", str(SAMPLE), "--strict"]) == 2
    assert "--strict: is for --network F.onnx" in capsys.readouterr().err
