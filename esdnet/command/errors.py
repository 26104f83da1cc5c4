"""What ends a command early, and how its command line reports it: one line on stderr and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from esdnet.command.threads import wait_asleep

INTERRUPTED = 130  # the exit status of a command that Ctrl-C ended, as shells have it


class CheckFailed(Exception):
    """What was made does not compute what it must, so it is not kept: the message is one line that says where."""


class BackendDied(Exception):
    """Software that computes for us failed in the middle of its work: one line; the cause, if any, has the rest."""


class UserError(Exception):
    """A mistake in what the user gave: the message is one line that says what was found, expected, and what to do."""


class CannotWrite(UserError):
    """An output could not be written, on a full disk perhaps: a command with more of them to write may as well end."""


class _StdoutFailed(Exception):
    """Standard output takes no more."""


def report_user_errors(run: Callable[[], int]) -> int:
    """Run a command body and return its exit status. Threads that it starts wait asleep (threads.py).

    One clear line on stderr and status 2 for a UserError, status 1 for a CheckFailed, a BackendDied or a standard
    output that cannot be written, status 130 for Ctrl-C; status 1 without a line where standard output is a pipe that
    nobody reads.
    """
    wait_asleep()
    try:
        with _watched_stdout():
            return run()
    except CheckFailed as failure:
        return _say(f"check failed, nothing was written: {failure}", 1)
    except BackendDied as error:
        return _say(f"error: {error}", 1)
    except UserError as error:
        return _say(f"error: {error}", 2)
    except KeyboardInterrupt:
        return _say("stopped", INTERRUPTED)
    except _StdoutFailed as failure:
        if isinstance(failure.__cause__, BrokenPipeError):
            return 1
        return _say(f"error: standard output: cannot be written: {failure}", 1)


def _say(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


class _Watched:
    """A text stream whose own failures to write can be told from those of all other files and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._named():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._named():
            self._stream.flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _discard(self._stream)
            raise _StdoutFailed(os.strerror(error.errno or errno.EIO)) from error


def _discard(stream: TextIO) -> None:
    """What is still in the stream's buffer goes nowhere, or Python complains about it once more when it ends."""
    with suppress(OSError, ValueError):  # a stream of a test has no file number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def _watched_stdout() -> Iterator[None]:
    """While open, a failure of standard output is a _StdoutFailed; at the end everything has been written."""
    stdout = sys.stdout
    sys.stdout = cast(TextIO, _Watched(stdout))
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = stdout
