"""The rain mask: equal to SciPy's morphology to the last pixel, and where it finds rain, rain there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import grey_dilation, grey_erosion

from esdnet.images.files import list_images, load_image
from esdnet.images.rain_streaks import ACROSS, ALONG, ANGLES, CLIP, THRESHOLD, line_across, line_along, rain_mask
from esdnet.training.rain import add_rain, heavy_rain, light_rain
from tests.esdnet.networks.conftest import SHARED_DATA

RAIN = 0.04  # light that a pixel must have gained to count as rain


def mask_of(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) to bool (H, W)."""
    return rain_mask(torch.from_numpy(image).permute(2, 0, 1)[None])[0, 0].numpy() == 1


def scipy_mask(image: np.ndarray) -> np.ndarray:
    """The same from the definition: (H, W, 3) to bool (H, W)."""
    levels = np.floor(image.min(2).astype(np.float64) * 255 + 0.5)

    def opening(x: np.ndarray, line: tuple[tuple[int, int], ...]) -> np.ndarray:
        side = max(abs(number) for offset in line for number in offset)
        footprint = np.zeros((2 * side + 1, 2 * side + 1), dtype=bool)
        for down, right in line:
            footprint[side + down, side + right] = True
        eroded = grey_erosion(x, footprint=footprint, mode="constant", cval=np.inf)
        return grey_dilation(eroded, footprint=footprint, mode="constant", cval=-np.inf)

    found = [
        opening(levels - opening(levels, line_across(angle, ACROSS)), line_along(angle, ALONG)) for angle in ANGLES
    ]
    strength = [np.minimum(each, CLIP).sum() for each in found]
    best = {index for index, each in enumerate(strength) if each == max(strength)}
    kept = [each for index, each in enumerate(found) if best & {index - 1, index, index + 1}]
    return np.max(kept, axis=0) >= THRESHOLD


def streaks(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth coloured ramp with heavy rain, float32 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.1, 0.6, width, dtype=np.float32)[None, :, None] * np.float32([1.0, 0.8, 0.6])
    return add_rain(np.repeat(ramp, height, axis=0), heavy_rain(rng, height, width, 0.5))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), height=st.integers(1, 40), width=st.integers(1, 40))
def test_equals_scipy_at_any_size(seed: int, height: int, width: int) -> None:
    image = np.random.default_rng(seed).random((height, width, 3))
    assert np.array_equal(mask_of(image), scipy_mask(image))


@pytest.mark.parametrize("seed", range(3))
def test_equals_scipy_on_rain_in_both_dtypes(seed: int) -> None:
    image = streaks(seed, 61, 83)
    expected = scipy_mask(image)
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(mask_of(image), expected)
    assert np.array_equal(mask_of(image.astype(np.float64)), expected)


def test_a_batch_is_its_images() -> None:
    images = torch.from_numpy(np.stack([streaks(seed, 40, 40) for seed in range(3)])).permute(0, 3, 1, 2)
    assert torch.equal(rain_mask(images), torch.cat([rain_mask(image[None]) for image in images]))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_there_is_no_rain_on_one_colour(value: float) -> None:
    assert not mask_of(np.full((30, 30, 3), value)).any()


def test_brightness_is_not_rain() -> None:
    image = streaks(0, 48, 48) * np.float32(0.5)
    levels = np.floor(image * 255 + 0.5)
    assert np.array_equal(mask_of(levels / 255), mask_of((levels + 60) / 255))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), symmetric=st.booleans())
def test_a_mirrored_image_has_the_mirrored_mask(seed: int, symmetric: bool) -> None:
    image = streaks(seed, 40, 33)
    if symmetric:  # streaks to the left and to the right are then equally strong
        image = np.maximum(image, image[:, ::-1])
    assert np.array_equal(mask_of(image[:, ::-1].copy()), mask_of(image)[:, ::-1])


def test_one_streak_is_found_whole_and_an_edge_is_not() -> None:
    image = np.zeros((40, 40, 3))
    image[:, 25:] = 0.5  # a step is no streak
    image[5:30, 10:12] = 0.2
    expected = np.zeros((40, 40), dtype=bool)
    expected[5:30, 10:12] = True
    assert np.array_equal(mask_of(image), expected)


@pytest.mark.parametrize(("length", "found"), [(12, False), (13, True)])
def test_a_streak_has_thirteen_points(length: int, found: bool) -> None:
    image = np.zeros((40, 40, 3))
    image[10 : 10 + length, 20] = 1.0
    assert mask_of(image).any() == found


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the clean photos are not here")
@pytest.mark.parametrize(("heavy", "least_iou", "least_precision"), [(False, 0.50, 0.70), (True, 0.48, 0.95)])
def test_rain_on_photos_is_found(heavy: bool, least_iou: float, least_precision: float) -> None:
    scores = []
    for index, path in enumerate(list_images(SHARED_DATA / "clean")[::13]):
        clean, rng = load_image(path).astype(np.float32), np.random.default_rng([0, index])
        height, width = clean.shape[:2]
        rainy = add_rain(
            clean, heavy_rain(rng, height, width, rng.random()) if heavy else light_rain(rng, height, width)
        )
        truth, found = (rainy - clean).max(2) > RAIN, mask_of(rainy)
        both = np.count_nonzero(truth & found)
        scores.append((both / np.count_nonzero(truth | found), both / np.count_nonzero(found)))
    iou, precision = np.mean(scores, axis=0)
    assert iou >= least_iou
    assert precision >= least_precision


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the clean photos are not here")
def test_clean_photos_have_little_rain() -> None:
    shares = [mask_of(load_image(path)).mean() for path in list_images(SHARED_DATA / "clean")[::6]]
    assert np.mean(shares) <= 0.05
