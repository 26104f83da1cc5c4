"""A photo through a network in tiles that are exact: cut as they are asked for, their cores put in the photo's place.

In: a Photo, its Cores. Out: the same photo, derained; in no more memory than it has, and the tiles that are under way.
"""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from esdnet.images.cores import Cores, Tile
from esdnet.images.photo import Photo, Pixels


class TileStream:
    """`cut` gives tiles row by row, `put` takes their cores in any order. A core waits until no tile to come has use
    for the pixels in its place."""

    def __init__(self, photo: Photo, cores: Cores) -> None:
        self.photo, self.cores = photo, cores
        in_place = photo.image.mode == "RGB"
        self.image = photo.image if in_place else Image.new("RGB", photo.image.size)
        self._waiting: list[tuple[Tile, Pixels]] = []
        self._needed_from = 0  # the first row that a tile to come reads

    def cut(self) -> Iterator[tuple[Tile, Pixels]]:
        """Every tile with its pixels; beyond the border of the photo they are repeated."""
        for tile in self.cores.tiles:
            self._needed_from = tile.tile[0][0]
            yield tile, self.photo.part(*tile.tile)
        self._needed_from = self.cores.padded[0]
        self._put_what_can_be()

    def put(self, tile: Tile, core: Pixels) -> None:
        """The derained core of a tile, uint8 (h, w, 3)."""
        self._waiting.append((tile, core))
        self._put_what_can_be()

    def _put_what_can_be(self) -> None:
        ready = [item for item in self._waiting if item[0].core[0][1] <= self._needed_from]
        self._waiting = [item for item in self._waiting if item[0].core[0][1] > self._needed_from]
        height, width = self.photo.size
        for tile, core in ready:
            (top, bottom), (left, right) = tile.core
            kept = core[: min(bottom, height) - top, : min(right, width) - left]
            self.image.paste(Image.fromarray(kept), (left, top))
