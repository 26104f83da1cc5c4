"""A Plan as Lava processes: built, compiled and stepped. In: images as frames. Out: output frames and records.

It runs in the engine's process alone; Lava forks a process for each leaf from here.
"""

from __future__ import annotations

import gc
from collections import deque
from typing import Any

import numpy as np
import torch
from lava.magma.core.process.message_interface_enum import ActorType
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.runtime.message_infrastructure import multiprocessing as lava_multiprocessing
from lava.magma.runtime.runtime import Runtime
from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel
from lava.proc.io.injector import Injector, PyLoihiInjectorModel

from hw_sim.backends.lava.memory import AnonymousSharedMemory
from hw_sim.backends.lava.plan import CHANNEL_SIZE, Leaf, Outlet, Plan
from hw_sim.backends.lava.processes.group import STARTS_DTYPE, Group, Models, connect_group, make_group
from hw_sim.backends.lava.records import BEGINS, CONTINUES, NOTHING, Feed, Flight

lava_multiprocessing.SharedMemoryManager = AnonymousSharedMemory


class LavaNetwork:
    """The processes of a plan. `compile` starts them; `run` feeds an image or some steps of a sequence, `flush` nothing
    until all is out."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.steps, self.flights = plan, 0, deque[Flight]()
        self.leaves = [leaf for leaf in plan.leaves if isinstance(leaf, Leaf)]
        self.groups: dict[str, Group] = {}
        self.extractors: dict[str, Extractor] = {}
        self.runtime: Any = None
        self.names: list[str] = []

    def compile(self) -> None:
        """Build the processes, let Lava compile them, and start them."""
        models: Models = {}
        plan = self.plan
        self.image = Injector(shape=plan.image.frame_shape, buffer_size=plan.steps, name="image injector")
        models[self.image] = PyLoihiInjectorModel
        ports: dict[str, Any] = {plan.image.name: self.image.out_port}
        for block in plan.blocks:
            connect_group(make_group(block, models), block, ports)
        for value in (outlet.value for outlet in plan.outputs):
            extractor = Extractor(shape=value.frame_shape, buffer_size=plan.steps, name=f"{value.name} extractor")
            ports[value.name].connect(extractor.in_port)
            models[extractor] = PyLoihiExtractorModel
            self.extractors[value.name] = extractor
        config = Loihi2SimCfg(exception_proc_model_map=models)
        executable = self.image.compile(config, {"pypy_channel_size": CHANNEL_SIZE})
        processes = list(executable.proc_builders)
        self.groups = {process.name: process for process in processes if isinstance(process, Group)}
        self.names = [process.name for process in processes]
        _prepare_to_fork()
        self.runtime = Runtime(executable, ActorType.MultiProcessing)
        executable.assign_runtime_to_all_processes(self.runtime)
        self.runtime.initialize()

    @property
    def actors(self) -> list[tuple[str, Any]]:
        """The operating-system processes that Lava has started so far, each with the name of its Lava process."""
        infrastructure = self.runtime._messaging_infrastructure if self.runtime else None
        actors = list(infrastructure.actors) if infrastructure else []
        return list(zip([*self.names, "runtime service"], actors, strict=False))

    @property
    def shared_bytes(self) -> int:
        """What Lava's channels take."""
        return sum(self.runtime._messaging_infrastructure.smm.sizes)

    def answer(self, request: str, argument: Any) -> Any:
        """Serve one request: 'run' a Feed, or 'flush'."""
        return self.run(argument) if request == "run" else self.flush()

    def run(self, feed: Feed) -> list[Flight]:
        """Feed an image (T steps) or some steps of a sequence; returns what came out of the network meanwhile."""
        self.flights.append(Flight(self.steps, feed.steps, {name: [] for name in self.extractors}))
        return self._advance(feed, CONTINUES if feed.continues else BEGINS)

    def flush(self) -> list[Flight]:
        """Run until nothing is on its way; returns what came out."""
        nothing = Feed(np.zeros((1, *self.plan.image.frame_shape)), self.plan.steps)
        done: list[Flight] = []
        while self.flights:
            done += self._advance(nothing, NOTHING)
        return done

    def _advance(self, feed: Feed, entering: int) -> list[Flight]:
        """Some steps: as many frames fit into the pipes, and no process reports more than one Feed in them."""
        for leaf in self.leaves:
            pipe = self.groups[leaf.name].starts.external_pipe_csp_send_port
            pipe.send(np.array([feed.steps, entering], STARTS_DTYPE))
        for step in range(feed.steps):
            self.image.send(np.asarray(feed.frames[min(step, len(feed.frames) - 1)], np.float64))
        self.runtime.start(RunSteps(num_steps=feed.steps))
        before, self.steps = self.steps, self.steps + feed.steps
        sent = {name: [pipe.receive() for _ in range(feed.steps)] for name, pipe in self.extractors.items()}
        for flight in self.flights:
            for outlet in self.plan.outputs:
                first = flight.start + outlet.latency - before  # of its frames, among these; there are at most T
                end = first + self._frames_of(flight, outlet)
                flight.frames[outlet.value.name] += sent[outlet.value.name][max(first, 0) : max(end, 0)]
            for leaf in self.leaves:
                if before < flight.start + leaf.start + flight.steps <= self.steps:
                    flight.records[leaf.name] = self.groups[leaf.name].record.external_pipe_csp_recv_port.recv()
        done: list[Flight] = []
        while self.flights and self._complete(self.flights[0]):
            done.append(self.flights.popleft())
        return done

    def _frames_of(self, flight: Flight, outlet: Outlet) -> int:
        return min(outlet.value.shape[0], flight.steps)

    def _complete(self, flight: Flight) -> bool:
        frames = (
            len(flight.frames[outlet.value.name]) == self._frames_of(flight, outlet) for outlet in self.plan.outputs
        )
        return all(frames) and len(flight.records) == len(self.leaves)


def _prepare_to_fork() -> None:
    """What every process would do at its first step is done once, before they are forked: torch sets itself up.

    One thread, for OpenMP's do not survive a fork. Frozen objects are not touched by the processes' collectors, and
    stay in shared pages.
    """
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float64):
        torch.sigmoid(torch.conv2d(torch.zeros(1, 1, 8, 8, dtype=dtype), torch.zeros(1, 1, 3, 3, dtype=dtype)))
    gc.collect()
    gc.freeze()
