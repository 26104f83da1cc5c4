"""`energy.py --network F --input X.npy`: any network of a user's on an input of theirs, counted and priced.

Frames in, (T, *shape) as the network's Input states it, or one frame for a network that shows itself the same at every
step. Out: the same report as of an image, and with --save-output what came out, (T, *shape).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.errors import UserError
from hw_sim.report import price_models

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from export.graph.network import Network
    from hw_sim.backends.result import Result
    from hw_sim.pricing.prices import PriceList
    from hw_sim.report.energy_report import EnergyReport

OF_IMAGES = ("checkpoint", "tile", "overlap", "save_image", "skip_existing", "lava_model", "lava_stock")
OF_SEQUENCES = ("input_kind", "dt", "reset", "semantics", "save_output")


def add_sequence_flags(parser: argparse.ArgumentParser) -> None:
    """What --input needs beside --network."""
    group = parser.add_argument_group("a network of yours (--network F --input X.npy)")
    group.add_argument("--input-kind", choices=("spike", "analog"), help="default: spikes if X is boolean")
    group.add_argument("--dt", type=float, metavar="SECONDS", help="of a .nir: length of a step (default: 1e-4)")
    group.add_argument("--reset", choices=("v_reset", "subtract"), help="of a .nir (default: v_reset)")
    group.add_argument("--semantics", help="of a .nir: whose arithmetic (default: nir; docs/semantics.md)")
    group.add_argument("--save-output", type=Path, metavar="FILE.npy", help="write what came out, (T, *shape)")


def price_sequence(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Read, run, count, price, show and write."""
    from esdnet.command.writing import check_outputs, write_array, write_json
    from hw_sim.pricing.prices import available, load_prices
    from hw_sim.report.console import open_console, print_report

    _check_options(args, parser)
    files = {"--json": args.json, "--html": args.html, "--save-output": args.save_output}
    read = [args.input, Path(args.network.rpartition(":")[0] or args.network), *price_models.inputs(args)]
    check_outputs(files, read, [])
    prices = load_prices(price_models.price_list(args))
    frames = load_frames(args.input)
    kind = args.input_kind or ("spike" if frames.dtype == bool else "analog")
    from export.open_network import Reading, open_network

    given = {name: value for name in ("dt", "reset", "semantics") if (value := getattr(args, name)) is not None}
    network = open_network(args.network, frames, kind, Reading(**given))
    print(f"network: {args.network}, {network.model_parameters:,} parameters", file=sys.stderr)
    result, report = count_sequence(network, frames, args, prices)
    print_report(open_console(), report, [load_prices(name) for name in available()])
    content, models = price_models.add_models(args, report.to_dict())
    if args.html:
        from hw_sim.report.html_report import write_html

        write_html(args.html, report, {}, models)
    if args.json:
        write_json(args.json, content)
    if args.save_output:
        write_array(args.save_output, _in_own_shape(network, result.output))
    return 0


def load_frames(path: Path) -> NDArray[Any]:
    """The array of a .npy file; UserError in one line for anything else."""
    import numpy as np

    if not path.is_file():
        raise UserError(f"--input {path}: not found")
    try:
        frames = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"--input {path}: not an array that numpy.save wrote ({str(error).splitlines()[0]})") from error
    if not isinstance(frames, np.ndarray):
        raise UserError(f"--input {path}: several arrays, expected one, as numpy.save writes it")
    return frames


def count_sequence(
    network: Network, frames: NDArray[Any], args: argparse.Namespace, prices: PriceList
) -> tuple[Result, EnergyReport]:
    """Run and count on the simulator, and price."""
    from esdnet.command.device import choose_exact_device
    from hw_sim.backends.simulator import run_sequence
    from hw_sim.report.energy_report import Run, build_report

    precision = args.precision or "float64"
    started = time.perf_counter()
    device = choose_exact_device(args.device)
    result = run_sequence(network, frames, precision=precision, device=device, keep_spikes=False)
    steps = len(frames) if network.input.every_step else network.steps
    shape = "x".join(map(str, _own_shape((network.input.channels, *result.executed_size))))
    run = Run(
        image=str(args.input), network=str(args.network), backend="simulator", precision=precision, steps=steps, tile=0,
        overlap=0, tiles=1, executed_size=result.executed_size, seconds=time.perf_counter() - started,
        extent=f"{steps} steps of {shape} {network.kinds[network.input.name].value} values",
    )  # fmt: skip
    return result, build_report(network.with_steps(steps), result.counts, run, prices)


def _in_own_shape(network: Network, output: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """(T, C, H, W) without the sides of 1 that vectors and sequences have in the graph; spikes are booleans."""
    from export.graph.nodes import ValueKind

    values = output.reshape(len(output), *_own_shape(output.shape[1:]))
    return values.astype(bool) if network.kinds[network.outputs[0].name] is ValueKind.SPIKE else values


def _own_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    channels, height, width = shape
    return (channels,) if height == width == 1 else (channels, width) if height == 1 else (channels, height, width)


def _check_options(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """UserError for options that would be ignored."""
    if args.network is None:
        raise UserError("--input: needs --network, the network that it is for")
    for name in OF_IMAGES:
        if getattr(args, name) != parser.get_default(name):
            raise UserError(f"--{name.replace('_', '-')}: is for --image, found --input")
    if args.backend != "simulator" or args.precision == "int8":
        found = f"--backend {args.backend}" if args.backend != "simulator" else "--precision int8"
        raise UserError(f"{found}: not for --input yet; --backend simulator runs it in float32 or float64")
    if args.plots:
        raise UserError("--plots: is for --image; --html has the charts")
    if args.dt is not None and not 0 < args.dt < 1:
        raise UserError(f"--dt {args.dt}: expected seconds above 0, such as 1e-4")
    price_models.check_model_options(args)


def check_no_sequence_flags(args: argparse.Namespace) -> None:
    """UserError for an option of --input beside --image."""
    for name in OF_SEQUENCES:
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: is for --input, found --image")
