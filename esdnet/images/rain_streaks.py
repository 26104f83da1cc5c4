"""A mask of rain streaks by grey-level morphology: rainy images in, 0 or 1 per pixel out. Nothing in it is learnt.

The paper (esdnet/networks/dual_stage/model.py) names masks made by morphological operations and no more; which ones is
our choice. A streak is brighter than its surround across, and goes on along itself. So for each of nine directions: a
white top-hat with a short line across keeps what is thin, an opening with a longer line along it keeps what is long.
Rain falls in one direction: of an image only its strongest direction and the two beside it count.

All of it is done in whole grey levels, so that every dtype, device and library finds the same mask, to the last pixel.
Networks and the layer graph both compute by this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ANGLES = (-40, -28, -18, -9, 0, 9, 18, 28, 40)  # degrees from upright, neighbours side by side
ACROSS, ALONG = 7, 13  # points of the two lines
CLIP = 38  # levels that one pixel may add to the strength of a direction: 0.15 of white
THRESHOLD = 8  # levels from which a response is rain: 0.03 of white

Offsets = tuple[tuple[int, int], ...]  # (rows, columns)


def line_across(angle: float, points: int) -> Offsets:
    """The digital line of so many points at right angles to streaks that lean by `angle`."""
    return tuple((-_leaning(step, angle), step) for step in _steps(points))


def line_along(angle: float, points: int) -> Offsets:
    """The digital line of so many points that streaks leaning by `angle` follow."""
    return tuple((step, _leaning(step, angle)) for step in _steps(points))


def rain_mask(
    image: Tensor,
    *,
    angles: tuple[int, ...] = ANGLES,
    across: int = ACROSS,
    along: int = ALONG,
    clip: int = CLIP,
    threshold: int = THRESHOLD,
) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (N, 1, H, W) of the same dtype, 1 where there is rain.

    Equal rain in all channels is seen in the darkest, so that coloured edges count less. Odd numbers of points.
    """
    import torch
    from torch.nn.functional import max_pool1d

    with torch.no_grad():
        whole = torch.int32 if torch.onnx.is_in_onnx_export() else torch.uint8  # ONNX Runtime has no minimum of bytes
        levels = torch.floor(image.amin(1) * 255 + 0.5).clamp(0, 255).to(whole)
        lines = [(line_across(angle, across), line_along(angle, along)) for angle in angles]
        found = torch.stack([_response(levels, *pair) for pair in lines], dim=1)  # (N, angles, H, W)
        strength = found.clamp(max=clip).sum((2, 3))  # int64: exact
        strongest = strength == strength.amax(1, keepdim=True)  # of equals all: a mirrored image has the mirrored mask
        kept = max_pool1d(strongest[None].to(image.dtype), 3, stride=1, padding=1)[0].to(whole)
        highest = (found * kept[..., None, None]).amax(1, keepdim=True)
        return (highest >= threshold).to(image.dtype)


def _response(levels: Tensor, across: Offsets, along: Offsets) -> Tensor:
    """How far streaks of one direction stand out, in grey levels: (N, H, W) uint8 both."""
    thin = levels - _opening(levels, across)
    return _opening(thin, along)


def _opening(levels: Tensor, line: Offsets) -> Tensor:
    """Erosion, then dilation by a line that is its own mirror image. Beyond the border there is nothing to see: it is
    white to the one and black to the other, so that an opening is never above what it opens."""
    import torch

    return _extreme(_extreme(levels, line, torch.minimum, 255), line, torch.maximum, 0)


def _extreme(levels: Tensor, line: Offsets, choose: Callable[[Tensor, Tensor], Tensor], beyond: int) -> Tensor:
    from torch.nn.functional import pad

    rows, columns = (max(abs(offset[axis]) for offset in line) for axis in (0, 1))
    padded = pad(levels, (columns, columns, rows, rows), value=beyond)
    return reduce(
        choose,
        (
            padded[..., rows + down : (down - rows) or None, columns + right : (right - columns) or None]
            for down, right in line
        ),
    )


def _steps(points: int) -> range:
    return range(-(points // 2), points // 2 + 1)


def _leaning(step: int, angle: float) -> int:
    """How far a line has moved sideways after `step`: never half a pixel more, so a line is its own mirror image."""
    return round(step * math.tan(math.radians(angle)))
