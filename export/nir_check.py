"""Checking a NIR export after writing: read back in a fresh interpreter, run, compared with the torch model.

In: an export, the torch model that it came from, and an image. Out: per neuron the number of spikes that differ, the
largest difference of the output, and whether the Network read back is the one written, bit for bit.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script by `check_export`: the repository need not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray

from esdnet.errors import report_user_errors
from export.network import Array, Network
from export.nir_format import decode_network, network_digest, open_export

OUTPUT_TOLERANCE = 1e-9  # float64: outputs within 1e-9, no spike differs


@dataclass(frozen=True)
class CheckReport:
    """What one image showed. `spikes` and `mismatches` per neuron; `error` says why nothing could be compared."""

    spikes: dict[str, int]
    mismatches: dict[str, int]
    output_difference: float
    same_network: bool
    error: str = ""

    @property
    def failures(self) -> list[str]:
        """What breaks the promise, in words; empty if the export is good."""
        if self.error:
            return [self.error]
        found = [f"{name}: {count} spikes differ" for name, count in self.mismatches.items() if count]
        if not self.output_difference <= OUTPUT_TOLERANCE:  # also if it is NaN
            found.append(f"output: differs by {self.output_difference:.3g}, expected at most {OUTPUT_TOLERANCE:g}")
        if not self.same_network:
            found.append("network: the one read back is not the one written")
        return found


def sample_image(height: int, width: int) -> Array:
    """A bright pattern with noise and light streaks, (3, H, W) in [0, 1], the same every time."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (5 + 2 * c) + c) * np.cos(columns / (7 - c)) for c in range(3)]
    streaks = 0.4 * (rng.random((height, width)) > 0.95)
    return np.clip(0.45 + 0.3 * np.stack(waves) + streaks + 0.1 * rng.standard_normal((3, height, width)), 0.0, 1.0)


def torch_reference(model: Any, image: Array) -> tuple[Array, dict[str, NDArray[np.uint8]]]:
    """The model's output (3, H, W) and the spikes of every LIF module as bits (np.packbits), in float64."""
    import torch

    from esdnet.lif import LIF
    from esdnet.watching import watching

    double = copy.deepcopy(model).double().eval()
    spikes: dict[str, NDArray[np.uint8]] = {}

    def record(name: str, inputs: Any, output: Any) -> None:
        spikes[name] = np.packbits((output[:, 0] > 0.5).numpy())

    neurons = {name: module for name, module in double.named_modules() if isinstance(module, LIF)}
    with torch.inference_mode(), watching(neurons, record):
        output = double(torch.from_numpy(image)[None])[0].numpy()
    return output, spikes


def write_reference(path: Path, model: Any, network: Network, image: Array) -> None:
    """What an export must reproduce: the model's output and spikes (as bits) for an image, the Network's digest."""
    output, spikes = torch_reference(model, image)
    packed: dict[str, Any] = {f"spikes/{name}": bits for name, bits in spikes.items()}
    np.savez(path, image=image, output=output, digest=network_digest(network), **packed)


def check_export(path: Path, model: Any, network: Network, image: Array) -> CheckReport:
    """Run `model` here and the export in a fresh interpreter, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference.npz"
        write_reference(reference, model, network, image)
        command = [sys.executable, str(Path(__file__).resolve()), str(path), str(reference)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return CheckReport({}, {}, float("nan"), False, f"the export could not be read back: {lines[-1]}")
    return CheckReport(**json.loads(done.stdout))


def compare_export(path: Path, reference: Path) -> CheckReport:
    """Run the export on the image of a reference file and compare, in this process."""
    export = open_export(path)
    network = decode_network(export)
    from export.nir_run import run_export  # torch: only for an export that can be read

    spikes: dict[str, int] = {}
    mismatches: dict[str, int] = {}
    with np.load(reference, allow_pickle=False) as expected:
        same = network_digest(network) == str(expected["digest"])

        def see(name: str, found: NDArray[np.bool_]) -> None:
            bits = expected.get(f"spikes/{name}", np.zeros(0, np.uint8))
            wanted = np.unpackbits(bits, count=found.size).astype(bool)
            spikes[name] = int(wanted.sum())
            mismatches[name] = int((wanted != found.reshape(-1)).sum())

        output = run_export(export, network, expected["image"], see)
        names = {key.removeprefix("spikes/") for key in expected.files if key.startswith("spikes/")}
        if names != set(spikes):
            odd = sorted(names ^ set(spikes))
            return CheckReport({}, {}, float("nan"), same, f"{odd[0]}: a neuron of one side only ({len(odd)} such)")
        return CheckReport(spikes, mismatches, float(np.abs(output - expected["output"]).max()), same)


def main(argv: list[str] | None = None) -> int:
    """`nir_check.py EXPORT REFERENCE`: print the report as JSON."""
    path, reference = (Path(value) for value in (sys.argv[1:] if argv is None else argv))

    def body() -> int:
        print(json.dumps(asdict(compare_export(path, reference))))
        return 0

    return report_user_errors(body)


if __name__ == "__main__":
    sys.exit(main())
