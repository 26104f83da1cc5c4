"""What is measured and how: wall and CPU time of one contestant after the other, round by round, and peak memory.

In: an ESDNet, its graph and an image. Out: medians, and medians of the ratios within each round. As a script: the peak
resident memory of one contestant in a process of its own, as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from esdnet.networks.esdnet.model import ESDNet
    from export.graph.network import Network

PHOTO = ROOT / "docs" / "sample" / "rainy.png"
BARE = "batch norms folded, LIF fused, no counting"
COUNTED = "simulate and count"
STEPPED = "snnTorch step by step"

Run = Callable[[], object]


def crop(size: int) -> NDArray[np.float32]:
    """The photo that ships, (3, size, size) float32, mirrored at its borders where it is too small."""
    import numpy as np

    from esdnet.images.files import load_image

    photo = load_image(PHOTO)
    missing = [(0, max(0, size - side)) for side in photo.shape[:2]]
    grown = np.pad(photo, [*missing, (0, 0)], mode="symmetric")[:size, :size]
    return np.ascontiguousarray(grown.transpose(2, 0, 1), np.float32)


def contestants(model: ESDNet, network: Network, image: NDArray[np.float32]) -> dict[str, Run]:
    """Everything that is timed against each other, by name; each call runs the image once."""
    import torch

    from benchmarks.baselines import folded, step_by_step
    from hw_sim.backends import simulator

    x = torch.from_numpy(image)[None]

    def forward(module: ESDNet) -> Run:
        def run() -> object:
            with torch.inference_mode():
                return module(x)

        return run

    return {
        BARE: forward(folded(model)),
        COUNTED: lambda: simulator.run(network, image, keep_spikes=False),
        "simulate, not counted": lambda: simulator.run(network, image, keep_spikes=False, count=False),
        "torch as trained": forward(model),
        STEPPED: forward(step_by_step(model)),
    }


def time_rounds(runs: dict[str, Run], rounds: int, base: str) -> dict[str, dict[str, float]]:
    """Each once to warm up, then `rounds` times in turn: median seconds, median ratio to `base` within a round."""
    for run in runs.values():
        run()
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - cpu_started)

    def ratio(times: dict[str, list[float]], name: str) -> float:
        return statistics.median(one / other for one, other in zip(times[name], times[base], strict=True))

    return {
        name: {
            "seconds": statistics.median(wall[name]),
            "cpu_seconds": statistics.median(cpu[name]),
            "ratio": ratio(wall, name),
            "cpu_ratio": ratio(cpu, name),
        }
        for name in runs
    }


def peak_memory(name: str, checkpoint: Path, size: int, threads: int) -> float:
    """MB that one contestant adds to the resident memory of a fresh process that has loaded everything."""
    command = [sys.executable, "-m", "benchmarks.measure", name, str(checkpoint.absolute()), str(size), str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["added_mb"])


def added_memory_mb(run: Run) -> float:
    """How far `run` raises the resident memory of this process at its peak (Linux: /proc)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
    before = _status_mb("VmRSS")
    run()
    return _status_mb("VmHWM") - before


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def main(argv: list[str] | None = None) -> int:
    """Child process: one contestant, and how far the peak of memory rose."""
    parser = argparse.ArgumentParser(prog="measure.py", description="Peak memory of one contestant, as JSON.")
    parser.add_argument("name")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("size", type=int)
    parser.add_argument("threads", type=int)
    args = parser.parse_args(argv)
    import torch

    from esdnet.networks.checkpoint import load_checkpoint
    from export.readers.esdnet import lower

    torch.set_num_threads(args.threads)
    model = load_checkpoint(args.checkpoint)
    network = lower(model)
    contestants(model, network, crop(32))[args.name]()  # what is imported and made once does not count
    run = contestants(model, network, crop(args.size))[args.name]
    print(json.dumps({"added_mb": added_memory_mb(run)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
