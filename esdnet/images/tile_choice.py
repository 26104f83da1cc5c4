"""How much of an image runs at once: what --tile says, or the largest part that the free memory holds.

In: the options, the sizes of the images, what one pixel takes (esdnet.command.footprint measures it). Out: a tile size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from esdnet.command.errors import UserError
from esdnet.command.memory import free_memory, in_words, keep_freed_memory, resident_memory
from esdnet.images.cores import Halo

OVERLAP = 8  # of neighbouring tiles, in pixels, as in the authors' evaluation
SIDES = (2048, 1024, 512, 256, 128, 64)  # of tiles chosen here; few, so that a little more memory changes no result
SHARE = 0.9  # of the free memory: others want some too
SCATTERED = (
    1.3  # resident bytes over those in use, at most, as measured: blocks of below 32 MiB do not fill up the gaps
)
# by estimate; below 2 GB as measured: what a process takes that runs exact tiles, which change nothing else
AT_MOST = 1.75e9
WHOLE = 1.75  # times what is left below AT_MOST an image may take whole: small tiles compute their halos several times
EXACT_SIDES = range(2048, 127, -64)
KEPT_BY_TILES = 1.6  # as measured where tiles of few sizes come one after the other
KEPT = 2.2  # the same where freed memory is kept: glibc gives an aligned block the place of an equal one only by luck


def add_tile_flags(parser: argparse.ArgumentParser) -> None:
    """--tile and --overlap."""
    parser.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="side of the tiles in pixels; 0: the whole image; default: whole, or the largest tiles that fit into the "
        "memory that is free",
    )
    parser.add_argument(
        "--overlap", type=int, metavar="N",
        help=f"pixels that tiles share and that are blended (default: {OVERLAP}; none where tiles can be exact)",
    )  # fmt: skip


def check_tile_flags(arguments: argparse.Namespace, multiple: int) -> None:
    """UserError for a tile or an overlap that cannot be, or an overlap without tiles."""
    if arguments.overlap is not None and not arguments.tile:
        raise UserError(f"--overlap {arguments.overlap}: is that of tiles; give --tile too")
    check_tile(arguments.tile or 0, arguments.overlap or 0, multiple)


def check_tile(tile: int, overlap: int, multiple: int) -> None:
    """UserError unless `tile` is 0 or a positive multiple, and `overlap` at most half of it."""
    if tile < 0 or tile % multiple:
        below = max(tile // multiple * multiple, multiple)
        raise UserError(f"tile size {tile}: expected 0 (whole image) or a multiple of {multiple}, such as {below}")
    if overlap < 0 or (tile and 2 * overlap > tile):
        raise UserError(f"overlap {overlap}: expected 0 to {tile // 2}, half of the tile size {tile}")


@dataclass
class TileChoice:
    """Chooses tiles for images. `given` is --tile, None where memory decides; `free` in bytes, None: it is not known.

    `per_pixel` are the bytes that live at once for each pixel that runs at once, `per_image_pixel` those for each pixel
    of the image, however it runs. `kept`: the process keeps freed memory already. `halo`: of a network whose tiles are
    exact (cores.py); of others `without_halo` says why they have none.
    """

    given: int | None
    per_pixel: float
    per_image_pixel: float
    kept: bool = False
    free: int | None = field(default_factory=free_memory)
    halo: Halo | None = None
    without_halo: str = ""
    _said: set[str] = field(default_factory=set)

    def tile(self, name: str, size: tuple[int, int]) -> int:
        """The side of the tiles for an image of (height, width), 0 for none; a choice is said once on stderr.

        Tiles that change nothing are as large as AT_MOST allows, others only there where the whole does not fit.
        UserError where neither what was given nor the smallest tile fits.
        """
        if self.given is not None:
            if not self._fits(size, self.given, self._factor):
                what = f"in tiles of {self.given}" if self.given else "at once"
                raise UserError(
                    f"{name}: {self._needs(size, self.given, what)}; leave out --tile, or give a smaller one"
                )
            if self.given and self.given < max(size):
                self._say(f"tiles of {self.given}{self._change_what()}")
            return self.given
        side = self._largest(size)
        if side is None:
            raise UserError(
                f"{name}: {self._needs(size, SIDES[-1], f'in tiles of {SIDES[-1]}')}; free some, or shrink it"
            )
        if side and self.halo is None:
            what = self._needs(size, 0, "at once")
            self._say(f"{what}: in tiles of {side}, as with --tile {side}{self._change_what()}")
        elif side:
            self._say(f"{size[1]}x{size[0]} pixels: in tiles of {side}{self._change_what()}")
        return side

    def keep_memory(self, sizes: Iterable[tuple[int, int]]) -> bool:
        """Let this process keep what it frees, which is faster and takes more, unless an image only fits without; says
        whether it does."""
        given = self.given or 0
        only_without = (self._fits(size, given, self._factor) and not self._fits(size, given, KEPT) for size in sizes)
        keep = self.halo is not None or not any(only_without)
        if keep:
            keep_freed_memory()
        return keep

    def _largest(self, size: tuple[int, int]) -> int | None:
        """The largest side that fits, 0 for the whole image, None if none does."""
        if self.halo is None:
            whole = [0] if self._fits(size, 0, self._factor) else []
            return next((side for side in (*whole, *SIDES) if not side or self._fits(size, side, KEPT)), None)
        sides = (0, *(side for side in EXACT_SIDES if side < max(size)))  # a tile of all of it is the whole
        fitting = [side for side in sides if self._fits(size, side, KEPT_BY_TILES)]
        left = AT_MOST - resident_memory()
        modest = [side for side in fitting if self._bytes(size, side, KEPT_BY_TILES) <= left * (1 if side else WHOLE)]
        return next(iter(modest or fitting[-1:]), None)

    @property
    def _factor(self) -> float:
        return KEPT if self.kept else SCATTERED

    def _fits(self, size: tuple[int, int], tile: int, factor: float) -> bool:
        return self.free is None or self._bytes(size, tile, factor) <= SHARE * self.free

    def _bytes(self, size: tuple[int, int], tile: int, factor: float) -> float:
        top, left, bottom, right = self.halo or (0, 0, 0, 0)
        around = (top + bottom, left + right)
        executed = prod(min(tile + more, side) if tile else side for side, more in zip(size, around, strict=True))
        return factor * executed * self.per_pixel + prod(size) * self.per_image_pixel

    def _needs(self, size: tuple[int, int], tile: int, what: str) -> str:
        needed, free = self._bytes(size, tile, self._factor), self.free or 0
        return f"{size[1]}x{size[0]} pixels {what} need about {in_words(needed)}, {in_words(free)} are free"

    def _change_what(self) -> str:
        if self.halo is None:
            why = f" ({self.without_halo})" if self.without_halo else ""
            return f"; the result is not that of the whole image{why}"
        return f" and the {max(self.halo)} pixels around: the network sees there what it sees in the whole image"

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            print(line, file=sys.stderr)
