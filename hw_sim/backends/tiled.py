"""An image of any size through an executor, whole or in tiles: output blended, counts of all tiles added up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esdnet.command.jobs import progress_bar
from esdnet.images.files import from_tensor, to_tensor
from esdnet.images.tiling import Grid
from export.graph.counting import NodeCounts
from hw_sim.backends.executor import Executor
from hw_sim.backends.spike_maps import SpikeMaps


@dataclass(frozen=True, eq=False)
class Done:
    """Output (H, W, 3) float64, not clipped; counts of everything executed; (height, width) of one execution."""

    output: NDArray[np.float64]
    counts: dict[str, NodeCounts]
    executed_size: tuple[int, int]
    tiles: int
    seconds: float


def run_image(
    executor: Executor, image: NDArray[np.float64], precision: str, grid: Grid, maps: SpikeMaps | None = None
) -> Done:
    """One image (H, W, 3) in [0, 1]; all its tiles are streamed. A progress bar on a terminal if there is more than
    one. maps: gathers where neurons fired."""
    pixels = to_tensor(image, torch.float64 if precision == "int8" else getattr(torch, precision))[0]
    started = time.perf_counter()
    counts: dict[str, NodeCounts] = {}

    def outputs() -> Iterator[Tensor]:
        with progress_bar(len(grid), "tile", leave=False) as bar:
            results = executor.stream(part.numpy() for part in grid.cut(pixels))
            for window, result in zip(grid.windows, results, strict=True):
                if maps:
                    maps.add({**result.gates, **result.spike_maps()}, window)
                for name, count in result.counts.items():
                    counts[name] = counts[name].plus(count) if name in counts else count
                yield torch.from_numpy(np.array(result.output))
                bar.update()

    output = grid.blend(outputs())
    seconds = time.perf_counter() - started
    return Done(from_tensor(output), counts, grid.tile_size, len(grid), seconds)
