"""Checking netx files: the real Lava-DL loader and Lava's fixed-point CPU models run every segment on recorded spikes.

In: HDF5 files, and per file the spikes that went in and came out of the integer network. Out: per file the number of
spikes that differ. Lava runs in an interpreter of its own, which is ended if it does not answer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script by `check_segments`: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[3])

import numpy as np
from numpy.typing import NDArray

from esdnet.command.command_line import require_extra
from esdnet.command.errors import UserError

Spikes = NDArray[np.bool_]

START_S, FILE_S = 120.0, 60.0  # time-out: importing netx, and each file; both take a few seconds


@dataclass(frozen=True)
class Comparison:
    """One segment: spikes that came out, how many differ, and where the first does."""

    spikes: int
    mismatches: int
    first: str = ""


def check_available() -> None:
    """UserError, in one line, where netx cannot run: on another Python, or without Lava-DL."""
    if sys.version_info[:2] != (3, 10):
        found = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise UserError(
            f"netx runs on Python 3.10 only, found {found}; to_lava_dl --no-check writes the files without running them"
        )
    require_extra("lava", "netx")


def check_segments(
    recorded: Mapping[Path, tuple[Spikes, Spikes]], gates: Mapping[Path, Spikes] | None = None
) -> dict[Path, Comparison]:
    """Run each netx file on the spikes recorded before it, (images, T, C, H, W), and compare with those after it.

    gates: of files whose last neurons have one, where it is open, (images, 1, 1, H, W): spikes elsewhere are taken off.
    """
    check_available()
    with tempfile.TemporaryDirectory(prefix="esdnet-netx-") as folder:
        job, report = Path(folder) / "job.npz", Path(folder) / "report.json"
        arrays = {}
        for index, (path, (given, expected)) in enumerate(recorded.items()):
            arrays[f"given{index}"], arrays[f"expected{index}"] = given, expected
            arrays[f"gate{index}"] = (gates or {}).get(path, np.ones((), bool))
        np.savez(job, files=[str(path) for path in recorded], **arrays)
        _run([str(job), str(report)], START_S + FILE_S * len(recorded))
        found = json.loads(report.read_text())
    return {path: Comparison(**entry) for path, entry in zip(recorded, found, strict=True)}


def _run(arguments: Sequence[str], timeout_s: float) -> None:
    """This file as a script, in a session of its own: Lava's processes end with it."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"netx: Lava did not answer within {timeout_s:.0f} s; try again on an idle machine") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        reason = errors.strip().splitlines()[-1] if errors.strip() else f"exit status {process.returncode}"
        raise UserError(f"netx: Lava could not run the files: {reason}")


def run_netx(path: Path, spikes: Spikes) -> Spikes:
    """What the netx network of an HDF5 file emits for input spikes bool (images, T, C, H, W): (images, T, C', H', W').

    States are zero before the first step of each image.
    """
    from lava.lib.dl.netx import hdf5
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel
    from lava.proc.io.source import RingBuffer as Source

    images, steps, channels, height, width = spikes.shape
    frames = spikes.reshape(-1, channels, height, width)
    # the neurons' states start anew with an image's first frame, which reaches them one step after it was sent
    network = hdf5.Network(
        net_config=str(path), input_shape=(width, height, channels), reset_interval=steps, reset_offset=1
    )
    # a dense layer takes vectors; netx leaves out a flatten that nothing comes before
    data = frames.transpose(3, 2, 1, 0) if len(network.inp.shape) == 3 else frames.reshape(len(frames), -1).T
    source = Source(data=data.astype(np.int32))
    total = len(frames) + len(network)  # a layer adds one step
    sink = Extractor(shape=network.out.shape, buffer_size=total)  # a Var would be read one number at a time
    source.s_out.connect(network.inp)
    network.out.connect(sink.in_port)
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map={sink: PyLoihiExtractorModel})
    try:
        network.run(condition=RunSteps(num_steps=total), run_cfg=config)
        received = [sink.receive() for _ in range(total)]
    finally:
        network.stop()
    sent = np.stack(received[len(network) :])
    found = (sent.transpose(0, 3, 2, 1) if sent.ndim == 4 else sent[..., None, None]) > 0  # a dense layer's are vectors
    return found.reshape(images, steps, *found.shape[1:])


def compare(found: Spikes, expected: Spikes) -> Comparison:
    """Two spike trains (images, T, C, H, W)."""
    differs = found != expected
    first = ""
    if differs.any():
        image, step, channel, row, column = (int(index[0]) for index in np.nonzero(differs))
        first = f"image {image}, step {step}, channel {channel}, row {row}, column {column}"
    return Comparison(int(expected.sum()), int(differs.sum()), first)


def main(argv: list[str]) -> int:
    """Child process: run the job, write the report."""
    job, report = argv
    with np.load(job) as arrays:
        results = [
            asdict(compare(fired & arrays[f"gate{index}"], arrays[f"expected{index}"]))
            for index, path in enumerate(arrays["files"])
            for fired in [run_netx(Path(str(path)), arrays[f"given{index}"])]
        ]
    Path(report).write_text(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
