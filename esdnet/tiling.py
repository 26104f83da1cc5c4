"""Runs a network over an image in overlapping tiles: (3, H, W) torch tensor in, the blended output of that size out.

Also told: the size of what was executed and how often, since operation counts are of what was executed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from esdnet.errors import UserError
from esdnet.model import SIZE_MULTIPLE, pad_to_multiple


@dataclass(frozen=True)
class Tiled:
    """The output (3, H, W), the (height, width) that each run saw, padding included, and the number of runs."""

    output: Tensor
    executed_size: tuple[int, int]
    tiles: int


def run_tiled(
    run: Callable[[Tensor], Tensor], image: Tensor, tile: int = 0, overlap: int = 8, multiple: int = SIZE_MULTIPLE
) -> Tiled:
    """Run `run`, which maps (3, h, w) to (3, h, w), over an image (3, H, W); `tile` 0 runs the whole image at once.

    The image is padded to multiples of `multiple` by repeating its border. All tiles have one size; neighbours share at
    least `overlap` pixels, over which their weights ramp linearly; weights and sums are float64, tiles in row-major
    order, so the result is the same on every run. A single tile is returned untouched. Output dtype: that of `run`.
    """
    check_tile(tile, overlap, multiple)
    height, width = image.shape[-2:]
    padded = pad_to_multiple(image[None], multiple)[0]
    tile_height, tile_width = (min(tile, side) if tile else side for side in padded.shape[-2:])
    tops = _starts(padded.shape[-2], tile_height, overlap)
    lefts = _starts(padded.shape[-1], tile_width, overlap)
    if len(tops) * len(lefts) == 1:
        return Tiled(run(padded)[..., :height, :width], (tile_height, tile_width), 1)
    total = torch.zeros(padded.shape, dtype=torch.float64)
    weight = torch.zeros(padded.shape[-2:], dtype=torch.float64)
    dtype = image.dtype
    for top in tops:
        for left in lefts:
            window = (slice(top, top + tile_height), slice(left, left + tile_width))
            output = run(padded[:, window[0], window[1]])
            ramp = torch.outer(_ramp(tile_height, overlap), _ramp(tile_width, overlap))
            total[:, window[0], window[1]] += output.cpu().double() * ramp
            weight[window] += ramp
            dtype = output.dtype
    return Tiled((total / weight).to(dtype)[..., :height, :width], (tile_height, tile_width), len(tops) * len(lefts))


def check_tile(tile: int, overlap: int, multiple: int = SIZE_MULTIPLE) -> None:
    """UserError unless `tile` is 0 or a positive multiple, and `overlap` at most half of it."""
    if tile < 0 or tile % multiple:
        below = max(tile // multiple * multiple, multiple)
        raise UserError(f"tile size {tile}: expected 0 (whole image) or a multiple of {multiple}, such as {below}")
    if overlap < 0 or (tile and 2 * overlap > tile):
        raise UserError(f"overlap {overlap}: expected 0 to {tile // 2}, half of the tile size {tile}")


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along one side: evenly stepped, the last one moved back so that it ends with the image."""
    if tile >= length:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def _ramp(length: int, overlap: int) -> Tensor:
    """Weights along one side of a tile: rising over `overlap` pixels, 1, falling; never 0, so borders divide out."""
    index = torch.arange(length, dtype=torch.float64)
    return ((torch.minimum(index, length - 1 - index) + 1) / (overlap + 1)).clamp(max=1.0)
