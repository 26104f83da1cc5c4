"""Pictures in a page: the image and what it became, where spikes fire, and where rain is.

In: arrays, SpikeMaps. Out: data URIs and numbers, ready for JSON.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hw_sim.backends.spike_maps import SpikeMaps

MOST_SIDE = 1024  # of a picture in the page
AS_PNG = 400_000  # bytes: beyond that a picture is a JPEG
RAIN_LEVELS = 8  # grey levels that the output must differ from the input by in some colour, where there is rain


@dataclass(frozen=True, eq=False)
class Pictures:
    """An image, what the network made of it, (H, W, 3) in [0, 1] and about that, and where its neurons fired."""

    image: NDArray[np.float64]
    output: NDArray[np.float64]
    maps: SpikeMaps | None = None


def picture_uri(array: NDArray[np.float64]) -> str:
    """The picture as an <img> takes it: made smaller beyond MOST_SIDE, a JPEG where a PNG were too large."""
    picture = Image.fromarray(np.floor(np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8))
    picture.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
    png = _encoded(picture, "PNG")
    if len(png) <= AS_PNG:
        return _data_uri("png", png)
    return _data_uri("jpeg", _encoded(picture, "JPEG", quality=92))


def rain_of(pictures: Pictures) -> NDArray[np.bool_]:
    """(H, W): where the output differs from the input by more than RAIN_LEVELS of 255 in any colour."""
    difference = np.abs(np.clip(pictures.output, 0, 1) - pictures.image)
    return np.asarray(difference.max(2) * 255 > RAIN_LEVELS + 0.5)


def spike_pictures(pictures: Pictures, channels: Mapping[str, int], most: int) -> dict[str, Any] | None:
    """Where each layer fires, as the scripts of the page read it; None if nobody asked the run, or nothing fires in it.

    channels: of each layer. most: cells along a side of a map, else it is halved. `layers`: a grey PNG per step,
    `full` where every channel fires, and rates where rain is and elsewhere. `covers`: how much of the padded image.
    """
    if pictures.maps is None:
        return None
    means, rain = pictures.maps.means(), rain_of(pictures)
    padded = np.pad(
        rain, [(0, whole - here) for whole, here in zip(pictures.maps.size, rain.shape, strict=True)], "edge"
    )
    shares = pictures.maps.shares(padded)
    layers = {name: _layer(mean, channels[name], shares[name], most) for name, mean in means.items()}
    height, width = rain.shape
    return {
        "layers": layers,
        "most": most,
        "coarser": any(layer.pop("coarser") for layer in layers.values()),
        "rain": _data_uri("png", _encoded(Image.fromarray(rain), "PNG")),
        "rain_share": float(rain.mean()),
        "rain_levels": RAIN_LEVELS,
        "covers": [height / padded.shape[0], width / padded.shape[1]],
    }


def _layer(fired: NDArray[np.float32], channels: int, rain: NDArray[np.float32], most: int) -> dict[str, Any]:
    """fired: (T, rows, columns), spikes of a pixel; rain: (rows, columns), the share of each cell."""
    rates = fired / channels
    shown = fired
    while max(shown.shape[1:]) > most:
        shown = _halved(shown)
    exact = channels <= 255 and np.array_equal(shown, np.rint(shown))  # counts themselves, which also pack better
    full = channels if exact else 255
    grey = np.floor(np.clip(shown / channels, 0, 1) * full + 0.5).astype(np.uint8)
    return {
        "coarser": shown is not fired,
        "cells": [shown.shape[2], shown.shape[1]],
        "full": full,
        "steps": [_data_uri("png", _encoded(Image.fromarray(step), "PNG", optimize=True)) for step in grey],
        "in_rain": _mean_where(rates, rain),
        "elsewhere": _mean_where(rates, 1 - rain),
    }


def _mean_where(rates: NDArray[np.float32], share: NDArray[np.float32]) -> list[float] | None:
    """By step, the mean over cells, each by its share; None where there is no such cell."""
    whole = float(share.sum(dtype=np.float64))
    return [float((step * share).sum(dtype=np.float64) / whole) for step in rates] if whole else None


def _halved(rates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 x 2 cells; a last odd row or column stands for itself."""
    _, rows, columns = rates.shape
    even = np.pad(rates, ((0, 0), (0, rows % 2), (0, columns % 2)), "edge")
    return np.asarray(even.reshape(len(rates), (rows + 1) // 2, 2, (columns + 1) // 2, 2).mean((2, 4)))


def _encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
