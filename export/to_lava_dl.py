"""Export a trained ESDNet to Lava-DL: python export/to_lava_dl.py ckpt.pt [-o OUT] [--calibration DIR].

In: a checkpoint (a file, or a bundled one by name). Out: a folder of netx HDF5 files, one per spikes-in, spikes-out
segment, with the integer constants of all nodes and a manifest. Every file is loaded by Lava-DL's own reader and run on
a real image before the folder appears. Exit status 0 done, 1 spikes differed (nothing is left behind), 2 a mistake.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name
from esdnet.command.errors import report_user_errors
from esdnet.images.photo import check_image_file
from esdnet.networks.bundled import find_checkpoint


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and export; returns the exit status."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Export a trained ESDNet to Lava-DL's netx.")
    parser.add_argument("checkpoint", type=Path, metavar="FILE|NAME", help="checkpoint to export")
    parser.add_argument("-o", "--out", type=Path, help="default: <stem of the checkpoint>_lava_dl/")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="rainy images that set the scales (default: the one that ships)"
    )
    parser.add_argument(
        "--input-size", type=int, nargs=2, default=(64, 64), metavar=("H", "W"),
        help="size of the images, multiples of 4; netx fixes it (default: 64 64)",
    )  # fmt: skip
    parser.add_argument("--image", type=Path, help="image whose centre the check runs (default: the one that ships)")
    parser.add_argument("--no-check", action="store_true", help="write the files without running them on Lava")
    parser.add_argument("--target", metavar="NAME", help="also estimate whether it fits on a chip: loihi2")
    parser.add_argument(
        "--input", type=Path, metavar="X.npy",
        help="of a network of yours, FILE.py:FUNCTION or a .nir, whose layers are a chain: spikes that the check runs",
    )  # fmt: skip
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _export_network(args) if args.input else _export(args))


def _export(args: argparse.Namespace) -> int:
    checkpoint = find_checkpoint(args.checkpoint)
    if args.image is not None:
        check_image_file(args.image)
    from esdnet.command.memory import keep_freed_memory
    from esdnet.command.writing import check_replaceable, say_target
    from esdnet.networks.checkpoint import load_checkpoint
    from export.readers.esdnet import lower
    from export.targets.loihi.check import check_available
    from export.targets.loihi.export import Check, write_model
    from export.targets.loihi.fit import fit_table, load_limits
    from export.targets.loihi.folder import FORMAT

    target = args.out or Path(f"{args.checkpoint.stem}_lava_dl")
    check_replaceable(target, "a Lava-DL export", FORMAT.is_export)
    limits = load_limits(args.target) if args.target else None
    if not args.no_check:
        check_available()
    network = lower(load_checkpoint(checkpoint), args.checkpoint.stem)
    height, width = args.input_size
    check = Check(network, (height, width), args.image, runs=not args.no_check)
    say_target(checkpoint, target)
    keep_freed_memory()
    recording = write_model(network, check, args.calibration, target, print)
    if limits is not None:
        print(fit_table(network, height, width, limits, recording.rates))
    print(f"wrote {target}/ for images of {height}x{width}")
    return 0


def _export_network(args: argparse.Namespace) -> int:
    """Any chain of layers in integers as one .net file."""
    from esdnet.command.writing import check_outputs
    from export.open_network import open_with_input, own_name
    from export.targets.loihi.check import check_available
    from export.targets.loihi.export import write_network

    source = str(args.checkpoint)
    target = args.out or Path(f"{own_name(source)}.net")
    check_outputs({"--out": target}, [args.input, Path(source)])
    if not args.no_check:
        check_available()
    network, frames = open_with_input(source, args.input, "spike")
    write_network(network, frames, target, print, check=not args.no_check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
