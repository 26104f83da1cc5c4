"""`python hw_sim/verify.py --image x.png`: hold every backend against torch, spike for spike.

A row per backend and precision on stdout, progress on stderr. Exit 0 if every backend that ran keeps the promise, 1 if
one fails or the image proves nothing, 2 for a user's mistake (one line). A backend that is not there is 'not run',
never a pass. docs/exactness.md has the promise and the words.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run as a script: its folder is on the path, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name
from esdnet.command.device import DEVICES
from esdnet.command.errors import UserError, report_user_errors
from esdnet.images import crops
from hw_sim.given_network import add_reading_flags, check_no_reading_flags, network_file, open_given

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hw_sim.agreement.judge import Reference, Row, Subject
    from hw_sim.agreement.records import Record
    from hw_sim.backends.result import Result

Say = Callable[[str, str], None]  # what runs, in which precision
CROP = 64  # pixels a side, unless told


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    args = build_parser().parse_args(argv)
    return report_user_errors(lambda: _verify_network(args) if args.input else _verify(args))


def build_parser() -> argparse.ArgumentParser:
    """The command's options. By default: the checkpoint that ships, the middle 64x64 pixels (a smaller image whole),
    torch on a GPU if any."""
    parser = argparse.ArgumentParser(
        prog=program_name(), description="Hold every backend against torch, spike for spike."
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--image", type=Path, help="an image; its middle is run")
    given.add_argument("--input", type=Path, metavar="X.npy", help="an array (T, *shape), for --network")
    parser.add_argument("--network", metavar="F", help="a network of yours: a .nir, or FILE.py:FUNCTION")
    add_reading_flags(parser)
    parser.add_argument("--checkpoint", metavar="FILE|NAME", help="default: the bundled small_released")
    parser.add_argument(
        "--crop", type=int, metavar="N",
        help=f"side of that middle, a multiple of 4; 0: the whole image (default: {CROP}, or all of a smaller image)",
    )  # fmt: skip
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where torch runs, and the simulator too")
    record = parser.add_mutually_exclusive_group()
    record.add_argument("--record", type=Path, metavar="FILE", help="on a GPU: write its answer to this .npz file")
    record.add_argument(
        "--reference", type=Path, metavar="FILE", help="compare with the answer of a GPU that --record wrote there"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    return parser


def _verify_network(args: argparse.Namespace) -> int:
    """Any network on an input of the user's, every backend against the simulator."""
    from esdnet.command.writing import check_outputs, write_json
    from export.open_network import spikes_of_source
    from hw_sim.agreement.report import Heading, exit_status, print_rows, to_dict
    from hw_sim.agreement.sequences import verify_sequence

    for option, value in (("checkpoint", args.checkpoint), ("crop", args.crop), ("record", args.record)):
        if value is not None:
            raise UserError(f"--{option}: is for --image, found --input")
    if args.reference is not None:
        raise UserError("--reference: is for --image, found --input")
    check_outputs({"--json": args.json}, [args.input, network_file(args)])
    network, frames = open_given(args)
    with one_by_one() as say:
        rows = list(verify_sequence(network, frames, say, spikes_of_source(args.network, frames)))
    steps = len(frames) if network.input.every_step else network.steps
    heading = Heading(str(args.input), str(args.network), network.probe_size, steps, "cpu", "the simulator")
    print_rows(heading, rows, [])
    if args.json is not None:
        write_json(args.json, to_dict(heading, rows, []))
    return exit_status(rows)


def _verify(args: argparse.Namespace) -> int:
    check_no_reading_flags(args)
    if args.network is not None:
        raise UserError("--network: is for --input, found --image")
    from esdnet.command.device import choose_exact_device
    from esdnet.command.writing import check_writable, write_json
    from esdnet.images.files import load_image

    for option, path in (("--record", args.record), ("--json", args.json)):
        if path is not None:
            check_writable(option, path)
    image = load_image(args.image)
    device = choose_exact_device(args.device)
    if args.record is not None and device != "cuda":
        raise UserError("--record: keeps the answer of a GPU, and torch runs on the CPU here; use a machine with CUDA")
    from hw_sim.agreement.judge import Subject
    from hw_sim.agreement.records import find_record, packaged_record
    from hw_sim.agreement.report import Heading, exit_status, print_rows, to_dict
    from hw_sim.backends.executors import load_source

    source = load_source(args.checkpoint, None)
    if source.model is None:
        raise UserError(f"{source.label}: no torch model to compare with; give a checkpoint")
    subject = Subject(source.model, source.network, middle(image, args.crop, source.network.size_multiple))
    if args.reference is not None:
        record: Record | None = find_record(args.reference, subject.network, subject.image)
    else:
        record = packaged_record(subject.network, subject.image)
    with one_by_one() as say:
        floats, reference = _float_rows(subject, device, say)
        integers, integer_answer = _integer_rows(subject, device, say)
        answers = {"float64": reference.result, **({"int8": integer_answer} if integer_answer else {})}
        recorded = _record_rows(args.record, record, subject, answers, device)
    rows = [*floats, *integers, *recorded]
    height, width = subject.image.shape[1:]
    heading = Heading(str(args.image), source.label, (height, width), subject.network.steps, device)
    print_rows(heading, rows, reference.witness.near_ties)
    if args.json is not None:
        write_json(args.json, to_dict(heading, rows, reference.witness.near_ties))
    return exit_status(rows)


