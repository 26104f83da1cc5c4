"""`esdnet.load` and `esdnet.derain`: every kind of image, the pixels of the command, tiles, mistakes in one line."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import esdnet
from esdnet.derain import main
from esdnet.images.files import to_bytes
from esdnet.networks.checkpoint import save_checkpoint


@pytest.fixture
def pixels() -> np.ndarray:
    """A photo (70, 50, 3), uint8: its sides are no multiples of what networks take."""
    rng = np.random.default_rng(3)
    return np.kron(rng.integers(0, 256, (7, 5, 3)), np.ones((10, 10, 1))).astype(np.uint8)


@pytest.fixture
def files(tmp_path, monkeypatch, pixels, either_model):
    """A folder with the photo, and the checkpoint of a network."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels).save("rainy.png")
    save_checkpoint("net.pt", either_model)
    return tmp_path


@pytest.mark.parametrize("tile", [None, 0, 32])
def test_every_kind_of_image_has_the_pixels_that_the_command_writes(files, pixels, tile, either_model):
    flags = [] if tile is None else ["--tile", str(tile)]
    assert main(["rainy.png", "-o", "out.png", "--checkpoint", "net.pt", "--device", "cpu", *flags]) == 0
    expected = np.asarray(Image.open("out.png"))
    assert (expected != pixels).any()
    for network in ("net.pt", files / "net.pt", either_model):
        found = esdnet.derain("rainy.png", network, tile=tile)
        assert isinstance(found, Image.Image)
        assert np.array_equal(found, expected)
    given = pixels.copy()
    of_pil = esdnet.derain(Image.fromarray(given), either_model, tile=tile)
    assert isinstance(of_pil, Image.Image)
    assert np.array_equal(of_pil, expected)
    of_bytes = esdnet.derain(given, either_model, tile=tile)
    assert of_bytes.dtype == np.uint8
    assert np.array_equal(of_bytes, expected)
    floats = given / 255
    of_floats = esdnet.derain(floats, either_model, tile=tile)
    assert of_floats.dtype == np.float64
    assert np.array_equal(to_bytes(of_floats), expected)
    assert esdnet.derain(floats.astype(np.float32), either_model, tile=tile).dtype == np.float32
    assert np.array_equal(given, pixels)  # what was given is left as it was
    assert np.array_equal(floats, pixels / 255)


def test_grey_in_grey_out(tiny_model, pixels):
    grey = pixels[..., 0]
    in_colours = np.repeat(grey[..., None], 3, axis=2)
    colours = esdnet.derain(in_colours, tiny_model)
    assert (colours[..., 0] != colours[..., 1]).any()  # the network makes colours of it
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    assert np.array_equal(esdnet.derain(grey, tiny_model), expected)
    of_pil = esdnet.derain(Image.fromarray(grey), tiny_model)
    assert of_pil.mode == "L"
    assert np.array_equal(of_pil, expected)
    of_floats = esdnet.derain(grey / 255, tiny_model)
    assert of_floats.shape == grey.shape
    assert of_floats == pytest.approx(esdnet.derain(in_colours / 255, tiny_model) @ [0.299, 0.587, 0.114], abs=1e-15)


def test_a_file_that_was_turned_is_upright_however_it_is_given(files, pixels, tiny_model):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(pixels).save("turned.png", exif=exif)
    expected = esdnet.derain("turned.png", tiny_model)
    assert expected.size == (70, 50)
    with Image.open("turned.png") as opened:
        assert np.array_equal(esdnet.derain(opened, tiny_model), expected)


def test_a_network_of_double_precision_runs_in_it(tiny_model, pixels):
    import copy

    floats = pixels / 255
    double = copy.deepcopy(tiny_model).double()
    with torch.inference_mode():
        padded = np.pad(floats, ((0, 2), (0, 2), (0, 0)), mode="edge").transpose(2, 0, 1)[None]
        expected = double(torch.from_numpy(padded))[0, :, :70, :50].clamp(0, 1).numpy().transpose(1, 2, 0)
    assert np.array_equal(esdnet.derain(floats, double, tile=0), expected)


def test_the_bundled_networks_are_loaded_by_name():
    network = esdnet.load("small_spike_driven")
    assert not network.training
    assert sum(p.numel() for p in network.parameters()) > 700_000


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (3, "derain: found a int, expected a path, a PIL image, or an array (height, width, 3) or (height, width)"),
        (np.zeros((1, 3, 32, 32)), "derain: found an array of shape (1, 3, 32, 32), expected a path, "),
        (np.zeros((32, 32, 4), np.uint8), "derain: found an array of shape (32, 32, 4), expected a path, "),
        (np.zeros((32, 32, 3), np.int64), "derain: found an array of int64, expected uint8, or floats in [0, 1]"),
        (np.full((32, 32, 3), 2.0), "derain: found values from 2 to 2, expected floats in [0, 1]; scale them"),
        (np.full((32, 32), np.nan), "derain: found values from nan to nan, expected floats in [0, 1]; scale them"),
        (np.zeros((32, 8, 3)), "image: 8x32 pixels, expected at least 16x16"),
        (np.zeros((32, 8, 3), np.uint8), "image: 8x32 pixels, expected at least 16x16"),
        (Image.new("RGBA", (32, 32)), "image: has transparent pixels, which have no colour to derain; flatten it"),
        ("nowhere.png", "nowhere.png: no such file"),
    ],
)
def test_an_image_that_is_none_is_one_line(image, message, tiny_model):
    with pytest.raises(esdnet.UserError) as error:
        esdnet.derain(image, tiny_model)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_damaged_image_in_memory_is_one_line(pixels, tiny_model):
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, format="PNG")
    torn = Image.open(io.BytesIO(whole.getvalue()[: whole.tell() // 2]))
    with pytest.raises(esdnet.UserError, match=r"^image: cannot be read as an image \("):
        esdnet.derain(torn, tiny_model)


def test_a_network_that_is_none_is_one_line(tiny_model, pixels):
    with pytest.raises(esdnet.UserError, match=r"^nowhere: expected a checkpoint file, found nothing; bundled ones"):
        esdnet.derain(pixels, "nowhere")
    with pytest.raises(esdnet.UserError, match=r"^derain: network is a Linear, expected a checkpoint, by name or file"):
        esdnet.derain(pixels, torch.nn.Linear(1, 1))
    with pytest.raises(esdnet.UserError, match=r"^tile size 30: expected 0 \(whole image\) or a multiple of 4"):
        esdnet.derain(pixels, tiny_model, tile=30)
    tiny_model.train()
    try:
        with pytest.raises(esdnet.UserError, match=r"^derain: the network is in training mode"):
            esdnet.derain(pixels, tiny_model)
    finally:
        tiny_model.eval()
