"""A mask of rain streaks by grey-level morphology: rainy images in, 0 or 1 per pixel out. Nothing in it is learnt.

The paper (see model) names masks made by morphological operations and no more; which ones is our choice. A streak is
brighter than its surround across, and goes on along itself. So for each of nine directions: a white top-hat with a
short line across keeps what is thin, an opening with a longer line along it keeps what is long. Rain falls in one
direction: of an image only its strongest direction and the two beside it count.

All of it is done in whole grey levels, so that every dtype, device and library finds the same mask, to the last pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLES = (-40, -28, -18, -9, 0, 9, 18, 28, 40)  # degrees from upright
ACROSS, ALONG = 7, 13  # points of the two lines
MOST = 38  # levels that one pixel may add to the strength of a direction: 0.15 of white
THRESHOLD = 8  # levels from which a response is rain: 0.03 of white

Offsets = tuple[tuple[int, int], ...]  # (rows, columns)


def across(angle: float) -> Offsets:
    """The digital line of ACROSS points at right angles to streaks that lean by `angle`."""
    return tuple((-_leaning(step, angle), step) for step in _steps(ACROSS))


def along(angle: float) -> Offsets:
    """The digital line of ALONG points that streaks leaning by `angle` follow."""
    return tuple((step, _leaning(step, angle)) for step in _steps(ALONG))


def rain_mask(image: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, 1, H, W) of the same dtype, 1 where there is rain.

    Equal rain in all channels is seen in the darkest, so that coloured edges count less.
    """
    with torch.no_grad():
        whole = torch.int32 if torch.onnx.is_in_onnx_export() else torch.uint8  # ONNX Runtime has no minimum of bytes
        levels = torch.floor(image.amin(1) * 255 + 0.5).clamp(0, 255).to(whole)
        found = torch.stack([_response(levels, angle) for angle in ANGLES], dim=1)  # (N, 9, H, W)
        strength = found.clamp(max=MOST).sum((2, 3))  # int64: exact
        strongest = strength == strength.amax(1, keepdim=True)  # of equals all: a mirrored image has the mirrored mask
        kept = F.max_pool1d(strongest[None].to(image.dtype), 3, stride=1, padding=1)[0].to(whole)
        highest = (found * kept[..., None, None]).amax(1, keepdim=True)
        return (highest >= THRESHOLD).to(image.dtype)


def _response(levels: Tensor, angle: float) -> Tensor:
    """How far streaks of one direction stand out, in grey levels: (N, H, W) uint8 both."""
    thin = levels - _opening(levels, across(angle))
    return _opening(thin, along(angle))


def _opening(levels: Tensor, line: Offsets) -> Tensor:
    """Erosion, then dilation by a line that is its own mirror image. Beyond the border there is nothing to see: it is
    white to the one and black to the other, so that an opening is never above what it opens."""
    return _extreme(_extreme(levels, line, torch.minimum, 255), line, torch.maximum, 0)


def _extreme(levels: Tensor, line: Offsets, choose: Callable[[Tensor, Tensor], Tensor], beyond: int) -> Tensor:
    rows, columns = (max(abs(offset[axis]) for offset in line) for axis in (0, 1))
    padded = F.pad(levels, (columns, columns, rows, rows), value=beyond)
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
