"""Export a trained ESDNet to ONNX: python export/to_onnx.py ckpt.pt [-o OUT] [--precision float32|float64].

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

from esdnet.bundled import find_checkpoint
from esdnet.errors import CheckFailed, report_user_errors
from esdnet.writing import check_outputs, say_target, written_beside

if TYPE_CHECKING:
    import onnx

    from export.network import Network

CHECK_SIZES = ((32, 48), (45, 30), (64, 64))  # height, width; one that the network must pad


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and export; returns the exit status."""
    parser = argparse.ArgumentParser(prog="to_onnx.py", description="Export a trained ESDNet to ONNX and check it.")
    parser.add_argument("checkpoint", type=Path, metavar="FILE|NAME", help="checkpoint to export")
    parser.add_argument("-o", "--out", type=Path, help="default: <stem of the checkpoint>.onnx")
    parser.add_argument(
        "--precision", choices=("float32", "float64"), default="float32",
        help="float64 is for exact comparison: slower, no spike differs from torch (default: float32)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _export(args))


def _export(args: argparse.Namespace) -> int:
    checkpoint = find_checkpoint(args.checkpoint)
    target = args.out or Path(f"{args.checkpoint.stem}.onnx")
    check_outputs({"-o": target}, [checkpoint])
    say_target(checkpoint, target)
    from esdnet.checkpoint import load_checkpoint
    from export.lower import lower

    model = load_checkpoint(checkpoint)
    network = lower(model, args.checkpoint.stem)
    with written_beside(target) as beside:
        lines = _write_and_check(model, network, args.precision, beside)
    print("\n".join(lines))
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB), for images of any height and width")
    return 0


def _write_and_check(model: Any, network: Network, precision: Any, path: Path) -> list[str]:
    """Write the file, then check the file: valid ONNX, and within the promise on every size. Returns the report."""
    import onnx

    from export.onnx_format import OPSET, to_model

    path.write_bytes(to_model(network, precision).SerializeToString())
    written = onnx.load(path)
    print(f"checking {len(written.graph.node)} operators on {len(CHECK_SIZES)} sizes ...", file=sys.stderr)
    try:
        onnx.checker.check_model(written, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"onnx.checker: {error}") from error
    versions = f"ONNX opset {OPSET}, {precision}, {network.steps} steps, {len(written.graph.node)} operators"
    return [versions, *(check_size(written, model, network, size) for size in CHECK_SIZES)]


def check_size(written: onnx.ModelProto, model: Any, network: Network, size: tuple[int, int]) -> str:
    """One image of this size through ONNX Runtime and torch: the report in one line, or CheckFailed.

    Layer by layer on torch's inputs, membranes within 1e-5; then the whole network: in float64 no spike differs and the
    output lies within 1e-9, in float32 it has 60 dB or more.
    """
    import numpy as np

    from export.agreement import FLOAT64_OUTPUT, FREE_RUN_PSNR_DB, check_layers, differing_spikes, psnr_db, witness
    from export.nir_check import sample_image
    from export.onnx_run import run_image, run_layers

    image = sample_image(*size)
    missing = [(0, -side % network.size_multiple) for side in size]
    reference = witness(model, network, np.pad(image, [(0, 0), *missing], mode="edge"))
    output, spikes = run_image(written, network, image)
    expected = reference[network.output.name][0, :, : size[0], : size[1]]
    largest, psnr = float(np.abs(output - expected).max()), psnr_db(expected, output)
    counts, first = differing_spikes({name: reference[name] for name in spikes}, spikes)
    differing = sum(counts.values())
    total = sum(int(reference[name].sum()) for name in spikes)
    line = f"{size[0]}x{size[1]}: {differing} of {total:,} spikes differ, output by {largest:.1e}, {psnr:.0f} dB"
    exact = output.dtype == np.float64
    layers = check_layers(network, reference, run_layers(written, network, reference))
    if layers.failures:
        raise CheckFailed(f"{size[0]}x{size[1]}: {layers.failures[0]} ({len(layers.failures)} failures)")
    if exact and (differing or not largest <= FLOAT64_OUTPUT):
        raise CheckFailed(f"{line}; promised: none, and at most {FLOAT64_OUTPUT:g}; first: {first or 'the output'}")
    if not psnr >= FREE_RUN_PSNR_DB:
        raise CheckFailed(f"{line}; promised: at least {FREE_RUN_PSNR_DB:g} dB; first: {first}")
    return f"{line}; {layers.layers} layers on torch's inputs: membranes within {layers.membrane:.1e}"


if __name__ == "__main__":
    sys.exit(main())
