"""The newcomer's path: the page shows the steps that are timed, and a step that fails is no time."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import first_steps
from esdnet.command.errors import CheckFailed

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_steps_that_are_timed():
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| (.*?) \| [\d.]+ \| [\d.]+ \|$", page, re.MULTILINE)
    assert dict(rows) == {"git clone": "", **first_steps.STEPS}


def test_the_network_is_that_of_the_page(tmp_path):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    first_steps._write_network(tmp_path)
    assert "def network():" in (tmp_path / "mynet.py").read_text(encoding="utf-8")
    assert np.load(tmp_path / "x.npy").shape == (30, 1, 28, 28)


def test_cpu_time_is_that_of_the_step(tmp_path):
    command = f'{sys.executable} -c "import time; s = time.process_time()\nwhile time.process_time() < s + .3: pass"'
    seconds, cpu_seconds = first_steps._timed(command, tmp_path)
    assert 0.3 <= cpu_seconds < 5
    assert seconds >= 0.3
    with pytest.raises(CheckFailed, match=r"ZeroDivisionError: division by zero$"):
        first_steps._timed(f"{sys.executable} -c 1/0", tmp_path)
