"""PSNR and SSIM on the Y channel, as the deraining papers report them: two (H, W, 3) images in [0, 1] in, a
number out.

Y follows MATLAB's rgb2ycbcr (ITU-R BT.601, 16..235), unrounded; the peak is 255 all the same, as in
the papers' scripts.
SSIM follows Wang et al. 2004: 11x11 Gaussian of sigma 1.5, K1 0.01, K2 0.03, only where the window fits ('valid').
"""

from __future__ import annotations

import numpy as np

from esdnet.command.errors import UserError

PEAK = 255.0
_RGB_TO_Y = np.array([65.481, 128.553, 24.966])
_WINDOW = 11


def luminance(image: np.ndarray) -> np.ndarray:
    """Y in 16..235 of an (H, W, 3) RGB image in [0, 1], as float64 (H, W)."""
    return np.asarray(image, dtype=np.float64) @ _RGB_TO_Y + 16.0


def psnr_y(image: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio of Y in dB; infinite for equal images."""
    _check_shapes(image, target)
    error = float(np.mean((luminance(image) - luminance(target)) ** 2))
    return float("inf") if error == 0.0 else 10.0 * float(np.log10(PEAK**2 / error))


def ssim_y(image: np.ndarray, target: np.ndarray) -> float:
    """Mean structural similarity of Y, in [-1, 1]."""
    _check_shapes(image, target)
    if min(image.shape[:2]) < _WINDOW:
        raise UserError(f"SSIM needs images of at least {_WINDOW}x{_WINDOW} pixels, found {image.shape[:2]}")
    from skimage.metrics import structural_similarity  # here: it takes half a second, and --help must not

    x, y = luminance(image), luminance(target)
    return float(
        structural_similarity(x, y, data_range=PEAK, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    )


def _check_shapes(image: np.ndarray, target: np.ndarray) -> None:
    if image.shape != target.shape or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"images to compare must be (H, W, 3) and of one size, found {image.shape} and {target.shape}")
