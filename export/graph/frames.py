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
    """The input of a network as (T, C, H, W), a frame for every step; or (1, C, H, W) of one that shows itself a frame
    at every step. NetworkError says what else it is.

    The shape may leave out the sides of 1 that a vector (N, 1, 1) or a sequence (C, 1, L) has in the graph. Nothing is
    resized, repeated or scaled. A network of spikes takes booleans, and numbers that are all 0 or 1.
    """
    every_step = network.input.every_step
    shape = (network.input.channels, *(network.input.size or (-1, -1)))
    check_numbers(frames)
    frames = _with_sides(network, frames if every_step else frames[None], shape)
    if network.input.carries == "spike" and frames.dtype.kind != "b" and not np.isin(frames, (0, 1)).all():
        odd = frames[~np.isin(frames, (0, 1))].flat[0]
        raise NetworkError(f"{network.name}: spikes are 0 and 1, found {odd:g}; for numbers give --input-kind analog")
    return frames


def check_numbers(frames: NDArray[Any]) -> None:
    """NetworkError for an array that can be no network's input: empty, not of numbers, not finite."""
    if not frames.size:
        raise NetworkError(f"input of shape {frames.shape}: holds nothing, expected at least one step of values")
    if frames.dtype.kind not in "biuf":
        raise NetworkError(f"input of {frames.dtype}, expected numbers or booleans")
    if frames.dtype.kind == "f" and not np.isfinite(frames).all():
        raise NetworkError(f"input has NaN or infinity in {int((~np.isfinite(frames)).sum())} places, expected numbers")


def _with_sides(network: Network, frames: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Frames as (T, C, H, W), with the sides of 1 that were left out; -1 is a side that is free."""
    channels, height, width = shape
    forms = [shape]
    if height == 1:
        forms.append((channels, width))  # type: ignore[arg-type]
    if height == width == 1:
        forms.append((channels,))  # type: ignore[arg-type]
    for form in forms:
        if len(form) == frames.ndim - 1 and all(m in (n, -1) for n, m in zip(frames.shape[1:], form, strict=True)):
            return frames.reshape(len(frames), channels, *(frames.shape[2:] if height == -1 else (height, width)))
    sides = ", ".join("any" if side == -1 else str(side) for side in forms[-1])
    expected, found = (f"(T, {sides})", frames.shape) if network.input.every_step else (f"({sides})", frames.shape[1:])
    raise NetworkError(f"{network.name}: input of shape {found}, expected {expected}; nothing is resized or repeated")


def output_of(value: Frames) -> Frames:
    """What a run returns of its Output's value (T or 1, C, H, W): (C, H, W) if it is one frame, else all of them."""
    return value[0] if len(value) == 1 else value
