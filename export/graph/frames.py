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


def check_sequence(network: Network, frames: NDArray[Any]) -> NDArray[Any]:
    """Frames for every step, (T, *shape of the input), as (T, C, H, W); NetworkError says what else they are.

    The shape may leave out the sides of 1 that a vector (N, 1, 1) or a sequence (C, 1, L) has in the graph. Nothing is
    resized, repeated or scaled. A network of spikes takes booleans, and numbers that are all 0 or 1.
    """
    shape = (network.input.channels, *network.probe_size)
    free = network.input.size is None
    short = tuple(side for side in shape if side != 1)
    if not network.input.every_step:
        raise NetworkError(f"{network.name}: takes one image, not a frame for every step; give an image")
    fits = frames.ndim == 4 and frames.shape[1] == shape[0] if free else frames.shape[1:] in (shape, short, shape[:1])
    if not fits or (not free and np.prod(frames.shape[1:]) != np.prod(shape)):
        expected = "(T, " + ", ".join(map(str, (shape[0], "height", "width") if free else (short or (1,)))) + ")"
        raise NetworkError(f"{network.name}: input of shape {frames.shape}, expected {expected}; nothing is resized")
    if not len(frames):
        raise NetworkError(f"{network.name}: input of 0 steps, expected at least one")
    if frames.dtype.kind not in "biuf":
        raise NetworkError(f"{network.name}: input of {frames.dtype}, expected numbers or booleans")
    if frames.dtype.kind == "f" and not np.isfinite(frames).all():
        raise NetworkError(f"{network.name}: input has NaN or infinity in {int((~np.isfinite(frames)).sum())} places")
    if network.input.carries == "spike" and frames.dtype.kind != "b" and not np.isin(frames, (0, 1)).all():
        odd = frames[~np.isin(frames, (0, 1))].flat[0]
        raise NetworkError(f"{network.name}: spikes are 0 and 1, found {odd:g}; give --input-kind analog for numbers")
    return frames if free else frames.reshape(len(frames), *shape)


def output_of(value: Frames) -> Frames:
    """What a run returns of its Output's value (T or 1, C, H, W): (C, H, W) if it is one frame, else all of them."""
    return value[0] if len(value) == 1 else value
