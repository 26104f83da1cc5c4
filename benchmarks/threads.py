"""How long a command takes by how the threads of torch wait for each other, on idle and on busy cores.

    python -m benchmarks.threads [--busy N] [--rounds N]

In: how many other processes compute meanwhile. Out: a row for each command and setting: medians of wall seconds and of
CPU seconds. A command sets `asleep` itself, where nobody has set anything (esdnet/command/threads.py).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from benchmarks.measure import PHOTO, ROOT

COMMANDS = {
    "energy.py": ["hw_sim/energy.py", "--image", str(PHOTO)],
    "derain": ["-m", "esdnet.derain", str(PHOTO), "-o", "derained.png"],
    "derain, spike-driven": ["-m", "esdnet.derain", str(PHOTO), "-o", "o.png", "--checkpoint", "small_spike_driven"],
}
SETTINGS = {
    "spinning": {"GOMP_SPINCOUNT": "300000"},  # GNU's own choice, where no policy is set
    "asleep": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="threads.py", description="Commands by how their threads wait.")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="others that compute (default: 0)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    print("| command | threads | wall s | CPU s |\n|---|---|---:|---:|")
    with others(args.busy):
        for command in COMMANDS:
            for row in rows_of(command, args.rounds):
                print(row, flush=True)
    return 0


@contextmanager
def others(number: int) -> Iterator[None]:
    """Processes that compute, and nothing else."""
    with ExitStack() as stack:
        for _ in range(number):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


def rows_of(command: str, rounds: int) -> list[str]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
    for _ in range(rounds):
        for name, found in times.items():
            found.append(timed(COMMANDS[command], SETTINGS[name]))
    return [
        f"| {command} | {name} | {median(wall for wall, _ in found):.1f} | {median(cpu for _, cpu in found):.1f} |"
        for name, found in times.items()
    ]


def timed(words: list[str], setting: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of one command in an empty folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    script = [str(ROOT / words[0]), *words[1:]] if words[0] != "-m" else words
    with tempfile.TemporaryDirectory() as folder:
        before, started = os.times(), time.monotonic()
        subprocess.run(
            [sys.executable, *script], cwd=folder, env={**kept, "PYTHONPATH": str(ROOT), **setting}, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wall, after = time.monotonic() - started, os.times()
    return wall, sum(after[2:4]) - sum(before[2:4])


if __name__ == "__main__":
    sys.exit(main())
