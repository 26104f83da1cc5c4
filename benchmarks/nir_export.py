"""What a NIR export weighs, and the memory that writing, reading and checking it take.

    python -m benchmarks.nir_export --preset released --size 256 256 [--check]

In: a preset (random weights: neither files nor memory depend on them) and a size. Out: one line per stage with the
seconds and the peak resident memory of a process of its own; the first line is a process that only imports.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def write(path: Path, preset_name: str, height: int, width: int) -> None:
    """Lower a network of that preset and write it."""
    from esdnet.networks.esdnet.config import preset
    from esdnet.networks.esdnet.model import ESDNet
    from export.readers.esdnet import lower
    from export.targets.nir.write import write_folder

    write_folder(lower(ESDNet(preset(preset_name)).eval()), height, width, path)


def read_network(path: Path) -> None:
    """The way back to a Network, as the pricing command takes it."""
    from export.targets.nir import read as nir_format

    nir_format.read_network(path)


def read_stock(path: Path) -> None:
    """Plain nir.read on every graph, one after the other."""
    import nir

    for file in sorted(path.glob("*.nir")):
        nir.read(file)


def run(path: Path) -> None:
    """What the check's fresh interpreter does: read, run T steps in float64."""
    from export.graph.check_images import sample_image
    from export.targets.nir.read import decode_network, open_export
    from export.targets.nir.run import run_export

    export = open_export(path)
    image = sample_image(*export.manifest["input_shape"][2:])
    run_export(export, decode_network(export), image, lambda name, spikes: None)


def imports() -> None:
    """Everything that the other stages import."""
    import export.readers.esdnet
    import export.targets.nir.run
    import export.targets.nir.write  # noqa: F401


def main() -> int:
    """Run every stage in a process of its own."""
    parser = argparse.ArgumentParser(description="Size of a NIR export, and memory of its stages.")
    parser.add_argument("--preset", default="small_released")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 64), metavar=("H", "W"))
    parser.add_argument("--check", action="store_true", help="also run the export")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    stages = {
        "imports": imports,
        "write": lambda: write(args.path, args.preset, *args.size),
        "read_network": lambda: read_network(args.path),
        "nir.read": lambda: read_stock(args.path),
        "run": lambda: run(args.path),
    }
    if args.stage:
        start = time.perf_counter()
        stages[args.stage]()
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"{args.stage:<13} {time.perf_counter() - start:7.1f} s  peak {peak_mb:7.0f} MB")
        return 0
    folder = Path(tempfile.mkdtemp())
    path = folder / "export"
    wanted = ["imports", "write", "read_network"]
    wanted += ["nir.read"]
    wanted += ["run"] if args.check else []
    try:
        for stage in wanted:
            command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage, "--path", str(path)]
            subprocess.run(command, check=True)
        files = list(path.iterdir()) if path.is_dir() else [path]
        print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
