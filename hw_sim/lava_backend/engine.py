"""The engine: the process in which Lava lives, started by a LavaSession and gone with it.

In, over a connection: a Plan, then requests. Out: one reply for each. Nothing that happens here can hang or soil the
process that asked: Lava forks its processes from an interpreter without threads or OpenMP, a failed process is reported
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
from multiprocessing import Process
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from hw_sim.lava_backend.runtime import LavaNetwork

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
        from hw_sim.lava_backend.runtime import LavaNetwork  # Lava and torch: seconds

        os.register_at_fork(after_in_child=_end_with_parent)
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

    def watch(self, lifeline: int, parent: int) -> None:
        """End everything when the session closes the lifeline or its process has gone; report processes that ended."""
        while True:
            actors = self.network.actors if self.network else []
            sentinels = {} if self.failed else {actor.sentinel: (name, actor) for name, actor in actors}
            for ready in wait([lifeline, *sentinels], timeout=WATCH_S):
                if ready == lifeline:
                    self.end()
                name, actor = sentinels[ready]
                self.fail(name, _trace(actor))
            if os.getppid() != parent:
                self.end()

    def end(self) -> NoReturn:
        """Kill Lava's processes, wait for them, and go. Nothing here needs saving, and Lava's stop() can hang."""
        for _, actor in self.network.actors if self.network else []:
            if actor.is_alive():
                os.kill(actor.pid, signal.SIGKILL)
        for _, actor in self.network.actors if self.network else []:
            actor.join()
        os._exit(0)


def _end_with_parent() -> None:
    """In every process that Lava forks: the kernel kills it when the engine ends, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _trace(actor: Any) -> str:
    """The traceback that a process of Lava left, or how it ended."""
    if actor.exception:
        return str(actor.exception[1])
    Process.join(actor, WATCH_S)  # the exit status follows the end by a moment; Lava's own join has no time-out
    code = actor.exitcode
    return f"it ended with {f'signal {signal.Signals(-code).name}' if code and code < 0 else f'exit status {code}'}"


if __name__ == "__main__":
    main(sys.argv[1:])
