"""Whole numbers in tensors, exact to the last bit: which type holds them, rounding, sums, pieces that fit a cache.

Values are (T or 1, C, H, W), on a CPU with the channels last in memory: so its convolutions read and write them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import repeat
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.integer.operations import EXACT, INT64, SPIKE, Format, Operation, Rescale

FLOAT32, INT32 = 2**24, 2**31  # float32 and int32 hold every integer below
KEPT = 16  # constants of an operation
AT_ONCE = 2**16  # values of a piece: some of its size fit into what a core has near it
T = TypeVar("T")
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # the channels last, as in memory, and as a second axis again

_CONSTANTS: WeakKeyDictionary[Operation, dict[Any, Any]] = WeakKeyDictionary()


def once(operation: Operation, key: Any, make: Callable[[], T]) -> T:
    """What is made once of an operation's constants, as long as it lives; of images of many widths, the last few."""
    made = _CONSTANTS.setdefault(operation, {})
    if key not in made:
        while len(made) >= KEPT:
            made.pop(next(iter(made)))
        made[key] = make()
    found: T = made[key]
    return found


def whole_type(largest: int) -> torch.dtype:
    """The type in which integers up to `largest` are computed exactly: int32, float64 or int64.

    On the way to a result a part of a sum may be larger than the whole, up to four times: what integers lose then comes
    back, and float64 has room for it.
    """
    return torch.int32 if largest < INT32 else torch.float64 if largest < EXACT // 4 else torch.int64


def type_of(stored: Format) -> torch.dtype:
    """The type of values in a format: bool, int32 or int64."""
    return torch.bool if stored == SPIKE else torch.int32 if stored.high < INT32 else torch.int64


