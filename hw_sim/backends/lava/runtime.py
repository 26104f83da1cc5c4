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
from numpy.typing import NDArray

from hw_sim.backends.lava.memory import AnonymousSharedMemory
from hw_sim.backends.lava.plan import CHANNEL_SIZE, Leaf, Plan
from hw_sim.backends.lava.processes.group import Group, Models, connect_group, make_group
from hw_sim.backends.lava.records import Flight

lava_multiprocessing.SharedMemoryManager = AnonymousSharedMemory


class LavaNetwork:
    """The processes of a plan. `compile` starts them; `run` feeds one image, `flush` none until all images are out."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.steps, self.flights = plan, 0, deque[Flight]()
        self.leaves = [leaf for leaf in plan.leaves if isinstance(leaf, Leaf)]
        self.groups: dict[str, Group] = {}
        self.runtime: Any = None
        self.names: list[str] = []

    def compile(self) -> None:
        """Build the processes, let Lava compile them, and start them."""
        models: Models = {}
        plan = self.plan
        self.image = Injector(shape=plan.image.frame_shape, buffer_size=plan.steps, name="image injector")
        self.extractor = Extractor(shape=plan.output.frame_shape, buffer_size=plan.steps, name="output extractor")
        models.update({self.image: PyLoihiInjectorModel, self.extractor: PyLoihiExtractorModel})
        ports: dict[str, Any] = {plan.image.name: self.image.out_port}
        for block in plan.blocks:
            connect_group(make_group(block, models), block, ports)
        ports[plan.output.name].connect(self.extractor.in_port)
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
        """Serve one request: 'run' an image, or 'flush'."""
        return self.run(argument) if request == "run" else self.flush()

    def run(self, image: NDArray[np.floating[Any]]) -> list[Flight]:
        """Feed one image (C, H, W), T steps; returns the images that came out meanwhile."""
        self.flights.append(Flight(self.steps))
        return self._advance(image, True)

    def flush(self) -> list[Flight]:
        """Run until nothing is on its way; returns the images that came out."""
        done: list[Flight] = []
        while self.flights:
            done += self._advance(np.zeros(self.plan.image.frame_shape), False)
        return done

    def _advance(self, image: NDArray[np.floating[Any]], starts: bool) -> list[Flight]:
        """T steps: as many frames fit into the pipes, and no process reports more than one image in them."""
        for leaf in self.leaves:
            self.groups[leaf.name].starts.external_pipe_csp_send_port.send(np.array([starts], np.uint8))
        for _ in range(self.plan.steps):
            self.image.send(np.asarray(image, np.float64))
        self.runtime.start(RunSteps(num_steps=self.plan.steps))
        before, self.steps = self.steps, self.steps + self.plan.steps
        outputs = [self.extractor.receive() for _ in range(self.plan.steps)]
        for flight in self.flights:
            first = flight.start + self.plan.latency - before  # of its frames, among these outputs; there are at most T
            flight.frames += outputs[max(first, 0) : max(first + self.plan.output.shape[0], 0)]
            for leaf in self.leaves:
                if before < flight.start + leaf.start + self.plan.steps <= self.steps:
                    flight.records[leaf.name] = self.groups[leaf.name].record.external_pipe_csp_recv_port.recv()
        done: list[Flight] = []
        while self.flights and self._complete(self.flights[0]):
            done.append(self.flights.popleft())
        return done

    def _complete(self, flight: Flight) -> bool:
        return len(flight.frames) == self.plan.output.shape[0] and len(flight.records) == len(self.leaves)


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
