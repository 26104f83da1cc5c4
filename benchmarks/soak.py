"""Many photos through every backend of one process: memory stays flat, and no file or process is left.

    python -m benchmarks.soak --photos 300                  # the checkpoints that ship; Lava on the first 64x64 pixels

In: the photo that ships, cut and mirrored anew for each, of changing size. Out: a row for each backend with what the
process had in memory after the first tenth of the photos, at its most and in the end; exit 1 if that grew by more than
LIMIT, or if an open file, a temporary file or a process is left.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import crop
from esdnet.command.errors import report_user_errors
from esdnet.command.memory import resident_memory
from esdnet.command.writing import write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIMIT = 1.05  # of the memory after the first tenth
BACKENDS = (
    ("torch", "float32"), ("simulator", "float32"), ("simulator", "float64"), ("simulator", "int8"),
    ("lava", "float32"), ("lava", "int8"),
)  # fmt: skip
LAVA_SIDE = 64
SIDES = (64, 128)  # of the others' photos, at least and at most


@dataclass
class Soaked:
    """What a backend did to this process. Bytes of memory after each photo; what is left over, in words."""

    name: str
    memory: list[int] = field(default_factory=list)
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)

    @property
    def warm(self) -> int:
        """After the first tenth: everything is loaded and every cache has begun."""
        return self.memory[max(0, len(self.memory) // 10 - 1)]

    @property
    def growth(self) -> float:
        """The most after that, as a multiple of it."""
        return max(self.memory[len(self.memory) // 10 :]) / self.warm

    @property
    def holds(self) -> bool:
        """Flat, and nothing left."""
        return self.growth <= LIMIT and not self.left


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="soak.py", description="Many photos through every backend of one process.")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--checkpoint", default="small_spike_driven")
    parser.add_argument("--backends", nargs="+", default=[":".join(each) for each in BACKENDS], metavar="B:PRECISION")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """All of them, one backend after the other."""
    import torch

    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory(prefix="soak-") as own:  # others write into the usual one
        tempfile.tempdir = os.environ["TMPDIR"] = own
        for name in args.backends:
            found.append(soak(args.checkpoint, *name.split(":"), args.photos))
            print(describe(found[-1]), flush=True)
        del os.environ["TMPDIR"]
        tempfile.tempdir = None
    if args.markdown:
        head = [
            "| backend | after the first tenth, MB | most, MB | end, MB | s a photo | left |",
            "|---|---:|---:|---:|---:|---|",
        ]
        write_text(args.markdown, "\n".join([*head, *map(describe, found)]) + "\n")
    return 0 if all(each.holds for each in found) else 1


def soak(checkpoint: str, backend: str, precision: str, photos: int) -> Soaked:
    """So many photos through one backend, opened once, and closed."""
    from hw_sim.backends.executors import Backend, load_source

    found = Soaked(f"{backend}, {precision}")
    before = _around()
    source = load_source(checkpoint, None)
    started = time.perf_counter()
    with ExitStack() as stack:
        opened = stack.enter_context(
            Backend(backend, source, precision, "cpu", {"model": "fused", "stock": False} if backend == "lava" else {})
        )
        for number, photo in enumerate(_photos(photos, (LAVA_SIDE, LAVA_SIDE) if backend == "lava" else SIDES)):
            result = opened.executor((photo.shape[1], photo.shape[2])).run(
                photo.astype("float64" if precision == "int8" else precision)
            )
            if not result.counts:
                found.left.append(f"photo {number} was not counted")
            del result
            gc.collect()
            found.memory.append(resident_memory())
            if sys.stderr.isatty():
                print(f"\r{found.name}: {number + 1}", end="", file=sys.stderr)
    found.seconds = (time.perf_counter() - started) / photos
    found.left += [f"{len(after - there)} {what}" for what, there, after in _differences(before) if after - there]
    return found


def _photos(count: int, sides: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    """Cuts of the photo that ships, (3, h, w), sides multiples of 4 between these."""
    import numpy as np

    rng, photo = np.random.default_rng(0), crop(256)
    for _ in range(count):
        height, width = (int(side) // 4 * 4 for side in rng.integers(sides[0], sides[1] + 1, 2))
        top, left = rng.integers(0, 256 - height + 1), rng.integers(0, 256 - width + 1)
        yield photo[:, top : top + height, left : left + width][:, :: rng.choice([-1, 1])]


def _around() -> dict[str, set[Any]]:
    """What a process may leave behind: open files, temporary files, processes."""
    gc.collect()
    return {
        "open files": {os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()},
        "temporary files": {path.name for path in Path(tempfile.gettempdir()).iterdir()},
        "processes": {child.pid for child in multiprocessing.active_children()},
    }


def _differences(before: dict[str, set[Any]]) -> Iterator[tuple[str, set[Any], set[Any]]]:
    after = _around()
    return ((what, there, after[what]) for what, there in before.items())


def describe(found: Soaked) -> str:
    """A row of the table."""
    megabytes = [f"{size / 1e6:,.0f}" for size in (found.warm, max(found.memory), found.memory[-1])]
    left = ", ".join(found.left) or "nothing"
    verdict = "" if found.holds else " **FAILED**"
    return f"| {found.name} | {' | '.join(megabytes)} | {found.seconds:.2f} | {left}{verdict} |"


if __name__ == "__main__":
    sys.exit(main())
