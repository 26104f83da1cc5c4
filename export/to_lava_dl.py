"""Export a trained ESDNet to Lava-DL: python export/to_lava_dl.py ckpt.pt [-o OUT] [--calibration DIR].

In: a checkpoint (a file, or a bundled one by name). Out: a folder of netx HDF5 files, one per spikes-in, spikes-out
segment, with the integer constants of all nodes and a manifest. Every file is loaded by Lava-DL's own reader and run on
a real image before the folder appears. Exit status 0 done, 1 spikes differed (nothing is left behind), 2 a mistake.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run as a script: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name
from esdnet.command.errors import CheckFailed, report_user_errors
from esdnet.images.photo import check_image_file
from esdnet.networks.bundled import find_checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from export.graph.network import Network
    from export.integer.network import IntegerNetwork
    from export.targets.loihi.netx import Segment
    from export.targets.loihi.report import Recording


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
    from esdnet.command.writing import check_replaceable, say_target, written_beside
    from esdnet.networks.checkpoint import load_checkpoint
    from export.graph.network import infer_shapes
    from export.integer.calibrate import centre_pixels
    from export.readers.esdnet import lower
    from export.targets.loihi.check import check_available
    from export.targets.loihi.fit import fit_table, load_limits
    from export.targets.loihi.folder import FORMAT

    target = args.out or Path(f"{args.checkpoint.stem}_lava_dl")
    check_replaceable(target, "a Lava-DL export", FORMAT.is_export)
    limits = load_limits(args.target) if args.target else None
    if not args.no_check:
        check_available()
    network = lower(load_checkpoint(checkpoint), args.checkpoint.stem)
    height, width = args.input_size
    infer_shapes(network, height, width)  # a size that the network cannot take is found at once
    pixels = centre_pixels(args.image, height, width)
    say_target(checkpoint, target)
    with written_beside(target) as beside:
        recording, failure = _write_and_check(network, pixels, args, beside)
        if failure:
            raise CheckFailed(failure)
    if limits is not None:
        print(fit_table(network, height, width, limits, recording.rates))
    print(f"wrote {target}/ for images of {height}x{width}")
    return 0


def _export_network(args: argparse.Namespace) -> int:
    """Any chain of layers in integers as one .net file, which Lava-DL's own loader runs before it appears."""
    from esdnet.command.writing import check_outputs, written_beside
    from export.graph.frames import check_sequence
    from export.graph.stream import run_once
    from export.integer.to_loihi import loihi_network
    from export.open_network import open_with_input, own_name
    from export.targets.loihi.chain import write_net
    from export.targets.loihi.check import check_available, check_segments

    source = str(args.checkpoint)
    target = args.out or Path(f"{own_name(source)}.net")
    check_outputs({"--out": target}, [args.input, Path(source)])
    if not args.no_check:
        check_available()
    network, frames = open_with_input(source, args.input, "spike")
    integer = loihi_network(network)
    _, floats = run_once(network, frames)
    _, spikes = run_once(integer, frames)
    with written_beside(target) as beside:
        layers = write_net(integer, beside)
        if not args.no_check:
            last = integer.outputs[0].inputs[0]
            given = check_sequence(network, frames).astype(bool)
            (found,) = check_segments({beside: (given[None], spikes[last][None])}).values()
            if found.mismatches:
                raise CheckFailed(f"{last}: {found.mismatches} of its spikes differ on Lava, first at {found.first}")
            print(f"Lava-DL's loader ran it: 0 of {found.spikes:,} spikes of {last} differ in {len(frames)} steps")
    for name, fired in floats.items():
        print(f"{name}: {int(fired.sum()):,} spikes in float64, {int(spikes[name].sum()):,} in integers")
    print(f"wrote {target}: {layers} layers of neurons")
    return 0


def _write_and_check(
    network: Network, pixels: NDArray[np.uint8], args: argparse.Namespace, folder: Path
) -> tuple[Recording, str]:
    """What was measured, and what failed (empty if nothing did)."""
    from esdnet.command.memory import keep_freed_memory
    from export.integer.calibrate import calibration_images
    from export.integer.store import integer_digest
    from export.targets.loihi.folder import read_integer, write_folder
    from export.targets.loihi.report import acs_line, facts, loss_table, record
    from export.targets.loihi.rules import headroom_line, quantize_for_loihi

    keep_freed_memory()
    images = calibration_images(args.calibration, network.size_multiple)
    print(f"calibrating, images: {len(images)} ...", file=sys.stderr)
    integer = quantize_for_loihi(network, images)
    recording = record(network, integer, pixels)
    noted = facts(recording, str(args.calibration or "the image that ships"))
    height, width = args.input_size
    segments = write_folder(folder, integer, height, width, noted)
    if integer_digest(read_integer(folder)) != integer_digest(integer):
        return recording, "the network read back is not the one written"
    failure = "" if args.no_check else _run_segments(folder, segments, recording, integer, (height, width))
    print(acs_line(recording))
    print(headroom_line(integer))
    print(loss_table(recording))
    return recording, failure


def _run_segments(
    folder: Path, segments: dict[str, Segment], recording: Recording, integer: IntegerNetwork, size: tuple[int, int]
) -> str:
    """Print how every netx file fared on Lava, with the image that was recorded and then plain ones and noise, of
    (height, width); returns what failed."""
    import numpy as np

    from export.graph.check_images import plain_images
    from export.integer.run import to_pixels
    from export.targets.loihi.check import check_segments
    from export.targets.loihi.report import check_table, spikes_of

    runs = [recording.spikes, *(spikes_of(integer, to_pixels(image)) for image in plain_images(*size).values())]
    print(f"running {len(segments)} netx files on Lava, {len(runs)} images ...", file=sys.stderr)

    def fired(name: str) -> NDArray[np.bool_]:
        return np.stack([spikes[name] for spikes in runs])

    given = {folder / name: (fired(segment.source), fired(segment.target)) for name, segment in segments.items()}
    rows = {path.name: found for path, found in check_segments(given).items()}
    print(check_table(segments, rows))
    wrong = [(name, row) for name, row in rows.items() if row.mismatches]
    return f"{wrong[0][0]}: {wrong[0][1].mismatches} spikes differ, first at {wrong[0][1].first}" if wrong else ""


if __name__ == "__main__":
    sys.exit(main())
