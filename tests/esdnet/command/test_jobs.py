"""A list of jobs: what fails is named and the rest done; Ctrl-C and a full disk end it; a bar only on a terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest

from esdnet.command.errors import CannotWrite, UserError
from esdnet.command.jobs import progress_bar, run_jobs


def square(number: int) -> int:
    if number in RAISES:
        raise RAISES[number]
    return number * number


RAISES: dict[int, BaseException] = {
    -1: UserError("-1: is negative"),
    -2: CannotWrite("-2: cannot be written: No space left on device"),
    -3: KeyboardInterrupt(),
}


def test_all_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_jobs([1, 2, 3], square)
    assert (outcome.results, outcome.status) == ([1, 4, 9], 0)
    assert outcome.to_dict() == {"failed": [], "not_run": []}
    assert re.fullmatch(r"3 of 3 images in \d+\.\d s\n", capsys.readouterr().err)


def test_a_failure_is_named_and_the_rest_done(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_jobs([1, -1, 3], square, name=lambda job: f"job {job}", unit="job")
    assert (outcome.results, outcome.status) == ([1, 9], 1)
    assert outcome.to_dict() == {"failed": [{"name": "job -1", "error": "-1: is negative"}], "not_run": []}
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: -1: is negative"
    assert re.fullmatch(r"2 of 3 jobs in \d+\.\d s, 1 failed", lines[1])


@pytest.mark.parametrize(("stop", "status", "failed"), [(-2, 1, ["-2"]), (-3, 130, [])])
def test_what_ends_it(stop: int, status: int, failed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Where one output cannot be written the next cannot either; of the job that Ctrl-C hit nothing is known."""
    outcome = run_jobs([1, -1, 3, stop, 5, 6], square)
    assert (outcome.results, outcome.status) == ([1, 9], status)
    assert list(outcome.failed) == ["-1", *failed]
    assert outcome.not_run == (["5", "6"] if failed else ["-3", "5", "6"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"stopped after 2 of 6 images in \d+\.\d s, {1 + len(failed)} failed", last)


def test_another_error_is_no_failure_of_a_job() -> None:
    with pytest.raises(ZeroDivisionError):
        run_jobs([1, 0], lambda number: 1 // number)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "total", "shown"), [(io.StringIO, 3, 0), (Terminal, 1, 0), (Terminal, 3, 1)])
def test_a_bar_is_shown_on_a_terminal_for_more_than_one(
    stream: type[io.StringIO], total: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar(total, "tile") as bar:
        bar.update()
    assert ("tile" in sys.stderr.getvalue()) == shown  # type: ignore[attr-defined]
