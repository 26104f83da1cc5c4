"""The int8 rows of a verification: integers need not be close, they must be equal.

In: an integer network and torch's answer to an image (on the CPU or a GPU). Out: what else runs it, as candidates, the
row of the NumPy oracle, which takes a crop, and the row of netx, which holds segments of it and not the whole.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esdnet.images.crops import middle
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Concat, NetworkError, Resize
from export.graph.witness import Witness
from export.integer.network import IntegerNetwork
from export.integer.run import to_pixels
from export.targets.loihi.check import check_available
from hw_sim.agreement import integer_oracle
from hw_sim.agreement.candidates import lava_ready
from hw_sim.agreement.judge import Candidate, Reference, Row, Subject, attempt, judge
from hw_sim.backends import integer_simulator
from hw_sim.backends.result import Result

NETX = "netx segments on Lava"
ORACLE_SIDE = 32  # pixels: a second's work for the oracle
ONE_EXECUTOR = "in integers they are one executor, export/integer/run.py"
ON_LAVA = "frames and delays are Lava's processes; integers are computed in them by the simulator's rules"


def make_integer_reference(integer: IntegerNetwork, subject: Subject, device: str) -> Reference:
    """Torch in integers on this device. (That is the simulator in integers too: there is one executor.)"""
    started = time.perf_counter()
    result = integer_simulator.run(integer, subject.image, device=device)
    return Reference(subject, result, Witness({}, {}, ()), time.perf_counter() - started)


def integer_candidates(integer: IntegerNetwork, device: str) -> list[Candidate]:
    """What runs the whole integer network besides torch on `device`."""
    ready, run = partial(_lava_ready, integer), partial(_run_lava, integer)
    on_lava = Candidate("Lava", "int8", run, ready=ready, note=ON_LAVA)
    if device == "cpu":
        return [on_lava]
    on_cpu = Candidate("simulator on cpu", "int8", lambda subject: integer_simulator.run(integer, subject.image))
    return [replace(on_cpu, note=f"the executor of the reference, {ONE_EXECUTOR}, on another device"), on_lava]


def judge_oracle(integer: IntegerNetwork, subject: Subject, oracle: IntegerNetwork | None = None) -> Row:
    """The middle of the image through the NumPy oracle, which shares no code with the executors held against it.

    `oracle`: what it runs instead of `integer`.
    """
    multiple = subject.network.size_multiple
    sides = [min(side, ORACLE_SIDE // multiple * multiple or multiple) for side in subject.image.shape[1:]]
    rows, columns = middle(subject.image.shape[1:], sides)
    part = replace(subject, image=subject.image[:, rows, columns])
    run = partial(_run_oracle, oracle or integer)
    note = f"the middle {sides[0]}x{sides[1]} pixels, by an executor of its own, written from docs/int8.md"
    return judge(make_integer_reference(integer, part, "cpu"), Candidate("NumPy oracle", "int8", run, note=note), part)


def _run_oracle(integer: IntegerNetwork, subject: Subject) -> Result:
    values = integer_oracle.run(integer, to_pixels(subject.image)).values
    spikes = {neuron.name: values[neuron.name].astype(bool) for neuron in integer.network.neurons}
    return Result(values[integer.network.output.name][0] / 255.0, spikes)


def _lava_ready(integer: IntegerNetwork, subject: Subject) -> None:
    size = (int(subject.image.shape[1]), int(subject.image.shape[2]))
    lava_ready(size)
    from hw_sim.backends.lava.integer_session import make_integer_plan
    from hw_sim.backends.lava.memory import check_memory

    check_memory(make_integer_plan(integer, size, "fused", False))


def _run_lava(integer: IntegerNetwork, subject: Subject) -> Result:
    from hw_sim.backends.lava.integer_session import IntegerLavaSession

    height, width = subject.image.shape[1:]
    with IntegerLavaSession(integer, (height, width)) as session:
        return session.run(subject.image)


def judge_netx(integer: IntegerNetwork, reference: Reference) -> Row:
    """Every part that Lava-DL's netx can hold, written, loaded and run on Lava's fixed-point models."""
    return attempt(reference, NETX, "int8", check_available, lambda: _netx_row(integer, reference))


def _netx_row(integer: IntegerNetwork, reference: Reference) -> Row:
    started = time.perf_counter()
    mismatches, first, segments = _run_netx(integer, reference)
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
    from export.targets.loihi.check import check_segments
    from export.targets.loihi.netx import find_segments, write_segment

    height, width = reference.subject.image.shape[1:]
    shapes, spikes = infer_shapes(integer.network, height, width), reference.result.spikes
    with tempfile.TemporaryDirectory(prefix="esdnet-netx-") as folder:
        segments = {Path(folder) / f"{number}.h5": part for number, part in enumerate(find_segments(integer))}
        for path, segment in segments.items():
            write_segment(path, segment, shapes)
        given = {
            path: (_spike_value(integer.network, part.source, spikes)[None], spikes[part.target][None])
            for path, part in segments.items()
        }
        opened = {name: gate[None, None].astype(bool) for name, gate in reference.result.gates.items()}
        gates = {path: opened[part.gate] for path, part in segments.items() if part.gate}
        found = check_segments(given, gates)
    wrong = [(segments[path], one) for path, one in found.items() if one.mismatches]
    first = ""
    if wrong:
        segment, one = wrong[0]
        layers = ", ".join(layer.conv.name for layer in segment.layers)
        first = f"{layers}: {segment.target}, {one.first}: {one.mismatches} spikes differ"
    return sum(one.mismatches for one in found.values()), first, len(segments)
