"""A cluster of Dask's on this machine, for tests: a scheduler and workers of one thread, real processes all of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]


@dataclass
class Cluster:
    """Where the scheduler listens, its process, and those of the workers."""

    address: str
    scheduler: subprocess.Popen[str]
    workers: list[subprocess.Popen[str]]


@contextmanager
def cluster(folder: Path, workers: int = 2, threads: int = 1) -> Iterator[Cluster]:
    """One that is there when the block begins, and gone when it ends. Its files are in `folder`."""
    address = f"tcp://127.0.0.1:{free_port()}"
    local = ["--no-dashboard", "--protocol", "tcp"]
    with ExitStack() as stack:
        port = address.rsplit(":", 1)[1]
        scheduler = stack.enter_context(_dask(folder, "scheduler", "--host", "127.0.0.1", "--port", port, *local))
        flags = ["--nthreads", str(threads), "--no-nanny", "--local-directory", str(folder), *local]
        started = [stack.enter_context(_dask(folder, "worker", address, *flags)) for _ in range(workers)]
        _wait_for(address, workers)
        yield Cluster(address, scheduler, started)


@contextmanager
def _dask(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2",
    }
    log = (folder / f"{arguments[0]}-{time.monotonic_ns()}.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log, env=environment, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait_for(address: str, workers: int) -> None:
    from distributed import Client

    with Client(address, timeout="60s") as client:
        client.wait_for_workers(workers, timeout=120)


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port
