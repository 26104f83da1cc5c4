"""docs/count_anything.md as it stands: its Python prints what stands below it, its command counts the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "count_anything.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # two commands, each of which starts torch
def test_the_page_prints_what_it_says(tmp_path):
    pytest.importorskip("onnxruntime")
    head = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    (tmp_path / "page.py").write_text(head + block("python"), encoding="utf-8")
    printed = run(["page.py"], tmp_path)
    assert [line.rstrip() for line in printed.splitlines()][: len(block("text").splitlines())] == [
        line.rstrip() for line in block("text").splitlines()
    ]
    command = block("bash").split()
    command[1] = str(ROOT / command[1])
    of_file = run(command[1:], tmp_path)

    def totals(text: str) -> list[str]:
        line = next(line for line in text.splitlines() if line.split()[:1] == ["total"])
        return line.split()[1:4]

    assert totals(of_file) == totals(printed)  # spikes, ACs and MACs of the file are the module's
