"""`energy.py --prices all`: its options, and `--from`, which prices a saved run again without running anything.

In: the arguments of the command. Out: what is printed, and the files asked for.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.command_line import require_extra
from esdnet.command.errors import UserError
from hw_sim.pricing.all_models import AllModels, price_all
from hw_sim.pricing.counted import NAFNET, read_report
from hw_sim.pricing.prices import DEFAULT

if TYPE_CHECKING:
    from hw_sim.report.page.pictures import Pictures

ALL = "all"
OF_SAVED_RUNS = {
    "saved",
    "prices",
    "against",
    "step_time",
    "json",
    "html",
    "command",
}  # what --from can be combined with


def add_input_flags(parser: argparse.ArgumentParser) -> None:
    """--image, --input and --from: one of them is needed."""
    counted = parser.add_mutually_exclusive_group(required=True)
    counted.add_argument("--image", type=Path, help="an image, or a folder of images")
    counted.add_argument("--input", type=Path, metavar="X.npy", help="an array (T, *shape), for --network of any kind")
    counted.add_argument(
        "--from", type=Path, dest="saved", metavar="REPORT", help="a --json report, to price again with --prices all"
    )


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """--prices, --against and --step-time."""
    parser.add_argument(
        "--prices",
        default=DEFAULT,
        help="a list of hw_sim/pricing/lists, a .toml file of yours, or all: every published energy model",
    )
    parser.add_argument(
        "--against", metavar="REPORT|nafnet", help="with --prices all: the reference, a --json report (default: nafnet)"
    )
    parser.add_argument(
        "--step-time", type=float, metavar="SECONDS", help="with --prices all: of a time step; prices static power too"
    )


def price_list(args: argparse.Namespace) -> str:
    """The list of the table layer by layer: that of --prices, beside all models the default."""
    return DEFAULT if args.prices == ALL else str(args.prices)


def check_model_options(args: argparse.Namespace, is_folder: bool = False) -> None:
    """UserError for options that would be ignored, a reference that cannot be read, a time that is none."""
    if args.html:
        require_extra("report", "--html")
    if is_folder and args.prices == ALL:
        raise UserError("--prices all is for one image; give --image a file")
    if args.prices != ALL:
        for option, value in (("--against", args.against), ("--step-time", args.step_time)):
            if value is not None:
                raise UserError(f"{option}: is for --prices all, found --prices {args.prices}")
        return
    if args.step_time is not None and not (math.isfinite(args.step_time) and args.step_time > 0):
        raise UserError(f"--step-time {args.step_time}: expected seconds above 0")
    if args.against in (None, NAFNET) and args.input:
        raise UserError("--prices all: needs --against REPORT beside --input; NAFNet, the default, is for images")
    if args.against not in (None, NAFNET):
        read_report("--against", Path(args.against))


def inputs(args: argparse.Namespace) -> list[Path]:
    """The reports that the command reads, which it must not write over."""
    return [Path(name) for name in (args.saved, args.against) if name and name != NAFNET]


def add_models(args: argparse.Namespace, report: dict[str, Any]) -> tuple[dict[str, Any], AllModels | None]:
    """Print what all models say of a report and add it; unless they are asked for, the report alone."""
    if args.prices != ALL:
        return report, None
    from hw_sim.report.console import open_console
    from hw_sim.report.model_tables import print_models

    found = price_all(report, args.against or NAFNET, args.step_time)
    print_models(open_console(), found)
    return {**report, **found.to_record()}, found


def write_page(
    args: argparse.Namespace, report: dict[str, Any], found: AllModels | None, pictures: Pictures | None = None
) -> None:
    """Write --html, if it was asked for: all models are on the page, with a reference where there is one."""
    if args.html:
        from hw_sim.report.page.write import write_report

        against = args.against or (NAFNET if args.image else None)
        write_report(args.html, report, found or price_all(report, against), args.command, pictures)


def price_saved(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Read, price, print and write; no network is loaded and nothing runs."""
    from esdnet.command.writing import check_outputs, write_json

    others = {name: value for name, value in vars(args).items() if name not in OF_SAVED_RUNS}
    given = [name for name, value in others.items() if value != parser.get_default(name)]
    if given:
        raise UserError(f"--from: runs nothing, so --{given[0].replace('_', '-')} has no meaning beside it")
    if args.prices != ALL:
        raise UserError(f"--from: prices a saved run under all models; expected --prices all, found {args.prices}")
    check_model_options(args)
    report = read_report("--from", args.saved)
    check_outputs({"--json": args.json, "--html": args.html}, inputs(args))
    content, found = add_models(args, report)
    write_page(args, report, found)
    if args.json:
        write_json(args.json, content)
    return 0
