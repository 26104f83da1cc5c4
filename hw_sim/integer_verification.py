"""The int8 rows of a verification: integers need not be close, they must be equal.

In: an integer network and torch's answer to an image (on the CPU or a GPU). Out: what else runs it, as candidates, and
the row of netx, which holds segments of it and not the whole.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esdnet.errors import UserError
from export.integer_network import IntegerNetwork
from export.network import Concat, Network, NetworkError, Resize, infer_shapes
from hw_sim import integer_simulator
from hw_sim.result import Result
from hw_sim.verification import Candidate, Reference, Row, Subject

NETX = "netx segments on Lava"


def make_integer_reference(integer: IntegerNetwork, subject: Subject, device: str) -> Reference:
    """Torch in integers on this device. (On the CPU that is the simulator in integers: there is one executor.)"""
    started = time.perf_counter()
    result = integer_simulator.run(integer, subject.image, device=device)
    return Reference(subject, result, {}, time.perf_counter() - started)


def integer_candidates(integer: IntegerNetwork, device: str) -> list[Candidate]:
    """What runs the whole integer network besides torch on `device`."""
    on_lava = Candidate("Lava", "int8", partial(_run_lava, integer))
    if device == "cpu":
        return [on_lava]
    return [
        Candidate("simulator on cpu", "int8", lambda subject: integer_simulator.run(integer, subject.image)),
        on_lava,
    ]


def _run_lava(integer: IntegerNetwork, subject: Subject) -> Result:
    from hw_sim.lava_backend.integer_session import IntegerLavaSession

    height, width = subject.image.shape[1:]
    with IntegerLavaSession(integer, (height, width)) as session:
        return session.run(subject.image)


def judge_netx(integer: IntegerNetwork, reference: Reference) -> Row:
    """Every part that Lava-DL's netx can hold, written, loaded and run on Lava's fixed-point models."""
    started = time.perf_counter()
    try:
        mismatches, first, segments = _run_netx(integer, reference)
    except UserError as error:
        return Row(NETX, "int8", "not run", str(error))
    note = f"{segments} segments of spikes in, spikes out, on the spikes recorded before them; netx holds no more"
    seconds = time.perf_counter() - started
    return Row(NETX, "int8", "FAILED" if mismatches else "holds", first or note, mismatches, first, seconds=seconds)


def _spike_value(network: Network, name: str, spikes: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The spikes (T, C, H, W) of a node that passes on those of neurons: as they are, side by side, or enlarged."""
    if name in spikes:
        return spikes[name]
    node = network[name]
    parts = [_spike_value(network, source, spikes) for source in node.inputs]
    if isinstance(node, Concat):
        return np.concatenate(parts, axis=1)
    if isinstance(node, Resize) and node.mode == "nearest":
        return parts[0].repeat(node.factor, 2).repeat(node.factor, 3)
    raise NetworkError(f"{name} ({node.kind}): does not pass on spikes, so no segment can begin with it")


def _run_netx(integer: IntegerNetwork, reference: Reference) -> tuple[int, str, int]:
    """Spikes that differ, the first segment where they do (layers and place), and the number of segments."""
    from export.lava_dl_check import check_segments
    from export.lava_dl_format import find_segments, write_segment

    height, width = reference.subject.image.shape[1:]
    shapes, spikes = infer_shapes(integer.network, height, width), reference.result.spikes
    with tempfile.TemporaryDirectory(prefix="esdnet-netx-") as folder:
        segments = {Path(folder) / f"{number}.h5": part for number, part in enumerate(find_segments(integer))}
        for path, segment in segments.items():
            write_segment(path, segment, shapes)
        given = {
            path: (_spike_value(integer.network, part.source, spikes), spikes[part.target])
            for path, part in segments.items()
        }
        found = check_segments(given)
    wrong = [(segments[path], one) for path, one in found.items() if one.mismatches]
    first = ""
    if wrong:
        segment, one = wrong[0]
        layers = ", ".join(layer.conv.name for layer in segment.layers)
        first = f"{layers}: {segment.target}, {one.first}: {one.mismatches} spikes differ"
    return sum(one.mismatches for one in found.values()), first, len(segments)
