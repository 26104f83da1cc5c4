"""A network to netx files that Lava-DL ran before they appear: what to_lava_dl.py and `export.to_lava_dl` do.

In: the graph of one of our networks, for a folder with a file for each segment of spikes; or any chain of layers with
spikes, for one file. Out: files, and what was found, line by line. CheckFailed, and nothing is written, if a spike
differs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import CheckFailed
from esdnet.command.writing import written_beside
from export.graph.check_images import plain_images
from export.graph.frames import check_sequence
from export.graph.network import Network, infer_shapes
from export.graph.stream import run_once
from export.integer.calibrate import calibration_images, centre_pixels
from export.integer.network import IntegerNetwork
from export.integer.run import to_pixels
from export.integer.store import integer_digest
from export.integer.to_loihi import loihi_network
from export.targets.loihi.chain import write_net
from export.targets.loihi.check import check_segments
from export.targets.loihi.folder import read_integer, write_folder
from export.targets.loihi.netx import Segment
from export.targets.loihi.report import Recording, acs_line, check_table, facts, loss_table, record, spikes_of
from export.targets.loihi.rules import headroom_line, quantize_for_loihi

Say = Callable[[str], None]


class Check:
    """What the files of a network are checked with: the middle, (height, width), of an image, or of the one that ships;
    and whether Lava runs them. UserError for a size that the network cannot take."""

    def __init__(self, network: Network, size: tuple[int, int], image: Path | None = None, runs: bool = True) -> None:
        infer_shapes(network, *size)
        self.size, self.runs = size, runs
        self.pixels = centre_pixels(image, *size)


def write_model(network: Network, check: Check, calibration: Path | None, target: Path, say: Say) -> Recording:
    """The folder of a network. calibration: rainy images that set the scales, or None for the one that ships. Returns
    what was recorded of the integers on the image of the check."""
    with written_beside(target) as beside:
        recording, failure = _write_and_check(network, check, calibration, beside, say)
        if failure:
            raise CheckFailed(failure)
    return recording


def write_network(network: Network, frames: NDArray[Any], target: Path, say: Say, check: bool = True) -> None:
    """Any chain of layers in integers as one .net file, which Lava-DL's own loader runs before it appears."""
    integer = loihi_network(network)
    _, floats = run_once(network, frames)
    _, spikes = run_once(integer, frames)
    with written_beside(target) as beside:
        layers = write_net(integer, beside)
        if check:
            last = integer.outputs[0].inputs[0]
            given = check_sequence(network, frames).astype(bool)
            (found,) = check_segments({beside: (given[None], spikes[last][None])}).values()
            if found.mismatches:
                raise CheckFailed(f"{last}: {found.mismatches} of its spikes differ on Lava, first at {found.first}")
            say(f"Lava-DL's loader ran it: 0 of {found.spikes:,} spikes of {last} differ in {len(frames)} steps")
    for name, fired in floats.items():
        say(f"{name}: {int(fired.sum()):,} spikes in float64, {int(spikes[name].sum()):,} in integers")
    say(f"wrote {target}: {layers} layers of neurons")


def _write_and_check(
    network: Network, check: Check, calibration: Path | None, folder: Path, say: Say
) -> tuple[Recording, str]:
    """What was measured, and what failed (empty if nothing did)."""
    images = calibration_images(calibration, network.size_multiple)
    print(f"calibrating, images: {len(images)} ...", file=sys.stderr)
    integer = quantize_for_loihi(network, images)
    recording = record(network, integer, check.pixels)
    noted = facts(recording, str(calibration or "the image that ships"))
    segments = write_folder(folder, integer, *check.size, noted)
    if integer_digest(read_integer(folder)) != integer_digest(integer):
        return recording, "the network read back is not the one written"
    failure = _run_segments(folder, segments, recording, integer, check.size, say) if check.runs else ""
    say(acs_line(recording))
    say(headroom_line(integer))
    say(loss_table(recording))
    return recording, failure


def _run_segments(
    folder: Path, segments: dict[str, Segment], recording: Recording, integer: IntegerNetwork, size: tuple[int, int],
    say: Say,
) -> str:  # fmt: skip
    """Say how every netx file fared on Lava, with the image that was recorded and then plain ones and noise, of
    (height, width); returns what failed."""
    runs = [recording.spikes, *(spikes_of(integer, to_pixels(image)) for image in plain_images(*size).values())]
    print(f"running {len(segments)} netx files on Lava, {len(runs)} images ...", file=sys.stderr)

    def fired(name: str) -> NDArray[np.bool_]:
        return np.stack([spikes[name] for spikes in runs])

    given = {folder / name: (fired(segment.source), fired(segment.target)) for name, segment in segments.items()}
    gates = {folder / name: fired(segment.gate) for name, segment in segments.items() if segment.gate}
    rows = {path.name: found for path, found in check_segments(given, gates).items()}
    say(check_table(segments, rows))
    wrong = [(name, row) for name, row in rows.items() if row.mismatches]
    return f"{wrong[0][0]}: {wrong[0][1].mismatches} spikes differ, first at {wrong[0][1].first}" if wrong else ""