def new_value(shape: Sequence[int], to: Format | torch.dtype, like: Tensor) -> Tensor:
    """Room for a value (T, C, H, W): of a format's integers, or of a type."""
    dtype = type_of(to) if isinstance(to, Format) else to
    return torch.empty(*shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def constant(array: NDArray[Any], like: Tensor, dtype: torch.dtype) -> Tensor:
    """An array with four axes, repeated along the rows of `like`: torch works on whole rows at once where it can."""
    made = torch.tensor(array, dtype=dtype, device=like.device)[(None,) * (4 - array.ndim)]
    if made.shape[1] == 1 or made.shape[3] > 1:
        return made
    return made.expand(-1, -1, -1, like.shape[3]).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Grid:
    """Pieces of a value (T, C, H, W): so many frames and so many rows each, that they stay in a cache; in order."""

    frames: int
    rows: int
    groups: int  # of frames
    bands: int  # of rows, in each group

    def cut(self, value: Tensor) -> list[Tensor]:
        """Views of all pieces. A value that has one frame or one row has it in each."""
        groups = torch.split(value, self.frames) if len(value) > 1 else [value] * self.groups
        if value.shape[2] == 1:
            return [group for group in groups for _ in range(self.bands)]
        return [piece for group in groups for piece in torch.split(group, self.rows, 2)]


def grid_of(out: Tensor) -> Grid:
    """The pieces of a result; a GPU takes it whole."""
    frames, channels, height, width = out.shape
    at_once = AT_ONCE if out.device.type == "cpu" else out.numel()
    rows = min(height, max(1, at_once // max(1, channels * width)))
    group = min(frames, max(1, at_once // max(1, channels * width * height)))
    return Grid(group, rows, -(-frames // group), -(-height // rows))


def pieces(out: Tensor, *values: Tensor | None) -> Iterator[Sequence[Any]]:
    """Views of a result and of what it is made of, piece by piece; None stays None."""
    grid = grid_of(out)
    return zip(*(repeat(None) if value is None else grid.cut(value) for value in (out, *values)), strict=False)


def extremes(x: Tensor) -> tuple[int, int]:
    """Two integers that no value is below or above: known of the tensor, or looked for, once."""
    found: tuple[int, int] | None = getattr(x, "_extremes", None)
    if found is None:
        found = (0, 1) if x.dtype is torch.bool else (int(x.amin()), int(x.amax()))
        know(x, *found)
    return found


def know(x: Tensor, low: int, high: int) -> Tensor:
    """The same tensor, of which this is known from now on; whoever changes it in place afterwards errs."""
    x._extremes = low, high  # type: ignore[attr-defined]
    return x


def reach(x: Tensor) -> int:
    """What no |value| exceeds."""
    low, high = extremes(x)
    return max(-low, high)


def scaled_bound(largest: int, rescale: Rescale, offset: int = 0) -> tuple[int, int]:
    """What no product and no result of (x * multiplier + offset + half) >> shift exceeds, for |values| <= `largest`."""
    products = largest * rescale.largest + offset + ((1 << rescale.shift) >> 1)
    return products, products >> rescale.shift


def factors(multiplier: Any, offset: Any, shift: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """The constants of (x * multiplier + offset + half) >> shift as `scale_` takes them, numbers or arrays.

    In floating point they are divided by 2^shift beforehand: that changes exponents, and rounds nothing.
    """
    unit = 2.0**-shift if dtype.is_floating_point else 1
    return multiplier * unit, (offset + ((1 << shift) >> 1)) * unit


Scaling = tuple[Tensor | None, Tensor | None]


def scaling(
    operation: Operation,
    rescale: Rescale,
    like: Tensor,
    dtype: torch.dtype,
    offset: Callable[[], Any] = lambda: 0,
    key: Hashable = None,
) -> Scaling:
    """`factors` of an operation as tensors, None where they do nothing; made once for a type, a width and a `key`."""

    def make() -> Scaling:
        multiplier, added = factors(rescale.multiplier, offset(), rescale.shift, dtype)
        return (
            constant(np.asarray(multiplier), like, dtype) if np.any(multiplier != 1) else None,
            constant(np.asarray(added), like, dtype) if np.any(added) else None,
        )

    return once(operation, ("scaling", dtype, like.device, like.shape[3], key), make)


def scale_(x: Tensor, multiplier: Any, added: Any, shift: int) -> Tensor:
    """In place: (x * multiplier + offset + half) >> shift, by `factors` for x's type; None changes nothing."""
    if multiplier is not None:
        x.mul_(multiplier)
    if added is not None:
        x.add_(added)
    if shift:
        x.floor_() if x.is_floating_point() else x.bitwise_right_shift_(shift)
    return x


def finish(x: Tensor, to: Format, out: Tensor, largest: int = INT64) -> None:
    """Fill `out` with the nearest integers that the format holds; x, perhaps `out` itself, is spent.

    `largest`: what no |value| of x exceeds.
    """
    beyond = largest > to.high or not to.signed
    if x is not out:
        out.copy_(x.clamp_(to.low, to.high) if beyond and largest >= INT32 else x)  # before it is cut to 32 bits
    if beyond:
        out.clamp_(to.low, to.high)


def work_in(out: Tensor, dtype: torch.dtype) -> Tensor:
    """Room for results that become `out`: itself, if it is of the type."""
    return out if out.dtype is dtype else torch.empty_like(out, dtype=dtype)


def total(x: Tensor, axes: Sequence[int], largest: int) -> Tensor:
    """The sum over axes, which stay with length 1, of |values| <= `largest`: in 32 bits as long as they hold it."""
    counted, kept = 1, x.to(torch.int32 if largest < INT32 else torch.int64)
    kept = kept.permute(LAST)
    for axis in _in_memory(axes):
        counted *= kept.shape[axis]
        kept = kept if counted * largest < INT32 else kept.to(torch.int64)
        kept = reduce(torch.add, torch.split(kept, 1)) if axis == 0 else kept.sum(axis, keepdim=True, dtype=kept.dtype)
    return kept.permute(FIRST)


def maximum(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The maximum over axes, which stay with length 1."""
    kept = x.permute(LAST)
    for axis in _in_memory(axes):
        kept = reduce(torch.maximum, torch.split(kept, 1)) if axis == 0 else kept.amax(axis, keepdim=True)
    return kept.permute(FIRST)


def _in_memory(axes: Sequence[int]) -> list[int]:
    """Axes as they are in memory, the farthest first: so long rows are added to, or compared with, one another."""
    return sorted(LAST.index(axis) for axis in axes)
