"""`python -m benchmarks.run`: time, memory and energy of simulating, beside what others take for the same network.

Every ratio is taken within one run, round by round. Writes the numbers as JSON and, with --markdown, the page
docs/benchmarks.md. --peers PYTHON adds spikingjelly's op counters and NeuroBench (see benchmarks/peers.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import BARE, COUNTED, ROOT, STEPPED, contestants, crop, peak_memory, time_rounds
from benchmarks.report import NEXT
from benchmarks.your_network import kept_section
from esdnet.command.errors import UserError, report_user_errors

CHECKPOINT = ROOT / "esdnet" / "checkpoints" / "small_released.pt"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument(
        "--compare", type=int, nargs="+", default=[128, 256], metavar="SIZE", help="sides to compare at"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024], metavar="SIZE")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8], metavar="T")
    parser.add_argument("--rounds", type=int, default=7, help="of which the medians are taken")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for every contestant")
    parser.add_argument(
        "--peers", type=Path, metavar="PYTHON", help="an interpreter with spikingjelly 2 and NeuroBench"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", required=True)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page too")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    from benchmarks.report import page
    from esdnet.command.writing import check_writable, write_json, write_text

    for option, path in (("--json", args.json), ("--markdown", args.markdown)):
        if path is not None:
            check_writable(option, path)
    if args.rounds < 1 or args.threads < 1 or min(args.compare + args.sizes) < 4:
        raise UserError("--rounds and --threads must be at least 1, sizes at least 4")
    if any(size % 4 for size in args.compare + args.sizes):
        raise UserError("sizes must be multiples of 4")
    import torch

    torch.set_num_threads(args.threads)
    results = {
        "where": where(args),
        "compare": {str(size): compare(args, size) for size in args.compare},
        "sizes": {str(size): scale_size(args, size) for size in args.sizes},
        "steps": {str(steps): scale_steps(args, steps) for steps in args.steps},
    }
    if args.peers:
        say("other counters")
        results["peers"] = peers(args)
    write_json(args.json, results)
    if args.markdown:
        kept = kept_section(args.markdown, NEXT)
        write_text(args.markdown, page(results) + ("\n" + kept if kept else ""))
    return 0


def say(what: str) -> None:
    print(what, file=sys.stderr)


def where(args: argparse.Namespace) -> dict[str, Any]:
    """What ran, and on what: everything that must stand beside the numbers."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "checkpoint": args.checkpoint.name, "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(), "load_before": os.getloadavg()[0], "threads": args.threads, "rounds": args.rounds,
        "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip


def compare(args: argparse.Namespace, size: int) -> dict[str, Any]:
    """All contestants on one image: times in turn, and the memory of the three that matter."""
    from esdnet.networks.checkpoint import load_checkpoint
    from export.readers.esdnet import lower

    say(f"{size}x{size}: all contestants, {args.rounds} rounds")
    model = load_checkpoint(args.checkpoint)
    times = time_rounds(contestants(model, lower(model), crop(size)), args.rounds, BARE)
    memory = {name: peak_memory(name, args.checkpoint, size, args.threads) for name in (BARE, COUNTED, STEPPED)}
    return {"times": times, "added_mb": memory}


def scale_size(args: argparse.Namespace, size: int) -> dict[str, float]:
    """Simulate and count at one size: seconds, memory, spikes and energy."""
    from esdnet.networks.checkpoint import load_checkpoint
    from export.readers.esdnet import lower

    say(f"{size}x{size}: simulate and count")
    network = lower(load_checkpoint(args.checkpoint))
    measured = _simulate(network, size, max(1, args.rounds // 3))
    return {**measured, "added_mb": peak_memory(COUNTED, args.checkpoint, size, args.threads)}


def scale_steps(args: argparse.Namespace, steps: int) -> dict[str, float]:
    """The same at 128x128 for another T: random weights, since the attention over time has T inputs."""
    import dataclasses

    import torch

    from esdnet.networks.checkpoint import load_checkpoint
    from esdnet.networks.esdnet.model import ESDNet
    from export.readers.esdnet import lower

    say(f"T = {steps}: simulate and count")
    torch.manual_seed(0)
    model = ESDNet(dataclasses.replace(load_checkpoint(args.checkpoint).config, steps=steps)).train()
    with torch.no_grad():
        for _ in range(20):  # batch norms that have seen the image, so that every layer fires
            model(torch.from_numpy(crop(64))[None])
    return _simulate(lower(model.eval()), 128, args.rounds)


def _simulate(network: Any, size: int, rounds: int) -> dict[str, float]:
    from hw_sim.backends import simulator
    from hw_sim.pricing.prices import load_prices
    from hw_sim.report.energy_report import sum_counts

    image = crop(size)
    times = time_rounds({COUNTED: lambda: simulator.run(network, image, keep_spikes=False)}, rounds, COUNTED)
    counts = simulator.run(network, image, keep_spikes=False).counts
    totals = sum_counts(one.totals() for one in counts.values())
    return {
        "seconds": times[COUNTED]["seconds"],
        "cpu_seconds": times[COUNTED]["cpu_seconds"],
        "energy_uj": load_prices("paper").energy_j(totals) * 1e6,
        "firing_rate": totals["spikes"] / totals["neuron_updates"],
        **{key: totals[key] for key in ("spikes", "acs", "macs")},
    }


def peers(args: argparse.Namespace) -> dict[str, Any]:
    """What peers.py reports from the interpreter that has them."""
    numbers = [str(number) for number in (64, args.rounds, args.threads)]
    command = [str(args.peers.absolute()), "-m", "benchmarks.peers", str(args.checkpoint.absolute()), *numbers]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise UserError(f"--peers {args.peers}: {reason}") from error
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
