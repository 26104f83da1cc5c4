"""docs/your_network.md as it stands: its files, its commands, its Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your_network.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow  # four commands, each of which starts torch
def test_the_page_does_what_it_says(tmp_path):
    module, frames, library = blocks("python")
    (tmp_path / "mynet.py").write_text(module, encoding="utf-8")
    (tmp_path / "page.py").write_text(frames, encoding="utf-8")
    subprocess.run([sys.executable, "page.py"], cwd=tmp_path, check=True)
    printed = []
    for line in blocks("bash")[0].splitlines():
        command = line.split()
        command[1] = str(ROOT / command[1])
        done = subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert "30 steps of 1x28x28 spike values" in printed[0]
    assert "0 failed" in printed[1]
    assert "read back, 0 of " in printed[2]
    totals = [re.search(r"total +([\d,]+) +([\d,]+)", text) for text in (printed[0], printed[3])]
    assert None not in totals
    assert totals[0][0] == totals[1][0]  # spikes and ACs of the module are those of its file
    (tmp_path / "library.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport numpy as np\n{library}"
    )
    done = subprocess.run([sys.executable, "library.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "'0': " in done.stdout
