"""`python hw_sim/energy.py --image x.png`: derain an image on a simulated chip, count every operation, price it.

Results on stdout, progress on stderr. Exit 0 if done, 1 if some images of a folder failed (each is named, the rest is
done), 2 for a user's mistake (one line, nothing half-written).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run as a script: its folder is on the path, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name, require_extra
from esdnet.command.device import DEVICES
from esdnet.command.errors import UserError, report_user_errors
from esdnet.command.table import add_table_flags, check_table
from esdnet.command.workers import Workers, absolute, add_worker_flags, open_workers
from esdnet.images.tile_choice import add_tile_flags, check_tile_flags
from esdnet.networks.architectures import LEAST_MULTIPLE
from esdnet.networks.bundled import DEFAULT, find_checkpoint, name_elsewhere
from hw_sim.backends.executor import backend_label, check_lava_flags
from hw_sim.backends.setup import Setup, opened
from hw_sim.energy_image import Job, Planner, is_exact, price_image, price_in_folder
from hw_sim.energy_onnx import add_onnx_flags, check_no_onnx_flags, is_onnx, price_onnx
from hw_sim.energy_sequence import add_sequence_flags, check_no_sequence_flags, price_sequence
from hw_sim.report import price_models

if TYPE_CHECKING:
    from hw_sim.backends.executor import Source
    from hw_sim.backends.executors import Backend


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    args.command = shlex.join([*program_name().split(), *(sys.argv[1:] if argv is None else argv)])
    return report_user_errors(lambda: _run(args, parser))


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.saved:
        return price_models.price_saved(args, parser)
    if is_onnx(args):
        return price_onnx(args, parser)
    check_no_onnx_flags(args)
    return price_sequence(args, parser) if args.input else _price_images(args)


def build_parser() -> argparse.ArgumentParser:
    """The command's options. By default: bundled checkpoint, simulator, float32, prices 'paper'."""
    parser = argparse.ArgumentParser(
        prog=program_name(), description="Derain an image on a simulated chip, count every operation, price it."
    )
    price_models.add_input_flags(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", metavar="FILE|NAME", help=f"default: the bundled {DEFAULT}")
    source.add_argument(
        "--network",
        metavar="F",
        help="an export of to_nir.py or to_lava_dl.py; any .onnx; with --input any .nir, FILE.py:FUNCTION",
    )
    parser.add_argument("--backend", choices=("simulator", "torch", "lava"), default="simulator")
    parser.add_argument(
        "--precision", choices=("float32", "float64", "int8"), help="default: float32; of --input float64"
    )
    price_models.add_model_flags(parser)
    add_sequence_flags(parser)
    add_onnx_flags(parser)
    add_tile_flags(parser)
    add_worker_flags(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and energy of every node")
    add_table_flags(parser, "image of a folder")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with pictures for a browser")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write charts as PNG")
    parser.add_argument(
        "--save-image", type=Path, metavar="FILE", help="write the derained image (a folder for a folder)"
    )
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="of a folder: take over what --json FILE or --table FILE holds already",
    )
    parser.add_argument(
        "--lava-model", choices=("fused", "fine"), help="a process per block (default), or per operation"
    )
    parser.add_argument(
        "--lava-stock", action="store_true", help="Lava's own Conv and LIF where they can express a node"
    )
    return parser


def _price_images(args: argparse.Namespace) -> int:
    from esdnet.images.files import MIN_SIDE, list_images
    from esdnet.images.photo import image_size, open_photo
    from hw_sim.energy_folder import check_earlier
    from hw_sim.pricing.prices import load_prices

    is_folder = args.image.is_dir()
    _check_options(args, is_folder)
    args.precision = args.precision or "float32"
    args.network = Path(args.network) if args.network else None
    images = list_images(args.image) if is_folder else [args.image]
    if not is_folder:
        open_photo(args.image, MIN_SIDE)  # before torch: a bad image is found at once
    load_prices(price_models.price_list(args))
    read = args.network or find_checkpoint(args.checkpoint or DEFAULT)
    pictures = _check_outputs(args, images, read)
    check_earlier(args)
    with open_workers(args) as workers, _open_backend(args) as (setup, backend):
        backend.prepare()
        sizes = [size for size in map(image_size, images) if size]
        planner = Planner(args, setup, backend, backend_label(args), sizes, workers)
        jobs = {path: pictures.get(path) for path in images}
        if is_folder:
            return _price_folder(args, planner, backend.source, jobs, workers)
        return _price_alone(args, planner.job(args.image, sizes[0], jobs[args.image]), sizes[0], workers)


