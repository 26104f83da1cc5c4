"""What a GPU makes of it all, on one page: exactness against the CPU, training steps, energy reports per megapixel.

    make test-gpu                                                       # on a machine with CUDA; under ten minutes
    python -m benchmarks.gpu --device cpu --sides 64 --batch 1 -o gpu   # every line of it but CUDA's own, on a CPU

In: the bundled checkpoints and the photo that ships. Out: a folder with gpu.md and gpu.json, and a record of what the
device computed for each checkpoint, which `verify.py` compares with on machines without one (copied into
hw_sim/agreement/gpu_records it ships). Exit 0 if every promise holds, 1 if one does not, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_page import page
from benchmarks.measure import PHOTO, crop
from esdnet.command.device import choose_exact_device
from esdnet.command.errors import report_user_errors
from esdnet.command.writing import make_folder, write_json, write_text

if TYPE_CHECKING:
    from export.graph.network import Network

CHECKPOINTS = ("small_released", "small_spike_driven", "small_dual_stage")
PRESETS = ("small_spike_driven", "small_dual_stage")
SIDES = (256, 512, 1024, 2048)  # of the images that energy reports are timed on
Rows = list[dict[str, Any]]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu.py", description="Exactness and speed of a GPU, on one page.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder, which is made")
    parser.add_argument("--checkpoints", nargs="+", default=list(CHECKPOINTS), metavar="C")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), metavar="P", help="that are trained")
    parser.add_argument("--sides", nargs="+", type=int, default=list(SIDES), metavar="N", help="of images")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20, help="that are timed")
    parser.add_argument("--most-batch", type=int, default=1024)
    parser.add_argument("--compile-backend", default="inductor", help="of torch.compile")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Everything, and the page."""
    args.device = choose_exact_device(args.device)
    from hw_sim.agreement.records import device_facts

    make_folder(args.out)
    started = time.monotonic()
    facts = device_facts(args.device)
    verdicts = {name: verify(args, name) for name in args.checkpoints}
    pngs = {name: png_bytes(args, name) for name in args.checkpoints}
    records = {name: record(args, name, facts) for name in args.checkpoints}
    content: dict[str, Any] = {
        "facts": facts,
        "crop": args.crop,
        "steps": args.steps,
        "verified": verdicts,
        "int8": pngs,
        "recorded": records,
        "training": {name: training(args, name) for name in args.presets},
        "energy": {name: energy(args, name) for name in args.checkpoints},
        "seconds": time.monotonic() - started,
    }
    write_json(args.out / "gpu.json", content)
    write_text(args.out / "gpu.md", page(content))
    failed = failures(content)
    for line in failed or [f"everything holds; {args.out / 'gpu.md'} has the numbers"]:
        print(line)
    return 1 if failed else 0


def say(what: str) -> None:
    print(what, file=sys.stderr)


def verify(args: argparse.Namespace, name: str) -> Rows:
    """The rows of verify.py on the device: torch, simulator and int8 there and on the CPU, and everything else."""
    from hw_sim import verify as command

    say(f"{name}: every backend against torch on {args.device}")
    report = args.out / f"{name}.verify.json"
    report.unlink(missing_ok=True)
    with redirect_stdout(io.StringIO()):
        command.main(["--image", str(PHOTO), "--checkpoint", name, "--device", args.device, "--json", str(report)])
    if not report.exists():  # it said why on stderr
        return [dict.fromkeys(("precision", "mismatches", "max_difference", "first"), "")
                | {"backend": "verify.py", "status": "FAILED", "note": "did not run"}]  # fmt: skip
    rows: Rows = json.loads(report.read_text())["rows"]
    return rows


def png_bytes(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Whether the whole photo in int8 is the same file on the device and on the CPU; None: no integers hold it."""
    from hw_sim import energy as command

    say(f"{name}: int8 on {args.device} and on the CPU")
    files = {}
    for device in (args.device, "cpu"):
        path = args.out / f"{name}.{device}.png"
        flags = ["--checkpoint", name, "--precision", "int8", "--device", device, "--save-image", str(path)]
        with redirect_stdout(io.StringIO()):
            status = command.main(["--image", str(PHOTO), *flags])
        files[device] = path.read_bytes() if status == 0 else None
    if files["cpu"] is None:
        return {"same": None, "bytes": 0}
    return {"same": files[args.device] == files["cpu"], "bytes": len(files["cpu"])}


def record(args: argparse.Namespace, name: str, facts: dict[str, str]) -> str:
    """Write what the device computed of the crop that verify.py takes; the record's name."""
    from esdnet.images.files import load_image
    from export.graph.rules import DesignRuleError
    from export.integer.formats import QuantizationError
    from hw_sim.agreement.records import identity, make_record, write_record
    from hw_sim.backends import integer_simulator, torch_model
    from hw_sim.backends.executors import load_source
    from hw_sim.backends.integer_executors import integer_network
    from hw_sim.verify import middle

    say(f"{name}: the record of {facts['device']}")
    source = load_source(name, None)
    image = middle(load_image(PHOTO), None, source.network.size_multiple)
    if source.model is None:
        return ""
    answers = {"float64": torch_model.run(source.model, source.network, image, precision="float64", device=args.device)}
    try:
        answers["int8"] = integer_simulator.run(integer_network(source), image, device=args.device)
    except (DesignRuleError, QuantizationError) as error:
        say(f"{name}: not in int8: {error}")
    path = args.out / f"{name}.{facts['device'].replace(' ', '_')}.npz"
    write_record(path, make_record({**facts, **identity(source.network, image)}, answers))
    return path.name


def training(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Steps of a preset in every way, at one batch and at the largest that fits."""
    from benchmarks.gpu_steps import all_ways, largest_batch, measure

    say(f"{name}: training steps")
    ways = all_ways(name, args.device, args.batch, args.crop, args.steps, args.compile_backend)
    most = largest_batch(name, args.device, args.crop, args.most_batch)
    at_most = measure(name, "bf16", args.device, most, args.crop, max(2, args.steps // 4), args.compile_backend)
    return {"batch": args.batch, "ways": [way.to_dict() for way in ways], "most": most, "at_most": at_most.to_dict()}


def energy(args: argparse.Namespace, name: str) -> Rows:
    """The simulator, every operation counted, on images of these sides: seconds and memory per megapixel."""
    from benchmarks.gpu_device import forget_peak, peak_bytes, wait
    from hw_sim.backends import simulator
    from hw_sim.backends.executors import load_source

    network: Network = load_source(name, None).network
    rows = []
    for side in args.sides:
        say(f"{name}: simulated at {side}x{side}")
        image = crop(side)
        forget_peak(args.device)
        for _ in range(2):  # the first warms up
            started = time.perf_counter()
            simulator.run(network, image, device=args.device, keep_spikes=False)
            wait(args.device)
            seconds = time.perf_counter() - started
        megapixels, peak = side * side / 1e6, peak_bytes(args.device)
        rows.append(
            {"side": side, "seconds_per_mp": seconds / megapixels, "mb_per_mp": peak and peak / 1e6 / megapixels}
        )
    return rows


def failures(content: dict[str, Any]) -> list[str]:
    """What does not hold, a line each."""
    rows = [
        f"FAILED: {name}: {row['backend']}, {row['precision']}: {row['note'] or row['first']}"
        for name, found in content["verified"].items()
        for row in found
        if row["status"] in ("FAILED", "proves nothing")
    ]
    rows += [f"FAILED: {name}: int8: another PNG" for name, found in content["int8"].items() if found["same"] is False]
    return rows


if __name__ == "__main__":
    sys.exit(main())
