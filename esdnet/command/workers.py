"""Where tasks run: in this process, in processes of one thread each beside it, or on a cluster that Dask looks after.

In: a function of a module, and tasks for it, which are pickled. Out: what became of each, as they come. A task whose
process died is done again; one that killed three is given up. Whoever is ended takes its processes with it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

from esdnet.command.command_line import require_extra
from esdnet.command.errors import BackendDied, UserError
from esdnet.command.memory import free_memory

Key = TypeVar("Key")
DEATHS = 3  # of processes, until a task is given up
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


class Workers(Protocol):
    """`room`: how many tasks are worth having under way. `gone`: what a task ends with whose process died."""

    gone: tuple[type[BaseException], ...]

    @property
    def room(self) -> int:
        """Tasks."""
        ...

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]:
        """Begin a task."""
        ...

    def free_memory(self) -> int | None:
        """Bytes that a task may take, as far as that is known."""
        ...


class Here:
    """This process: a task is done when it is submitted."""

    room = 1
    gone: tuple[type[BaseException], ...] = ()

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]:
        """Do it."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(task))
        except Exception as error:  # Ctrl-C goes through
            future.set_exception(error)
        return future

    def free_memory(self) -> int | None:
        """All that is free."""
        return free_memory()


class Processes:
    """So many new processes of this machine, each of one thread and with one task at a time: a death is one task's."""

    gone: tuple[type[BaseException], ...] = (BrokenExecutor,)

    def __init__(self, count: int) -> None:
        self.room = count
        self._processes = [_Process() for _ in range(count)]

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]:
        """To one that has none; there is one, as there is never more under way than there is room for."""
        return next(process for process in self._processes if process.idle).submit(work, task)

    def free_memory(self) -> int | None:
        """Its share of what is free."""
        free = free_memory()
        return None if free is None else free // self.room

    def close(self) -> None:
        """End all of them, in the middle of their tasks where they have any."""
        for process in self._processes:
            process.close()


class _Process:
    """A process, and the one that takes its place when it dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin)
        self._pid = self._task = self._pool.submit(os.getpid)

    @property
    def idle(self) -> bool:
        return self._task is self._pid or self._task.done()

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]:
        try:
            self._task = self._pool.submit(work, task)
        except BrokenExecutor:  # it died, with its last task or without any
            self._pool.shutdown(wait=False)
            self._start()
            self._task = self._pool.submit(work, task)
        return self._task

    def close(self) -> None:
        with suppress(BrokenExecutor):
            pid = self._pid.result()
            self._pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                if child.pid == pid:
                    child.terminate()
                    child.join()
        self._pool.shutdown(wait=True)


def _begin() -> None:
    """In a new process: one thread, Ctrl-C is its parent's business, and it ends when its parent does."""
    os.environ.update(ONE_THREAD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


class Cluster:
    """The workers of Dask's scheduler at an address: it gives the tasks of one that dies to others. Each must have one
    thread, and the versions that are here."""

    def __init__(self, address: str) -> None:
        require_extra("cluster", "--scheduler")
        from distributed import Client
        from distributed.scheduler import KilledWorker

        try:
            self._client = Client(address, timeout="10s")
        except (OSError, ValueError) as error:
            raise UserError(f"--scheduler {address}: {' '.join(str(error).split())}; is it running there?") from error
        self.gone: tuple[type[BaseException], ...] = (KilledWorker,)
        self._executor = self._client.get_executor(pure=False)
        try:
            self._check()
        except UserError:
            self.close()
            raise

    @property
    def room(self) -> int:
        """Two for each worker, so that the next is there when one is done."""
        return 2 * max(1, len(self._workers()))

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]:
        """Hand it to the scheduler."""
        future: Future[Any] = self._executor.submit(work, task)
        return future

    def free_memory(self) -> int | None:
        """The least that any of them was told to take."""
        limits = [worker["memory_limit"] for worker in self._workers().values()]
        return min((limit for limit in limits if limit), default=None)

    def close(self) -> None:
        """Leave it; what was not begun is not."""
        self._executor.shutdown(wait=False)
        self._client.close()

    def _workers(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _check(self) -> None:
        for address, worker in self._workers().items():
            if worker["nthreads"] != 1:
                raise UserError(
                    f"--scheduler: the worker {address} has {worker['nthreads']} threads, expected 1;"
                    " start it with --nthreads 1, and more of them with --nworkers"
                )
        try:
            self._client.get_versions(check=True, packages=["numpy", "torch"])
        except ValueError as error:
            raise UserError(f"--scheduler: {' '.join(str(error).split())}") from error


def run_tasks(
    workers: Workers, work: Callable[[Any], Any], tasks: Iterable[tuple[Key, Any]]
) -> Iterator[tuple[Key, Future[Any]]]:
    """Do `work` for each task; (key, task) in, (key, what became of it) out, as they end. Tasks are asked for when
    there is room for them. If a process dies its task is done again, or fails with a UserError."""
    waiting = iter(tasks)
    under_way: dict[Future[Any], tuple[Key, Any, int]] = {}
    while True:
        for key, task in islice(waiting, max(0, workers.room - len(under_way))):
            under_way[workers.submit(work, task)] = (key, task, 1)
        if not under_way:
            return
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            key, task, tries = under_way.pop(future)
            if future.cancelled():
                raise BackendDied("the scheduler is gone; begin again with --skip-existing")
            if not isinstance(future.exception(), workers.gone):
                yield key, future
            elif isinstance(future.exception(), BrokenExecutor) and tries < DEATHS:
                under_way[workers.submit(work, task)] = (key, task, tries + 1)
            else:
                yield key, _given_up()


def absolute(arguments: argparse.Namespace, *names: str) -> None:
    """For a cluster the paths of these options become absolute: its workers run in other folders."""
    for name in names if arguments.scheduler else ():
        given = getattr(arguments, name)
        if given is not None and (isinstance(given, Path) or Path(given).exists()):
            setattr(
                arguments, name, type(given)(Path(given).absolute()) if isinstance(given, str) else given.absolute()
            )


def _given_up() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(UserError("one process after the other died over it, killed for their memory perhaps"))
    return future


def add_worker_flags(parser: argparse.ArgumentParser) -> None:
    """--workers and --scheduler."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes of one thread that share the work (default: 1)"
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="share the work on a Dask cluster, such as tcp://host:8786"
    )


@contextmanager
def open_workers(arguments: argparse.Namespace) -> Iterator[Workers]:
    """What --workers and --scheduler name; closed, and all that is theirs ended, when the block ends."""
    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: expected at least 1")
    if arguments.scheduler is None and arguments.workers == 1:
        yield Here()
        return
    workers = Cluster(arguments.scheduler) if arguments.scheduler is not None else Processes(arguments.workers)
    try:
        yield workers
    finally:
        workers.close()
