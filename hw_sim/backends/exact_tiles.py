"""A photo of any size through a backend in tiles that are exact: its memory becomes the derained one's.

In: a photo, its cores, and who runs the tiles. Out: the derained photo, the counts of one run of the whole, which the
cores add up to, and of all that ran. What a process needs to run its part goes with every tile.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from esdnet.command.jobs import progress_bar
from esdnet.command.memory import out_of_memory
from esdnet.command.workers import Workers, run_tasks
from esdnet.images.cores import Cores, Tile
from esdnet.images.files import to_photo
from esdnet.images.photo import Photo, Pixels, as_floats
from esdnet.images.stream import TileStream
from export.graph.counting import NodeCounts
from export.graph.nodes import NetworkError
from export.graph.part import Part, PartCounter
from hw_sim.backends.setup import Setup, open_backend
from hw_sim.backends.spike_maps import SpikeMaps

if TYPE_CHECKING:
    from hw_sim.backends.result import SpikeMap

Counts = dict[str, NodeCounts]


@dataclass(frozen=True, eq=False)
class Streamed:
    """`image`: the derained photo. `counts`: of one run of the whole; `executed`: of everything that ran."""

    image: Image.Image
    counts: Counts
    executed: Counts
    cores: Cores
    seconds: float


def run_photo(
    setup: Setup, name: str, photo: Photo, cores: Cores, workers: Workers, maps: SpikeMaps | None = None
) -> Streamed:
    """All tiles of a photo, by whoever is free. maps: gathers where neurons fired."""
    started = time.perf_counter()
    stream = TileStream(photo, cores)
    counts, executed = Counts(), Counts()
    tasks = ((tile, _Tile(setup, name, tile, cores.padded, pixels)) for tile, pixels in stream.cut())
    with progress_bar(len(cores), "tile", leave=False) as bar:
        for tile, future in run_tasks(workers, _run_tile, tasks):
            done = future.result()
            _add(counts, done.of_core)
            _add(executed, done.executed)
            if maps is not None:
                maps.add(done.maps, (slice(*tile.core[0]), slice(*tile.core[1])))
            stream.put(tile, done.core)
            bar.update()
    return Streamed(stream.image, counts, executed, cores, time.perf_counter() - started)


def _add(total: Counts, more: Mapping[str, NodeCounts]) -> None:
    for name, counts in more.items():
        total[name] = total[name].plus(counts) if name in total else counts


@dataclass(frozen=True, eq=False)
class _Tile:
    """The pixels of a tile, and where it lies in a whole of (height, width)."""

    setup: Setup
    name: str
    tile: Tile
    whole: tuple[int, int]
    pixels: Pixels


@dataclass(frozen=True, eq=False)
class _Done:
    """The derained core, uint8 (h, w, 3), what was counted of it and of the tile, and where neurons fired in it."""

    core: Pixels
    of_core: Counts
    executed: Counts
    maps: dict[str, SpikeMap]


def _run_tile(given: _Tile) -> _Done:
    setup, tile = given.setup, given.tile
    backend = open_backend(setup)
    executor = backend.executor((0, 0))
    image = as_floats(given.pixels).transpose(2, 0, 1)
    if setup.precision != "int8":
        image = image.astype(setup.precision)
    part = Part(given.whole, tile.tile, tile.core)
    if executor.run_part is None:
        raise NetworkError(f"{setup.backend}: runs no part of an image; only backends do that can count its core apart")
    with out_of_memory(given.name, "give a smaller --tile"):
        result = executor.run_part(image, part)
    rows, columns = (slice(core[0] - at[0], core[1] - at[0]) for core, at in zip(tile.core, tile.tile, strict=True))
    core = np.asarray(to_photo(given.name, result.output[:, rows, columns].transpose(1, 2, 0)))
    fired = {**result.gates, **result.spike_maps()} if setup.keep_maps else {}
    inside = PartCounter(backend.source.network, part)
    maps = {name: inside.core(name, of_tile) for name, of_tile in fired.items()}
    return _Done(core, result.of_core, result.counts, maps)
