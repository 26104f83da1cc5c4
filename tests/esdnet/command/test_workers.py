"""Tasks in other processes: what comes back, what becomes of the tasks of processes that die, what is left behind."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from esdnet.command.errors import UserError
from esdnet.command.jobs import run_jobs
from esdnet.command.workers import DEATHS, Here, Processes, Workers, add_worker_flags, open_workers, run_tasks
from tests.esdnet.command import working

ROOT = Path(__file__).parents[3]
unix = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


def flags(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_worker_flags(parser)
    return parser.parse_args(given)


@contextmanager
def processes(count: int) -> Iterator[Workers]:
    with open_workers(flags("--workers", str(count))) as workers:
        yield workers


def children() -> set[int | None]:
    """Of this process, in which other tests may have left some: Lava's shared memory has a process."""
    return {child.pid for child in multiprocessing.active_children()}


def results(workers: Workers, work: Callable[[Any], Any], tasks: list[Any]) -> dict[int, Any]:
    return {key: future.result() for key, future in run_tasks(workers, work, enumerate(tasks))}


def test_here_is_the_default_and_does_one_after_the_other() -> None:
    with open_workers(flags()) as workers:
        assert isinstance(workers, Here)
        asked: list[int] = []

        def tasks() -> Iterator[tuple[int, int]]:
            for number in range(3):
                asked.append(number)
                yield number, number

        for count, (key, future) in enumerate(run_tasks(workers, working.square, tasks())):
            assert (key, future.result(), len(asked)) == (count, count * count, count + 1)


def test_everything_comes_back_once() -> None:
    others = children()
    with processes(2) as workers:
        assert isinstance(workers, Processes)
        assert results(workers, working.square, list(range(20))) == {number: number**2 for number in range(20)}
        found = results(workers, working.where, [0.0] * 8)
        assert {process for process, _ in found.values()} == children() - others
        assert {threads for _, threads in found.values()} == {"1"}
        assert os.getpid() not in {process for process, _ in found.values()}
    assert children() <= others


def test_jobs_come_in_their_order_and_failures_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    with processes(2) as workers:
        outcome = run_jobs([3, -1, 2, -2, 1], working.square, workers=workers, done=seen.append)
    assert (outcome.results, outcome.status, outcome.not_run) == ([9, 4, 1], 1, [])
    assert sorted(seen) == [1, 4, 9]
    assert outcome.failed == {"-1": "-1: is negative", "-2": "-2: is negative"}
    assert capsys.readouterr().err.splitlines()[-1].startswith("3 of 5 images in ")


def test_an_error_of_ours_is_no_failure_of_a_task() -> None:
    with processes(2) as workers, pytest.raises(ZeroDivisionError, match="ours"):
        results(workers, working.fail, ["ours"])


def test_a_full_disk_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    with processes(2) as workers:
        outcome = run_jobs(["a", "b", "c", "d", "e", "f"], working.cannot_write, workers=workers)
    assert (outcome.results, outcome.status) == ([], 1)
    assert len(outcome.failed) == 1
    assert len(outcome.not_run) == 5
    assert capsys.readouterr().err.count("No space left on device") == 1


@unix
def test_the_task_of_a_process_that_was_killed_is_done_again(tmp_path: Path) -> None:
    """Each of some tasks kills a process or two, the others are not touched."""
    tasks = [(tmp_path, number, number % 3) for number in range(9)]
    with processes(2) as workers:
        assert results(workers, working.die, tasks) == {number: number for number in range(9)}
    marks = [path.name for path in tmp_path.iterdir()]
    assert len(marks) == sum(number % 3 for number in range(9))  # and no task was begun once more


@unix
def test_a_task_that_kills_every_process_is_given_up_and_the_others_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [(tmp_path, number, 99 if number == 1 else 0) for number in range(4)]
    with processes(2) as workers:
        outcome = run_jobs(tasks, working.die, name=lambda task: f"task {task[1]}", workers=workers)
    assert (outcome.results, outcome.status) == ([0, 2, 3], 1)
    assert outcome.failed == {"task 1": "one process after the other died over it, killed for their memory perhaps"}
    assert len(list(tmp_path.iterdir())) == DEATHS


@unix
def test_a_process_that_is_killed_between_tasks_is_replaced() -> None:
    others = children()
    with processes(2) as workers:
        assert results(workers, working.square, [1, 2]) == {0: 1, 1: 4}
        for child in multiprocessing.active_children():
            if child.pid not in others:
                os.kill(child.pid or 0, signal.SIGKILL)
                child.join()
        assert results(workers, working.square, [3, 4, 5]) == {0: 9, 1: 16, 2: 25}


def test_closing_ends_tasks_that_are_under_way() -> None:
    others, started = children(), time.monotonic()
    with processes(2) as workers:
        done = run_tasks(workers, working.where, [(0, 0.0), (1, 600.0), (2, 600.0)])
        assert next(done)[0] == 0
        assert len(children() - others) == 2
    assert time.monotonic() - started < 60
    assert children() <= others


PROGRAM = """
import sys
from esdnet.command.workers import Processes, run_tasks
from tests.esdnet.command import working

if __name__ == "__main__":
    workers = Processes(2)
    print(*(future.result()[0] for _, future in run_tasks(workers, working.where, [(0, 0.5), (1, 0.5)])), flush=True)
    for _ in run_tasks(workers, working.where, [(0, 600.0), (1, 600.0)]):
        pass
"""


@unix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nobody_outlives_a_command_that_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert len(set(children)) == 2
        process.send_signal(number)
        process.wait(timeout=60)
        deadline = time.monotonic() + 30
        while any(is_alive(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(is_alive(child) for child in children)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_flags_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="--workers 0: expected at least 1"), open_workers(flags("--workers", "0")):
        pass
    with pytest.raises(SystemExit):
        flags("--workers", "2", "--scheduler", "tcp://localhost:1")
    assert "not allowed with" in capsys.readouterr().err
