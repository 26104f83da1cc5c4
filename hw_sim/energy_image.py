"""One image, run, counted and priced: what energy.py does with a photo, here or in another process.

In: a Job. Out: an EnergyReport, and the picture that is asked for. A network without image-wide nodes runs a photo that
is too large in exact tiles, and its report is that of one run of the whole; others are reported as they were executed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esdnet.command.workers import Here, Workers
from esdnet.images.tile_choice import OVERLAP, TileChoice
from hw_sim.backends.setup import Setup, open_backend
from hw_sim.report.price_models import price_list

if TYPE_CHECKING:
    from esdnet.images.photo import Photo
    from export.graph.counting import NodeCounts
    from hw_sim.backends.executors import Backend
    from hw_sim.backends.spike_maps import SpikeMaps
    from hw_sim.report.energy_report import EnergyReport, Run
    from hw_sim.report.page.pictures import Pictures

IMAGE_BYTES = 200  # a pixel of the whole image: read, blended, drawn and written in float64, whatever runs at once
IN_PLACE = 8  # the same in exact tiles: decoded, and turned upright
PICTURES = 60  # what a page shows of a pixel, beside: input and output in float64


@dataclass(frozen=True)
class Job:
    """An image to price, and all that must be known of how. `overlap` None: tiles have their halo. `label`: how reports
    name the backend. `full`: of a report every node, else its totals."""

    setup: Setup
    path: Path
    picture: Path | None
    tile: int
    overlap: int | None
    prices: str
    label: str
    full: bool = True


@dataclass(frozen=True, eq=False)
class Priced:
    """The report of an image; what a page shows of it, where that is wanted."""

    report: EnergyReport
    pictures: Pictures | None


class Planner:
    """Chooses tiles for the images of a command, and makes its jobs. `sizes`, (height, width), are those of the images
    to come. `setup` goes with every job."""

    def __init__(
        self, args: argparse.Namespace, setup: Setup, backend: Backend, label: str, sizes: list[tuple[int, int]],
        workers: Workers,
    ) -> None:  # fmt: skip
        from export.graph.receptive_field import find_halo, image_wide

        network = backend.source.network
        wide = image_wide(network)
        exact = not wide and args.overlap is None and args.backend != "lava"
        self.args, self.label = args, label
        self.overlap = None if exact else OVERLAP if args.overlap is None else args.overlap
        self.choice = TileChoice(
            args.tile,
            self._bytes_per_pixel(backend, sizes),
            (IN_PLACE + PICTURES * bool(args.html)) if exact else IMAGE_BYTES,
            kept=args.precision == "int8",
            free=workers.free_memory(),
            halo=find_halo(network) if exact else None,
            without_halo=f"{wide[0]} and {len(wide) - 1} more nodes look at all of it" if wide else "",
        )
        self.setup = replace(setup, keep_memory=self.choice.keep_memory(sizes))

    def job(self, path: Path, size: tuple[int, int] | None, picture: Path | None) -> Job:
        """What must be known to price an image of (height, width); a file whose size is not known runs whole."""
        tile = 0 if size is None else self.choice.tile(str(path), size)
        full = self.args.table is None
        return Job(self.setup, path, picture, tile, self.overlap, price_list(self.args), self.label, full)

    def _bytes_per_pixel(self, backend: Backend, sizes: list[tuple[int, int]]) -> float:
        from esdnet.command.device import choose_device
        from esdnet.command.footprint import bytes_per_pixel

        if backend.name == "lava":  # takes small sizes alone, and looks after its memory itself
            return 0.0
        run = backend.executor((0, 0)).run
        device = choose_device(self.args.device)
        return bytes_per_pixel(lambda height, width: run(np.zeros((3, height, width))), sizes, device)


def is_exact(job: Job, size: tuple[int, int]) -> bool:
    """Whether an image of (height, width) goes in tiles that have their halo."""
    return job.overlap is None and 0 < job.tile < max(size)


def price_image(job: Job, workers: Workers | None = None, pictures: bool = False) -> Priced:
    """Run, count and price an image, and write what it became. pictures: what a page shows of it is wanted."""
    from esdnet.images.files import MIN_SIDE
    from esdnet.images.photo import open_photo
    from hw_sim.pricing.prices import load_prices
    from hw_sim.report.energy_report import build_report

    backend = open_backend(job.setup)
    photo = open_photo(job.path, MIN_SIDE)
    if is_exact(job, photo.size):
        run, counts, shown = _in_exact_tiles(job, backend, photo, workers or Here(), pictures)
    else:
        run, counts, shown = _as_executed(job, backend, photo, pictures)
    return Priced(build_report(backend.source.network, counts, run, load_prices(job.prices)), shown)


def price_in_folder(job: Job) -> dict[str, Any]:
    """The report of an image as JSON has it, without its nodes unless they are wanted."""
    report = price_image(job).report.to_dict()
    if not job.full:
        for name in ("layers", "facts"):
            del report[name]
    return report


Found = tuple["Run", "dict[str, NodeCounts]", "Pictures | None"]


def _as_executed(job: Job, backend: Backend, photo: Photo, pictures: bool) -> Found:
    from esdnet.command.memory import out_of_memory
    from esdnet.command.writing import make_folder
    from esdnet.images.files import save_image
    from esdnet.images.tiling import Grid
    from hw_sim.backends.spike_maps import SpikeMaps
    from hw_sim.backends.tiled import run_image

    image = photo.array()
    overlap = OVERLAP if job.overlap is None else job.overlap
    grid = Grid(photo.size, job.tile, overlap, backend.source.network.size_multiple)
    executor = backend.executor(grid.tile_size)
    maps = SpikeMaps(grid.padded) if pictures else None
    with out_of_memory(str(job.path), "give a smaller --tile"):
        done = run_image(executor, image, job.setup.precision, grid, maps)
    if job.picture is not None:
        make_folder(job.picture.parent)
        save_image(job.picture, done.output)
    run = replace(
        _run(job, backend, done.seconds), tile=job.tile, tiles=done.tiles, executed_size=done.executed_size,
        facts=dict(executor.facts),
    )  # fmt: skip
    return run, done.counts, _shown(image, done.output, maps)


def _in_exact_tiles(job: Job, backend: Backend, photo: Photo, workers: Workers, pictures: bool) -> Found:
    from esdnet.command.writing import make_folder
    from esdnet.images.cores import Cores
    from esdnet.images.files import save_photo
    from esdnet.images.photo import as_floats
    from export.graph.receptive_field import find_halo
    from hw_sim.backends.exact_tiles import run_photo
    from hw_sim.backends.spike_maps import SpikeMaps
    from hw_sim.report.energy_report import sum_counts

    network = backend.source.network
    before = photo.array() if pictures else None
    halo = find_halo(network)
    cores = Cores(photo.size, job.tile, halo, network.size_multiple)
    maps = SpikeMaps(cores.padded) if pictures else None
    done = run_photo(job.setup, str(job.path), photo, cores, workers, maps)
    if job.picture is not None:
        make_folder(job.picture.parent)
        save_photo(job.picture, done.image)
    executed = sum_counts(counts.totals() for counts in done.executed.values())
    computed_in = {
        "tile": job.tile, "tiles": len(cores), "halo": list(halo), "overhead": cores.overhead, "totals": executed
    }  # fmt: skip
    run = replace(_run(job, backend, done.seconds), executed_size=cores.padded, computed_in=computed_in)
    return run, done.counts, None if before is None else _shown(before, as_floats(np.asarray(done.image)), maps)


def _shown(before: NDArray[np.float64], after: NDArray[np.float64], maps: SpikeMaps | None) -> Pictures | None:
    """What a page shows, if it is wanted: then there are maps."""
    from hw_sim.report.page.pictures import Pictures

    return None if maps is None else Pictures(before, after, maps)


def _run(job: Job, backend: Backend, seconds: float) -> Run:
    """A run of the whole image."""
    from hw_sim.report.energy_report import Run

    source, setup = backend.source, job.setup
    return Run(
        image=str(job.path), network=source.label, backend=job.label, precision=setup.precision,
        steps=source.network.steps, tile=0, overlap=OVERLAP if job.overlap is None else job.overlap, tiles=1,
        executed_size=(0, 0), seconds=seconds,
        looks_at_values=setup.backend == "simulator" and setup.precision != "int8",
    )  # fmt: skip
