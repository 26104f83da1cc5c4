"""The ablation command on a few made images: every row trained, scored, counted and written beside the paper's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.ablations import HEADER, main
from esdnet.networks.esdnet.ablations import TABLES


@pytest.mark.slow
def test_a_table_is_written_and_a_second_call_trains_nothing_again(pairs: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    flags = ["--data", str(pairs), "--out", str(out), "--held-out", "1", "--counted", "1", "--batch", "1"]
    assert main([*flags, "--steps", "1", "--tables", "3"]) == 0
    assert "the tables show that the machinery works, not who wins" in capsys.readouterr().out
    rows = list(csv.reader((out / "ablations.csv").read_text().splitlines()))
    assert tuple(rows[0]) == HEADER
    assert [row[1] for row in rows[1:]] == [row.name for row in TABLES[3].rows]
    by_name = {row[1]: dict(zip(HEADER, row, strict=True)) for row in rows[1:]}
    assert by_name["SRB"]["paper_psnr"] == "29.31"
    ann = by_name["ANN-ResNet, T = 1"]
    assert float(ann["gacs"]) == float(ann["firing_rate"]) == 0  # an ANN has no spikes
    assert float(by_name["SRB"]["gmacs"]) > float(by_name["MS-ResNet"]["gmacs"]) > 0  # SRB's shortcut multiplies
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/last.pt")}
    assert len(before) == 4
    assert main([*flags, "--steps", "1", "--tables", "3"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/last.pt")} == before
    assert list(csv.reader((out / "ablations.csv").read_text().splitlines())) == rows


def test_without_photos_it_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.strip() == "error: synthetic rain needs a folder of clean photos"
