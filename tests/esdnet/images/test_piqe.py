"""PIQE against pypiqe 1.2 (MIT; converted from MATLAB's function and tested against it by its author).

The scores here were recorded once with that package on the images made below; grey images, on which its conversion to
grey (OpenCV) and ours (MATLAB's weights) agree.
"""

from __future__ import annotations

import numpy as np
import pytest

from esdnet.images.piqe import piqe


def texture(height: int, width: int, noise: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width]
    grey = 0.5 + 0.25 * np.sin(x * y / 97.0) + 0.2 * np.sin(x / 3.0) * np.cos(y / 5.0)
    grey = np.clip(grey + noise * rng.standard_normal((height, width)), 0, 1)
    return np.repeat(np.floor(grey * 255 + 0.5)[..., None], 3, axis=2) / 255


def in_blocks_of_8(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    blocks = (image * 255).reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3)).round()
    return blocks.repeat(8, axis=0).repeat(8, axis=1) / 255


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (texture(120, 150, 0.0), 55.363156995404786),
        (texture(120, 150, 0.1), 46.92501713226784),
        (in_blocks_of_8(texture(128, 160, 0.02)), 81.90511161885098),
        (np.full((48, 48, 3), 90 / 255), 100.0),
    ],
    ids=["texture, padded to blocks", "noisy", "blocky", "flat"],
)
def test_score_equals_that_of_pypiqe(image: np.ndarray, expected: float) -> None:
    assert piqe(image) == pytest.approx(expected, abs=1e-9)


def test_black_image_scores_worst() -> None:
    assert piqe(np.zeros((32, 32, 3))) == 100.0
