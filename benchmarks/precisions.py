"""The simulator's precisions beside each other: CPU time of one image, memory of the whole command.

    python -m benchmarks.precisions --rounds 5 --markdown precisions.md

In: checkpoints and an image. Out: a row for each checkpoint and precision: medians of CPU seconds, every operation
counted, and of their ratio to float32 within a round; as many whole runs of `energy.py`, which loads (and for int8
quantises) first: medians of its CPU time and largest resident set, and of that set's ratio. One thread.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.measure import PHOTO, Run, time_rounds
from benchmarks.photos import watch
from esdnet.command.errors import report_user_errors
from esdnet.command.writing import write_text

PRECISIONS = ("float32", "float64", "int8")
HEAD = """| checkpoint | precision | CPU s | ratio | energy.py, CPU s | its memory, MB | ratio |
|---|---|---:|---:|---:|---:|---:|
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="precisions.py", description="float64 and int8 beside float32.")
    parser.add_argument("--checkpoints", nargs="+", default=["small_released", "small_spike_driven"], metavar="C")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS[1:], default=list(PRECISIONS[1:]), metavar="P")
    parser.add_argument("--image", type=Path, default=PHOTO)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the commands
    rows = [row for checkpoint in args.checkpoints for row in compare(checkpoint, args)]
    print(HEAD + "\n".join(rows))
    if args.markdown:
        write_text(args.markdown, HEAD + "\n".join(rows) + "\n")
    return 0


def compare(checkpoint: str, args: argparse.Namespace) -> list[str]:
    """The rows of one checkpoint, float32 first."""
    precisions = [PRECISIONS[0], *args.precisions]
    with ExitStack() as stack:
        runs = {precision: open_run(stack, checkpoint, precision, args.image) for precision in precisions}
        times = time_rounds(runs, args.rounds, PRECISIONS[0])
    command = ["hw_sim/energy.py", "--image", str(args.image.resolve()), "--checkpoint", checkpoint, "--tile", "0"]
    watched = [
        {precision: watch([sys.executable, *command, "--precision", precision]) for precision in precisions}
        for _ in range(args.rounds)
    ]
    rows = []
    for precision in precisions:
        seconds, ratio = (times[precision][key] for key in ("cpu_seconds", "cpu_ratio"))
        cpu, largest = (median(getattr(found[precision], key) for found in watched) for key in ("cpu", "largest"))
        share = median(found[precision].largest / found[PRECISIONS[0]].largest for found in watched)
        of_command = f"{cpu:.1f} | {largest / 1e6:,.0f} | {share:.2f}"
        rows.append(f"| {checkpoint} | {precision} | {seconds:.2f} | {ratio:.2f} | {of_command} |")
    return rows


def open_run(stack: ExitStack, checkpoint: str, precision: str, image: Path) -> Run:
    """One image through a simulator that is open already."""
    import numpy as np

    from esdnet.images.files import load_image
    from hw_sim.backends.executors import Backend, load_source

    pixels = np.ascontiguousarray(load_image(image).transpose(2, 0, 1))
    opened = stack.enter_context(Backend("simulator", load_source(checkpoint, None), precision, "cpu", {}))
    executor = opened.executor((pixels.shape[1], pixels.shape[2]))
    return lambda: executor.run(pixels.astype("float32" if precision == "float32" else "float64"))


if __name__ == "__main__":
    sys.exit(main())
