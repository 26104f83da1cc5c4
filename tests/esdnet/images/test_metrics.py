"""PSNR and SSIM on Y against hand-computed cases and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from esdnet.command.errors import UserError
from esdnet.images.metrics import luminance, psnr_y, ssim_y


def test_black_is_16_and_white_is_235() -> None:
    assert luminance(np.zeros((1, 1, 3)))[0, 0] == 16.0
    assert luminance(np.ones((1, 1, 3)))[0, 0] == pytest.approx(235.0, abs=1e-12)


def test_psnr_by_hand() -> None:
    # Red 1 instead of 0 in one of four pixels: Y differs by 65.481 there, so the mean square is 65.481^2 / 4 and
    # PSNR = 20 log10(255 / 65.481) + 10 log10(4) = 11.8085 + 6.0206.
    clean = np.zeros((2, 2, 3))
    rainy = clean.copy()
    rainy[0, 0, 0] = 1.0
    assert psnr_y(rainy, clean) == pytest.approx(17.8291, abs=1e-4)


def test_equal_images() -> None:
    image = np.random.default_rng(0).random((16, 16, 3))
    assert psnr_y(image, image) == float("inf")
    assert ssim_y(image, image) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_flat_images_by_hand() -> None:
    # No variance: only the luminance term (2ab + c1) / (a^2 + b^2 + c1) is left; a = 16, b = 235, c1 = 2.55^2.
    expected = (2 * 16 * 235 + 6.5025) / (16**2 + 235**2 + 6.5025)
    assert ssim_y(np.zeros((12, 13, 3)), np.ones((12, 13, 3))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(11, 11), (30, 47), (64, 33)])
def test_ssim_equals_scikit_image(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    clean = rng.random((*shape, 3))
    rainy = np.clip(clean + 0.2 * rng.random((*shape, 1)), 0, 1)
    expected = structural_similarity(
        luminance(rainy),
        luminance(clean),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim_y(rainy, clean) == pytest.approx(expected, abs=1e-12)


def test_sizes_must_match() -> None:
    with pytest.raises(UserError, match="of one size"):
        psnr_y(np.zeros((16, 16, 3)), np.zeros((16, 17, 3)))


def test_ssim_needs_a_whole_window() -> None:
    with pytest.raises(UserError, match="at least 11x11"):
        ssim_y(np.zeros((10, 16, 3)), np.zeros((10, 16, 3)))
