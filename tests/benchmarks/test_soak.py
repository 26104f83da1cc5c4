"""What the soak calls flat, and that it notices what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.soak import Soaked, main

ROOT = Path(__file__).parents[2]


def test_what_is_flat() -> None:
    flat = Soaked("x", [50] * 2 + [100] + [104, 95] * 13 + [105])  # of 30 photos the first three warm up
    assert (flat.warm, flat.growth, flat.holds) == (100, 1.05, True)
    assert not Soaked("x", [*flat.memory, 106]).holds
    assert not Soaked("x", flat.memory, left=["1 processes"]).holds


LEAKING = """
import sys
import numpy
from benchmarks.soak import main
from hw_sim.backends import simulator

kept, run = [], simulator.run

def leaking(*arguments, **options):
    kept.append((open(__file__), numpy.ones(5 << 20)))
    return run(*arguments, **options)

simulator.run = leaking
sys.exit(main(["--photos", "12", "--backends", "simulator:float32"]))
"""


@pytest.mark.slow
def test_what_is_left_is_noticed(tmp_path: Path) -> None:
    """A file that stays open, and 42 MB a photo that are kept, in the place of the simulator; in a process of its own,
    because this one may have memory to spare that other tests gave back."""
    (tmp_path / "leaking.py").write_text(LEAKING)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "leaking.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "1 open files **FAILED**" in done.stdout
    most, warm = (float(cell.replace(",", "")) for cell in (done.stdout.split("|")[3], done.stdout.split("|")[2]))
    assert most > warm + 10 * 40


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_photos_through_every_backend_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    backends = [":".join(each) for each in soak.BACKENDS if each[0] != "lava" or sys.version_info < (3, 11)]
    assert main(["--photos", "60", "--backends", *backends]) == 0
    assert capsys.readouterr().out.count("| nothing |") == len(backends)
