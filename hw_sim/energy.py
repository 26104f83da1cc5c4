"""`python hw_sim/energy.py --image x.png`: derain an image on a simulated chip, count every operation, price it.

Results on stdout, progress on stderr. Exit 0 if done, 2 for a user's mistake (one line, nothing half-written).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run as a script: its folder is on the path, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command_line import program_name, require_extra
from esdnet.device import DEVICES
from esdnet.errors import UserError, report_user_errors

if TYPE_CHECKING:
    from hw_sim.backends import Backend
    from hw_sim.prices import PriceList
    from hw_sim.report import EnergyReport

TILE_OVERLAP = 8  # pixels that neighbouring tiles share, as the authors'


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    args = build_parser().parse_args(argv)
    return report_user_errors(lambda: _price_images(args))


def build_parser() -> argparse.ArgumentParser:
    """The command's options. By default: bundled checkpoint, simulator, float32, whole image, prices 'paper'."""
    parser = argparse.ArgumentParser(
        prog=program_name(), description="Derain an image on a simulated chip, count every operation, price it."
    )
    parser.add_argument("--image", type=Path, required=True, help="an image, or a folder of images")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, help="default: the checkpoint that ships, small_released.pt")
    source.add_argument("--network", type=Path, help="an export: the folder of to_nir.py or to_lava_dl.py, or a .nir")
    parser.add_argument("--backend", choices=("simulator", "torch", "lava"), default="simulator")
    parser.add_argument("--precision", choices=("float32", "float64", "int8"), default="float32")
    parser.add_argument("--prices", default="paper", help="a list of hw_sim/prices, or a .toml file of yours")
    parser.add_argument("--tile", type=int, default=0, help="side of overlapping tiles; 0: the whole image at once")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and energy of every node")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with pictures for a browser")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write charts as PNG")
    parser.add_argument(
        "--save-image", type=Path, metavar="FILE", help="write the derained image (a folder for a folder)"
    )
    parser.add_argument(
        "--lava-model", choices=("fused", "fine"), default="fused", help="a process per block, or per operation"
    )
    parser.add_argument(
        "--lava-stock", action="store_true", help="Lava's own Conv and LIF where they can express a node"
    )
    return parser


def _price_images(args: argparse.Namespace) -> int:
    from esdnet.images import list_images, load_image
    from esdnet.tiling import check_tile
    from hw_sim.prices import load_prices

    check_tile(args.tile, TILE_OVERLAP if args.tile else 0)
    prices = load_prices(args.prices)
    folder = args.image.is_dir()
    images = list_images(args.image) if folder else [args.image]
    loaded = load_image(images[0])  # before the network: a bad image is found at once
    _check_outputs(args, folder)
    from hw_sim.backends import Backend, load_source

    source = load_source(args.checkpoint, args.network)
    print(f"network: {source.label}, {source.network.model_parameters:,} parameters", file=sys.stderr)
    reports: list[EnergyReport] = []
    lava = {"model": args.lava_model, "stock": args.lava_stock}
    with Backend(args.backend, source, args.precision, args.device, lava) as backend:
        for path in _progress(images, folder):
            image = loaded if path is images[0] else load_image(path)
            reports.append(_price_one(args, backend, prices, path, image, folder))
    _finish(args, reports, folder)
    return 0


def _price_one(
    args: argparse.Namespace, backend: Backend, prices: PriceList, path: Path, image: Any, folder: bool
) -> EnergyReport:
    """Run, count, price and show one image; write what was asked for about it."""
    from esdnet.images import save_image
    from hw_sim.console import open_console, print_report
    from hw_sim.prices import available, load_prices
    from hw_sim.report import Run, build_report
    from hw_sim.tiled import executed_tile, run_image

    source, multiple = backend.source, backend.source.network.size_multiple
    executor = backend.executor(executed_tile(image, args.tile, TILE_OVERLAP, multiple))
    done = run_image(executor, image, args.precision, args.tile, TILE_OVERLAP, multiple)
    run = Run(
        image=str(path), network=source.label, backend=_backend_label(args), precision=args.precision,
        steps=source.network.steps, tile=args.tile, tiles=done.tiles, executed_size=done.executed_size,
        seconds=done.seconds, facts=dict(executor.facts),
    )  # fmt: skip
    report = build_report(source.network, done.counts, run, prices)
    if args.save_image:
        save_image(args.save_image / f"{path.stem}.png" if folder else args.save_image, done.output)
    if not folder:
        print_report(open_console(), report, [load_prices(name) for name in available()])
        if args.html:
            from hw_sim.html_report import write_html

            write_html(args.html, report, image, done.output)
        if args.plots:
            from hw_sim.plots import write_plots

            write_plots(args.plots, report)
    return report


def _finish(args: argparse.Namespace, reports: list[EnergyReport], folder: bool) -> None:
    from esdnet.writing import write_json
    from hw_sim.console import open_console, print_summary
    from hw_sim.report import summary_dict

    if folder:
        print_summary(open_console(), reports)
    if args.json:
        runs = [report.to_dict() for report in reports]
        write_json(args.json, {"runs": runs, "summary": summary_dict(reports)} if folder else runs[0])


def _backend_label(args: argparse.Namespace) -> str:
    return (
        f"lava ({args.lava_model}{', stock' if args.lava_stock else ''})"
        if args.backend == "lava"
        else str(args.backend)
    )


def _check_outputs(args: argparse.Namespace, folder: bool) -> None:
    """What cannot be written is said before the work begins."""
    from esdnet.writing import check_writable

    if folder and (args.html or args.plots):
        raise UserError("--html and --plots show one image; give --image a file, or use --json for a folder")
    if args.html or args.plots:
        require_extra("report", "--html or --plots")
    for option, path, is_folder in (
        ("--json", args.json, False),
        ("--html", args.html, False),
        ("--plots", args.plots, True),
        ("--save-image", args.save_image, folder),
    ):
        if path is not None:
            check_writable(option, path, is_folder)
    if args.save_image is not None and not folder and args.save_image.suffix.lower() != ".png":
        raise UserError(f"--save-image {args.save_image}: images are written as PNG, expected a name that ends in .png")


def _progress(images: list[Path], folder: bool) -> Any:
    if not folder:
        return images
    from tqdm import tqdm

    return tqdm(images, unit="image", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
