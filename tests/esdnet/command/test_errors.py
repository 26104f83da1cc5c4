"""How a command ends: its status, and one line on stderr for all that is no fault of the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from esdnet.command.errors import CheckFailed, UserError, report_user_errors

ROOT = Path(__file__).parents[3]


def fail(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (CheckFailed("lif1: 3 spikes differ"), 1, "check failed, nothing was written: lif1: 3 spikes differ\n"),
        (UserError("a.pt: not there"), 2, "error: a.pt: not there\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_status_and_line(error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_user_errors(lambda: fail(error)) == status
    assert capsys.readouterr().err == line


def test_standard_output_is_as_before_afterwards() -> None:
    before = sys.stdout
    report_user_errors(lambda: fail(UserError("x")))
    assert sys.stdout is before


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")])
def test_only_standard_output_is_excused(error: OSError) -> None:
    """A pipe to a process of ours that broke, or a file that was not looked after, is a fault of the program."""
    with pytest.raises(type(error)):
        report_user_errors(lambda: fail(error))


PRINTS = """
import sys
from rich.console import Console
from esdnet.command.errors import report_user_errors

def body():
    Console().print("a table")
    for _ in range(int(sys.argv[1])):
        print("y" * 100)
    return 0

sys.exit(report_user_errors(body))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_one_line_and_status_1(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS, "3"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: standard output: cannot be written: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Unix")
def test_a_pipe_that_nobody_reads_is_a_quiet_end() -> None:
    command = [sys.executable, "-c", PRINTS, "5000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1
