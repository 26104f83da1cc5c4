"""The evaluate command: its scores are those of the metrics on what derain writes, its files are complete."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.derain import main as derain_main
from esdnet.evaluate import main
from esdnet.images.files import load_image
from esdnet.images.metrics import psnr_y, ssim_y
from esdnet.images.piqe import piqe
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from esdnet.training.data import Pair


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(path, ESDNet(preset("tiny")))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("input", "target"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        clean = rng.integers(0, 200, (26, 35, 3), dtype=np.uint8)
        Image.fromarray(clean).save(tmp_path / "pairs" / "target" / f"{name}.png")
        Image.fromarray(clean + 30).save(tmp_path / "pairs" / "input" / f"{name}.png")
    return tmp_path / "pairs"


def run(*arguments: Path | str) -> int:
    return main([str(argument) for argument in arguments] + ["--device", "cpu"])


def test_scores_are_those_of_the_saved_images(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    report_file, table_file, out = tmp_path / "scores.json", tmp_path / "scores.csv", tmp_path / "out"
    flags = ("--checkpoint", checkpoint, "--tile", "16")
    assert run("--data", pairs, *flags, "--json", report_file, "--table", table_file) == 0
    assert derain_main([str(pairs / "input"), "-o", str(out), *map(str, flags), "--device", "cpu"]) == 0

    report = json.loads(report_file.read_text())
    assert report["checkpoint"] == str(checkpoint)
    assert (report["layout"], report["tile"], report["overlap"], report["device"]) == ("paired", 16, 8, "cpu")
    assert (report["failed"], report["not_run"]) == ([], [])
    assert [row["name"] for row in report["images"]] == ["a", "b", "c"]
    for row in report["images"]:
        rainy, clean, output = (
            load_image(folder / f"{row['name']}.png") for folder in (pairs / "input", pairs / "target", out)
        )
        assert (row["height"], row["width"], row["executed_size"], row["tiles"]) == (
            26,
            35,
            [16, 16],
            12,
        )  # starts 0, 8, 12 and 0, 8, 16, 20
        assert row["tile"] == 16
        assert row["psnr"] == pytest.approx(psnr_y(output, clean), rel=1e-12)
        assert row["ssim"] == pytest.approx(ssim_y(output, clean), rel=1e-12)
        assert row["input_psnr"] == pytest.approx(psnr_y(rainy, clean), rel=1e-12)
        assert row["input_ssim"] == pytest.approx(ssim_y(rainy, clean), rel=1e-12)
    assert report["mean"]["psnr"] == pytest.approx(np.mean([row["psnr"] for row in report["images"]]))

    rows = list(csv.DictReader(table_file.read_text().splitlines()))
    assert [float(row["psnr"]) for row in rows] == [row["psnr"] for row in report["images"]]
    assert list(rows[0]) == [
        "name", "height", "width", "tile", "tiles", "overlap", "psnr", "ssim", "input_psnr", "input_ssim",
        "checkpoint", "sha256", "data", "layout", "asked_tile",
    ]  # fmt: skip
    assert {row["sha256"] for row in rows} == {hashlib.sha256(checkpoint.read_bytes()).hexdigest()}


def test_a_table_is_gone_on_with_and_no_image_scored_twice(
    checkpoint: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a row: two whole ones and a part of the third are there."""
    table, flags = tmp_path / "t.csv", ("--data", pairs, "--checkpoint", checkpoint)
    assert run(*flags, "--table", table, "--json", tmp_path / "whole.json") == 0
    whole = table.read_text()
    lines = whole.splitlines(keepends=True)
    table.write_text("".join(lines[:3]) + lines[3][:20])
    assert run(*flags, "--table", table) == 2
    assert "t.csv: is there already; --skip-existing goes on with it" in capsys.readouterr().err
    scored = []
    load = Pair.load
    monkeypatch.setattr(Pair, "load", lambda self: (scored.append(self.name), load(self))[1])
    assert run(*flags, "--table", table, "--skip-existing", "--json", tmp_path / "s.json") == 0
    assert scored == ["c"]
    assert table.read_text() == whole
    before, after = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "s.json"))
    assert before["mean"] == after["mean"]
    assert run(*flags, "--table", table, "--skip-existing", "--tile", "16") == 2
    assert "t.csv was made with asked_tile none, found 16; give another --table" in capsys.readouterr().err
    assert table.read_text() == whole


