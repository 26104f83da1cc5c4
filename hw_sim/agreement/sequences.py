"""`verify.py --network F --input X.npy`: any network of a user's, held against the simulator spike for spike.

In: a Network and frames. Out: a row for each backend that runs networks of any kind, in float64, and for the snnTorch
module that it was read from. A file states its reference (docs/semantics.md).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import UserError
from export.graph.agreement import FLOAT64_OUTPUT, differing_spikes, psnr_db
from export.graph.frames import check_sequence
from export.graph.network import Network
from export.graph.nodes import LoihiNeuron, NetworkError
from export.integer.to_loihi import loihi_network
from hw_sim.agreement.judge import SILENT, Precision, Row, Status
from hw_sim.backends.result import Result
from hw_sim.backends.simulator import run_sequence

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Network, NDArray[Any]], tuple[Arrays, Arrays]]


def verify_sequence(
    network: Network,
    frames: NDArray[Any],
    say: Callable[[str, str], None],
    source: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Iterator[Row]:
    """The reference, every backend, and what the module that the network was read from fired by itself: `source`."""
    say("simulator", "float64")
    started = time.perf_counter()
    reference = run_sequence(network, frames)
    seconds = time.perf_counter() - started
    silent = [name for name, spikes in reference.spikes.items() if not spikes.any()]
    if len(silent) == len(reference.spikes):
        yield Row("simulator on cpu", "float64", "proves nothing", SILENT, seconds=seconds)
        return
    note = f"{len(silent)} of {len(reference.spikes)} neuron layers silent, so not exercised: {', '.join(silent)}"
    yield Row("simulator on cpu", "float64", "reference", note if silent else "", seconds=seconds)
    if source is not None:
        mismatches, first = differing_spikes(
            reference.spikes, {name: fired.reshape(reference.spikes[name].shape) for name, fired in source.items()}
        )
        status: Status = "FAILED" if mismatches else "holds"
        yield Row("snnTorch module", "float64", status, "", sum(mismatches.values()), first)
    for name, run in BACKENDS.items():
        say(name, "float64")
        yield _judge(name, "float64", run, network, frames, reference)
    yield from _in_integers(network, frames, reference, say)


def _in_integers(
    network: Network, frames: NDArray[Any], floats: Result, say: Callable[[str, str], None]
) -> Iterator[Row]:
    """The network in Loihi's integers, every backend that runs it against the simulator; how far it is from float64 is
    stated, not promised. A network that was read in integers has had its rows."""
    name = "simulator on cpu"
    if network.of(LoihiNeuron):
        return
    say(name, "int8")
    try:
        integer = loihi_network(network)
    except NetworkError as error:
        yield Row(name, "int8", "not run", str(error))
        return
    started = time.perf_counter()
    reference = run_sequence(integer, frames)
    seconds = time.perf_counter() - started
    mismatches, _ = differing_spikes(floats.spikes, reference.spikes)
    fired = sum(int(spikes.sum()) for spikes in reference.spikes.values())
    note = f"{sum(mismatches.values()):,} of its spikes differ from float64's; it fires {fired:,}"
    yield Row(name, "int8", "reference" if fired else "proves nothing", note if fired else SILENT, seconds=seconds)
    for name in ("ONNX Runtime", "Lava"):
        say(name, "int8")
        yield _judge(name, "int8", BACKENDS[name], integer, frames, reference)


def _judge(name: str, precision: Precision, run: Run, network: Network, frames: NDArray[Any], reference: Result) -> Row:
    """One backend against the reference. An error in it has failed; a kind that it does not take is 'not run'."""
    started = time.perf_counter()
    try:
        outputs, spikes = run(network, frames)
    except NetworkError as error:
        return Row(name, precision, "not run", str(error).splitlines()[0])
    except Exception as error:  # the reference ran: whatever it is, this backend has failed
        return Row(name, precision, "FAILED", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    seconds = time.perf_counter() - started
    mismatches, first = differing_spikes(reference.spikes, spikes)
    expected = reference.outputs or {network.outputs[0].name: reference.output}
    differences = [float(np.abs(expected[key] - outputs[key]).max()) for key in expected]
    allowed = [FLOAT64_OUTPUT * max(1.0, float(np.abs(expected[key]).max())) for key in expected]
    close = all(difference <= most for difference, most in zip(differences, allowed, strict=True))
    key = max(expected, key=lambda one: float(np.abs(expected[one] - outputs[one]).max()))
    return Row(
        name,
        precision,
        "holds" if close and not mismatches else "FAILED",
        "" if close else f"outputs differ by up to {max(differences):.1e}, at most {max(allowed):.1e} allowed",
        sum(mismatches.values()),
        first,
        max(differences),
        psnr_db(expected[key], outputs[key]),
        seconds,
    )


def _onnx(network: Network, frames: NDArray[Any]) -> tuple[Arrays, Arrays]:
    """ONNX Runtime, step by step: kernels of its own."""
    from export.targets.onnx.run import run_sequence as run_onnx

    return run_onnx(network, frames)


def _nir(network: Network, frames: NDArray[Any]) -> tuple[Arrays, Arrays]:
    """The stock NIR file of the network, read back; outputs are those of the same names."""
    from export.graph.stream import run_once
    from export.readers.nir import read_nir
    from export.targets.nir.stock_file import write_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.nir"
        write_file(network, path)
        back = read_nir(path, carries=network.input.carries)
    if not network.input.every_step:  # the file is given the same frame at every step
        frames = frames[None].repeat(network.steps, axis=0)
    return run_once(back, frames)


def _lava(network: Network, frames: NDArray[Any]) -> tuple[Arrays, Arrays]:
    """Lava's processes; where there is no Lava, not run."""
    from hw_sim.backends.lava import LavaSession
    from hw_sim.backends.lava.host import check_available

    try:
        check_available()
    except UserError as error:
        raise NetworkError(str(error)) from error
    _, _, height, width = check_sequence(network, frames).shape
    network = network.with_steps(len(frames)) if network.input.every_step else network
    with LavaSession(network, (height, width), precision="float64") as session:
        result = session.run_sequence(frames)
    return result.outputs or {network.outputs[0].name: result.output}, result.spikes


BACKENDS: dict[str, Run] = {"ONNX Runtime": _onnx, "NIR, written and read back": _nir, "Lava": _lava}
