"""Tiles out of a photo and their cores into its place, whatever the order in which they are done."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from esdnet.images.cores import Cores
from esdnet.images.photo import NOTHING_KEPT, Photo, as_floats
from esdnet.images.stream import TileStream

HALO = (8, 4, 8, 12)


def far_mean(image: np.ndarray) -> np.ndarray:
    """Each pixel made of those 8 above, 4 to the left, 8 below and 12 to the right: as far as HALO; none beyond."""
    padded = np.pad(image.astype(int), ((8, 8), (4, 12), (0, 0)))
    height, width = image.shape[:2]
    parts = (
        padded[down : down + height, right : right + width]
        for down, right in ((8, 4), (0, 4), (16, 4), (8, 0), (8, 16))
    )
    return (sum(parts) // 5).astype(np.uint8)


@pytest.mark.parametrize("under_way", [1, 3, 1000])
@pytest.mark.parametrize(("height", "width", "side"), [(61, 47, 16), (40, 90, 20), (30, 30, 64), (70, 20, 4)])
def test_the_photo_becomes_what_the_whole_would(height: int, width: int, side: int, under_way: int) -> None:
    """As many tiles as may be are under way at once, and end in any order."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    photo = Photo(Image.fromarray(pixels.copy()), NOTHING_KEPT)
    cores = Cores((height, width), side, HALO, 4)
    padded = np.pad(pixels, [(0, cores.padded[0] - height), (0, cores.padded[1] - width), (0, 0)], mode="edge")
    expected = far_mean(padded)[:height, :width]
    stream, rng, waiting = TileStream(photo, cores), np.random.default_rng(1), []

    def finish() -> None:
        tile, part = waiting.pop(rng.integers(len(waiting)))
        rows, columns = (slice(c[0] - t[0], c[1] - t[0]) for c, t in zip(tile.core, tile.tile, strict=True))
        stream.put(tile, far_mean(part)[rows, columns])

    for tile, part in stream.cut():
        waiting.append((tile, part))
        if len(waiting) >= under_way:
            finish()
    while waiting:
        finish()
    assert stream.image is photo.image
    assert np.array_equal(np.asarray(stream.image), expected)


def test_cores_do_not_wait_for_longer_than_they_must() -> None:
    """Row by row, no more than the cores above the halo are kept in memory."""
    photo = Photo(Image.new("RGB", (64, 400)), NOTHING_KEPT)
    stream = TileStream(photo, Cores(photo.size, 16, HALO, 4))
    most = 0
    for tile, part in stream.cut():
        rows, columns = (slice(c[0] - t[0], c[1] - t[0]) for c, t in zip(tile.core, tile.tile, strict=True))
        stream.put(tile, part[rows, columns])
        most = max(most, len(stream._waiting))
    assert most <= 2 * 4  # two rows of four
    assert stream._waiting == []


def test_grey_of_16_bits_becomes_a_photo_of_its_own() -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (20, 24)).astype(np.uint16)
    photo = Photo(Image.fromarray(grey), NOTHING_KEPT)
    stream = TileStream(photo, Cores(photo.size, 8, (4, 4, 4, 4), 4))
    for tile, part in stream.cut():
        assert part.dtype == np.uint16
        rows, columns = (slice(c[0] - t[0], c[1] - t[0]) for c, t in zip(tile.core, tile.tile, strict=True))
        stream.put(tile, np.floor(as_floats(part) * 255).astype(np.uint8)[rows, columns])
    assert stream.image.mode == "RGB"
    assert np.array_equal(np.asarray(stream.image)[..., 1], np.floor(grey / 65535 * 255).astype(np.uint8))
    assert np.array_equal(np.asarray(photo.image), grey)
