"""`python -m esdnet.derain`: takes the rain out of an image, or of every image in a folder, and writes PNG.

In: image files and a checkpoint (the bundled one unless another is named). Out: 8-bit PNG of the same size. Exit 0 if
all were derained, 1 if some of a folder failed (each is named, the rest is done), 2 for a user's mistake.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from esdnet.command.command_line import program_name
from esdnet.command.device import DEVICES, choose_device
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.jobs import Outcome, run_jobs
from esdnet.command.memory import out_of_memory
from esdnet.command.writing import check_folder, check_outputs, make_folder, write_json
from esdnet.images.files import (
    SUFFIXES,
    check_image_file,
    check_png_name,
    from_tensor,
    image_size,
    list_images,
    load_image,
    png_names,
    save_image,
    to_tensor,
)
from esdnet.images.tile_choice import OVERLAP, TileChoice, add_tile_flags, check_tile, check_tile_flags
from esdnet.networks.bundled import DEFAULT, checkpoint_label, find_checkpoint
from esdnet.networks.esdnet.config import SIZE_MULTIPLE

if TYPE_CHECKING:
    from torch import Tensor

    from esdnet.images.tiling import Tiled
    from esdnet.networks.architectures import Network

IMAGE_BYTES = 150  # a pixel of the whole image: read, blended and written in float64, whatever runs at once


def build_parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Take the rain out of images.")
    parser.add_argument("input", type=Path, help="an image, or a folder of images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .png file, or a folder")
    add_network_flags(parser)
    parser.add_argument(
        "--show-mask", type=Path, metavar="FILE.png",
        help="write the rain mask that a dual-stage network has of the image: white where there is rain",
    )  # fmt: skip
    parser.add_argument("--skip-existing", action="store_true", help="leave out images whose PNG is there already")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was done, how, and what failed")
    return parser


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which network runs, where, and on how much of an image at once."""
    parser.add_argument("--checkpoint", metavar="FILE|NAME", default=DEFAULT, help=f"default: the bundled {DEFAULT}")
    add_tile_flags(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: derain_files(arguments))


def derain_files(arguments: argparse.Namespace) -> int:
    """Derain what the flags name; files written are listed on stdout."""
    check_tile_flags(arguments, SIZE_MULTIPLE)
    checkpoint = find_checkpoint(arguments.checkpoint)
    jobs = _plan(arguments.input, arguments.out)
    check_outputs({"--json": arguments.json, "--show-mask": arguments.show_mask}, [checkpoint, *jobs], jobs.values())
    is_folder = arguments.input.is_dir()
    if arguments.show_mask is not None:
        if is_folder or arguments.skip_existing:
            raise UserError("--show-mask: is that of one image, not for a folder or with --skip-existing")
        check_png_name(f"--show-mask {arguments.show_mask}", arguments.show_mask)
    if not is_folder:
        load_image(arguments.input)  # before torch: a bad image is found at once
    skipped = {source: png for source, png in jobs.items() if arguments.skip_existing and png.exists()}
    if skipped:
        print(f"{len(skipped)} of {len(jobs)} images are derained already and skipped", file=sys.stderr)
    sources = [source for source in jobs if source not in skipped]
    outcome: Outcome[dict[str, Any]] = Outcome()
    if sources:
        network = Derainer(checkpoint, arguments, sources, IMAGE_BYTES)
        if arguments.show_mask is not None:
            _check_mask(network)

        def work(source: Path) -> dict[str, Any]:
            return _derain_file(network, source, jobs[source], arguments.show_mask)

        outcome = run_jobs(sources, work) if is_folder else Outcome([work(sources[0])])
    if arguments.json is not None:
        write_json(arguments.json, {"images": outcome.results, "skipped": list(map(str, skipped)), **outcome.to_dict()})
    return outcome.status


def _check_mask(network: Derainer) -> None:
    from esdnet.networks.dual_stage.model import DualStage

    if not isinstance(network.model, DualStage) or not network.model.config.has_mask:
        raise UserError(f"--show-mask: {network.label} has no rain mask, expected a dual-stage network with one")


