"""Tasks on a cluster of Dask's: a real scheduler and worker processes; some of them are killed."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import pytest

from esdnet.command.errors import BackendDied, UserError
from esdnet.command.jobs import run_jobs
from esdnet.command.workers import add_worker_flags, open_workers, run_tasks
from tests.esdnet.command import working
from tests.esdnet.command.cluster import cluster, free_port

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def flags(address: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_worker_flags(parser)
    return parser.parse_args(["--scheduler", address])


def test_everything_comes_back_once_and_failures_are_named(tmp_path: Path) -> None:
    with cluster(tmp_path) as found, open_workers(flags(found.address)) as workers:
        outcome = run_jobs([*range(20), -1], working.square, workers=workers)
        assert outcome.results == [number**2 for number in range(20)]
        assert outcome.failed == {"-1": "-1: is negative"}
        places = run_tasks(workers, working.where, ((number, 0.05) for number in range(8)))
        assert {future.result()[0] for _, future in places} == {worker.pid for worker in found.workers}


def test_the_task_of_a_worker_that_was_killed_is_done_by_another(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=3) as found, open_workers(flags(found.address)) as workers:
        done = {}
        for key, future in run_tasks(workers, working.where, ((number, 0.3) for number in range(12))):
            done[key] = future.result()[0]
            if len(done) == 2:
                os.kill(found.workers[0].pid, signal.SIGKILL)
        assert sorted(done) == list(range(12))
        assert {done[key] for key in done} <= {worker.pid for worker in found.workers}


def test_a_task_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    with cluster(tmp_path, workers=5) as found, open_workers(flags(found.address)) as workers:
        tasks = [(marks, number, 99 if number == 1 else 0) for number in range(4)]
        outcome = run_jobs(tasks, working.die, name=lambda task: str(task[1]), workers=workers)
        assert outcome.results == [0, 2, 3]
        assert outcome.failed == {"1": "one process after the other died over it, killed for their memory perhaps"}


def test_what_is_not_there_or_not_right_is_said_in_one_line(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1, threads=2) as found:
        for address, message in [
            (f"tcp://127.0.0.1:{free_port()}", r"--scheduler tcp://127\.0\.0\.1:\d+: .*; is it running there\?"),
            ("nonsense://x", "--scheduler nonsense"),
            (found.address, "has 2 threads, expected 1; start it with --nthreads 1"),
        ]:
            with pytest.raises(UserError, match=message), open_workers(flags(address)):
                pass


def test_a_scheduler_that_dies_ends_it(tmp_path: Path) -> None:
    with cluster(tmp_path) as found, open_workers(flags(found.address)) as workers:
        places = run_tasks(workers, working.where, ((number, 0.5) for number in range(12)))
        next(places)
        found.scheduler.kill()
        with pytest.raises(BackendDied, match="the scheduler is gone; begin again with --skip-existing"):
            list(places)
