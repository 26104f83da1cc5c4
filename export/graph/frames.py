"""Both ends of every executor: the image that it takes, and the frames that it gives back. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from export.graph.network import Network
from export.graph.nodes import NetworkError

if TYPE_CHECKING:
    from torch import Tensor

Frames = TypeVar("Frames", NDArray[Any], "Tensor")


def check_image(network: Network, image: NDArray[Any]) -> tuple[int, int]:
    """(height, width) of an image (channels, H, W) of floats in [0, 1]; NetworkError says what else it is.

    By its type, not only by its values: a dark image of 8-bit pixels would pass for a bright one of floats.
    """
    if image.ndim != 3:
        raise NetworkError(f"{network.name}: image of shape {image.shape}, expected (channels, height, width)")
    channels, height, width = image.shape
    if channels != network.input.channels:
        raise NetworkError(f"{network.name}: image has {channels} channels, expected {network.input.channels}")
    if image.dtype.kind != "f":
        raise NetworkError(f"{network.name}: image of {image.dtype}, expected floats in [0, 1]; divide pixels by 255")
    low, high = (float(bound(image, initial=0.5)) for bound in (np.min, np.max))
    if not (low >= 0.0 and high <= 1.0):  # also where one is NaN
        raise NetworkError(f"{network.name}: image with values from {low:g} to {high:g}, expected [0, 1]; scale it")
    return int(height), int(width)


def output_of(value: Frames) -> Frames:
    """What a run returns of its Output's value (T or 1, C, H, W): (C, H, W) if it is one frame, else all of them."""
    return value[0] if len(value) == 1 else value
