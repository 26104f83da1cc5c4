"""Whatever ends a command that uses Lava, at whatever moment: one line at most, and nothing stays behind it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from esdnet.images.files import save_image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only"),
    pytest.mark.timeout(3600),
]
ROOT = Path(__file__).parents[4]
MARK = "ESDNET_TEST_MARK"  # an environment variable that every process of a command inherits
KILLS = 20
GONE_S = 30.0  # a busy machine may import for seconds, during which nothing else runs in the engine
START_S = 300.0  # of a command on a busy machine

# a shell starts jobs in the background with SIGINT ignored
PRICE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from hw_sim.energy import main
sys.exit(main())
"""


@dataclass
class Command:
    """A command under way, and the mark of all of its processes."""

    process: subprocess.Popen[str]
    mark: str

    def living(self) -> dict[int, tuple[int, bytes]]:
        """Its processes that have not ended, the command itself left out: their parents and command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes() and int(folder.name) != self.process.pid:
                    state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
                    if state != "Z":
                        found[int(folder.name)] = int(parent), (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
        return found

    def engine(self) -> int:
        """Wait until it has started an engine, and that some processes of its own."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            living = self.living()
            parents = [parent for parent, _ in living.values()]
            for process in living:
                if parents.count(process) > 3:
                    return process
            time.sleep(0.1)
        raise AssertionError(f"no engine was started: {self.process.communicate()}")

    def gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.living():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


@contextmanager
def price(model: str, folder: Path) -> Iterator[Command]:
    """`energy.py --backend lava` on a small image, with temporary files in a folder of its own."""
    image, temporary, mark = folder / "image.png", folder / "temporary", uuid.uuid4().hex
    temporary.mkdir(exist_ok=True)
    save_image(image, np.random.default_rng(0).random((16, 16, 3)))
    arguments = ["--image", str(image), "--backend", "lava", "--lava-model", model, "--json", str(folder / "out.json")]
    command = Command(
        subprocess.Popen(
            [sys.executable, "-c", PRICE, *arguments],
            cwd=ROOT, env={**os.environ, MARK: mark, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ),
        mark,
    )  # fmt: skip
    with command.process:
        try:
            yield command
        finally:
            command.process.kill()
            for process in command.living():
                os.kill(process, signal.SIGKILL)


def segments() -> set[str]:
    return set(os.listdir("/dev/shm"))


@pytest.mark.parametrize("model", ["fused", "fine"])
def test_kills_at_random_moments_leave_nothing(model, tmp_path):
    """From the first moment of the start to the end of the command, its end included."""
    before = segments()
    began = time.monotonic()
    with price(model, tmp_path) as command:
        _, errors = command.process.communicate(timeout=START_S)
        assert command.process.returncode == 0, errors
    whole = time.monotonic() - began
    (tmp_path / "out.json").unlink()
    left, alive = [], 0
    for number in range(KILLS):
        moment = whole * (number + np.random.default_rng().random()) / KILLS
        with price(model, tmp_path) as command:
            time.sleep(moment)
            alive += command.process.poll() is None
            command.process.kill()
            if not command.gone_within(GONE_S):
                left.append(f"after {moment:.1f} of {whole:.1f} s: {len(command.living())} processes")
    assert not left
    assert alive > KILLS / 2
    assert not list((tmp_path / "temporary").iterdir())
    deadline = time.monotonic() + 60.0
    while segments() - before and time.monotonic() < deadline:
        time.sleep(1.0)  # other programs' come and go
    assert not segments() - before


def check_one_line(errors: str, expected: str) -> None:
    """After the line that says which network runs."""
    first, *others = errors.splitlines()
    assert first.startswith("network: ")
    assert len(others) == 1, errors
    assert re.match(expected, others[0])


@pytest.mark.parametrize("after_s", [0.0, 0.5, 2.0])
def test_ctrl_c_is_one_line(after_s, tmp_path):
    with price("fine", tmp_path) as command:
        command.engine()
        time.sleep(after_s)
        command.process.send_signal(signal.SIGINT)
        _, errors = command.process.communicate(timeout=60)
        assert command.process.returncode == 130
        check_one_line(errors, "stopped")
        assert command.gone_within(GONE_S)
    assert not (tmp_path / "out.json").exists()


def test_a_killed_lava_process_is_one_line(tmp_path):
    with price("fine", tmp_path) as command:
        engine = command.engine()
        victim = next(process for process, (parent, _) in command.living().items() if parent == engine)
        os.kill(victim, signal.SIGKILL)
        _, errors = command.process.communicate(timeout=60)
        assert command.process.returncode == 1
        check_one_line(errors, r"error: Lava process \S.* failed: it ended with signal SIGKILL")
        assert command.gone_within(GONE_S)
    assert not (tmp_path / "out.json").exists()