@pytest.mark.slow
def test_shared_among_two_processes_nothing_changes(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    (pairs / "input" / "b.png").write_text("hello")
    reports = []
    for workers in ("1", "2"):
        files = ("--json", tmp_path / f"{workers}.json", "--table", tmp_path / f"{workers}.csv")
        assert run("--data", pairs, "--checkpoint", checkpoint, "--workers", workers, *files) == 1
        reports.append(json.loads((tmp_path / f"{workers}.json").read_text()))
    assert reports[0] == reports[1]
    assert [row["name"] for row in reports[1]["images"]] == ["a", "c"]
    tables = [sorted((tmp_path / f"{workers}.csv").read_text().splitlines()) for workers in (1, 2)]
    assert tables[0] == tables[1]


def test_table_on_stdout(checkpoint: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", pairs, "--checkpoint", checkpoint, "--limit", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["image", "a", "b", "mean"]
    assert lines[0].split() == ["image", "psnr", "ssim", "input_psnr", "input_ssim"]


def test_equal_input_and_target_become_null_in_json(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    for path in (pairs / "input").iterdir():
        path.write_bytes((pairs / "target" / path.name).read_bytes())
    assert run("--data", pairs, "--checkpoint", checkpoint, "--limit", "1", "--json", tmp_path / "s.json") == 0
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["images"][0]["input_psnr"] is None
    assert report["images"][0]["input_ssim"] == pytest.approx(1.0)


def test_piqe_without_targets(
    checkpoint: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", pairs / "input", "--layout", "rw-data")
    assert run(*data, "--checkpoint", checkpoint, "--json", tmp_path / "s.json") == 0
    row = json.loads((tmp_path / "s.json").read_text())["images"][0]
    assert row["input_piqe"] == piqe(load_image(pairs / "input" / "a.png"))
    assert 0 <= row["piqe"] <= 100
    assert "MetaQA" in capsys.readouterr().out.splitlines()[-1]


def test_a_bad_pair_among_others_is_named_and_the_rest_scored(
    checkpoint: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 20)).save(pairs / "target" / "b.png")  # of another size
    assert run("--data", pairs, "--checkpoint", checkpoint, "--json", tmp_path / "s.json") == 1
    report = json.loads((tmp_path / "s.json").read_text())
    assert [row["name"] for row in report["images"]] == ["a", "c"]
    assert [row["tile"] for row in report["images"]] == [0, 0]
    assert report["tile"] is None
    [failure] = report["failed"]
    assert failure["name"] == "b"
    assert "b.png: 20x20 pixels, but" in failure["error"]
    assert report["mean"]["psnr"] == pytest.approx(np.mean([row["psnr"] for row in report["images"]]))
    captured = capsys.readouterr()
    assert "mean of 2" in captured.out
    assert captured.err.splitlines()[-1].startswith("2 of 3 images in ")


def test_if_all_fail_there_is_no_mean(checkpoint: Path, pairs: Path, tmp_path: Path, capsys) -> None:
    for path in (pairs / "input").iterdir():
        path.write_text("hello")
    files = ("--json", tmp_path / "s.json", "--table", tmp_path / "s.csv")
    assert run("--data", pairs, "--checkpoint", checkpoint, *files) == 1
    report = json.loads((tmp_path / "s.json").read_text())
    assert (report["images"], report["mean"], len(report["failed"])) == ([], {}, 3)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--limit", "0"], "--limit 0: expected at least 1"),
        (["--tile", "10"], "multiple of 4"),
        (["--json", "no/where.json"], "no/where.json: there is no folder no"),
        (["--layout", "rain1200"], "holds no image"),
        (["--checkpoint", "no.pt"], "expected a checkpoint file"),
        (["--overlap", "4"], "--overlap 4: is that of tiles"),
        (["--json", "x.csv", "--table", "./x.csv"], "--table x.csv: would overwrite what --json writes"),
        (["--table", "x.parquet"], "--table x.parquet: is written as CSV, expected a name that ends in .csv"),
        (["--skip-existing"], "--skip-existing: takes over what --table FILE holds; give both"),
        (["--workers", "0"], "--workers 0: expected at least 1"),
    ],
)
def test_users_mistakes(
    checkpoint: Path, pairs: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data", pairs, "--checkpoint", checkpoint, *flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
