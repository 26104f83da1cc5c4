"""`energy.py --network model.onnx --input X.npy | --image x.png`: any ONNX model, run, counted and priced.

No graph is made of it: hw_sim/counter counts what runs. X.npz holds the inputs of a model with several, by their names.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.command_line import require_extra
from esdnet.command.errors import UserError
from hw_sim.report import price_models

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hw_sim.counter.report import Report

NOT_FOR_IT = (
    "checkpoint", "backend", "precision", "dt", "reset", "semantics", "tile", "overlap", "device", "plots",
    "workers", "scheduler", "save_image", "table", "skip_existing", "lava_model", "lava_stock",
)  # fmt: skip


def is_onnx(args: argparse.Namespace) -> bool:
    """Whether --network names an ONNX model."""
    return bool(args.network) and str(args.network).endswith(".onnx")


def add_onnx_flags(parser: argparse.ArgumentParser) -> None:
    """What only a model without a graph needs."""
    parser.add_argument(
        "--strict", action="store_true", help="of an .onnx: refuse operators that cannot be counted (else: listed)"
    )


def check_no_onnx_flags(args: argparse.Namespace) -> None:
    """UserError for an option of .onnx models beside another network."""
    if args.strict:
        raise UserError("--strict: is for --network F.onnx; in every other network each node is counted, or refused")


def price_onnx(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Read, run, count, price, show and write."""
    from esdnet.command.writing import check_outputs, write_array, write_json
    from hw_sim.pricing.prices import available, load_prices
    from hw_sim.report.console import open_console, print_report

    _check_options(args, parser)
    require_extra("onnx", f"--network {args.network}")
    read = [args.input or args.image, Path(args.network), Path(args.prices), *price_models.inputs(args)]
    check_outputs({"--json": args.json, "--html": args.html, "--save-output": args.save_output}, read, [])
    prices = load_prices(price_models.price_list(args))
    counted = _count(args)
    print(f"network: {args.network}, {counted.parameters:,} parameters", file=sys.stderr)
    report = counted.priced(prices)
    print_report(open_console(), report, [load_prices(name) for name in available()])
    for note in counted.notes():
        print(f"- {note}")
    content, models = price_models.add_models(args, counted.record(report))
    price_models.write_page(args, content, models)
    if args.json:
        write_json(args.json, content)
    if args.save_output:
        write_array(args.save_output, next(iter(counted.output.values())))
    return 0


def _count(args: argparse.Namespace) -> Report:
    from hw_sim.counter.onnx_counter import count_onnx

    path = Path(args.network)
    if not path.is_file():
        raise UserError(f"--network {path}: not found")
    inputs = _inputs(args)
    kinds = [args.input_kind] * len(inputs) if args.input_kind else None
    return count_onnx(path, inputs, kinds, args.strict)


def _inputs(args: argparse.Namespace) -> dict[str, NDArray[Any]] | list[NDArray[Any]]:
    """The image as (1, 3, H, W) in [0, 1], the array of a .npy, or those of a .npz by name."""
    if args.image:
        from esdnet.images.files import load_image

        if args.image.is_dir():
            raise UserError(f"--image {args.image}: is a folder; --network {args.network} takes one image")
        return [load_image(args.image).transpose(2, 0, 1)[None]]
    if args.input.suffix != ".npz":
        from export.open_network import load_frames

        return [load_frames(args.input)]
    import numpy as np

    try:
        with np.load(args.input, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"--input {args.input}: cannot be read ({str(error).splitlines()[0]})") from error


def _check_options(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """UserError for options that would be ignored."""
    for name in NOT_FOR_IT:
        if getattr(args, name) != parser.get_default(name):
            raise UserError(f"--{name.replace('_', '-')}: is not for --network {args.network}: ONNX Runtime runs it")
    if args.prices == price_models.ALL and args.input and not args.against:
        raise UserError("--prices all: what to compare with? give --against REPORT, or --image for NAFNet on it")
    price_models.check_model_options(args)
