"""How large photos are watched: what a command takes is what it took."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.photos import enlarge, watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is looked up in Linux's /proc")

CHILDREN = """
import subprocess, sys, time
block = bytearray(int(sys.argv[1]) << 20)
if len(sys.argv) > 2:
    subprocess.run([sys.executable, "-c", sys.argv[2], *sys.argv[3:]])
time.sleep(1)
"""


@pytest.mark.slow
def test_memory_is_that_of_all_processes() -> None:
    """One of 200 MB that starts one of 100."""
    alone = watch([sys.executable, "-c", CHILDREN, "200"])
    both = watch([sys.executable, "-c", CHILDREN, "200", CHILDREN, "100"])
    assert 200 < alone.largest / 2**20 < 240
    assert alone.largest == pytest.approx(both.largest, rel=0.1)
    assert both.together - alone.together == pytest.approx(100 << 20, rel=0.25)
    assert alone.wall > 1


def test_a_command_that_fails_ends_it() -> None:
    with pytest.raises(SystemExit, match="exit status 3"):
        watch([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_photo_is_as_large_as_was_asked(tmp_path: Path) -> None:
    with Image.open(enlarge(tmp_path, 1.2)) as opened:
        assert opened.format == "JPEG"
        assert opened.width * opened.height == pytest.approx(1.2e6, rel=0.01)
