"""Photos by parts, and what goes on with their pixels: profile and EXIF; JPEG of the quality asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from esdnet.command.errors import UserError
from esdnet.images import photo as photos
from esdnet.images.files import check_quality, save_photo
from esdnet.images.photo import Metadata, open_photo, photo_of

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION, DETAILS, GPS, PREVIEW, MAKER, WIDTH = 0x0112, 0x8769, 0x8825, 1, 0x927C, 0xA002


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def exif() -> Image.Exif:
    """As a camera writes it, held sideways."""
    made = Image.Exif()
    made[ORIENTATION], made[0x010F] = 6, "A camera"
    made[DETAILS] = {0x9003: "2024:05:06 07:08:09", MAKER: b"at place 1234", WIDTH: 24, 0xA003: 20}
    made[GPS] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return made


def test_parts_are_the_pixels_and_borders_are_repeated(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = open_photo(tmp_path / "a.png", 16)
    assert photo.size == (20, 24)
    assert np.array_equal(photo.part((3, 7), (2, 24)), pixels[3:7, 2:24])
    part = photo.part((16, 24), (20, 28))
    assert np.array_equal(part[:4, :4], pixels[16:, 20:])
    assert (part[4:, :4] == pixels[19, 20:]).all()
    assert (part[:, 4:] == part[:, 3:4]).all()
    assert np.array_equal(photo.array(), pixels / 255.0)


def test_grey_of_16_bits_keeps_them(tmp_path: Path) -> None:
    grey = np.arange(400, dtype=np.uint16).reshape(20, 20) * 163
    Image.fromarray(grey).save(tmp_path / "a.png")
    photo = open_photo(tmp_path / "a.png", 16)
    assert np.array_equal(photo.part((0, 24), (4, 20))[:20], grey[:, 4:])
    assert np.array_equal(photo.array(), np.repeat((grey / 65535.0)[..., None], 3, axis=2))


def test_an_array_is_the_photo_that_it_was_read_from(tmp_path: Path, pixels: np.ndarray) -> None:
    grey = np.arange(400, dtype=np.uint16).reshape(20, 20) * 163
    for source in (pixels, grey):
        Image.fromarray(source).save(tmp_path / "a.png")
        array = open_photo(tmp_path / "a.png", 16).array()
        again = photo_of(array)
        assert np.array_equal(np.asarray(again.image), source)
        assert np.array_equal(again.array(), array)


@pytest.mark.parametrize("out", ["b.jpg", "b.png"])
def test_profile_and_exif_go_on_but_for_what_is_no_longer_true(tmp_path: Path, pixels: np.ndarray, out: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif(), icc_profile=SRGB)
    photo = open_photo(tmp_path / "a.jpg", 16)
    assert photo.size == (24, 20)  # upright
    save_photo(tmp_path / out, photo.image, photo.metadata)
    with Image.open(tmp_path / out) as written:
        assert written.size == (20, 24)
        assert written.info["icc_profile"] == SRGB
        kept = written.getexif()
        assert ORIENTATION not in kept
        assert kept[0x010F] == "A camera"
        details = kept.get_ifd(DETAILS)
        assert details == {0x9003: "2024:05:06 07:08:09", WIDTH: 20, 0xA003: 24}
        assert kept.get_ifd(GPS)[2] == (1.0, 2.0, 3.0)
        assert not kept.get_ifd(PREVIEW)
    assert open_photo(tmp_path / out, 16).size == (24, 20)  # and it is not turned twice


def test_what_has_neither_gets_neither(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = open_photo(tmp_path / "a.png", 16)
    assert photo.metadata == Metadata(b"", b"")
    save_photo(tmp_path / "b.png", photo.image, photo.metadata)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_a_profile_of_other_colours_is_not_kept(tmp_path: Path, pixels: np.ndarray) -> None:
    """The pixels are RGB now."""
    for colours in (b"CMYK", b"GRAY"):
        profile = SRGB[:16] + colours + SRGB[20:]
        Image.fromarray(pixels).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=profile)
        assert open_photo(tmp_path / "a.jpg", 16).metadata.icc_profile == b""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_way_to_hold_a_camera(tmp_path: Path, pixels: np.ndarray, orientation: int) -> None:
    turned = Image.Exif()
    turned[ORIENTATION] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=turned)
    expected = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(pixels, 1),
    }  # fmt: skip
    assert np.array_equal(open_photo(tmp_path / "a.png", 16).array(), expected[orientation] / 255.0)


def test_a_jpeg_has_the_quality_asked_for(tmp_path: Path, pixels: np.ndarray) -> None:
    """Held against Pillow's own, with as many pixels of colour as of brightness."""
    image = Image.fromarray(pixels)
    for quality in (40, 95):
        save_photo(tmp_path / "a.jpg", image, quality=quality)
        expected = io.BytesIO()
        image.save(expected, "JPEG", quality=quality, subsampling=0)
        assert (tmp_path / "a.jpg").read_bytes() == expected.getvalue()
    with Image.open(tmp_path / "a.jpg") as written:
        assert np.abs(np.asarray(written).astype(int) - pixels).mean() < 8


def test_exif_that_a_jpeg_has_no_room_for(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"a\.jpg: EXIF of 65,534 bytes, a JPEG has room for 65,533; write a PNG"):
        save_photo(tmp_path / "a.jpg", Image.fromarray(pixels), Metadata(exif=bytes(65534)))
    assert list(tmp_path.iterdir()) == []


def test_qualities_that_cannot_be() -> None:
    check_quality(None, Path("a.png"))
    check_quality(90, Path("a.JPEG"))
    check_quality(1, None)
    for quality, path, message in [
        (0, None, "--quality 0: expected 1 to 100"),
        (90, Path("a.png"), r"--quality 90: is that of a JPEG, found -o a\.png"),
        (None, Path("a.tif"), r"-o a\.tif: images are written as PNG or JPEG"),
    ]:
        with pytest.raises(UserError, match=message):
            check_quality(quality, path)


def test_a_photo_of_any_size_is_no_bomb_but_memory_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns at 89 megapixels and refuses at 179; a file of a few bytes can claim any number of them."""
    Image.new("1", (20000, 10000)).save(tmp_path / "a.png")
    monkeypatch.setattr(photos, "free_memory", lambda: 1_000_000_000)
    with pytest.raises(UserError, match=r"a\.png: 20000x10000 pixels need about 1\.6 GB to decode, 1\.0 GB are free"):
        open_photo(tmp_path / "a.png", 16)
    assert photos.image_size(tmp_path / "a.png") == (10000, 20000)
