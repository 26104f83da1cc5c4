"""The page of benchmarks/gpu.py. In: what it measured. Out: Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_SAME = {True: "the same file", False: "DIFFER", None: "no integers hold this network"}
VERIFIED = ("checkpoint", "backend", "precision", "spikes that differ", "largest difference", "verdict")
TRAINED = ("preset", "batch", "way", "ms a step", "images a second", "peak, MB", "loss", "")
SIMULATED = ("checkpoint", "side", "seconds a megapixel", "MB a megapixel")
Cells = tuple[Any, ...]


def page(content: dict[str, Any]) -> str:
    """All of it."""
    facts, crop = content["facts"], content["crop"]
    return "\n".join(
        [
            f"# On {facts['device']}\n",
            f"`make test-gpu`, {content['seconds']:.0f} s; torch {facts['torch']}, CUDA {facts['cuda']}.\n",
            "## Exactness\n",
            "`verify.py` on the middle 64x64 pixels of the photo that ships; the reference is torch in float64 on the"
            " device.\n",
            _table(VERIFIED, (_verified(name, row) for name, rows in content["verified"].items() for row in rows)),
            "The whole photo in int8:\n",
            _table(
                ("checkpoint", "the PNG of the device and of the CPU", "bytes"),
                ((name, _SAME[found["same"]], f"{found['bytes']:,}") for name, found in content["int8"].items()),
            ),
            "## Training steps\n",
            f"Crops of {crop}x{crop}, the same batch at every step; median of {content['steps']} steps, and the loss"
            " after them.\n",
            _table(TRAINED, (cells for name, found in content["training"].items() for cells in _trained(name, found))),
            "## Energy reports\n",
            "The simulator in float32, every operation counted, of the photo that ships, mirrored at its borders.\n",
            _table(SIMULATED, (_simulated(name, row) for name, rows in content["energy"].items() for row in rows)),
        ]
    )


def _table(head: Iterable[str], rows: Iterable[Cells]) -> str:
    lines = [tuple(head), *rows]
    lines.insert(1, ("---",) * len(lines[0]))
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines)


def _verified(name: str, row: dict[str, Any]) -> Cells:
    differ = "" if row["mismatches"] in (None, "") else f"{row['mismatches']:,}"
    largest = "" if row["max_difference"] in (None, "") else f"{row['max_difference']:.1e}"
    return name, row["backend"], row["precision"], differ, largest, row["status"]


def _trained(name: str, found: dict[str, Any]) -> list[Cells]:
    rows = [(found["batch"], way) for way in found["ways"]]
    rows.append((found["most"], {**found["at_most"], "way": "bf16, the largest batch that fits"}))
    return [
        (
            name, batch, way["way"], _number(way["seconds"], 1, 1e3), _number(way["images_per_second"], 1),
            _number(way["peak_mb"], 0), _number(way["loss"], 4), way["note"],
        )
        for batch, way in rows
    ]  # fmt: skip


def _simulated(name: str, row: dict[str, Any]) -> Cells:
    return name, row["side"], _number(row["seconds_per_mp"], 3), _number(row["mb_per_mp"], 0)


def _number(value: float | None, digits: int, scale: float = 1.0) -> str:
    return "" if value is None else f"{value * scale:,.{digits}f}"
