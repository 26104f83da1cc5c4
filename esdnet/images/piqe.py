"""PIQE, a no-reference image quality score: an (H, W, 3) image in [0, 1] in, a number from 0 (best) to 100 out.

Venkatanath et al., "Blind image quality evaluation using perception based features", NCC 2015, with the choices of the
MATLAB function of that name, so that scores compare with published ones.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import correlate1d

BLOCK = 16
SEGMENT = 6  # pixels of a block's edge that are looked at together
ACTIVE_VARIANCE = 0.1  # blocks with less are not salient and do not count
FLAT_DEVIATION = 0.1  # an edge segment with less shows a compression artefact
_GREY = np.array([0.298936, 0.587043, 0.114021])  # MATLAB rgb2gray


def piqe(image: np.ndarray) -> float:
    """Perception-based image quality of an (H, W, 3) image in [0, 1]: 0 is excellent, 100 bad (flat images too)."""
    blocks = _blocks(_normalised(_grey_levels(image)))
    variance = blocks.var(axis=(1, 2), ddof=1)
    active = variance > ACTIVE_VARIANCE
    blocks, variance = blocks[active], variance[active]
    artefact, noise = _has_flat_edge(blocks), _is_noisy(blocks, np.sqrt(variance))
    distortion = float(np.sum(artefact * (1.0 - variance) + noise * variance))
    return (distortion + 1.0) / (len(blocks) + 1.0) * 100.0


def _grey_levels(image: np.ndarray) -> np.ndarray:
    """Whole grey levels whose brightest is 255, mirrored at the far borders to whole blocks."""
    bytes_ = np.floor(np.clip(np.asarray(image, dtype=np.float64), 0.0, 1.0) * 255.0 + 0.5)
    grey = np.floor(bytes_ @ _GREY + 0.5)
    height, width = grey.shape
    grey = np.pad(grey, ((0, -height % BLOCK), (0, -width % BLOCK)), mode="symmetric")
    return np.floor(255.0 * grey / max(float(grey.max()), 1.0) + 0.5)


def _normalised(grey: np.ndarray) -> np.ndarray:
    """Mean subtracted, contrast normalised: 7x7 Gaussian of sigma 7/6, borders repeated."""
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()

    def smooth(x: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(x, weights, axis=0, mode="nearest"), weights, axis=1, mode="nearest")

    mean = smooth(grey)
    return (grey - mean) / (np.sqrt(np.abs(smooth(grey * grey) - mean * mean)) + 1.0)


def _blocks(x: np.ndarray) -> np.ndarray:
    rows, columns = x.shape[0] // BLOCK, x.shape[1] // BLOCK
    return x.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)


def _has_flat_edge(blocks: np.ndarray) -> np.ndarray:
    """Whether any run of 6 pixels along any of a block's four edges hardly varies: (N, 16, 16) -> (N,)."""
    edges = np.stack([blocks[:, 0], blocks[:, -1], blocks[:, :, 0], blocks[:, :, -1]], axis=1)
    deviation = sliding_window_view(edges, SEGMENT, axis=2).std(axis=-1, ddof=1)
    return (deviation < FLAT_DEVIATION).any(axis=(1, 2))


def _is_noisy(blocks: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Whether a block deviates more than twice as much as its centre columns differ from their surround.

    The surround leaves out columns 7 and 9 (from 0) rather than the centre, 7 and 8, as the MATLAB function does.
    """
    centre = blocks[:, :, 7:9].std(axis=(1, 2), ddof=1)
    surround = np.delete(blocks, (7, 9), axis=2).std(axis=(1, 2), ddof=1)
    ratio = np.divide(centre, surround, out=np.zeros_like(centre), where=surround > 0)
    return deviation > 2.0 * np.abs(deviation - ratio) / np.maximum(deviation, ratio)