@contextmanager
def one_by_one() -> Iterator[Say]:
    """Says on stderr, if that is a terminal, what runs now."""
    from tqdm import tqdm

    with tqdm(unit="backend", file=sys.stderr, leave=False, disable=None) as bar:

        def say(what: str, precision: str) -> None:
            bar.set_description(f"{what}, {precision}")
            bar.update()

        yield say


def _float_rows(subject: Subject, device: str, say: Say) -> tuple[list[Row], Reference]:
    """The float64 reference, and every candidate that computes in floating point."""
    from hw_sim.agreement.candidates import float_candidates
    from hw_sim.agreement.judge import judge, make_reference, reference_row

    say(f"torch on {device}", "float64")
    reference = make_reference(subject, device)
    rows = [reference_row(f"torch on {device}", "float64", reference)]
    for candidate in float_candidates(device):
        say(candidate.name, candidate.precision)
        rows.append(judge(reference, candidate, subject))
    return rows, reference


def _integer_rows(subject: Subject, device: str, say: Say) -> tuple[list[Row], Result | None]:
    """The same for int8; None where there are no integers: a network that they cannot hold is 'not run', an error on
    the way to them has failed."""
    from export.graph.rules import DesignRuleError
    from export.integer.calibrate import calibration_images
    from export.integer.formats import QuantizationError
    from export.targets.loihi.rules import quantize_for_loihi
    from hw_sim.agreement.integers import (
        NETX,
        ONE_EXECUTOR,
        integer_candidates,
        judge_netx,
        judge_oracle,
        make_integer_reference,
    )
    from hw_sim.agreement.judge import Row, judge, reference_row

    name = f"torch and simulator on {device}"
    say("quantising", "int8")
    try:
        integer = quantize_for_loihi(subject.network, calibration_images(None, subject.network.size_multiple))
    except (DesignRuleError, QuantizationError) as error:
        return [Row(name, "int8", "not run", str(error))], None
    except UserError as error:
        return [Row(name, "int8", "FAILED", str(error))], None
    reference = make_integer_reference(integer, subject, device)
    row = reference_row(name, "int8", reference)
    rows = [dataclasses.replace(row, note="; ".join(filter(None, (ONE_EXECUTOR, row.note))))]
    say("NumPy oracle", "int8")
    rows.append(judge_oracle(integer, subject))
    for candidate in integer_candidates(integer, device):
        say(candidate.name, candidate.precision)
        rows.append(judge(reference, candidate, subject))
    say(NETX, "int8")
    return [*rows, judge_netx(integer, reference)], reference.result


def _record_rows(
    write_to: Path | None, record: Record | None, subject: Subject, answers: dict[str, Result], device: str
) -> list[Row]:
    """Write this GPU's answers if that was asked for; otherwise hold the CPU's against those recorded."""
    from hw_sim.agreement.judge import Row
    from hw_sim.agreement.records import check_record, device_facts, identity, make_record, write_record
    from hw_sim.backends import simulator

    if write_to is not None:
        facts = {**device_facts(device), **identity(subject.network, subject.image)}
        write_record(write_to, make_record(facts, answers))
        return []
    if record is None:
        missing = "no --reference given; verify.py --record FILE writes one on a machine with CUDA"
        return [Row("recorded GPU", precision, "not run", missing) for precision in answers]
    simulated = {**answers, "float64": simulator.run(subject.network, subject.image, precision="float64")}
    return [check_record(record, precision, result) for precision, result in simulated.items()]


def middle(image: NDArray[np.float64], crop: int | None, multiple: int) -> NDArray[np.float64]:
    """The middle (3, crop, crop) of an image (H, W, 3), or the whole of it, its border repeated up to `multiple`.

    Without `crop`: CROP pixels, or all that a smaller side has. UserError for a crop that the image does not hold.
    """
    import numpy as np

    height, width = image.shape[:2]
    if crop is not None and (crop < 0 or crop % multiple):
        raise UserError(f"--crop {crop}: expected 0 (the whole image) or a multiple of {multiple}")
    if crop is not None and crop > min(height, width):
        raise UserError(
            f"--crop {crop}: the image has {height}x{width} pixels; take a smaller crop, or 0 for all of it"
        )
    side = CROP if crop is None else crop or max(height, width)
    sides = [min(side, whole) for whole in (height, width)]
    part = image[crops.middle((height, width), sides)].transpose(2, 0, 1)
    return np.pad(part, [(0, 0), *((0, -side % multiple) for side in sides)], mode="edge")


if __name__ == "__main__":
    sys.exit(main())
