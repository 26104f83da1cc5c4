"""A checkpoint at work: its network over images of any size, whole or in tiles that fit into memory.

In: a checkpoint, the options of a command, photos. Out: derained photos, and what is said of them. Networks without
image-wide parts run in tiles with their halo, which change nothing; others in tiles that overlap and are blended.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esdnet.command.device import DEVICES, choose_device
from esdnet.command.errors import UserError
from esdnet.command.jobs import progress_bar
from esdnet.command.memory import keep_freed_memory, out_of_memory
from esdnet.command.workers import Here, Workers, run_tasks
from esdnet.images.cores import Cores, Tile
from esdnet.images.files import from_tensor, to_photo, to_tensor
from esdnet.images.photo import Photo, Pixels, as_floats, image_size
from esdnet.images.stream import TileStream
from esdnet.images.tile_choice import OVERLAP, TileChoice, add_tile_flags, check_tile
from esdnet.networks.bundled import DEFAULT, checkpoint_label, find_checkpoint, name_elsewhere

if TYPE_CHECKING:
    from torch import Tensor

    from esdnet.images.tiling import Tiled
    from esdnet.networks.architectures import Network

IN_PLACE = 8  # bytes a pixel of a photo that is derained in exact tiles: decoded, and turned upright


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which network runs, where, and on how much of an image at once."""
    parser.add_argument("--checkpoint", metavar="FILE|NAME", default=DEFAULT, help=f"default: the bundled {DEFAULT}")
    add_tile_flags(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")


@dataclass(frozen=True)
class Setup:
    """What a process needs to do its part: the checkpoint and its hash, the device, whether to keep freed memory, and
    the overlap of tiles that are blended; None: tiles have their halo."""

    checkpoint: str
    sha256: str
    device: str
    keep_memory: bool = False
    overlap: int | None = None


@dataclass(frozen=True, eq=False)
class Opened:
    """The network of this process, in place of a Setup, which says how any process opens one; `overlap` as there."""

    model: Network
    overlap: int | None = None


@dataclass(frozen=True, eq=False)
class Derained:
    """A derained photo, 8-bit RGB, and what a report says of its size and tiles."""

    image: Image.Image
    facts: dict[str, Any]


class Derainer:
    """The network of a checkpoint, said on stderr, in eval mode on the device asked for, and how it is given images.

    `sources` are the files that it will be given, `image_bytes` what the command takes for a pixel of an image that
    runs whole or in blended tiles. `setup` goes with every task.
    """

    def __init__(
        self,
        checkpoint: Path,
        arguments: argparse.Namespace,
        sources: list[Path],
        image_bytes: float,
        workers: Workers | None = None,
    ) -> None:
        self.label, device = checkpoint_label(checkpoint), choose_device(arguments.device)
        print(f"checkpoint: {self.label}", file=sys.stderr)
        self.setup = Setup(name_elsewhere(checkpoint), _sha256(checkpoint), device)
        self.model = open_network(self.setup)
        sizes = [size for size in map(image_size, sources) if size]
        self.choice, overlap = choose_tiles(
            self.model, arguments.tile, arguments.overlap, sizes, image_bytes, workers or Here()
        )
        self.setup = replace(self.setup, keep_memory=self.choice.keep_memory(sizes), overlap=overlap)

    def tile(self, name: str, size: tuple[int, int] | None) -> int:
        """The side of the tiles for an image of (height, width), 0 for none, as for a file without a size."""
        return 0 if size is None else self.choice.tile(name, size)


def choose_tiles(
    model: Network, tile: int | None, overlap: int | None, sizes: list[tuple[int, int]], image_bytes: float,
    workers: Workers | None = None,
) -> tuple[TileChoice, int | None]:  # fmt: skip
    """What chooses tiles for images of these (height, width), and by how much they overlap: None where they have their
    halo, as they have where the network allows it and no `overlap` is asked for."""
    halo = model.halo if overlap is None else None
    blended = OVERLAP if overlap is None else overlap
    check_tile(tile or 0, 0 if halo else blended, model.size_multiple)
    per_pixel, free = _bytes_per_pixel(model, sizes), (workers or Here()).free_memory()
    choice = TileChoice(
        tile, per_pixel, IN_PLACE if halo else image_bytes, free=free, halo=halo, without_halo=model.without_halo
    )
    return choice, None if halo else blended


@lru_cache(maxsize=1)
def _open(checkpoint: str, sha256: str, device: str) -> Network:
    from esdnet.networks.checkpoint import load_network

    path = find_checkpoint(checkpoint)
    if _sha256(path) != sha256:
        raise UserError(f"{checkpoint}: is another checkpoint here than where the command began")
    return load_network(path).to(device)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def open_checkpoint(path: Path) -> Network:
    """The network of a checkpoint, in eval mode, on a GPU if there is one; the last one is kept."""
    return _open(name_elsewhere(path), _sha256(path), choose_device("auto"))


def open_network(setup: Setup | Opened) -> Network:
    """The network of a setup, once in a process; UserError if the file is another one here."""
    if isinstance(setup, Opened):
        return setup.model
    if setup.keep_memory:
        keep_freed_memory()
    return _open(setup.checkpoint, setup.sha256, setup.device)


def derain_photo(setup: Setup | Opened, name: str, photo: Photo, tile: int, workers: Workers | None = None) -> Derained:
    """A photo through the network. In tiles with their halo its memory becomes the derained one's, and they are shared
    among the workers; blended tiles, and the whole image, run here."""
    with out_of_memory(name, "give a smaller --tile"):
        if setup.overlap is None:
            return _in_exact_tiles(setup, name, photo, tile, workers or Here())
        result = derain(open_network(setup), photo.array(), tile, setup.overlap)
        facts = {"executed_size": list(result.executed_size), "tiles": result.tiles, "overlap": setup.overlap}
        return Derained(to_photo(name, from_tensor(result.output)), _size(photo, tile) | facts)


def _size(photo: Photo, tile: int) -> dict[str, Any]:
    return {"height": photo.size[0], "width": photo.size[1], "tile": tile}


def derain_array(opened: Opened, image: NDArray[np.floating[Any]], tile: int) -> NDArray[np.float64]:
    """An (H, W, 3) image of floats through the network, in such tiles as a photo; not clipped."""
    model = opened.model
    if opened.overlap is not None:
        return from_tensor(derain(model, image, tile, opened.overlap).output)
    cores, (height, width) = _cores(model, (image.shape[0], image.shape[1]), tile), image.shape[:2]
    derained = np.empty(image.shape)
    missing = [(0, padded - side) for padded, side in zip(cores.padded, (height, width), strict=True)]
    padded = np.pad(image, [*missing, (0, 0)], mode="edge")
    for each in cores.tiles:
        (top, bottom), (left, right) = each.core
        core = _core(model, each, padded[slice(*each.tile[0]), slice(*each.tile[1])])
        derained[top:bottom, left:right] = core[: height - top, : width - left]
    return derained


def _cores(model: Network, size: tuple[int, int], side: int) -> Cores:
    return Cores(size, side or max(size) + model.size_multiple, model.halo or (0, 0, 0, 0), model.size_multiple)


def _core(model: Network, tile: Tile, pixels: NDArray[Any]) -> NDArray[np.float64]:
    """The core (h, w, 3) of a tile's output."""
    output = from_tensor(derain(model, pixels).output)
    rows, columns = (slice(core[0] - at[0], core[1] - at[0]) for core, at in zip(tile.core, tile.tile, strict=True))
    return output[rows, columns]


def _in_exact_tiles(setup: Setup | Opened, name: str, photo: Photo, side: int, workers: Workers) -> Derained:
    cores = _cores(open_network(setup), photo.size, side)
    stream = TileStream(photo, cores)
    tasks = ((tile, _OneTile(setup, name, tile, pixels)) for tile, pixels in stream.cut())
    with progress_bar(len(cores), "tile", leave=False) as bar:
        for tile, core in run_tasks(workers, _derain_tile, tasks):
            stream.put(tile, core.result())
            bar.update()
    facts = {
        "executed_size": list(cores.largest), "tiles": len(cores), "halo": max(cores.halo), "overhead": cores.overhead
    }  # fmt: skip
    return Derained(stream.image, _size(photo, side) | facts)


@dataclass(frozen=True, eq=False)
class _OneTile:
    """The pixels of a tile of an image, and where it is."""

    setup: Setup | Opened
    name: str
    tile: Tile
    pixels: Pixels


def _derain_tile(one: _OneTile) -> Pixels:
    """The core of a tile, uint8 (h, w, 3)."""
    with out_of_memory(one.name, "give a smaller --tile"):
        core = _core(open_network(one.setup), one.tile, as_floats(one.pixels))
    return np.asarray(to_photo(one.name, core))


def rain_mask_of(model: Any, image: np.ndarray, tile: int, overlap: int) -> Tiled:
    """The rain mask of an image (H, W, 3), as a dual-stage network had it in these tiles: 0 or 1, or between the two
    where tiles share pixels and differ."""
    return _run(model, lambda part: model.mask(part).expand(-1, 3, -1, -1), image, tile, overlap)


def derain(model: Network, image: np.ndarray, tile: int = 0, overlap: int = OVERLAP) -> Tiled:
    """Run the network, in its own dtype, over an (H, W, 3) image in [0, 1]; the output (3, H, W) is not clipped."""
    return _run(model, model, image, tile, overlap)


def _run(model: Network, run: Callable[[Tensor], Tensor], image: np.ndarray, tile: int, overlap: int) -> Tiled:
    import torch

    from esdnet.images.tiling import run_tiled

    weight = next(model.parameters())
    with torch.inference_mode():
        planes = to_tensor(image, weight.dtype).to(weight.device)[0]
        return run_tiled(lambda part: run(part[None])[0], planes, model.size_multiple, tile, overlap)


def _bytes_per_pixel(model: Network, sizes: list[tuple[int, int]]) -> float:
    import torch

    from esdnet.command.footprint import bytes_per_pixel

    weight = next(model.parameters())

    @torch.inference_mode()
    def run(height: int, width: int) -> None:
        model(torch.zeros(1, 3, height, width, dtype=weight.dtype))

    return bytes_per_pixel(run, sizes, weight.device.type)
