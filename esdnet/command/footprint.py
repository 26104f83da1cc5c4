"""How much memory a network takes for each pixel that it runs at once, measured on a small image.

In: a function that runs the network. Out: bytes per pixel. Features grow with the pixels, so a small image tells.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SIDE = 32  # pixels of the image that is tried
SMALL = 64 * 64  # pixels that fit wherever the network itself does

_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.convolution.default)


def bytes_per_pixel(run: Callable[[int, int], Any], sizes: Iterable[tuple[int, int]], device: str) -> float:
    """The most bytes of tensors that live at any one time while `run(height, width)` runs an image of that size.

    0, and nothing is run, where `sizes`, (height, width) of the images to come, are all small, or on a GPU, whose
    memory was never measured.

    Weights are not among the bytes: they are converted, and kept, in a first run. What an operation takes for itself
    cannot be seen from outside; of those here only convolutions take much, see `_scratch`. At 768x768 to 1536x1536
    pixels the resident memory of the torch model was 1.00 to 1.01 of this in float32 and 0.94 in float64, the
    simulator's 0.76 to 0.81 and 0.96 (dim 8 and 16, released and spike-driven).
    """
    if device != "cpu" or all(prod(size) <= SMALL for size in sizes):
        return 0.0
    run(SIDE, SIDE)
    with _Living() as living:
        run(SIDE, SIDE)
    return living.most / SIDE**2


class _Living(TorchDispatchMode):
    """Adds up the storages that operations make and takes off those that are freed; `most` is the highest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        scratch = _scratch(args[0], args[1], result) if func in _CONVOLUTIONS else 0
        self.most = max(self.most, self._now + scratch)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self._now += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size


def _scratch(x: Tensor, weight: Tensor, result: Tensor) -> int:
    """Bytes that torch's convolution takes while it runs: x in another layout (oneDNN), and in float64, which oneDNN
    has not, the columns that each output pixel reads, of all images at once (im2col)."""
    columns = prod(weight.shape[1:]) * result[:, 0].nbytes if x.dtype is torch.float64 else 0
    return x.nbytes + columns
