"""The host's end of the engine: starts it, talks to it with time-outs, and ends it with everything that it started."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from multiprocessing import Pipe
from pathlib import Path
from typing import IO, Any

from esdnet.command.errors import BackendDied, UserError

END_S = 5.0  # how long the engine may take to end its processes before it is killed itself
POLL_S = 0.2  # how often a waiting host looks whether the engine is still there


class LavaError(BackendDied):
    """Something failed inside Lava: one line that names the process; its cause, if any, is what the process left."""


class ProcessOutput(Exception):
    """All that is known of how a process ended: its traceback, or what it had printed."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def check_available() -> None:
    """UserError in one line if this Python cannot run Lava."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.platform != "linux":
        raise UserError(f"Lava: this backend runs on Linux, found {sys.platform}; use --backend simulator")
    if sys.version_info >= (3, 11):
        raise UserError(
            f"Lava: lava-nc 0.10.0 runs on Python 3.10, found {version}; make an environment with"
            " Python 3.10 and `pip install 'esdnet-deploy[lava]'` there, or use --backend simulator"
        )
    if find_spec("lava") is None:
        raise UserError(
            "Lava: lava-nc is not installed; `pip install 'esdnet-deploy[lava]'`, or use --backend simulator"
        )


class EngineProcess:
    """A process with Lava in it, in a session of its own, so that a Ctrl-C reaches only us, who end it in order.

    It lives as long as the lifeline is open: a pipe whose one end we hold. If we die, the kernel closes it.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.connection, theirs = Pipe()
        lifeline, self.lifeline = os.pipe()
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - what Lava prints, shown if the engine breaks
        path = os.pathsep.join([str(Path(__file__).parents[3]), *(entry or os.getcwd() for entry in sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hw_sim.backends.lava.engine", str(theirs.fileno()), str(lifeline)],
            pass_fds=(theirs.fileno(), lifeline),
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            start_new_session=True,
        )
        theirs.close()
        os.close(lifeline)

    def send(self, message: Any) -> None:
        """One request. LavaError if the engine has ended."""
        try:
            self.connection.send(message)
        except OSError as error:
            raise LavaError("the Lava session has ended") from error

    def receive(self, timeout_s: float, what: str) -> Any:
        """The reply. UserError after `timeout_s`; LavaError if a process failed or the engine is gone."""
        deadline = time.monotonic() + timeout_s
        try:
            while not self.connection.poll(POLL_S):
                if self.process.poll() is not None:
                    raise EOFError
                if time.monotonic() > deadline:
                    raise UserError(f"Lava: {what} took longer than {timeout_s:g} s; allow more time or fewer pixels")
            status, message = self.connection.recv()
        except (EOFError, OSError):
            printed = self._printed()
            raise LavaError(f"the Lava engine ended unexpectedly: {_last_line(printed)}") from ProcessOutput(printed)
        if status == "failed":
            process, trace = message
            raise LavaError(f"Lava process {process} failed: {_last_line(trace)}") from ProcessOutput(trace)
        return message

    def end(self) -> None:
        """Let go of the lifeline, and wait until the engine and all that it forked are gone. Idempotent."""
        if os.getpid() != self.owner or self.connection.closed:
            return
        os.close(self.lifeline)
        deadline = time.monotonic() + END_S
        try:
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv_bytes()  # replies that nobody waits for any more
            self.process.kill()  # the kernel then ends what it forked, see engine.py
        except (EOFError, OSError):
            pass  # nobody holds the other end any more: all of them have inherited it
        self.process.wait()
        self.connection.close()
        self.output.close()

    def _printed(self) -> str:
        self.output.seek(0)
        return self.output.read().decode(errors="replace")[-4000:].strip() or "it had printed nothing"


def _last_line(text: str) -> str:
    """Of a traceback, the exception itself."""
    return text.strip().splitlines()[-1].strip()