@contextmanager
def _open_backend(args: argparse.Namespace) -> Iterator[tuple[Setup, Backend]]:
    """The backend that the options name, and what another process needs to open the same."""
    from export.graph.store import network_digest
    from hw_sim.backends.executors import Backend, load_source

    source = load_source(args.checkpoint, args.network)
    print(f"network: {source.label}, {source.network.model_parameters:,} parameters", file=sys.stderr)
    checkpoint = None if args.network else name_elsewhere(find_checkpoint(args.checkpoint or DEFAULT))
    keep_maps = args.html is not None
    setup = Setup(
        checkpoint, args.network, network_digest(source.network), args.backend, args.precision, args.device, keep_maps
    )
    lava = {"model": args.lava_model or "fused", "stock": args.lava_stock}
    with Backend(args.backend, source, args.precision, args.device, lava, keep_maps) as backend, opened(setup, backend):
        yield setup, backend


def _price_alone(args: argparse.Namespace, job: Job, size: tuple[int, int], workers: Workers) -> int:
    """Price an image, show everything about it, and write the files asked for."""
    from esdnet.command.writing import make_folder, write_json
    from hw_sim.pricing.prices import available, load_prices
    from hw_sim.report.console import open_console, print_report

    if workers.room > 1 and not is_exact(job, size):
        raise UserError(f"--workers: share a folder, or tiles that are exact; {args.image} runs whole, or in others")
    priced = price_image(job, workers, pictures=bool(args.html))
    report = priced.report
    print_report(open_console(), report, [load_prices(name) for name in available()])
    content, models = price_models.add_models(args, report.to_dict())
    price_models.write_page(args, content, models, priced.pictures)
    if args.plots:
        from hw_sim.report.plots import write_plots

        make_folder(args.plots)
        write_plots(args.plots, report)
    if args.json:
        write_json(args.json, content)
    return 0


def _price_folder(
    args: argparse.Namespace, planner: Planner, source: Source, jobs: dict[Path, Path | None], workers: Workers
) -> int:
    """Price the images of a folder that no earlier run has; print a summary and write one report of all, or a table."""
    from esdnet.command.jobs import run_jobs
    from esdnet.images.photo import image_size
    from hw_sim.energy_folder import FolderReport

    report = FolderReport(args, source, jobs)
    outcome = run_jobs(
        [path for path in jobs if str(path) not in report.runs],
        price_in_folder,
        workers=workers,
        task=lambda path: planner.job(path, image_size(path), jobs[path]),
        done=report.add,
    )
    report.finish(outcome)
    return outcome.status


def _check_options(args: argparse.Namespace, is_folder: bool) -> None:
    """UserError for options that would be ignored."""
    check_no_sequence_flags(args)
    absolute(args, "image", "save_image", "network", "prices")
    check_tile_flags(args, LEAST_MULTIPLE)
    check_table(args.table, args.skip_existing)
    check_lava_flags(args)
    if is_folder and (args.html or args.plots):
        raise UserError("--html and --plots show one image; give --image a file, or use --json for a folder")
    price_models.check_model_options(args, is_folder)
    if args.html or args.plots:
        require_extra("report", "--html or --plots")
    if args.table and (args.json or not is_folder):
        raise UserError("--table: has a row for each image of a folder, in the place of --json FILE; give one of them")
    if args.skip_existing and not (is_folder and (args.json or args.table)):
        raise UserError(
            "--skip-existing: takes over what the --json or --table FILE of a folder holds; give one of them"
        )
    if args.backend == "lava" and (args.workers > 1 or args.scheduler):
        raise UserError("--workers, --scheduler: Lava has processes of its own; leave them out, or --backend lava")


def _check_outputs(args: argparse.Namespace, images: list[Path], read: Path) -> dict[Path, Path]:
    """What cannot be written is said before the work begins; returns the PNG of each image if --save-image is given."""
    from esdnet.command.writing import check_folder, check_outputs
    from esdnet.images.files import check_png_name, output_names

    pngs: dict[Path, Path] = {}
    others: list[Path] = []
    files = {"--json": args.json, "--html": args.html, "--table": args.table}
    if args.save_image and args.image.is_dir():
        check_folder("--save-image", args.save_image)
        pngs = output_names(images, args.save_image)
        others += pngs.values()
    elif args.save_image:
        check_png_name(f"--save-image {args.save_image}", args.save_image)
        files["--save-image"] = args.save_image
        pngs = {args.image: args.save_image}
    if args.plots:
        from hw_sim.report.plots import chart_names

        check_folder("--plots", args.plots)
        others += chart_names(args.plots)
    check_outputs(files, [*images, read, Path(args.prices), *price_models.inputs(args)], others)
    return pngs


if __name__ == "__main__":
    sys.exit(main())
