"""`python hw_sim/compare.py a.json b.json`: two energy reports side by side, in total and layer by layer.

Released against spike-driven, float against int8, before and after training. Nothing runs. Exit 0, or 2 for a mistake.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: its folder is on the path, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from esdnet.command.command_line import program_name, require_extra
from esdnet.command.errors import report_user_errors
from esdnet.command.writing import check_outputs, write_json
from hw_sim.pricing.counted import read_report
from hw_sim.pricing.prices import DEFAULT, load_prices
from hw_sim.report.comparison import compare_reports


def main(argv: list[str] | None = None) -> int:
    """Parse, read, compare, print and write; returns the exit status."""
    args = build_parser().parse_args(argv)
    command = shlex.join([*program_name().split(), *(sys.argv[1:] if argv is None else argv)])
    return report_user_errors(lambda: _compare(args, command))


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=program_name(), description="Two energy reports side by side, in total and layer by layer."
    )
    parser.add_argument(
        "first", type=Path, metavar="A.json", help="a report of energy.py --json, of one image or array"
    )
    parser.add_argument("second", type=Path, metavar="B.json", help="another one")
    parser.add_argument(
        "--prices",
        default=DEFAULT,
        help="of totals and layers: a list of hw_sim/pricing/lists, or a .toml file of yours",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparison as data")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page for a browser")
    return parser


def _compare(args: argparse.Namespace, command: str) -> int:
    if args.html:
        require_extra("report", "--html")
    prices = load_prices(args.prices)
    first, second = (read_report("report", path) for path in (args.first, args.second))
    check_outputs({"--json": args.json, "--html": args.html}, [args.first, args.second, Path(args.prices)])
    found = compare_reports(first, second, prices)
    from hw_sim.report.comparison_tables import print_comparison
    from hw_sim.report.console import open_console

    print_comparison(open_console(), found)
    if args.json:
        write_json(args.json, found.to_record())
    if args.html:
        from hw_sim.report.page.write import write_comparison

        write_comparison(args.html, found, command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
