"""An image in tiles with a halo: each runs for the sake of its core, and the cores make up the image.

In: the sizes of image and cores, and the halo of a network without image-wide operations. Out: tiles whose cores hold
what the whole image would. Unlike tiles that overlap and are blended (tiling.py), these change nothing but the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil

Span = tuple[int, int]  # first, and the one behind the last, along one axis
Halo = tuple[int, int, int, int]  # pixels above, left, below, right


@dataclass(frozen=True)
class Tile:
    """Rows and columns of what runs and of its core, in pixels of the padded image."""

    tile: tuple[Span, Span]
    core: tuple[Span, Span]

    @property
    def pixels(self) -> int:
        """That run."""
        (top, bottom), (left, right) = self.tile
        return (bottom - top) * (right - left)


class Cores:
    """The tiles of an image of `size` (height, width), row by row: cores of at most `side` pixels, nearly alike.

    The image is padded to multiples of `multiple`; cores and tiles begin at multiples of it. A tile ends with its halo,
    or where the image does: nowhere else does it see a border that the image has not.
    """

    def __init__(self, size: tuple[int, int], side: int, halo: Halo, multiple: int) -> None:
        side = max(side // multiple, 1) * multiple
        self.size, self.halo = size, halo
        self.padded = (size[0] + -size[0] % multiple, size[1] + -size[1] % multiple)
        top, left, bottom, right = halo
        rows = _spans(self.padded[0], side, multiple, top, bottom)
        columns = _spans(self.padded[1], side, multiple, left, right)
        self.tiles = [
            Tile((row_tile, column_tile), (row_core, column_core))
            for (row_tile, row_core), (column_tile, column_core) in product(rows, columns)
        ]

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest tile."""
        tile = max(self.tiles, key=lambda tile: tile.pixels).tile
        return tile[0][1] - tile[0][0], tile[1][1] - tile[1][0]

    @property
    def overhead(self) -> float:
        """Pixels that run for each pixel of the image: what the halos cost."""
        return sum(tile.pixels for tile in self.tiles) / (self.padded[0] * self.padded[1])


def _spans(length: int, side: int, multiple: int, before: int, behind: int) -> list[tuple[Span, Span]]:
    """Tiles and their cores along one axis."""
    count = ceil(length / side)
    starts = [number * length // multiple // count * multiple for number in range(count)]
    cores = list(zip(starts, [*starts[1:], length], strict=True))
    return [((max(0, first - before), min(length, end + behind)), (first, end)) for first, end in cores]
