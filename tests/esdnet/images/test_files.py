"""Image files in and out: what is read rightly, what is refused, and that nothing half-written stays behind."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.command.errors import UserError
from esdnet.images.files import (
    check_png_name,
    from_tensor,
    list_images,
    load_image,
    output_names,
    save_image,
    to_tensor,
)
from esdnet.images.photo import image_size


def write_png(path: Path, depth: int, colour: int, rows: bytes, width: int, height: int) -> Path:
    """A PNG made by hand, of any depth and colour type; `rows` are raw scan lines without their filter bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def test_rgb_is_read_exactly(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.dtype == np.float64
    assert np.array_equal(image, pixels / 255.0)


def test_saved_image_is_clipped_and_rounded_half_up(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3))
    image[0, 0] = [0.5, 2.0, -1.0]  # 0.5 * 255 = 127.5 exactly
    save_image(tmp_path / "a.png", image)
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, 0].tolist() == [128, 255, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_saving_what_was_loaded_changes_nothing(tmp_path: Path, pixels: np.ndarray) -> None:
    save_image(tmp_path / "a.png", pixels / 255.0)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def test_grey_becomes_rgb(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), np.repeat(pixels[..., :1], 3, axis=2) / 255.0)


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), np.broadcast_to(np.array([10, 20, 30]) / 255.0, (16, 16, 3)))


def test_16_bit_grey_keeps_its_bits(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257 + 1
    write_png(tmp_path / "a.png", 16, 0, grey.astype(">u2").tobytes(), 16, 16)
    assert np.array_equal(load_image(tmp_path / "a.png")[..., 2], grey / 65535.0)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)], ids=["rgb", "rgba", "grey-alpha"])
def test_16_bit_colour_is_refused(tmp_path: Path, colour: int, channels: int) -> None:
    path = write_png(tmp_path / "a.png", 16, colour, bytes(16 * 16 * channels * 2), 16, 16)
    with pytest.raises(UserError, match=r"a\.png: PNG with 16 bits per colour channel; convert it to 8 bits"):
        load_image(path)


def test_opaque_alpha_is_dropped(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])).save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), pixels / 255.0)


def test_transparency_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[3, 4] = 254
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="transparent pixels"):
        load_image(tmp_path / "a.png")


def test_a_transparent_palette_colour_is_refused(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([9, 9, 9])
    image.save(tmp_path / "a.png", transparency=0)
    with pytest.raises(UserError, match="transparent pixels"):
        load_image(tmp_path / "a.png")


def test_float_tiff_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 16), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="no defined white"):
        load_image(tmp_path / "a.tif")


def test_camera_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").shape == (32, 16, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp", "a.png"])
def test_several_frames_are_refused_with_their_number(name: str, tmp_path: Path) -> None:
    """An animated PNG or WebP, the pages of a TIFF: which of them was meant?"""
    frames = [Image.new("RGB", (20, 20), (60 * index, 0, 0)) for index in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(
        UserError, match=rf"{name}: holds 3 frames, expected a single image; save one of them as a file"
    ):
        load_image(tmp_path / name)
    frames[1].save(tmp_path / name)
    assert load_image(tmp_path / name).shape == (20, 20, 3)


def test_the_photo_of_a_cameras_multi_picture_file_is_taken(tmp_path: Path) -> None:
    photo, preview = Image.new("RGB", (40, 30), (255, 255, 255)), Image.new("RGB", (20, 15))
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    image = load_image(tmp_path / "a.jpg")
    assert image.shape == (30, 40, 3)
    assert image.min() > 0.99


def test_the_size_in_the_header(tmp_path: Path) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("hello")
    assert image_size(tmp_path / "a.png") == (30, 20)
    assert image_size(tmp_path / "b.png") is None
    assert image_size(tmp_path / "c.png") is None


def test_names_of_the_png_files(tmp_path: Path) -> None:
    sources = [tmp_path / "a.jpg", tmp_path / "b.tar.webp"]
    out = tmp_path / "out"
    assert output_names(sources, out) == {sources[0]: out / "a.png", sources[1]: out / "b.tar.png"}
    assert not out.exists()
    with pytest.raises(UserError, match=r"a\.bmp: a\.jpg would be written to .*a\.png too; rename one"):
        output_names([*sources, tmp_path / "a.bmp"], out)
    with pytest.raises(UserError, match=r"a\.png: would overwrite an input; choose another folder"):
        output_names([tmp_path / "a.png"], tmp_path)
    (out / "a.png").mkdir(parents=True)
    with pytest.raises(UserError, match=r"a\.png: is a folder, .*a\.jpg cannot be written there"):
        output_names(sources, out)


def test_only_names_of_png_files_pass() -> None:
    check_png_name("-o", Path("a.PNG"))
    with pytest.raises(UserError, match=r"^-o a\.jpg: images are written as PNG, expected a name that ends in \.png"):
        check_png_name("-o a.jpg", Path("a.jpg"))


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"nowhere\.png: no such file"):
        load_image("nowhere.png")


def test_folder_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, expected an image file"):
        load_image(tmp_path)


@pytest.mark.parametrize("content", [b"hello", b"", b"\x89PNG\r\n\x1a\n"], ids=["text", "empty", "only a signature"])
def test_no_image_inside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: cannot be read as an image") as caught:
        load_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_png(tmp_path: Path, pixels: np.ndarray, kept: float) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="cannot be read as an image"):
        load_image(tmp_path / "a.png")


def test_too_small(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="1x1 pixels, expected at least 16x16"):
        load_image(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", min_side=1).shape == (1, 1, 3)


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        save_image(tmp_path / "no" / "a.png", np.zeros((16, 16, 3)))


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()  # replacing a folder by a file fails at the very last step
    with pytest.raises(UserError, match="cannot be written"):
        save_image(tmp_path / "a.png", np.zeros((16, 16, 3)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_only_png_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.png"):
        save_image(tmp_path / "a.jpg", np.zeros((16, 16, 3)))


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NaN"):
        save_image(tmp_path / "a.png", np.full((16, 16, 3), np.nan))


def test_list_is_sorted_and_without_hidden_or_other_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".c.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.PNG"]


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "no")


def test_tensors_there_and_back() -> None:
    image = np.random.default_rng(0).random((5, 7, 3))
    tensor = to_tensor(image, torch.float64)
    assert tensor.shape == (1, 3, 5, 7)
    assert tensor[0, 2, 4, 6].item() == image[4, 6, 2]
    assert np.array_equal(from_tensor(tensor), image)
    assert np.array_equal(from_tensor(tensor[0]), image)
    assert to_tensor(image).dtype == torch.float32
