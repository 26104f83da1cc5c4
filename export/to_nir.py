"""Export a trained ESDNet to NIR: python export/to_nir.py ckpt.pt [-o OUT] [--input-size H W].

In: a checkpoint (a file, or a bundled one by name). Out: a folder of stock NIR graphs with a manifest, or one file;
read back and compared with the torch model before it appears under its name. Exit status 0 done, 1 the check failed
(nothing is left behind), 2 a mistake.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run as a script: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name
from esdnet.command.errors import CheckFailed, UserError, report_user_errors
from esdnet.command.writing import say_target
from esdnet.networks.bundled import find_checkpoint

if TYPE_CHECKING:
    from export.graph.network import Network
    from export.targets.nir.check import CheckReport


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and export; returns the exit status."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Export a trained ESDNet to NIR and check it.")
    parser.add_argument(
        "checkpoint", type=Path, metavar="FILE|NAME",
        help="checkpoint to export; with --input a network of yours: FILE.py:FUNCTION, or a .nir",
    )  # fmt: skip
    parser.add_argument("--input", type=Path, metavar="X.npy", help="what the file of your network is checked with")
    parser.add_argument("--input-kind", choices=("spike", "analog"), help="of --input (default: spikes if boolean)")
    parser.add_argument("-o", "--out", type=Path, help="default: <stem of the checkpoint>_nir/")
    parser.add_argument(
        "--input-size", type=int, nargs=2, default=(64, 64), metavar=("H", "W"),
        help="size of the images, multiples of 4; NIR fixes it (default: 64 64)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _export_network(args) if args.input else _export(args))


def _export(args: argparse.Namespace) -> int:
    from esdnet.command.writing import check_replaceable, written_beside
    from export.targets.nir.read import FORMAT
    from export.targets.nir.report import warnings

    checkpoint = find_checkpoint(args.checkpoint)
    target = args.out or Path(f"{args.checkpoint.stem}_nir")
    check_replaceable(target, "a NIR export", FORMAT.is_export)
    from esdnet.networks.checkpoint import load_checkpoint

    model = load_checkpoint(checkpoint)
    network = checked_network(model, *args.input_size)
    say_target(checkpoint, target)
    with written_beside(target) as beside:
        report = _write_and_check(model, network, args, beside)
        if report.failures:
            raise CheckFailed(f"{report.failures[0]} ({len(report.failures)} failures)")
        for line in warnings(network, report):
            print(f"note: {line}", file=sys.stderr)
    print(f"wrote {target} ({_size(target) / 1e6:.1f} MB), for images of {args.input_size[0]}x{args.input_size[1]}")
    return 0


def _export_network(args: argparse.Namespace) -> int:
    """Any network as one stock file, read back and run: every neuron must fire the same spikes."""
    from esdnet.command.writing import check_outputs, written_beside
    from export.graph.agreement import differing_spikes
    from export.graph.stream import run_once
    from export.open_network import open_with_input, own_name
    from export.readers.nir import read_nir
    from export.targets.nir.stock_file import write_file

    source = str(args.checkpoint)
    target = args.out or Path(f"{own_name(source)}.nir")
    check_outputs({"--out": target}, [args.input, Path(source)])
    network, frames = open_with_input(source, args.input, args.input_kind)
    if not network.input.every_step:  # it shows itself one frame: the file is given it at every step
        frames = frames[None].repeat(network.steps, axis=0)
    with written_beside(target) as beside:
        nodes = write_file(network, beside)
        back = read_nir(beside, carries=network.input.carries)
        _, expected = run_once(network, frames if network.input.every_step else frames[0])
        _, found = run_once(back, frames)
        mismatches, first = differing_spikes(expected, found)
        if mismatches:
            raise CheckFailed(f"{first} in the file read back ({sum(mismatches.values())} in all)")
    fired = sum(int(spikes.sum()) for spikes in expected.values())
    print(f"wrote {target}: {nodes} nodes; read back, 0 of {fired:,} spikes differ in {len(frames)} steps")
    if not fired:
        print("note: nothing spiked on this input: the check proves nothing of the neurons", file=sys.stderr)
    return 0


def checked_network(model: Any, height: int, width: int) -> Network:
    """The layer graph of a model that keeps every design rule of NIR; all violations are raised at once."""
    from export.graph.rules import Design, enforce, find_violations
    from export.readers.esdnet import lower
    from export.targets.nir.rules import NIR_RULES, neuron_modules_are_plain

    violations = list(neuron_modules_are_plain(model))
    try:
        network = lower(model)
    except UserError as error:  # a neuron that lowering refuses is often one of those above: say both
        enforce("NIR", [*violations, str(error)])
        raise
    enforce("NIR", [*violations, *find_violations(NIR_RULES, Design(network, height, width))])
    return network


def _write_and_check(model: Any, network: Network, args: argparse.Namespace, path: Path) -> CheckReport:
    from export.graph.check_images import sample_image, small_images
    from export.targets.nir.check import check_export
    from export.targets.nir.report import table
    from export.targets.nir.write import write_folder

    height, width = args.input_size
    print(f"writing {len(network.nodes)} operations for {height}x{width} ...", file=sys.stderr)
    manifest = write_folder(network, height, width, path)
    images = {"sample": sample_image(height, width), **small_images(network)}
    print(f"checking: {len(images)} images in a fresh interpreter, float64 ...", file=sys.stderr)
    report = check_export(path, model, network, images)
    print(table(network, manifest, report))
    return report


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    sys.exit(main())
