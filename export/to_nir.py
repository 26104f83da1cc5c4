"""Export a trained ESDNet to NIR: python export/to_nir.py ckpt.pt [-o OUT] [--input-size H W].

In: a checkpoint (a file, or a bundled one by name). Out: a folder of stock NIR graphs with a manifest, or one file;
read back and compared with the torch model before it appears under its name. Exit status 0 done, 1 the check failed
(nothing is left behind), 2 a mistake.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name
from esdnet.command.errors import report_user_errors
from esdnet.command.writing import say_target
from esdnet.networks.bundled import find_checkpoint


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
    from esdnet.command.writing import check_replaceable
    from export.targets.nir.export import checked_network, write_model
    from export.targets.nir.read import FORMAT

    checkpoint = find_checkpoint(args.checkpoint)
    target = args.out or Path(f"{args.checkpoint.stem}_nir")
    check_replaceable(target, "a NIR export", FORMAT.is_export)
    from esdnet.networks.checkpoint import load_checkpoint

    model = load_checkpoint(checkpoint)
    network = checked_network(model, *args.input_size)
    say_target(checkpoint, target)
    write_model(model, network, tuple(args.input_size), target, print)
    return 0


def _export_network(args: argparse.Namespace) -> int:
    """Any network as one stock file."""
    from esdnet.command.writing import check_outputs
    from export.open_network import open_with_input, own_name
    from export.targets.nir.export import write_network

    source = str(args.checkpoint)
    target = args.out or Path(f"{own_name(source)}.nir")
    check_outputs({"--out": target}, [args.input, Path(source)])
    network, frames = open_with_input(source, args.input, args.input_kind)
    write_network(network, frames, target, print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
