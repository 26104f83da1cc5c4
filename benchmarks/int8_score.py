"""What 8-bit integers cost in image quality: float32 and int8 on the same images, PSNR on Y, image by image.

python -m benchmarks.int8_score --data DIR [--checkpoint C] [--calibration DIR] [--limit N] [--device cpu|cuda]
DIR holds input/ and target/. Both outputs are rounded to 8 bits, as a saved image is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from esdnet.command.errors import report_user_errors
from esdnet.command.memory import keep_freed_memory
from esdnet.images.metrics import psnr_y
from esdnet.networks.bundled import DEFAULT
from esdnet.networks.checkpoint import load_checkpoint
from esdnet.training.data import PairedFolder
from export.integer.calibrate import calibration_images
from export.integer.run import run_integer, to_pixels
from export.readers.esdnet import lower
from export.targets.loihi.rules import quantize_for_loihi
from hw_sim.backends import simulator


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE|NAME", default=Path(DEFAULT))
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--device", default="cpu")
    return report_user_errors(lambda: score(parser.parse_args(argv)))


def score(args: argparse.Namespace) -> int:
    keep_freed_memory()
    network = lower(load_checkpoint(args.checkpoint), args.checkpoint.stem)
    integer = quantize_for_loihi(network, calibration_images(args.calibration, network.size_multiple))
    rows = []
    print(f"{'image':<16}{'input':>9}{'float32':>9}{'int8':>9}{'loss':>8}")
    for pair in PairedFolder(args.data).pairs()[: args.limit]:
        rainy, clean = pair.load()
        height, width = rainy.shape[:2]
        size = network.size_multiple
        padded = np.pad(rainy, ((0, -height % size), (0, -width % size), (0, 0)), mode="edge").transpose(2, 0, 1)
        exact = simulator.run(network, padded, count=False, keep_spikes=False, device=args.device).output
        whole = run_integer(integer, to_pixels(padded), device=args.device)
        outputs = [image[:, :height, :width].transpose(1, 2, 0) / 255.0 for image in (to_pixels(exact), whole)]
        rows.append([psnr_y(image, clean) for image in (rainy, *outputs)])
        print(f"{pair.name:<16}" + _numbers(rows[-1]), flush=True)
    print(f"{f'mean of {len(rows)}':<16}" + _numbers(list(np.mean(rows, axis=0))))
    return 0


def _numbers(row: list[float]) -> str:
    return "".join(f"{value:>9.3f}" for value in row) + f"{row[1] - row[2]:>8.3f}"


if __name__ == "__main__":
    sys.exit(main())
