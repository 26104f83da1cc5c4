"""int8: every backend writes the same PNG, byte for byte, and counts the same operations in every layer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from esdnet.images.files import load_image, save_image
from esdnet.networks.checkpoint import save_checkpoint
from export.integer.calibrate import quantize_on_images
from export.integer.run import run_integer, to_pixels
from export.to_lava_dl import main as to_lava_dl
from hw_sim.agreement import integer_oracle
from hw_sim.energy import main
from tests.conftest import slow_if_spike_driven
from tests.random_networks import random_network

needs_lava = pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def made(tmp_path_factory, either_model, photo) -> Path:
    """A checkpoint, an image of an odd size, and the Lava-DL export of the checkpoint, calibrated on that image."""
    folder = tmp_path_factory.mktemp("int8")
    save_checkpoint(folder / "tiny.pt", either_model)
    (folder / "rainy").mkdir()
    save_image(folder / "rainy" / "x.png", photo.transpose(1, 2, 0)[:18, :19])
    options = ["--calibration", str(folder / "rainy"), "--input-size", "16", "16", "-o", str(folder / "export")]
    assert to_lava_dl([str(folder / "tiny.pt"), "--no-check", *options]) == 0
    return folder


@pytest.fixture
def files(made, tmp_path, monkeypatch) -> Path:
    """An empty working folder beside them."""
    monkeypatch.chdir(tmp_path)
    return made


def run(files: Path, name: str, *options: str, source: str = "--network") -> tuple[bytes, list]:
    """The PNG that energy.py writes, and its layers' counts."""
    network = files / ("export" if source == "--network" else "tiny.pt")
    outputs = ["--save-image", f"{name}.png", "--json", f"{name}.json"]
    image = ["--image", str(files / "rainy" / "x.png"), "--precision", "int8"]
    assert main([*image, source, str(network), *outputs, *options]) == 0
    content = json.loads(Path(f"{name}.json").read_text())
    assert content["precision"] == "int8"
    return Path(f"{name}.png").read_bytes(), content["layers"]


def test_simulator_and_torch_agree_whole_and_in_tiles(files):
    whole = run(files, "simulator")
    assert run(files, "torch", "--backend", "torch") == whole
    blended = ("--tile", "16", "--overlap", "8")
    tiled = run(files, "tiled", *blended)
    assert tiled[0] != whole[0]  # attention and convolutions see a tile, not the image
    assert run(files, "tiled_torch", "--backend", "torch", *blended) == tiled
    assert load_image("simulator.png").std() > 0.05


@pytest.mark.slow  # the image that ships is large for a test
def test_an_export_is_the_checkpoint_that_it_was_made_from(files, tmp_path):
    """Both calibrated on the image that ships."""
    assert to_lava_dl([str(files / "tiny.pt"), "--no-check", "-o", "again"]) == 0
    expected = run(files, "checkpoint", source="--checkpoint")
    image = ["--image", str(files / "rainy" / "x.png"), "--precision", "int8"]
    assert main([*image, "--network", "again", "--save-image", "again.png"]) == 0
    assert Path("again.png").read_bytes() == expected[0]


@needs_lava
@pytest.mark.timeout(300)
@slow_if_spike_driven
@pytest.mark.parametrize("options", [[], pytest.param(["--lava-stock"], marks=pytest.mark.slow)])
def test_lava_agrees(files, options):
    assert run(files, "lava", "--backend", "lava", *options) == run(files, "simulator")


@needs_cuda
def test_a_gpu_agrees(files):
    assert run(files, "cuda", "--device", "cuda") == run(files, "cpu", "--device", "cpu")


@needs_cuda
@pytest.mark.parametrize("seed", range(4))
def test_a_gpu_equals_the_oracle_in_every_value(seed):
    network = random_network(seed)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 16, 12), dtype=np.uint8)
    integer = quantize_on_images(network, [pixels])
    trace = integer_oracle.run(integer, pixels)

    def observe(operation, inputs, value):
        assert np.array_equal(value.cpu().numpy().astype(np.int64), trace.values[operation.name]), operation.name

    run_integer(integer, pixels, observe, device="cuda")


def test_an_export_is_not_run_in_floating_point(files, capsys):
    assert main(["--image", str(files / "rainy" / "x.png"), "--network", str(files / "export")]) == 2
    assert "export: holds integers, which float32 cannot run exactly; add --precision int8" in capsys.readouterr().err


def test_pixels_are_rounded_half_up():
    values = np.array([0.0, 0.5 / 255, 0.49 / 255, 1.0, 2.0, -1.0])
    assert to_pixels(values).tolist() == [0, 1, 0, 255, 255, 0]
    assert np.array_equal(to_pixels(np.arange(256) / 255.0), np.arange(256))
