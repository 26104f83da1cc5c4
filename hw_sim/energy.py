"""`python hw_sim/energy.py --image x.png`: derain an image on a simulated chip, count every operation, price it.

Results on stdout, progress on stderr. Exit 0 if done, 1 if some images of a folder failed (each is named, the rest is
done), 2 for a user's mistake (one line, nothing half-written).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run as a script: its folder is on the path, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name, require_extra
from esdnet.command.device import DEVICES
from esdnet.command.errors import UserError, report_user_errors
from esdnet.images.tile_choice import OVERLAP, TileChoice, add_tile_flags, check_tile_flags
from esdnet.networks.architectures import LEAST_MULTIPLE
from esdnet.networks.bundled import DEFAULT, find_checkpoint
from hw_sim.backends.executor import backend_label, check_lava_flags
from hw_sim.energy_onnx import add_onnx_flags, check_no_onnx_flags, is_onnx, price_onnx
from hw_sim.energy_sequence import add_sequence_flags, check_no_sequence_flags, price_sequence
from hw_sim.report import price_models

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hw_sim.backends.executors import Backend
    from hw_sim.pricing.prices import PriceList
    from hw_sim.report.energy_report import EnergyReport

    Images = tuple[NDArray[np.float64], NDArray[np.float64]]

IMAGE_BYTES = 200  # a pixel of the whole image: read, blended, drawn and written in float64, whatever runs at once


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
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
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and energy of every node")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with pictures for a browser")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write charts as PNG")
    parser.add_argument(
        "--save-image", type=Path, metavar="FILE", help="write the derained image (a folder for a folder)"
    )
    parser.add_argument(
        "--skip-existing", action="store_true", help="of a folder: take over the images that --json FILE holds already"
    )
    parser.add_argument(
        "--lava-model", choices=("fused", "fine"), help="a process per block (default), or per operation"
    )
    parser.add_argument(
        "--lava-stock", action="store_true", help="Lava's own Conv and LIF where they can express a node"
    )
    return parser


def _price_images(args: argparse.Namespace) -> int:
    from esdnet.images.files import list_images, load_image
    from esdnet.images.photo import image_size
    from hw_sim.energy_folder import read_earlier
    from hw_sim.pricing.prices import load_prices

    is_folder = args.image.is_dir()
    _check_options(args, is_folder)
    args.precision = args.precision or "float32"
    args.network = Path(args.network) if args.network else None
    images = list_images(args.image) if is_folder else [args.image]
    if not is_folder:
        load_image(args.image)  # before torch: a bad image is found at once
    prices = load_prices(price_models.price_list(args))
    read = args.network or find_checkpoint(args.checkpoint or DEFAULT)
    pngs = _check_outputs(args, images, read)
    earlier = read_earlier(args.json) if args.skip_existing else None
    from hw_sim.backends.executors import Backend, load_source

    source = load_source(args.checkpoint, args.network)
    print(f"network: {source.label}, {source.network.model_parameters:,} parameters", file=sys.stderr)
    lava = {"model": args.lava_model or "fused", "stock": args.lava_stock}
    with Backend(args.backend, source, args.precision, args.device, lava) as backend:
        backend.prepare()
        pricing = Pricing(args, backend, prices, pngs, [size for size in map(image_size, images) if size])
        if is_folder:
            return _price_folder(args, pricing, images, earlier)
        pricing.price_alone(args.image)
    return 0


class Pricing:
    """What images of one command have in common: the options, an open backend, prices, the choice of tiles.

    `sizes`, (height, width), are those of the images to come, `pngs` what each becomes if that is wanted.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        backend: Backend,
        prices: PriceList,
        pngs: dict[Path, Path],
        sizes: list[tuple[int, int]],
    ) -> None:
        self.args, self.backend, self.prices, self.pngs = args, backend, prices, pngs
        self.choice = TileChoice(args.tile, self._bytes_per_pixel(sizes), IMAGE_BYTES, kept=args.precision == "int8")
        self.choice.keep_memory(sizes)

    def _bytes_per_pixel(self, sizes: list[tuple[int, int]]) -> float:
        import numpy as np

        from esdnet.command.device import choose_device
        from esdnet.command.footprint import bytes_per_pixel

        if self.backend.name == "lava":  # takes small sizes alone, and looks after its memory itself
            return 0.0
        run = self.backend.executor((0, 0)).run
        device = choose_device(self.args.device)
        return bytes_per_pixel(lambda height, width: run(np.zeros((3, height, width))), sizes, device)

    def price(self, path: Path) -> tuple[EnergyReport, Images]:
        """Run, count and price one image, and write what it became; also the image and its output, (H, W, 3)."""
        from esdnet.command.memory import out_of_memory
        from esdnet.command.writing import make_folder
        from esdnet.images.files import load_image, save_image
        from esdnet.images.tiling import Grid
        from hw_sim.backends.tiled import run_image
        from hw_sim.report.energy_report import Run, build_report

        args, source = self.args, self.backend.source
        image = load_image(path)
        size = (image.shape[0], image.shape[1])
        tile = self.choice.tile(str(path), size)
        grid = Grid(size, tile, args.overlap, source.network.size_multiple)
        executor = self.backend.executor(grid.tile_size)
        with out_of_memory(str(path), "give a smaller --tile"):
            done = run_image(executor, image, args.precision, grid)
        run = Run(
            image=str(path), network=source.label, backend=backend_label(args), precision=args.precision,
            steps=source.network.steps, tile=tile, overlap=args.overlap, tiles=done.tiles,
            executed_size=done.executed_size, seconds=done.seconds,
            looks_at_values=args.backend == "simulator" and args.precision != "int8", facts=dict(executor.facts),
        )  # fmt: skip
        if path in self.pngs:
            make_folder(self.pngs[path].parent)
            save_image(self.pngs[path], done.output)
        return build_report(source.network, done.counts, run, self.prices), (image, done.output)

    def price_alone(self, path: Path) -> None:
        """Price an image, show everything about it, and write the files asked for."""
        from esdnet.command.writing import make_folder, write_json
        from hw_sim.pricing.prices import available, load_prices
        from hw_sim.report.console import open_console, print_report

        report, pictures = self.price(path)
        print_report(open_console(), report, [load_prices(name) for name in available()])
        content, models = price_models.add_models(self.args, report.to_dict())
        if self.args.html:
            from hw_sim.report.html_report import write_html

            write_html(self.args.html, report, dict(zip(("rainy input", "derained"), pictures, strict=True)), models)
        if self.args.plots:
            from hw_sim.report.plots import write_plots

            make_folder(self.args.plots)
            write_plots(self.args.plots, report)
        if self.args.json:
            write_json(self.args.json, content)


