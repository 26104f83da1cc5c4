"""What the tests of workers have done in other processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from esdnet.command.errors import CannotWrite, UserError


def square(number: int) -> int:
    """Of 0 or more."""
    if number < 0:
        raise UserError(f"{number}: is negative")
    return number * number


def fail(message: str) -> None:
    """As a bug does."""
    raise ZeroDivisionError(message)


def cannot_write(name: str) -> None:
    raise CannotWrite(f"{name}: cannot be written: No space left on device")


def die(task: tuple[Path, int, int]) -> int:
    """A number, after so many processes have been killed over it; each leaves a mark."""
    folder, number, deaths = task
    marks = len(list(folder.glob(f"{number}-*")))
    if marks < deaths:
        (folder / f"{number}-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def where(delay: float) -> tuple[int, str | None]:
    """The process, and its threads."""
    time.sleep(delay)
    return os.getpid(), os.environ.get("OMP_NUM_THREADS")
