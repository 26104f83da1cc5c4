"""The commands of the start page and of the page on deraining run as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.docs.pages import ROOT, commands


@pytest.fixture
def folder(tmp_path):
    """What a checkout has that the pages name, and photos of one's own."""
    for name in ("esdnet", "export", "hw_sim", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "docs" / "sample" / "rainy_64.png", tmp_path / "rainy.png")
    (tmp_path / "PHOTOS").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(tmp_path / "rainy.png", tmp_path / "PHOTOS" / name)
    return tmp_path


def run(folder, command: str) -> None:
    words = [sys.executable, *command.split()[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.slow
def test_the_start_page(folder):
    shown = commands(ROOT / "docs" / "index.md")
    assert len(shown) == 2
    for command in shown:
        run(folder, command)
    with Image.open(folder / "derained.png") as derained, Image.open(ROOT / "docs/sample/rainy.png") as rainy:
        assert derained.size == rainy.size
    assert 1_000_000 < (folder / "report.html").stat().st_size < 5_000_000


@pytest.mark.slow
def test_the_page_on_deraining(folder):
    page = ROOT / "docs" / "derain.md"
    shown = commands(page)
    assert len(shown) == 3
    for command in shown:
        run(folder, command)
    assert {path.name for path in (folder / "DERAINED").iterdir()} == {"a.png", "b.png"}
    assert (folder / "mask.png").is_file()
    (folder / "derained.png").unlink()
    (program,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (folder / "program.py").write_text(program, encoding="utf-8")
    run(folder, "python program.py")
    with Image.open(folder / "derained.png") as derained:
        assert derained.size == (64, 64)


def test_scores_on_the_page_on_deraining_are_those_of_the_cards():
    rows = re.findall(r"^\| `(\w+)`.*?\| ([\d.]+) / ([\d.]+) \|", (ROOT / "docs/derain.md").read_text(), re.MULTILINE)
    assert len(rows) == 4
    for name, *scores in rows:
        card = (ROOT / "esdnet" / "checkpoints" / f"{name}.md").read_text(encoding="utf-8")
        for test_set, score in zip(("Rain100L", "Rain200H"), scores, strict=True):
            (line,) = re.findall(rf"^\| {test_set} .*$", card, re.MULTILINE)[:1]
            assert re.search(rf"\b{score} /", line), (name, test_set)
