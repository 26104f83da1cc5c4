"""Photos of many megapixels in exact tiles: time, and the memory of every process, decoding and encoding included.

    python -m benchmarks.photos --megapixels 12 100 --workers 2 --markdown photos.md

In: the photo that ships, enlarged. Out: a row for each photo and command. Memory is looked up in Linux's /proc while
the command runs: the largest resident set of any one of its processes, and the most that all of them had together (each
page that several share counted once: PSS).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.measure import PHOTO, ROOT
from esdnet.command.errors import report_user_errors
from esdnet.command.writing import write_text

COLUMNS = (
    "photo", "command", "processes", "tiles", "times the pixels", "s", "CPU s", "CPU s a megapixel",
    "largest process, MB", "together, MB",
)  # fmt: skip
EVERY = 0.2  # seconds between two looks
RATIO = 4 / 3  # of the photos' sides
COMMANDS = {
    "derain, JPEG to PNG": ["-m", "esdnet.derain", "{photo}", "-o", "{folder}/o.png", "--json", "{folder}/r.json"],
    "derain, JPEG to JPEG": ["-m", "esdnet.derain", "{photo}", "-o", "{folder}/o.jpg", "--json", "{folder}/r.json"],
    "energy.py, float32": ["hw_sim/energy.py", "--image", "{photo}", "--json", "{folder}/r.json"],
    "energy.py, int8": ["hw_sim/energy.py", "--image", "{photo}", "--precision", "int8", "--json", "{folder}/r.json"],
}


@dataclass
class Watched:
    """What a command took: seconds on the wall and of the CPU; bytes of its largest process, and of all together."""

    wall: float
    cpu: float
    largest: int
    together: int


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="photos.py", description="Large photos: time and memory.")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[12.0])
    parser.add_argument("--checkpoint", default="small_spike_driven")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS)[:1], metavar="COMMAND")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--flags", nargs="*", default=[], help="more, for every command")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """All of them, one after the other."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="photos-") as folder:
        for megapixels in args.megapixels:
            photo = enlarge(Path(folder), megapixels)
            for name in args.commands:
                for workers in args.workers:
                    rows.append(measure(Path(folder), photo, name, workers, args))
                    print(rows[-1], flush=True)
    if args.markdown:
        head = [f"| {' | '.join(COLUMNS)} |", f"|---|---{'|---:' * (len(COLUMNS) - 2)}|"]
        write_text(args.markdown, "\n".join([*head, *rows]) + "\n")
    return 0


def enlarge(folder: Path, megapixels: float) -> Path:
    """The photo that ships, so large, as a camera's JPEG."""
    height = round((megapixels * 1e6 / RATIO) ** 0.5)
    path = folder / f"{megapixels:g}MP.jpg"
    with Image.open(PHOTO) as opened:
        opened.resize((round(height * RATIO), height), Image.Resampling.BICUBIC).save(path, quality=92)
    return path


def measure(folder: Path, photo: Path, name: str, workers: int, args: argparse.Namespace) -> str:
    """One command on one photo, as a row."""
    command = [part.format(photo=photo, folder=folder) for part in COMMANDS[name]]
    shared = ["--workers", str(workers)] if workers > 1 else []
    found = watch([sys.executable, *command, "--checkpoint", args.checkpoint, *shared, *args.flags])
    report: dict[str, Any] = json.loads((folder / "r.json").read_text())
    row = report["images"][0] if "images" in report else report.get("computed_in", {"tiles": 1, "overhead": 1.0})
    with Image.open(photo) as opened:
        width, height = opened.size
    megapixels = width * height / 1e6
    return (
        f"| {width}x{height} | {name} | {workers} | {row['tiles']} | {row['overhead']:.2f} | {found.wall:.0f} |"
        f" {found.cpu:.0f} | {found.cpu / megapixels:.1f} | {found.largest / 1e6:,.0f} | {found.together / 1e6:,.0f} |"
    )


def watch(command: list[str]) -> Watched:
    """Run it to its end."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    found = Watched(0.0, 0.0, 0, 0)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        looking = threading.Thread(target=_look, args=(process, found))
        looking.start()
        status = process.wait()
        looking.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {status}")
    found.wall = time.monotonic() - started
    found.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def _look(process: subprocess.Popen[bytes], found: Watched) -> None:
    while process.poll() is None:
        sizes = [_memory(pid) for pid in _tree(process.pid)]
        found.largest = max([found.largest, *(resident for resident, _ in sizes)])
        found.together = max(found.together, sum(share for _, share in sizes))
        time.sleep(EVERY)


def _tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for each in found:
        for children in _lines(f"/proc/{each}/task/{each}/children"):
            found += map(int, children.split())
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Bytes: resident at its peak, and its share of what is resident now."""
    peak = [line.split()[1] for line in _lines(f"/proc/{pid}/status") if line.startswith("VmHWM")]
    share = [line.split()[1] for line in _lines(f"/proc/{pid}/smaps_rollup") if line.startswith("Pss:")]
    return _bytes(peak), _bytes(share)


def _bytes(kib: Iterable[str]) -> int:
    return sum(int(number) << 10 for number in kib)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # it ended meanwhile
        return []


if __name__ == "__main__":
    sys.exit(main())
