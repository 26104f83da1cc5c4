"""The images that every export is checked on. In: a size. Out: images in [0, 1], most of them by name.

A picture exercises most neurons. Constant images make every membrane of a channel the same number, so that one on its
threshold shows as a whole channel of spikes; noise reaches what a smooth picture leaves silent.
"""

from __future__ import annotations

import numpy as np

from export.graph.network import Network
from export.graph.nodes import Array

SMALL = 16  # pixels a side, at least: these cost little


def small_images(network: Network) -> dict[str, Array]:
    """Plain images and noise in a small size that the network takes."""
    side = -(-SMALL // network.size_multiple) * network.size_multiple
    return plain_images(side, side)


def plain_images(height: int, width: int) -> dict[str, Array]:
    """Black, white, grey and noise, (3, H, W)."""
    flat = {name: np.full((3, height, width), value) for name, value in (("black", 0.0), ("white", 1.0), ("grey", 0.5))}
    return {**flat, "noise": np.random.default_rng(1).random((3, height, width))}


def sample_image(height: int, width: int) -> Array:
    """A bright pattern with noise and light streaks, (3, H, W) in [0, 1], the same every time."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (5 + 2 * c) + c) * np.cos(columns / (7 - c)) for c in range(3)]
    streaks = 0.4 * (rng.random((height, width)) > 0.95)
    return np.clip(0.45 + 0.3 * np.stack(waves) + streaks + 0.1 * rng.standard_normal((3, height, width)), 0.0, 1.0)
