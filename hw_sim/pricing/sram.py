"""What one access to an SRAM costs, by its capacity: the laws that published models use.

"interpolated": straight lines through (0, 0) and the points given, constant beyond the last.
"linear": offset + slope times the bits held, without an end.
"banked": a memory larger than a bank is many banks of which one is accessed; a smaller one as interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esdnet.command.errors import UserError

PICO = 1e-12
LAWS = ("interpolated", "linear", "banked")


@dataclass(frozen=True)
class Sram:
    """The law, its numbers, where they come from. points: (bytes, joules per access), rising."""

    law: str
    points: tuple[tuple[float, float], ...]
    slope_j_per_bit: float
    offset_j: float
    bank_bytes: float
    source: str
    grade: str

    def access_j(self, capacity_bytes: float) -> float:
        """Joules of reading or writing one word of a memory of that capacity."""
        if self.law == "linear":
            return self.offset_j + self.slope_j_per_bit * 8 * capacity_bytes
        if self.law == "banked":
            capacity_bytes = min(capacity_bytes, self.bank_bytes)
        left = (0.0, 0.0)
        for right in self.points:
            if capacity_bytes <= right[0]:
                return left[1] + (right[1] - left[1]) * (capacity_bytes - left[0]) / (right[0] - left[0])
            left = right
        return left[1]


def read_sram(where: str, entry: Mapping[str, Any]) -> Sram:
    """The [sram] table of a model's file; UserError says what it lacks."""
    law = entry.get("law")
    if law not in LAWS:
        raise UserError(f"{where}: [sram] law {law!r}, expected one of {', '.join(LAWS)}")
    needed = {
        "interpolated": ("capacity_bytes", "access_pj"),
        "linear": ("slope_pj_per_bit", "offset_pj"),
        "banked": ("capacity_bytes", "access_pj", "bank_bytes"),
    }[law]
    missing = [key for key in (*needed, "source", "grade") if key not in entry]
    if missing:
        raise UserError(f"{where}: [sram] law {law!r} needs {', '.join(missing)}")
    for key in needed:
        numbers = entry[key] if key in ("capacity_bytes", "access_pj") else [entry[key]]
        if not isinstance(numbers, list) or any(type(number) not in (int, float) or number < 0 for number in numbers):
            raise UserError(f"{where}: [sram] {key} is {entry[key]!r}, expected numbers of at least 0")
    sizes, prices = entry.get("capacity_bytes", []), entry.get("access_pj", [])
    if (
        not isinstance(sizes, list)
        or not isinstance(prices, list)
        or len(sizes) != len(prices)
        or any(a >= b for a, b in zip([0, *sizes], sizes, strict=False))
    ):
        raise UserError(f"{where}: [sram] needs as many access_pj as capacity_bytes, capacities rising from above 0")
    return Sram(
        law=law,
        points=tuple((float(size), float(pj) * PICO) for size, pj in zip(sizes, prices, strict=True)),
        slope_j_per_bit=float(entry.get("slope_pj_per_bit", 0)) * PICO,
        offset_j=float(entry.get("offset_pj", 0)) * PICO,
        bank_bytes=float(entry.get("bank_bytes", 0)),
        source=str(entry["source"]),
        grade=str(entry["grade"]),
    )
