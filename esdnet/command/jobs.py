"""A list of jobs, here or shared out: progress on a terminal, failures collected and named, Ctrl-C between two results.

In: things to do and what to do with each. Out: the results, what failed and why, what was not run.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from esdnet.command.errors import INTERRUPTED, CannotWrite, UserError
from esdnet.command.workers import Here, Workers, run_tasks

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass
class Outcome(Generic[Result]):
    """What became of a list of jobs; `failed` tells why, by name, `not_run` names those that came after the end."""

    results: list[Result] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)
    status: int = 0  # of the command: 0, 1 where a job failed, 130 after Ctrl-C

    def to_dict(self) -> dict[str, Any]:
        """What a report says beside the results."""
        failed = [{"name": name, "error": error} for name, error in self.failed.items()]
        return {"failed": failed, "not_run": self.not_run}


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Any], Result],
    name: Callable[[Job], str] = str,
    unit: str = "image",
    *,
    workers: Workers | None = None,
    task: Callable[[Job], Any] = lambda job: job,
    done: Callable[[Result], None] = lambda result: None,
) -> Outcome[Result]:
    """Do `work` for each job. A UserError is that job's failure: it is said on stderr, and the others follow.

    workers: where it is done, here by default. task: what `work` is given for a job, made when its turn comes. done: is
    called with each result as it comes; the outcome has them in the order of the jobs.

    Where an output cannot be written, and at Ctrl-C, the rest is not run. The last line on stderr says how many were
    done, and in what time.
    """
    outcome: Outcome[Result] = Outcome()
    results: dict[int, Result] = {}
    started = time.monotonic()
    with progress_bar(len(jobs), unit) as bar:

        def tasks() -> Iterator[tuple[int, Any]]:
            for number, job in enumerate(jobs):
                with _failing(outcome, name(job), bar):
                    yield number, task(job)

        try:
            for number, future in run_tasks(workers or Here(), work, tasks()):
                with _failing(outcome, name(jobs[number]), bar):
                    results[number] = future.result()
                    done(results[number])
                    bar.update()
        except CannotWrite:
            pass  # it was said, and the next could not be written either
        except KeyboardInterrupt:
            outcome.status = INTERRUPTED
    outcome.results = [results[number] for number in sorted(results)]
    left = (name(job) for number, job in enumerate(jobs) if number not in results)
    outcome.not_run = [job for job in left if job not in outcome.failed]
    _say_end(outcome, len(jobs), unit, time.monotonic() - started)
    return outcome


@contextmanager
def _failing(outcome: Outcome[Any], name: str, bar: tqdm[Any]) -> Iterator[None]:
    """A UserError inside is the failure of a job."""
    try:
        yield
    except UserError as error:
        outcome.failed[name] = str(error)
        outcome.status = 1
        tqdm.write(f"error: {error}", file=sys.stderr)
        bar.update()
        if isinstance(error, CannotWrite):
            raise


def _say_end(outcome: Outcome[Any], jobs: int, unit: str, seconds: float) -> None:
    stopped = "stopped after " if outcome.not_run or outcome.status == INTERRUPTED else ""
    failed = f", {len(outcome.failed)} failed" if outcome.failed else ""
    print(f"{stopped}{len(outcome.results)} of {jobs} {unit}s in {seconds:.1f} s{failed}", file=sys.stderr)


def progress_bar(total: int, unit: str, **options: Any) -> tqdm[Any]:
    """A bar on stderr, with the time that is left, for more than one thing to do, where that is a terminal; not in a
    process that does a part of the work."""
    shown = total > 1 and sys.stderr.isatty() and multiprocessing.parent_process() is None
    return tqdm(total=total, unit=unit, file=sys.stderr, disable=not shown, **options)
