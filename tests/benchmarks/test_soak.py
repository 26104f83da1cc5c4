"""What the soak calls flat, and that it notices what is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks import soak
from benchmarks.soak import Soaked, main
from hw_sim.backends import simulator


def test_what_is_flat() -> None:
    flat = Soaked("x", [50] * 2 + [100] + [104, 95] * 13 + [105])  # of 30 photos the first three warm up
    assert (flat.warm, flat.growth, flat.holds) == (100, 1.05, True)
    assert not Soaked("x", [*flat.memory, 106]).holds
    assert not Soaked("x", flat.memory, left=["1 processes"]).holds


def test_what_is_left_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that stays open, and memory that is kept, in the place of the simulator: 42 MB a photo, so much that it is
    never taken from what other tests of this process gave back."""
    kept, run = [], simulator.run

    def leaking(*arguments, **options):
        kept.append((open(__file__), np.ones(5 << 20)))  # noqa: SIM115
        return run(*arguments, **options)

    monkeypatch.setattr(simulator, "run", leaking)
    status = main(["--photos", "12", "--backends", "simulator:float32"])
    for file, _ in kept:
        file.close()
    assert status == 1
    row = capsys.readouterr().out
    assert "1 open files **FAILED**" in row
    most, warm = (float(cell.replace(",", "")) for cell in (row.split("|")[3], row.split("|")[2]))
    assert most > warm + 10 * 40


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_photos_through_every_backend_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    backends = [":".join(each) for each in soak.BACKENDS if each[0] != "lava" or sys.version_info < (3, 11)]
    assert main(["--photos", "60", "--backends", *backends]) == 0
    assert capsys.readouterr().out.count("| nothing |") == len(backends)
