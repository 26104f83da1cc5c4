"""Export a trained network to ONNX: python export/to_onnx.py ckpt.pt [-o OUT] [--precision float32|float64].

In: a checkpoint (a file, or a bundled one by name). Out: one .onnx file for images of any size; run by ONNX Runtime and
compared with the torch model before it appears under its name. Exit status 0 done, 1 the check failed (nothing is left
behind), 2 a mistake.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run as a script: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name, require_extra
from esdnet.command.errors import CheckFailed, UserError, report_user_errors
from esdnet.command.writing import check_outputs, say_target, written_beside
from esdnet.networks.bundled import find_checkpoint

if TYPE_CHECKING:
    import onnx

    from export.graph.agreement import FloatPrecision
    from export.graph.network import Network
    from export.graph.nodes import Array

CHECK_SIZES = ((32, 48), (45, 30), (64, 64))  # height, width; one that the network must pad


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
    """One time step of any network, states in and out; ONNX Runtime runs the file before it appears."""
    require_extra("onnx", "the ONNX export")
    from export.open_network import open_with_input, own_name

    source = str(args.checkpoint)
    target = args.out or Path(f"{own_name(source)}.onnx")
    check_outputs({"-o": target}, [args.input, Path(source)])
    network, frames = open_with_input(source, args.input, args.input_kind)
    with written_beside(target) as beside:
        line = write_step(network, args.precision, frames, beside)
    print(line)
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB): one time step; the states are inputs and outputs")
    return 0


def write_step(network: Network, precision: FloatPrecision, frames: Any, path: Path) -> str:
    """Write the file of one step, and run it: in float64 no spike may differ; in float32 the number is reported."""
    import onnx

    from export.graph.agreement import differing_spikes
    from export.graph.stream import run_once
    from export.targets.onnx.run import run_steps
    from export.targets.onnx.step import to_step_model

    path.write_bytes(to_step_model(network, precision).SerializeToString())
    written = onnx.load(path)
    _check_file(written)
    _, expected = run_once(network, frames)
    _, found = run_steps(written, network, frames)
    differing, first = differing_spikes(expected, found)
    total = sum(int(spikes.sum()) for spikes in expected.values())
    line = f"{sum(differing.values()):,} of {total:,} spikes differ from the graph's in float64"
    if differing and precision == "float64":
        raise CheckFailed(f"{line}; {first}")
    return f"ONNX Runtime ran it, {precision}: {line}"


def _export(args: argparse.Namespace) -> int:
    require_extra("onnx", "the ONNX export")
    checkpoint = find_checkpoint(args.checkpoint)
    target = args.out or Path(f"{args.checkpoint.stem}.onnx")
    check_outputs({"-o": target}, [checkpoint])
    from esdnet.networks.checkpoint import load_network
    from esdnet.networks.esdnet.model import ESDNet
    from export.readers.esdnet import lower

    model = load_network(checkpoint)
    network = lower(model, args.checkpoint.stem) if isinstance(model, ESDNet) else None
    if network is None and args.precision != "float32":
        raise UserError(f"--precision {args.precision}: {args.checkpoint} is no ESDNet, expected float32")
    say_target(checkpoint, target)
    with written_beside(target) as beside:
        if network is None:
            lines = _trace_and_check(model, beside)
        else:
            lines = _write_and_check(model, network, args.precision, beside)
    print("\n".join(lines))
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB), for images of any height and width")
    return 0


def _write_and_check(model: Any, network: Network, precision: FloatPrecision, path: Path) -> list[str]:
    """Write the file, then check the file: valid ONNX, and within the promise on every size. Returns the report."""
    import onnx

    from export.targets.onnx.write import OPSET, to_model

    path.write_bytes(to_model(network, precision).SerializeToString())
    written = onnx.load(path)
    images = _check_images(network)
    print(f"checking {len(written.graph.node)} operators on {len(images)} images ...", file=sys.stderr)
    _check_file(written)
    versions = f"ONNX opset {OPSET}, {precision}, {network.steps} steps, {len(written.graph.node)} operators"
    found = (check_image(written, model, network, precision, *named) for named in images.items())
    return [versions, *(line for lines in found for line in lines)]


def _trace_and_check(model: Any, path: Path) -> list[str]:
    """The same for a network without spikes, which torch traces."""
    from export.targets.onnx.traced import OPSET, check, write

    written = write(model, path)
    print(f"checking {len(written.graph.node)} operators ...", file=sys.stderr)
    _check_file(written)
    return [f"ONNX opset {OPSET}, float32, {len(written.graph.node)} operators", *check(written, model)]


def _check_file(written: onnx.ModelProto) -> None:
    import onnx

    try:
        onnx.checker.check_model(written, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"onnx.checker: {error}") from error


def _check_images(network: Network) -> dict[str, Array]:
    """The sample picture in every size, and the small images."""
    from export.graph.check_images import sample_image, small_images

    samples = {f"{height}x{width}": sample_image(height, width) for height, width in CHECK_SIZES}
    return samples | small_images(network)


def check_image(
    written: onnx.ModelProto, model: Any, network: Network, precision: FloatPrecision, label: str, image: Array
) -> list[str]:
    """One image (3, H, W) through ONNX Runtime and torch: the report in a line, then one for each near-tie.

    CheckFailed unless it keeps the promise layer by layer on torch's inputs, and then as a whole.
    """
    import numpy as np

    from export.graph.agreement import broken_promise, check_layers, differing_spikes, psnr_db
    from export.graph.near_ties import describe_near_ties
    from export.graph.witness import witness
    from export.targets.onnx.run import run_image, run_layers

    height, width = image.shape[1:]
    missing = [(0, 0), *((0, -side % network.size_multiple) for side in (height, width))]
    reference = witness(model, network, np.pad(image, missing, mode="edge"))
    output, spikes = run_image(written, network, image)
    expected = reference.values[network.output.name][0, :, :height, :width]
    fired = {name: reference.values[name] for name in spikes}
    differing, total = sum(differing_spikes(fired, spikes)[0].values()), sum(int(x.sum()) for x in fired.values())
    largest, psnr = np.abs(output - expected).max(), psnr_db(expected, output)
    line = f"{label}: {differing} of {total:,} spikes differ, output by {largest:.1e}, {psnr:.0f} dB"
    layers = check_layers(network, reference, run_layers(written, network, reference.values), precision)
    if layers.failures:
        raise CheckFailed(f"{label}: {layers.failures[0]} ({len(layers.failures)} failures)")
    failure = broken_promise(network, reference, precision, output, spikes)
    if failure:
        raise CheckFailed(f"{line}; {failure}")
    line += f"; {layers.layers} layers on torch's inputs: membranes within {layers.membrane:.1e}"
    return [line, *(f"  near-tie: {tie}" for tie in describe_near_ties(reference.near_ties))]


if __name__ == "__main__":
    sys.exit(main())
