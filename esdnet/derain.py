"""`python -m esdnet.derain`: takes the rain out of an image, or of every image in a folder, and writes PNG or JPEG.

In: image files and a checkpoint (the bundled one unless another is named). Out: 8-bit images of the same size. Exit 0
if all were derained, 1 if some of a folder failed (each is named, the rest is done), 2 for a user's mistake.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esdnet.command.command_line import program_name
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.jobs import Outcome, run_jobs
from esdnet.command.workers import Workers, absolute, add_worker_flags, open_workers
from esdnet.command.writing import check_folder, check_outputs, make_folder, write_json
from esdnet.images.files import (
    MIN_SIDE,
    QUALITY,
    SUFFIXES,
    check_png_name,
    check_quality,
    from_tensor,
    list_images,
    output_names,
    save_image,
    save_photo,
)
from esdnet.images.photo import check_image_file, image_size, open_photo
from esdnet.images.tile_choice import check_tile_flags
from esdnet.networks.architectures import LEAST_MULTIPLE
from esdnet.networks.bundled import find_checkpoint
from esdnet.networks.derainer import Derainer, Setup, add_network_flags, derain_photo, rain_mask_of

IMAGE_BYTES = 150  # a pixel of the whole image: read, blended and written in float64, whatever runs at once


def build_parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Take the rain out of images.")
    parser.add_argument("input", type=Path, help="an image, or a folder of images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .png or .jpg file, or a folder")
    parser.add_argument(
        "--quality",
        type=int,
        metavar="Q",
        help=f"of a JPEG, 1 to 100 (default: {QUALITY}); a folder gets JPEGs with it",
    )
    add_network_flags(parser)
    add_worker_flags(parser)
    parser.add_argument(
        "--show-mask", type=Path, metavar="FILE.png",
        help="write the rain mask that a dual-stage network has of the image: white where there is rain",
    )  # fmt: skip
    parser.add_argument("--skip-existing", action="store_true", help="leave out images that are written already")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was done, how, and what failed")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: derain_files(arguments))


def derain_files(arguments: argparse.Namespace) -> int:
    """Derain what the flags name; files written are listed on stdout."""
    check_tile_flags(arguments, LEAST_MULTIPLE)
    absolute(arguments, "input", "out")
    checkpoint = find_checkpoint(arguments.checkpoint)
    jobs = _plan(arguments)
    check_outputs({"--json": arguments.json, "--show-mask": arguments.show_mask}, [checkpoint, *jobs], jobs.values())
    _check_mask_flags(arguments)
    if not arguments.input.is_dir():
        open_photo(arguments.input, MIN_SIDE)  # before torch: a bad image is found at once
    skipped = {source: out for source, out in jobs.items() if arguments.skip_existing and out.exists()}
    if skipped:
        print(f"{len(skipped)} of {len(jobs)} images are derained already and skipped", file=sys.stderr)
    left = {source: out for source, out in jobs.items() if source not in skipped}
    outcome: Outcome[dict[str, Any]] = Outcome()
    if left:
        with open_workers(arguments) as workers:
            network = Derainer(checkpoint, arguments, list(left), IMAGE_BYTES, workers)
            _check_mask(arguments, network)
            outcome = (_derain_folder if arguments.input.is_dir() else _derain_one)(arguments, network, left, workers)
    if arguments.json is not None:
        write_json(arguments.json, {"images": outcome.results, "skipped": list(map(str, skipped)), **outcome.to_dict()})
    return outcome.status


def _check_mask_flags(arguments: argparse.Namespace) -> None:
    if arguments.show_mask is not None:
        if arguments.input.is_dir() or arguments.skip_existing:
            raise UserError("--show-mask: is that of one image, not for a folder or with --skip-existing")
        check_png_name(f"--show-mask {arguments.show_mask}", arguments.show_mask)


def _check_mask(arguments: argparse.Namespace, network: Derainer) -> None:
    from esdnet.networks.dual_stage.model import DualStage

    has_mask = isinstance(network.model, DualStage) and network.model.config.has_mask
    if arguments.show_mask is not None and not has_mask:
        raise UserError(f"--show-mask: {network.label} has no rain mask, expected a dual-stage network with one")


@dataclass(frozen=True)
class _File:
    """A photo to derain, and all that must be known of how."""

    setup: Setup
    label: str
    source: Path
    out: Path
    tile: int
    quality: int


def _derain_folder(
    arguments: argparse.Namespace, network: Derainer, jobs: dict[Path, Path], workers: Workers
) -> Outcome[dict[str, Any]]:
    from tqdm import tqdm

    return run_jobs(
        list(jobs), _derain_file, workers=workers, task=lambda source: _file(arguments, network, source, jobs[source]),
        done=lambda row: tqdm.write(row["output"]),
    )  # fmt: skip


def _file(arguments: argparse.Namespace, network: Derainer, source: Path, out: Path) -> _File:
    tile = network.tile(str(source), image_size(source))
    return _File(network.setup, network.label, source, out, tile, arguments.quality or QUALITY)


def _derain_file(file: _File, workers: Workers | None = None) -> dict[str, Any]:
    started = time.monotonic()
    photo = open_photo(file.source, MIN_SIDE)
    derained = derain_photo(file.setup, str(file.source), photo, file.tile, workers)
    make_folder(file.out.parent)
    save_photo(file.out, derained.image, photo.metadata, file.quality)
    return {
        "input": str(file.source),
        "output": str(file.out),
        "checkpoint": file.label,
        "device": file.setup.device,
        **derained.facts,
        "seconds": time.monotonic() - started,
    }


def _derain_one(
    arguments: argparse.Namespace, network: Derainer, jobs: dict[Path, Path], workers: Workers
) -> Outcome[dict[str, Any]]:
    """One photo: its tiles are shared among the workers, which only those with a halo can be."""
    [(source, out)] = jobs.items()
    overlap = network.setup.overlap
    if overlap is not None and workers.room > 1:
        why = network.model.without_halo or "--overlap blends them"
        raise UserError(f"--workers: share a folder, or tiles that are exact; {network.label} has none ({why})")
    file = _file(arguments, network, source, out)
    image = open_photo(source, MIN_SIDE).array() if arguments.show_mask is not None else None
    row = _derain_file(file, workers)
    print(out)
    if image is not None:
        mask = rain_mask_of(network.model, image, file.tile, overlap or 0)
        save_image(arguments.show_mask, from_tensor(mask.output))
        print(arguments.show_mask)
    return Outcome([row])


def _plan(arguments: argparse.Namespace) -> dict[Path, Path]:
    """Which file becomes which; nothing is made yet. UserError if that cannot be."""
    source, out, quality = arguments.input, arguments.out, arguments.quality
    suffix = ".png" if quality is None else ".jpg"
    if source.is_dir():
        if out.suffix.lower() in SUFFIXES:
            raise UserError(f"-o {out}: {source} is a folder, expected a folder to write to")
        check_folder("-o", out)
        check_quality(quality, None)
        return output_names(list_images(source), out, suffix)
    check_image_file(source)
    if out.is_dir() or not out.suffix:
        check_folder("-o", out)
        check_quality(quality, None)
        return output_names([source], out, suffix)
    check_quality(quality, out)
    check_outputs({"-o": out}, [source])
    return {source: out}


if __name__ == "__main__":
    from esdnet.derain import main as command  # what other processes are given must have a name there

    sys.exit(command())
