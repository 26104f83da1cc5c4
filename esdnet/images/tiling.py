"""An image in overlapping tiles: (3, H, W) torch tensor in, tiles out; their outputs in, one blended image out.

Also told: the size of what is executed and how often, since operation counts are of what was executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from esdnet.images.padding import pad_to_multiple
from esdnet.images.tile_choice import OVERLAP, check_tile


@dataclass(frozen=True)
class Tiled:
    """The output (3, H, W), the (height, width) that each run saw, padding included, and the number of runs."""

    output: Tensor
    executed_size: tuple[int, int]
    tiles: int


class Grid:
    """Where the tiles of an image of `size` (height, width) lie; `tile` 0 is one for the whole image.

    The image is padded to multiples of `multiple` by repeating its border. All tiles have one size; neighbours share at
    least `overlap` pixels. windows: rows and columns of each tile in the padded image, in the order of `cut`.
    """

    def __init__(self, size: tuple[int, int], tile: int, overlap: int, multiple: int) -> None:
        check_tile(tile, overlap, multiple)
        self.size, self.overlap, self.multiple = size, overlap, multiple
        self.padded = (size[0] + -size[0] % multiple, size[1] + -size[1] % multiple)
        height, width = (min(tile, side) if tile else side for side in self.padded)
        self.tile_size = (height, width)
        tops, lefts = _starts(self.padded[0], height, overlap), _starts(self.padded[1], width, overlap)
        self.windows = [(slice(top, top + height), slice(left, left + width)) for top, left in product(tops, lefts)]

    def __len__(self) -> int:
        return len(self.windows)

    def cut(self, image: Tensor) -> Iterator[Tensor]:
        """The tiles of an image (3, H, W), row by row."""
        padded = pad_to_multiple(image[None], self.multiple)[0]
        for rows, columns in self.windows:
            yield padded[:, rows, columns]

    def blend(self, outputs: Iterable[Tensor]) -> Tensor:
        """One image (3, H, W) of the tiles' outputs, given in the order of `cut`; in their dtype.

        Over what tiles share their weights ramp linearly; weights and sums are float64, so the result is the same on
        every run. A single tile is returned untouched.
        """
        height, width = self.size
        if len(self) == 1:
            [output] = outputs
            return output[..., :height, :width]
        total = torch.zeros(3, *self.padded, dtype=torch.float64)
        weight = torch.zeros(self.padded, dtype=torch.float64)
        ramp = torch.outer(*(_ramp(side, self.overlap) for side in self.tile_size))
        for window, output in zip(self.windows, outputs, strict=True):
            total[:, window[0], window[1]] += output.cpu().double() * ramp
            weight[window] += ramp
            dtype = output.dtype
        return total.div_(weight)[..., :height, :width].to(dtype)


def run_tiled(
    run: Callable[[Tensor], Tensor], image: Tensor, multiple: int, tile: int = 0, overlap: int = OVERLAP
) -> Tiled:
    """Run `run`, which maps (3, h, w) to (3, h, w), over an image (3, H, W); see Grid for the tiles."""
    grid = Grid((image.shape[1], image.shape[2]), tile, overlap, multiple)
    return Tiled(grid.blend(map(run, grid.cut(image))), grid.tile_size, len(grid))


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along one side: evenly stepped, the last one moved back so that it ends with the image."""
    if tile >= length:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def _ramp(length: int, overlap: int) -> Tensor:
    """Weights along one side of a tile: rising over `overlap` pixels, 1, falling; never 0, so borders divide out."""
    index = torch.arange(length, dtype=torch.float64)
    return ((torch.minimum(index, length - 1 - index) + 1) / (overlap + 1)).clamp(max=1.0)
