"""The page of precisions: one row each, float32 the yardstick."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measure import ROOT
from benchmarks.precisions import main


@pytest.mark.slow
def test_a_row_for_each_precision(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    image = ROOT / "docs" / "sample" / "rainy_64.png"
    flags = ["--checkpoints", "small_spike_driven", "--precisions", "float64", "--rounds", "1"]
    assert main([*flags, "--image", str(image), "--markdown", str(page)]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.read_text().splitlines()[2:]]
    assert [row[1] for row in rows] == ["float32", "float64"]
    assert rows[0][3] == rows[0][6] == "1.00"
    assert float(rows[1][6]) > 1
    assert all(float(row[2]) < float(row[4]) for row in rows)  # the command does more than run the image
