"""`python -m esdnet.derain`: takes the rain out of an image, or of every image in a folder, and writes PNG.

In: image files and a checkpoint (the bundled one unless another is named). Out: 8-bit PNG of the same size. Exit 0 if
all were derained, 1 if some of a folder failed (each is named, the rest is done), 2 for a user's mistake.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from esdnet.command.command_line import program_name
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.jobs import Outcome, run_jobs
from esdnet.command.writing import check_folder, check_outputs, make_folder, write_json
from esdnet.images.files import (
    SUFFIXES,
    check_image_file,
    check_png_name,
    from_tensor,
    list_images,
    load_image,
    png_names,
    save_image,
)
from esdnet.images.tile_choice import check_tile_flags
from esdnet.networks.architectures import LEAST_MULTIPLE
from esdnet.networks.bundled import find_checkpoint
from esdnet.networks.derainer import Derainer, add_network_flags, facts

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


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: derain_files(arguments))


def derain_files(arguments: argparse.Namespace) -> int:
    """Derain what the flags name; files written are listed on stdout."""
    check_tile_flags(arguments, LEAST_MULTIPLE)
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
