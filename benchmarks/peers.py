"""Other counters on the same network: spikingjelly's op counters and NeuroBench, time and totals, as JSON.

    PYTHON benchmarks/peers.py CHECKPOINT SIZE ROUNDS THREADS

PYTHON is an interpreter that has them beside this project's own needs (benchmarks/requirements-peers.txt); one that is
missing is said to be missing. Spikes are exact only if both count the same ones: totals are compared in float64.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measure import BARE, COUNTED, contestants, crop, time_rounds

Counter = Callable[[Any, Any], dict[str, int]]  # (torch model, image (1, 3, H, W)) -> totals


def count_with_spikingjelly(kinds: tuple[str, ...]) -> Counter:
    """A forward pass under these of spikingjelly's counters."""

    def count(model: Any, x: Any) -> dict[str, int]:
        import torch
        from spikingjelly.activation_based import op_counter

        counters = {kind: getattr(op_counter, kind)() for kind in kinds}
        with torch.no_grad(), op_counter.DispatchCounterMode(list(counters.values())):
            model(x)
        return {kind: int(counter.get_total()) for kind, counter in counters.items()}

    return count


def count_with_neurobench(model: Any, x: Any) -> dict[str, int]:
    """A forward pass under NeuroBench's hooks, and its synaptic operations."""
    import torch
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    wrapped = TorchModel(model)
    wrapped.register_hooks()
    metric = SynapticOperations()
    with torch.no_grad():
        output = wrapped(x)
        totals = metric(wrapped, output, (x, output))
    wrapped.cleanup_hooks()
    return {key: int(value) for key, value in totals.items()}


PEERS: dict[str, tuple[str, Counter]] = {
    "spikingjelly SynOpCounter": ("spikingjelly", count_with_spikingjelly(("SynOpCounter",))),
    "spikingjelly SynOp + AC + MAC": (
        "spikingjelly", count_with_spikingjelly(("SynOpCounter", "ACCounter", "MACCounter")),
    ),
    "NeuroBench SynapticOperations": ("neurobench", count_with_neurobench),
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="peers.py", description="Other counters on the same network, as JSON.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("size", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("threads", type=int)
    args = parser.parse_args(argv)
    print(json.dumps(measure(args)))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Times of everything in one run, and what each peer counted beside the simulator's own totals, in float64."""
    import copy

    import torch

    from benchmarks.baselines import folded
    from esdnet.networks.checkpoint import load_checkpoint
    from export.readers.esdnet import lower
    from hw_sim.backends import simulator

    torch.set_num_threads(args.threads)
    model = load_checkpoint(args.checkpoint)
    network, image = lower(model), crop(args.size)
    bare, x = folded(model), torch.from_numpy(image)[None]
    exact, exact_x = copy.deepcopy(bare).double(), x.double()
    ours = contestants(model, network, image)
    runs, counted, versions = {name: ours[name] for name in (BARE, COUNTED)}, {}, {"torch": torch.__version__}
    for name, (package, count) in PEERS.items():
        try:
            versions[package] = version(package)
            counted[name] = count(exact, exact_x)
        except (ImportError, AttributeError, PackageNotFoundError) as error:
            counted[name] = {"missing": f"{type(error).__name__}: {error}"}
            continue
        runs[name] = lambda count=count: count(bare, x)  # type: ignore[misc]
    result = simulator.run(network, image, precision="float64")
    totals = [counts.totals() for counts in result.counts.values()]
    return {
        "versions": versions,
        "ours": {key: sum(one[key] for one in totals) for key in ("acs", "macs", "spikes")},
        "counted": counted,
        "times": time_rounds(runs, args.rounds, BARE),
    }


if __name__ == "__main__":
    sys.exit(main())
