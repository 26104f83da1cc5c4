"""An image of any size through an executor, whole or in tiles: output blended, counts of all tiles added up."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from esdnet.images import from_tensor, to_tensor
from esdnet.tiling import run_tiled
from hw_sim.backends import Executor
from hw_sim.counts import NodeCounts


@dataclass(frozen=True, eq=False)
class Done:
    """Output (H, W, 3) float64, not clipped; counts of everything executed; (height, width) of one execution."""

    output: NDArray[np.float64]
    counts: dict[str, NodeCounts]
    executed_size: tuple[int, int]
    tiles: int
    seconds: float


def executed_tile(image: NDArray[np.float64], tile: int, overlap: int, multiple: int) -> tuple[int, int]:
    """(height, width) of what one execution of an image (H, W, 3) will see."""
    tiled = run_tiled(lambda part: part, to_tensor(image)[0], tile, overlap if tile else 0, multiple)
    return tiled.executed_size


def run_image(
    executor: Executor, image: NDArray[np.float64], precision: str, tile: int, overlap: int, multiple: int
) -> Done:
    """One image (H, W, 3) in [0, 1]; all its tiles are streamed. A progress bar on stderr if there is more than one."""
    overlap = overlap if tile else 0
    pixels = to_tensor(image, torch.float64 if precision == "int8" else getattr(torch, precision))[0]
    tiles: list[Tensor] = []
    run_tiled(lambda part: tiles.append(part) or part, pixels, tile, overlap, multiple)  # type: ignore[func-returns-value]
    started = time.perf_counter()
    counts: dict[str, NodeCounts] = {}
    outputs: list[Tensor] = []
    with tqdm(total=len(tiles), unit="tile", file=sys.stderr, disable=len(tiles) == 1, leave=False) as bar:
        for result in executor.stream(part.numpy() for part in tiles):
            for name, count in result.counts.items():
                counts[name] = counts[name].plus(count) if name in counts else count
            outputs.append(torch.from_numpy(np.array(result.output)))
            bar.update()
    ready = iter(outputs)
    tiled = run_tiled(lambda part: next(ready), pixels, tile, overlap, multiple)
    seconds = time.perf_counter() - started
    return Done(from_tensor(tiled.output), counts, tiled.executed_size, tiled.tiles, seconds)