def _price_folder(
    args: argparse.Namespace, pricing: Pricing, images: list[Path], earlier: dict[str, Any] | None
) -> int:
    """Price the images of a folder that no earlier report holds; print a summary and write one report of all."""
    from esdnet.command.jobs import run_jobs
    from hw_sim.energy_folder import settings, take_over, write_folder_report

    made_with = settings(args, pricing.backend.source, pricing.prices) if args.json else {}
    runs = take_over(earlier, args.json, made_with, images, pricing.pngs)
    left = [path for path in images if str(path) not in runs]
    outcome = run_jobs(left, lambda path: pricing.price(path)[0].to_dict())
    runs |= {run["image"]: run for run in outcome.results}
    ordered = [runs[str(path)] for path in images if str(path) in runs]
    if ordered:
        from hw_sim.report.console import open_console, print_summary

        print_summary(open_console(), ordered)
    if args.json:
        write_folder_report(args.json, made_with, ordered, outcome)
    return outcome.status


def _check_options(args: argparse.Namespace, is_folder: bool) -> None:
    """UserError for options that would be ignored."""
    check_no_sequence_flags(args)
    check_tile_flags(args, LEAST_MULTIPLE)
    args.overlap = OVERLAP if args.overlap is None else args.overlap
    check_lava_flags(args)
    if is_folder and (args.html or args.plots):
        raise UserError("--html and --plots show one image; give --image a file, or use --json for a folder")
    price_models.check_model_options(args, is_folder)
    if args.html or args.plots:
        require_extra("report", "--html or --plots")
    if args.skip_existing and not (is_folder and args.json):
        raise UserError("--skip-existing: takes over what the --json FILE of a folder holds; give both")


def _check_outputs(args: argparse.Namespace, images: list[Path], read: Path) -> dict[Path, Path]:
    """What cannot be written is said before the work begins; returns the PNG of each image if --save-image is given."""
    from esdnet.command.writing import check_folder, check_outputs
    from esdnet.images.files import check_png_name, output_names

    pngs: dict[Path, Path] = {}
    others: list[Path] = []
    files = {"--json": args.json, "--html": args.html}
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
