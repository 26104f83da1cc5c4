"""`python -m benchmarks.first_steps`: how long a newcomer waits for a first photo, a first count, a first NIR file.

In: this checkout, which is cloned into a temporary folder (what is not committed is not in it). Out: a table of
seconds, each step by the clock and of CPU time. What `make setup` installs comes from uv's cache where it is there.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from esdnet.command.errors import CheckFailed, report_user_errors

ROOT = Path(__file__).resolve().parents[1]
SETUP = "make setup"
PYTHON = ".venv/bin/python"
STEPS = {
    SETUP: "an environment with everything",
    f"{PYTHON} -m esdnet.derain docs/sample/rainy.png -o derained.png": "a first derained photo",
    f"{PYTHON} hw_sim/energy.py --network mynet.py:network --input x.npy": "a first count of a network of one's own",
    f"{PYTHON} export/to_nir.py mynet.py:network --input x.npy -o mynet.nir": "its NIR file, read back and run",
}


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(prog="first_steps.py", description=(__doc__ or "").splitlines()[0]).parse_args(argv)
    return report_user_errors(_walk)


def _walk() -> int:
    print(f"load when the run began: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print("| step | what is there then | s | CPU s |\n|---|---|---:|---:|")
    with TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        steps = {f"git clone {ROOT} {clone}": "", **STEPS}
        for command, result in steps.items():
            if command == SETUP:
                _write_network(clone)
            seconds, cpu_seconds = _timed(command, clone if clone.is_dir() else Path(folder))
            shown = "git clone" if command.startswith("git") else command
            print(f"| `{shown}` | {result} | {seconds:.1f} | {cpu_seconds:.1f} |", flush=True)
    return 0


def _write_network(clone: Path) -> None:
    """The module and the input of docs/your_network.md, as its reader types them."""
    page = (clone / "docs" / "your_network.md").read_text(encoding="utf-8")
    module, frames = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    (clone / "mynet.py").write_text(module, encoding="utf-8")
    subprocess.run([sys.executable, "-c", frames], cwd=clone, check=True)


def _timed(command: str, folder: Path) -> tuple[float, float]:
    """Seconds by the clock, and of CPU time of all processes."""
    used, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True, check=False)
    seconds, total = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise CheckFailed(f"{command}: {done.stderr.strip().splitlines()[-1]}")
    return seconds, total.ru_utime + total.ru_stime - used.ru_utime - used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
