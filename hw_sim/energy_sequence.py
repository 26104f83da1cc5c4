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
from hw_sim.backends.executor import backend_label, check_lava_flags
from hw_sim.given_network import add_reading_flags, check_no_reading_flags, network_file, open_given
from hw_sim.report import price_models

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from export.graph.network import Network
    from hw_sim.backends.lava.plan import Model
    from hw_sim.backends.result import Result
    from hw_sim.backends.simulator import Precision
    from hw_sim.pricing.prices import PriceList
    from hw_sim.report.energy_report import EnergyReport

OF_IMAGES = (
    "checkpoint", "tile", "overlap", "workers", "scheduler", "save_image", "table", "skip_existing", "lava_stock",
)  # fmt: skip


def add_sequence_flags(parser: argparse.ArgumentParser) -> None:
    """What --input needs beside --network."""
    add_reading_flags(parser)
    parser.add_argument("--save-output", type=Path, metavar="FILE.npy", help="of --input: what came out, (T, *shape)")


def price_sequence(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Read, run, count, price, show and write."""
    from esdnet.command.writing import check_outputs, write_array, write_json
    from hw_sim.pricing.prices import available, load_prices
    from hw_sim.report.console import open_console, print_report

    _check_options(args, parser)
    files = {"--json": args.json, "--html": args.html, "--save-output": args.save_output}
    check_outputs(files, [args.input, network_file(args), *price_models.inputs(args)], [])
    prices = load_prices(price_models.price_list(args))
    if args.backend == "lava":
        from hw_sim.backends.lava.host import check_available

        check_available()
    network, frames = open_given(args)
    print(f"network: {args.network}, {network.model_parameters:,} parameters", file=sys.stderr)
    result, report = count_sequence(network, frames, args, prices)
    print_report(open_console(), report, [load_prices(name) for name in available()])
    content, models = price_models.add_models(args, report.to_dict())
    price_models.write_page(args, content, models)
    if args.json:
        write_json(args.json, content)
    if args.save_output:
        write_array(args.save_output, _in_own_shape(network, result.output))
    return 0


def count_sequence(
    network: Network, frames: NDArray[Any], args: argparse.Namespace, prices: PriceList
) -> tuple[Result, EnergyReport]:
    """Run and count on the backend, and price."""
    from hw_sim.report.energy_report import Run, build_report

    precision: Precision = "float64" if args.precision in (None, "int8") else args.precision
    if args.precision == "int8":
        from export.integer.to_loihi import loihi_network

        network = loihi_network(network)  # whole numbers, which float64 holds
    steps = len(frames) if network.input.every_step else network.steps
    started = time.perf_counter()
    result, facts = _run(network.with_steps(steps), frames, args, precision)
    shape = "x".join(map(str, _own_shape((network.input.channels, *result.executed_size))))
    run = Run(
        image=str(args.input), network=str(args.network), backend=backend_label(args), steps=steps,
        precision=args.precision or precision, tile=0, overlap=0, tiles=1, executed_size=result.executed_size,
        seconds=time.perf_counter() - started, looks_at_values=args.backend == "simulator", facts=facts,
        extent=f"{steps} steps of {shape} {network.kinds[network.input.name].value} values",
    )  # fmt: skip
    return result, build_report(network.with_steps(steps), result.counts, run, prices)


def _run(
    network: Network, frames: NDArray[Any], args: argparse.Namespace, precision: Precision
) -> tuple[Result, dict[str, Any]]:
    """Outputs and counts, and what only the backend can know."""
    if args.backend == "lava":
        from export.graph.frames import check_sequence
        from hw_sim.backends.lava import LavaSession

        _, _, height, width = check_sequence(network, frames).shape
        model: Model = args.lava_model or "fused"
        with LavaSession(network, (height, width), precision=precision, model=model) as session:
            return session.run_sequence(frames, keep_spikes=False), session.facts
    from esdnet.command.device import choose_exact_device
    from hw_sim.backends.simulator import run_sequence

    device = choose_exact_device(args.device)
    return run_sequence(network, frames, precision=precision, device=device, keep_spikes=False), {}


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
    for name in OF_IMAGES:
        if getattr(args, name) != parser.get_default(name):
            raise UserError(f"--{name.replace('_', '-')}: is for --image, found --input")
    if args.backend == "torch":
        raise UserError("--backend torch: not for --input; --backend simulator and lava run it")
    check_lava_flags(args)
    if args.plots:
        raise UserError("--plots: is for --image; --html has the charts")
    price_models.check_model_options(args)


def check_no_sequence_flags(args: argparse.Namespace) -> None:
    """UserError for an option of --input beside --image."""
    check_no_reading_flags(args)
    if args.save_output is not None:
        raise UserError("--save-output: is for --input, found --image")
