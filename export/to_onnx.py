"""Export a trained network to ONNX: python export/to_onnx.py ckpt.pt [-o OUT] [--precision float32|float64].

In: a checkpoint (a file, or a bundled one by name). Out: one .onnx file for images of any size; run by ONNX Runtime and
compared with the torch model before it appears under its name. Exit status 0 done, 1 the check failed (nothing is left
behind), 2 a mistake.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name, require_extra
from esdnet.command.errors import report_user_errors
from esdnet.command.writing import check_outputs, say_target
from esdnet.networks.bundled import find_checkpoint


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and export; returns the exit status."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Export a trained network to ONNX and check it.")
    parser.add_argument("checkpoint", type=Path, metavar="FILE|NAME", help="checkpoint to export")
    parser.add_argument("-o", "--out", type=Path, help="default: <stem of the checkpoint>.onnx")
    parser.add_argument(
        "--precision", choices=("float32", "float64"), default="float32",
        help="float64 is for exact comparison: slower, no spike differs from torch (default: float32)",
    )  # fmt: skip
    parser.add_argument(
        "--input", type=Path, metavar="X.npy",
        help="of a network of yours, FILE.py:FUNCTION, a .nir or a .net: the file of one step is checked with it",
    )  # fmt: skip
    parser.add_argument("--input-kind", choices=("spike", "analog"), help="of --input (default: spikes if boolean)")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _export_network(args) if args.input else _export(args))


def _export_network(args: argparse.Namespace) -> int:
    """One time step of any network, states in and out."""
    require_extra("onnx", "the ONNX export")
    from export.open_network import open_with_input, own_name
    from export.targets.onnx.export import write_network

    source = str(args.checkpoint)
    target = args.out or Path(f"{own_name(source)}.onnx")
    check_outputs({"-o": target}, [args.input, Path(source)])
    network, frames = open_with_input(source, args.input, args.input_kind)
    write_network(network, frames, args.precision, target, print)
    return 0


def _export(args: argparse.Namespace) -> int:
    require_extra("onnx", "the ONNX export")
    checkpoint = find_checkpoint(args.checkpoint)
    target = args.out or Path(f"{args.checkpoint.stem}.onnx")
    check_outputs({"-o": target}, [checkpoint])
    from esdnet.networks.checkpoint import load_network
    from export.targets.onnx.export import check_precision, write_model

    model = load_network(checkpoint)
    check_precision(model, str(args.checkpoint), args.precision)
    say_target(checkpoint, target)
    write_model(model, args.checkpoint.stem, args.precision, target, print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
