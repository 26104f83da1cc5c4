"""A network to ONNX files that ONNX Runtime ran before they appear: what to_onnx.py and `export.to_onnx` do.

In: one of our networks in torch, for images of any size; or any Network with frames, for one time step of it. Out: one
file, and what was found, line by line. CheckFailed, and nothing is written, if it does not compute what it must.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from esdnet.command.errors import CheckFailed, UserError
from esdnet.command.writing import written_beside
from esdnet.networks.esdnet.model import ESDNet
from export.graph.agreement import FloatPrecision, broken_promise, check_layers, differing_spikes, psnr_db
from export.graph.check_images import sample_image, small_images
from export.graph.near_ties import describe_near_ties
from export.graph.network import Network
from export.graph.nodes import Array
from export.graph.stream import run_once
from export.graph.witness import witness
from export.readers.esdnet import lower
from export.targets.onnx import traced
from export.targets.onnx.run import run_image, run_layers, run_steps
from export.targets.onnx.step import to_step_model
from export.targets.onnx.write import OPSET, to_model

CHECK_SIZES = ((32, 48), (45, 30), (64, 64))  # height, width; one that the network must pad
Say = Callable[[str], None]


def write_network(network: Network, frames: Any, precision: FloatPrecision, target: Path, say: Say) -> None:
    """One time step of any network, states in and out."""
    with written_beside(target) as beside:
        line = write_step(network, precision, frames, beside)
    say(line)
    say(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB): one time step; the states are inputs and outputs")


def check_precision(model: Any, name: str, precision: FloatPrecision) -> None:
    """UserError for a network that torch traces, in another precision than float32."""
    if not isinstance(model, ESDNet) and precision != "float32":
        raise UserError(f"--precision {precision}: {name} is no ESDNet, expected float32")


def write_model(model: Any, name: str, precision: FloatPrecision, target: Path, say: Say) -> None:
    """One of our networks, called `name`: an ESDNet from its graph, another as torch traces it, in float32."""
    network = lower(model, name) if isinstance(model, ESDNet) else None
    with written_beside(target) as beside:
        if network is None:
            lines = _trace_and_check(model, beside)
        else:
            lines = _write_and_check(model, network, precision, beside)
    say("\n".join(lines))
    say(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB), for images of any height and width")


def write_step(network: Network, precision: FloatPrecision, frames: Any, path: Path) -> str:
    """Write the file of one step, and run it: in float64 no spike may differ; in float32 the number is reported."""
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


def _write_and_check(model: Any, network: Network, precision: FloatPrecision, path: Path) -> list[str]:
    """Write the file, then check the file: valid ONNX, and within the promise on every size. Returns the report."""
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
    written = traced.write(model, path)
    print(f"checking {len(written.graph.node)} operators ...", file=sys.stderr)
    _check_file(written)
    versions = f"ONNX opset {traced.OPSET}, float32, {len(written.graph.node)} operators"
    return [versions, *traced.check(written, model)]


def _check_file(written: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(written, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"onnx.checker: {error}") from error


def _check_images(network: Network) -> dict[str, Array]:
    """The sample picture in every size, and the small images."""
    samples = {f"{height}x{width}": sample_image(height, width) for height, width in CHECK_SIZES}
    return samples | small_images(network)


def check_image(
    written: onnx.ModelProto, model: Any, network: Network, precision: FloatPrecision, label: str, image: Array
) -> list[str]:
    """One image (3, H, W) through ONNX Runtime and torch: the report in a line, then one for each near-tie.

    CheckFailed unless it keeps the promise layer by layer on torch's inputs, and then as a whole.
    """
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
