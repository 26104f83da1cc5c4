"""`python -m esdnet.derain`: takes the rain out of an image, or of every image in a folder, and writes PNG.

In: image files and a checkpoint (the bundled one unless another is named). Out: 8-bit PNG of the same size.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from esdnet.device import DEVICES, choose_device
from esdnet.errors import UserError, report_user_errors
from esdnet.images import from_tensor, list_images, load_image, save_image, to_tensor

if TYPE_CHECKING:
    from esdnet.networks.architectures import Network
    from esdnet.tiling import Tiled

OVERLAP = 8  # of neighbouring tiles, in pixels, as in the authors' evaluation


def build_parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    parser = argparse.ArgumentParser(prog="python -m esdnet.derain", description="Take the rain out of images.")
    parser.add_argument("input", type=Path, help="an image, or a folder of images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .png file, or a folder")
    add_network_flags(parser)
    return parser


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which network runs, where, and on how much of an image at once."""
    parser.add_argument("--checkpoint", type=Path, help="default: the bundled small_released.pt")
    parser.add_argument("--tile", type=int, default=0, help="side of a tile in pixels; 0: the whole image (default)")
    parser.add_argument("--overlap", type=int, default=OVERLAP, help=f"pixels that tiles share (default: {OVERLAP})")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: derain_files(arguments))


def derain_files(arguments: argparse.Namespace) -> int:
    """Derain what the flags name; files written are listed on stdout."""
    from tqdm import tqdm

    from esdnet.tiling import check_tile

    jobs = _plan(arguments.input, arguments.out)
    check_tile(arguments.tile, arguments.overlap)
    model = open_network(arguments.checkpoint, arguments.device)
    for source, destination in tqdm(jobs, desc="derain", unit="image", disable=len(jobs) == 1):
        result = derain(model, load_image(source), arguments.tile, arguments.overlap)
        save_image(destination, from_tensor(result.output))
        tqdm.write(str(destination))
    return 0


def open_network(checkpoint: Path | None, device: str) -> Network:
    """The network of a checkpoint (None: the bundled one, said on stderr), in eval mode on 'auto', 'cpu' or 'cuda'."""
    from esdnet.checkpoint import DEFAULT_CHECKPOINT, load_network

    chosen = choose_device(device)
    if checkpoint is None:
        checkpoint = DEFAULT_CHECKPOINT
        print(f"checkpoint: {checkpoint.name} (bundled)", file=sys.stderr)
    return load_network(checkpoint).to(chosen)


def derain(model: Network, image: np.ndarray, tile: int = 0, overlap: int = OVERLAP) -> Tiled:
    """Run the network, in its own dtype, over an (H, W, 3) image in [0, 1]; the output (3, H, W) is not clipped."""
    import torch

    from esdnet.tiling import run_tiled

    weight = next(model.parameters())
    with torch.inference_mode():
        planes = to_tensor(image, weight.dtype).to(weight.device)[0]
        return run_tiled(lambda part: model(part[None])[0], planes, tile, overlap, model.size_multiple)


def _plan(source: Path, out: Path) -> list[tuple[Path, Path]]:
    """Which file becomes which; the folder for them is made. UserError before anything runs if that cannot be."""
    if source.is_dir():
        if out.suffix.lower() == ".png":
            raise UserError(f"{out}: {source} is a folder, expected a folder to write to")
        sources, folder = list_images(source), out
    elif out.suffix.lower() == ".png":
        return [(source, _not_itself(source, out))]
    else:
        sources, folder = [source], out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made a folder ({error.strerror})") from error
    jobs: dict[Path, Path] = {}
    for path in sources:
        destination = _not_itself(path, folder / f"{path.stem}.png")
        if destination in jobs:
            raise UserError(f"{path}: {jobs[destination].name} would be written to {destination} too; rename one")
        jobs[destination] = path
    return [(path, destination) for destination, path in jobs.items()]


def _not_itself(source: Path, destination: Path) -> Path:
    if destination.resolve() == source.resolve():
        raise UserError(f"{destination}: would overwrite its own input; choose another -o")
    return destination


if __name__ == "__main__":
    sys.exit(main())