def _derain_file(network: Derainer, source: Path, destination: Path, mask: Path | None) -> dict[str, Any]:
    from tqdm import tqdm

    started = time.monotonic()
    image = load_image(source)
    tile, result = network.derain(str(source), image)
    make_folder(destination.parent)
    save_image(destination, from_tensor(result.output))
    tqdm.write(str(destination))
    if mask is not None:
        save_image(mask, from_tensor(network.mask(image, tile).output))
        tqdm.write(str(mask))
    return {
        "input": str(source),
        "output": str(destination),
        "checkpoint": network.label,
        "device": network.device,
        **facts(image, tile, result),
        "overlap": network.overlap,
        "seconds": time.monotonic() - started,
    }


def facts(image: np.ndarray, tile: int, result: Tiled) -> dict[str, Any]:
    """What a report says of an image's size and tiles."""
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "tile": tile,
        "executed_size": list(result.executed_size),
        "tiles": result.tiles,
    }


class Derainer:
    """The network of a checkpoint, said on stderr, in eval mode on the device asked for, and how it is given images.

    `sources` are the files that it will be given, `image_bytes` what the command takes for a pixel of a whole image.
    """

    def __init__(
        self, checkpoint: Path, arguments: argparse.Namespace, sources: list[Path], image_bytes: float
    ) -> None:
        from esdnet.networks.checkpoint import load_network

        self.label, self.device = checkpoint_label(checkpoint), choose_device(arguments.device)
        print(f"checkpoint: {self.label}", file=sys.stderr)
        self.model = load_network(checkpoint).to(self.device)
        check_tile(arguments.tile or 0, arguments.overlap, self.model.size_multiple)
        self.overlap = arguments.overlap
        sizes = [size for size in map(image_size, sources) if size]
        self.choice = TileChoice(arguments.tile, self._bytes_per_pixel(sizes), image_bytes)
        self.choice.keep_memory(sizes)

    def derain(self, name: str, image: np.ndarray) -> tuple[int, Tiled]:
        """The side of the tiles that an image (H, W, 3) was run in, 0 for none, and the result."""
        tile = self.choice.tile(name, (image.shape[0], image.shape[1]))
        with out_of_memory(name, "give a smaller --tile"):
            return tile, derain(self.model, image, tile, self.overlap)

    def mask(self, image: np.ndarray, tile: int) -> Tiled:
        """The rain mask of an image (H, W, 3), as a dual-stage network had it in these tiles: 0 or 1, or between the
        two where tiles share pixels and differ."""
        model: Any = self.model
        return _run(model, lambda part: model.mask(part).expand(-1, 3, -1, -1), image, tile, self.overlap)

    def _bytes_per_pixel(self, sizes: list[tuple[int, int]]) -> float:
        import torch

        from esdnet.command.footprint import bytes_per_pixel

        dtype = next(self.model.parameters()).dtype

        @torch.inference_mode()
        def run(height: int, width: int) -> None:
            self.model(torch.zeros(1, 3, height, width, dtype=dtype))

        return bytes_per_pixel(run, sizes, self.device)


def derain(model: Network, image: np.ndarray, tile: int = 0, overlap: int = OVERLAP) -> Tiled:
    """Run the network, in its own dtype, over an (H, W, 3) image in [0, 1]; the output (3, H, W) is not clipped."""
    return _run(model, model, image, tile, overlap)


def _run(model: Network, run: Callable[[Tensor], Tensor], image: np.ndarray, tile: int, overlap: int) -> Tiled:
    import torch

    from esdnet.images.tiling import run_tiled

    weight = next(model.parameters())
    with torch.inference_mode():
        planes = to_tensor(image, weight.dtype).to(weight.device)[0]
        return run_tiled(lambda part: run(part[None])[0], planes, tile, overlap, model.size_multiple)


def _plan(source: Path, out: Path) -> dict[Path, Path]:
    """Which file becomes which; nothing is made yet. UserError if that cannot be."""
    if source.is_dir():
        if out.suffix.lower() in SUFFIXES:
            raise UserError(f"-o {out}: {source} is a folder, expected a folder to write to")
        check_folder("-o", out)
        return png_names(list_images(source), out)
    check_image_file(source)
    if out.is_dir() or not out.suffix:
        check_folder("-o", out)
        return png_names([source], out)
    check_png_name(f"-o {out}", out)
    check_outputs({"-o": out}, [source])
    return {source: out}


if __name__ == "__main__":
    sys.exit(main())
