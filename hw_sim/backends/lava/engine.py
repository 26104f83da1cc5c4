"""The engine: the process in which Lava lives, started by a LavaSession and gone with it.

In, over a connection: a Plan, then requests. Out: one reply for each. Nothing that happens here can hang or soil the
process that asked: Lava forks its processes from an interpreter without OpenMP threads, a failed process is reported
with its traceback, and the end of the session, however it comes, ends them all.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from hw_sim.backends.lava.runtime import LavaNetwork

PR_SET_PDEATHSIG = 1  # prctl(2): a signal for the child when its parent ends
WATCH_S = 0.2  # how often the watch looks for a parent that has gone


def main(argv: list[str]) -> NoReturn:
    """Serve one session. argv: file descriptors of the connection and of the lifeline."""
    connection = Connection(int(argv[0]))
    engine = Engine(connection)
    threading.Thread(target=engine.watch, args=(int(argv[1]), os.getppid()), daemon=True).start()
    try:
        engine.serve()
    except EOFError:
        pass
    except BaseException:  # whatever it is, the session must hear of it: it waits for a reply
        engine.fail("engine", traceback.format_exc())
    while True:
        signal.pause()  # the watch ends this process when the session lets go of the lifeline


class Engine:
    """Requests and replies on the main thread; the watch over session and processes on another."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.network: LavaNetwork | None = None
        self.failed = False

    def serve(self) -> None:
        """Answer requests until the session closes the connection."""
        plan = self.connection.recv()
        from hw_sim.backends.lava.runtime import LavaNetwork  # Lava and torch: seconds

        os.register_at_fork(before=_before_fork, after_in_child=_end_with_parent)
        began = time.perf_counter()
        network = self.network = LavaNetwork(plan)
        network.compile()
        facts = {"processes": len(network.names), "shared_bytes": network.shared_bytes}
        self._reply({**facts, "compile_s": time.perf_counter() - began})
        while True:
            request, argument = self.connection.recv()
            began = time.perf_counter()
            reply = network.answer(request, argument)
            self._reply((reply, network.steps, time.perf_counter() - began))

    def _reply(self, message: Any) -> None:
        with self.lock:
            self.connection.send(("done", message))

    def fail(self, process: str, trace: str) -> None:
        """Tell the session, once, which process failed and how; it will end us."""
        with self.lock:
            if not self.failed:
                self.failed = True
                self.connection.send(("failed", (process, trace)))

    def watch(self, lifeline: int, parent: int) -> NoReturn:
        """Until the session closes the lifeline or its process has gone, report processes that ended; then end.

        The end is one system call, whatever the main thread is doing: the kernel kills all that it forked, and what it
        is just forking ends by itself. To wait for anything here, or to tidy, could hang.
        """
        try:
            while os.getppid() == parent:
                actors = self.network.actors if self.network and not self.failed else []
                sentinels = {actor.sentinel: (name, actor) for name, actor in actors}
                ready = wait([lifeline, *sentinels], timeout=WATCH_S)
                if lifeline in ready:
                    break
                for sentinel in ready:
                    name, actor = sentinels[sentinel]
                    if trace := _trace(actor):
                        self.fail(name, trace)
        except BaseException:
            traceback.print_exc()  # the session shows what was printed
        finally:
            os._exit(0)


_libc = ctypes.CDLL(None)
_forking = 0  # the process that forks


def _before_fork() -> None:
    global _forking
    _forking = os.getpid()


def _end_with_parent() -> None:
    """In every process that Lava forks: the kernel kills it when its parent ends, however that happens."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != _forking:  # it ended before the kernel knew
        os._exit(1)


def _trace(actor: Any) -> str:
    """The traceback that a process of Lava left, or how it ended; empty while its end is under way."""
    if actor.exception:
        return str(actor.exception[1])
    code = actor.exitcode  # nobody else may wait: Lava's own join has no time-out, and the main thread may be forking
    if code is None:
        return ""
    return f"it ended with {f'signal {signal.Signals(-code).name}' if code < 0 else f'exit status {code}'}"


if __name__ == "__main__":
    main(sys.argv[1:])
