"""`python -m hw_sim.agreement.equal_counts A.json B.json`: do two reports of energy.py count the same, layer by layer?

Prints totals side by side. Exit 0 if all counts of all layers are equal, 1 if one differs (named), 2 on bad input.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from esdnet.command.errors import UserError, report_user_errors

COUNTS = ("spikes", "acs", "macs", "elementwise")


def main(argv: list[str] | None = None) -> int:
    """Compare the two files named; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hw_sim.agreement.equal_counts", description="Compare two energy reports."
    )
    parser.add_argument("reports", type=Path, nargs=2, help="two files that energy.py --json wrote for one image")
    args = parser.parse_args(argv)
    return report_user_errors(lambda: _compare(*args.reports))


def _compare(first: Path, second: Path) -> int:
    reports = [_read(path) for path in (first, second)]
    rows = [{row["name"]: row for row in report["layers"]} for report in reports]
    if rows[0].keys() != rows[1].keys():
        raise UserError(f"{first}, {second}: not the same network: {len(rows[0])} and {len(rows[1])} layers")
    differing = [name for name, row in rows[0].items() if any(row[key] != rows[1][name][key] for key in COUNTS)]
    print(f"{'':<24}" + "".join(f"{key:>18}" for key in COUNTS))
    for report in reports:
        label = f"{report['backend']}, {report['precision']}"
        print(f"{label:<24}" + "".join(f"{report['totals'][key]:>18,}" for key in COUNTS))
    print(f"{len(rows[0]) - len(differing)} of {len(rows[0])} layers have equal counts")
    if differing:
        print(f"the first that differs: {differing[0]}")
    return 1 if differing else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an energy report: {error}") from error
    if not isinstance(content, dict) or not {"layers", "totals", "backend", "precision"} <= content.keys():
        raise UserError(f"{path}: not a report of one image: write it with energy.py --image FILE --json {path}")
    return content


if __name__ == "__main__":
    raise SystemExit(main())
