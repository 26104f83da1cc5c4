"""`python hw_sim/verify.py --image x.png`: hold every backend against torch, spike for spike.

A row per backend and precision on stdout, progress on stderr. Exit 0 if every backend that ran keeps the promise, 1 if
one fails, 2 for a user's mistake (one line). A backend that could not run is 'not run', never a pass.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run as a script: its folder is on the path, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.device import DEVICES
from esdnet.errors import UserError, report_user_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hw_sim.gpu_record import Record
    from hw_sim.result import Result
    from hw_sim.verification import Row, Subject

Say = Callable[[str, str], None]  # what runs, in which precision


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    args = build_parser().parse_args(argv)
    return report_user_errors(lambda: _verify(args))


def build_parser() -> argparse.ArgumentParser:
    """The command's options. By default: the checkpoint that ships, the middle 64x64 pixels, torch on a GPU if any."""
    parser = argparse.ArgumentParser(prog="verify.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--image", type=Path, required=True, help="an image; its middle is run")
    parser.add_argument("--checkpoint", metavar="FILE|NAME", help="default: the bundled small_released")
    parser.add_argument("--crop", type=int, default=64, help="side of that middle, a multiple of 4; 0: the whole image")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where torch runs, and the simulator too")
    record = parser.add_mutually_exclusive_group()
    record.add_argument("--record", type=Path, metavar="FILE", help="on a GPU: write its answer to this .npz file")
    record.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="the record of a GPU to compare with; default: the one that ships",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    return parser


def _verify(args: argparse.Namespace) -> int:
    from esdnet.device import choose_exact_device
    from esdnet.images import load_image
    from esdnet.writing import check_writable, write_json

    for option, path in (("--record", args.record), ("--json", args.json)):
        if path is not None:
            check_writable(option, path)
    image = load_image(args.image)
    device = choose_exact_device(args.device)
    if args.record is not None and device != "cuda":
        raise UserError("--record: keeps the answer of a GPU, and torch runs on the CPU here; use a machine with CUDA")
    from hw_sim.backends import load_source
    from hw_sim.gpu_record import find_record
    from hw_sim.verification import Subject
    from hw_sim.verification_report import Heading, print_rows, to_dict

    source = load_source(args.checkpoint, None)
    if source.model is None:
        raise UserError(f"{source.label}: no torch model to compare with; give a checkpoint")
    subject = Subject(source.model, source.network, middle(image, args.crop, source.network.size_multiple))
    record, missing = find_record(args.reference, subject.network, subject.image)
    with one_by_one() as say:
        floats, float_answer = _float_rows(subject, device, say)
        integers, integer_answer = _integer_rows(subject, device, say)
        answers = {"float64": float_answer, **({"int8": integer_answer} if integer_answer else {})}
        recorded = _record_rows(args.record, record, missing, subject, answers, device)
    rows = [*floats, *integers, *recorded]
    height, width = subject.image.shape[1:]
    heading = Heading(str(args.image), source.label, (height, width), subject.network.steps, device)
    print_rows(heading, rows)
    if args.json is not None:
        write_json(args.json, to_dict(heading, rows))
    return 1 if any(row.status == "FAILED" for row in rows) else 0


@contextmanager
def one_by_one() -> Iterator[Say]:
    """Says on stderr what runs now."""
    from tqdm import tqdm

    with tqdm(unit="backend", file=sys.stderr, leave=False) as bar:

        def say(what: str, precision: str) -> None:
            bar.set_description(f"{what}, {precision}")
            bar.update()

        yield say


def _float_rows(subject: Subject, device: str, say: Say) -> tuple[list[Row], Result]:
    """The float64 reference, every candidate that computes in floating point, and the reference's result."""
    from hw_sim.candidates import float_candidates
    from hw_sim.verification import Row, judge, make_reference

    say(f"torch on {device}", "float64")
    reference = make_reference(subject, device)
    rows = [Row(f"torch on {device}", "float64", "reference", seconds=reference.seconds)]
    for candidate in float_candidates(device):
        say(candidate.name, candidate.precision)
        rows.append(judge(reference, candidate, subject))
    return rows, reference.result


def _integer_rows(subject: Subject, device: str, say: Say) -> tuple[list[Row], Result | None]:
    """The same for int8; None for a network that cannot be quantised, which is then 'not run'."""
    from export.calibration import calibration_images, quantize_on_images
    from hw_sim.integer_verification import NETX, integer_candidates, judge_netx, make_integer_reference
    from hw_sim.verification import Row, judge

    say("quantising", "int8")
    try:
        integer = quantize_on_images(subject.network, calibration_images(None, subject.network.size_multiple))
    except UserError as error:
        return [Row(f"torch on {device}", "int8", "not run", str(error))], None
    reference = make_integer_reference(integer, subject, device)
    rows = [Row(f"torch on {device}", "int8", "reference", seconds=reference.seconds)]
    for candidate in integer_candidates(integer, device):
        say(candidate.name, candidate.precision)
        rows.append(judge(reference, candidate, subject))
    say(NETX, "int8")
    return [*rows, judge_netx(integer, reference)], reference.result


def _record_rows(
    write_to: Path | None,
    record: Record | None,
    missing: str,
    subject: Subject,
    answers: dict[str, Result],
    device: str,
) -> list[Row]:
    """Write this GPU's answers if that was asked for; otherwise hold the CPU's against those recorded."""
    from hw_sim import simulator
    from hw_sim.gpu_record import check_record, device_facts, identity, make_record, write_record
    from hw_sim.verification import Row

    if write_to is not None:
        facts = {**device_facts(device), **identity(subject.network, subject.image)}
        write_record(write_to, make_record(facts, answers))
        return []
    if record is None:
        return [Row("recorded GPU", precision, "not run", missing) for precision in answers]
    simulated = {**answers, "float64": simulator.run(subject.network, subject.image, precision="float64")}
    return [check_record(record, precision, result) for precision, result in simulated.items()]


def middle(image: NDArray[np.float64], crop: int, multiple: int) -> NDArray[np.float64]:
    """The middle (3, crop, crop) of an image (H, W, 3); smaller sides are taken whole, their border repeated."""
    import numpy as np

    if crop < 0 or crop % multiple:
        raise UserError(f"--crop {crop}: expected 0 (the whole image) or a multiple of {multiple}")
    sides = [min(crop, side) if crop else side for side in image.shape[:2]]
    top, left = ((whole - side) // 2 for whole, side in zip(image.shape[:2], sides, strict=True))
    part = image[top : top + sides[0], left : left + sides[1]].transpose(2, 0, 1)
    return np.pad(part, [(0, 0), *((0, -side % multiple) for side in sides)], mode="edge")


if __name__ == "__main__":
    sys.exit(main())
