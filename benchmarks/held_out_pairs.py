"""The pairs that `esdnet.train --data synthetic` validates on, as files: what the docs call held-out photos.

    python -m benchmarks.held_out_pairs --photos DIR --out DIR [--held-out 16] [--seed 0] [--limit 8] [--dry]
    python -m esdnet.evaluate --checkpoint C --data <out>

In: the photos, and the run's --held-out and --seed. Out: <out>/input and <out>/target, PNG, the same name for both;
every second input has heavy rain, the others light. With --dry the inputs have none: what is scored is how well a
photo without rain is left alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from esdnet.command.errors import UserError, report_user_errors


def build_parser() -> argparse.ArgumentParser:
    """All flags; --held-out and --limit default to what esdnet.train holds out and scores."""
    parser = argparse.ArgumentParser(prog="held_out_pairs.py", description="Write validation pairs as files.")
    parser.add_argument("--photos", type=Path, required=True, help="the clean photos of the run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write input/ and target/ into")
    parser.add_argument("--held-out", type=int, default=16, help="photos that the run kept (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the run: it decides the rain (default: 0)")
    parser.add_argument("--limit", type=int, default=8, help="pairs to write (default: 8)")
    parser.add_argument("--dry", action="store_true", help="inputs without rain")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: write_pairs(arguments))


def write_pairs(arguments: argparse.Namespace) -> int:
    """Write the pairs into a new folder."""
    from esdnet.command.writing import check_folder
    from esdnet.images.files import save_image
    from esdnet.training.data import SyntheticRain

    if not 1 <= arguments.limit <= arguments.held_out:
        raise UserError(f"--limit {arguments.limit}: expected 1 to --held-out {arguments.held_out}")
    check_folder("--out", arguments.out)
    source = SyntheticRain(arguments.photos, held_out=arguments.held_out)
    if any(arguments.out.glob("*")):
        raise UserError(f"{arguments.out}: not empty; pairs of two runs in one folder could not be told apart")
    pairs = source.validation_pairs(arguments.seed)[: arguments.limit]
    for folder in ("input", "target"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    for name, rainy, clean in pairs:
        save_image(arguments.out / "input" / f"{name}.png", clean if arguments.dry else rainy)
        save_image(arguments.out / "target" / f"{name}.png", clean)
    print(f"{arguments.out}: {len(pairs)} pairs, seed {arguments.seed}, {'no rain' if arguments.dry else 'rain'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
