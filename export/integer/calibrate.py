"""Calibration: ranges and means of a network's values on images, measured in wide integers, equal on every machine.

In: a Network and images (by default the rainy photo that ships). Out: the integer network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import esdnet
from esdnet.command.errors import UserError
from esdnet.images.crops import middle
from esdnet.images.files import list_images, load_image
from export.graph.network import Network
from export.graph.nodes import Array
from export.integer.arithmetic import reach, total
from export.integer.bias_correction import correct_biases
from export.integer.network import IntegerNetwork
from export.integer.operations import IntegerConv, Operation
from export.integer.quantize import quantize
from export.integer.run import run_integer, to_pixels

DEFAULT_IMAGE = Path(esdnet.__file__).parent / "sample" / "rainy.png"


def load_pixels(path: Path, multiple: int) -> NDArray[np.uint8]:
    """An image file as uint8 (3, H, W), its border repeated until `multiple` divides both sides."""
    pixels = to_pixels(load_image(path)).transpose(2, 0, 1)
    height, width = pixels.shape[1:]
    return np.pad(pixels, ((0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge")


def calibration_images(folder: Path | None, multiple: int) -> list[NDArray[np.uint8]]:
    """All images of a folder, or the one that ships; UserError where there are none."""
    if folder is None:
        return [load_pixels(DEFAULT_IMAGE, multiple)]
    if not folder.is_dir():
        raise UserError(f"--calibration {folder}: expected a folder of rainy images; without it one that ships is used")
    return [load_pixels(path, multiple) for path in list_images(folder)]


def centre_pixels(path: Path | None, height: int, width: int) -> NDArray[np.uint8]:
    """The centre (3, height, width) of an image file, by default of the one that ships; UserError if it is smaller."""
    path = path or DEFAULT_IMAGE
    pixels = load_pixels(path, 1)
    if pixels.shape[1] < height or pixels.shape[2] < width:
        found = f"{pixels.shape[1]}x{pixels.shape[2]}"
        raise UserError(f"{path}: {found} pixels, --input-size needs {height}x{width}; take a larger --image")
    rows, columns = middle(pixels.shape[1:], (height, width))
    return pixels[:, rows, columns]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the images showed: the largest |value| of every node, the mean input of every convolution per channel.

    `wide`: the network that measured them.
    """

    wide: IntegerNetwork
    ranges: dict[str, float]
    input_means: dict[str, Array]


def measure(network: Network, images: Sequence[NDArray[np.uint8]]) -> Calibration:
    """Ranges and means over 8-bit images (C, H, W), in real units.

    Measured on the network with quantised weights and 28-bit values, so that they are the same on every machine.
    """
    if not images:
        raise UserError(f"{network.name}: no calibration images; give at least one")
    wide = quantize(network, None)
    ranges = {operation.name: 0.0 for operation in wide.operations}
    sums: dict[str, NDArray[np.int64]] = {}
    counts: Counter[str] = Counter()

    def observe(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> None:
        largest = max(-int(value.amin()), int(value.amax())) * operation.output.scale
        ranges[operation.name] = max(ranges[operation.name], largest)
        if isinstance(operation, IntegerConv):
            summed = total(inputs[0], (0, 2, 3), reach(inputs[0])).flatten().to(torch.int64).numpy()
            sums[operation.name] = sums.get(operation.name, 0) + summed
            counts[operation.name] += inputs[0].numel() // len(summed)

    for image in images:
        run_integer(wide, image, observe)
    scales = {name: wide.by_name[wide.network[name].inputs[0]].output.scale for name in sums}
    return Calibration(wide, ranges, {name: summed * scales[name] / counts[name] for name, summed in sums.items()})


def quantize_on_images(network: Network, images: Sequence[NDArray[np.uint8]]) -> IntegerNetwork:
    """The integer network: scales and corrected biases from these 8-bit images (C, H, W)."""
    calibration = measure(network, images)
    corrected = correct_biases(network, calibration.wide, calibration.input_means)
    return quantize(corrected, calibration.ranges)
