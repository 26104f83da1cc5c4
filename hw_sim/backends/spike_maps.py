"""Where neurons fired, over an image: spikes per pixel of every layer and step, put together of its tiles.

In: (T, h, w) of each layer in each tile, spikes summed over channels. Out: (T, rows, columns), means over cells. A cell
is one pixel of the layer, or a square of 2, 4, 8 ... a side, so that no map has more than MOST cells along a side and
memory does not grow with the image beyond that. Where tiles overlap every execution counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hw_sim.backends.result import SpikeMap

MOST = 384


class SpikeMaps:
    """Gathers the maps of an image of `size` (height, width), padding included."""

    def __init__(self, size: tuple[int, int], most: int = MOST) -> None:
        self.size, self.most = size, most
        self._layers: dict[str, _Layer] = {}

    def add(self, maps: Mapping[str, SpikeMap], window: tuple[slice, slice]) -> None:
        """Those of the tile that lies at `window` (rows, columns) of the image."""
        for name, fired in maps.items():
            if name not in self._layers:
                self._layers[name] = self._begin(fired, window)
            self._layers[name].add(fired, window)

    def means(self) -> dict[str, NDArray[np.float32]]:
        """By layer, (T, rows, columns): spikes of a pixel of the layer, the mean over those in the cell."""
        return {name: layer.mean() for name, layer in self._layers.items()}

    def shares(self, mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """By layer, (rows, columns): the part of each cell that lies in a mask (height, width) of the padded image."""
        grids = {layer.sides: layer for layer in self._layers.values()}
        found = {sides: layer.share(mask) for sides, layer in grids.items()}
        return {name: found[layer.sides] for name, layer in self._layers.items()}

    def _begin(self, fired: SpikeMap, window: tuple[slice, slice]) -> _Layer:
        pixels = [
            max(1, round(whole * here / (part.stop - part.start)))
            for whole, here, part in zip(self.size, fired.shape[1:], window, strict=True)
        ]
        cell = 1
        while any(n > cell * min(self.most, whole) for n, whole in zip(pixels, self.size, strict=True)):
            cell *= 2
        rows, columns = (_Side(whole, n, cell) for whole, n in zip(self.size, pixels, strict=True))
        return _Layer((rows, columns), len(fired))


@dataclass(frozen=True)
class _Side:
    """One axis: `whole` pixels of the image, `pixels` of the layer, `cell` of them to a cell; the last has the rest."""

    whole: int
    pixels: int
    cell: int

    @property
    def cells(self) -> int:
        return max(1, self.pixels // self.cell)

    def cells_of(self, part: slice, count: int) -> NDArray[np.int64]:
        """The cells of `count` values that lie evenly over a part of the image, each by its middle; rising."""
        middles = part.start + (np.arange(count) + 0.5) * (part.stop - part.start) / count
        return np.minimum((middles * self.pixels / self.whole).astype(np.int64) // self.cell, self.cells - 1)


class _Layer:
    """Sums over cells, and how many pixels of the layer, over all tiles, each is the sum of."""

    def __init__(self, sides: tuple[_Side, _Side], steps: int) -> None:
        self.sides = sides
        shape = (sides[0].cells, sides[1].cells)
        self.total, self.pixels = np.zeros((steps, *shape), np.uint32), np.zeros(shape, np.uint32)

    def add(self, fired: SpikeMap, window: tuple[slice, slice]) -> None:
        """The map of a tile."""
        where, sums, pixels = self._sum(fired, window)
        self.total[:, where[0], where[1]] += sums
        self.pixels[where] += pixels

    def mean(self) -> NDArray[np.float32]:
        """(T, rows, columns)."""
        return np.divide(self.total, self.pixels, dtype=np.float32)

    def share(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(rows, columns): the part of each cell that a mask of the image covers."""
        _, sums, pixels = self._sum(mask[None], (slice(0, self.sides[0].whole), slice(0, self.sides[1].whole)))
        return np.divide(sums[0], pixels, dtype=np.float32)

    def _sum(self, values: NDArray[Any], window: tuple[slice, slice]) -> tuple[Any, NDArray[Any], NDArray[Any]]:
        """The cells that a window touches, as indices; sums of its values (n, h, w) over each; how many were summed."""
        cells = [side.cells_of(part, n) for side, part, n in zip(self.sides, window, values.shape[1:], strict=True)]
        starts = [np.flatnonzero(np.diff(of, prepend=-1)) for of in cells]
        for axis, at in enumerate(starts, start=1):
            values = np.add.reduceat(values, at, axis=axis, dtype=np.uint32)
        rows, columns = (np.diff(at, append=n) for at, n in zip(starts, map(len, cells), strict=True))
        where = (cells[0][starts[0]][:, None], cells[1][starts[1]])
        return where, values, np.outer(rows, columns).astype(np.uint32)
