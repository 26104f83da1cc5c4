"""Where the middle of an image lies."""

from __future__ import annotations

from collections.abc import Sequence


def middle(size: Sequence[int], part: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of the middle `part` (height, width) of an image of `size`; all of a side that is smaller."""
    tops = [max(0, whole - wanted) // 2 for whole, wanted in zip(size, part, strict=True)]
    rows, columns = (slice(top, top + wanted) for top, wanted in zip(tops, part, strict=True))
    return rows, columns
