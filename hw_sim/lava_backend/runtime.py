"""A Plan as Lava processes: built, compiled and stepped. In: images as frames. Out: output frames and records.

It runs in the engine's process alone; Lava forks a process for each leaf from here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lava.magma.core.process.message_interface_enum import ActorType
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.runtime.message_infrastructure import multiprocessing as lava_multiprocessing
from lava.magma.runtime.runtime import Runtime
from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel
from lava.proc.io.injector import Injector, PyLoihiInjectorModel
from numpy.typing import NDArray

from hw_sim.lava_backend.memory import AnonymousSharedMemory
from hw_sim.lava_backend.plan import CHANNEL_SIZE, Leaf, Plan
from hw_sim.lava_backend.processes.group import Group, Models, connect_group, make_group
from hw_sim.lava_backend.records import Bytes

lava_multiprocessing.SharedMemoryManager = AnonymousSharedMemory


@dataclass
class Flight:
    """An image on its way: the step before its first, and what has come out so far."""

    start: int
    output: NDArray[np.float64] | None = None
    records: dict[str, Bytes] = field(default_factory=dict)


class LavaNetwork:
    """The processes of a plan. `compile` starts them; `run` feeds one image, `flush` none until all images are out."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.steps, self.flights = plan, 0, deque[Flight]()
        self.leaves = [leaf for leaf in plan.leaves if isinstance(leaf, Leaf)]
        self.groups: dict[str, Group] = {}
        self.runtime: Runtime | None = None
        self.names: list[str] = []

    def compile(self) -> None:
        """Build the processes, let Lava compile them, and start them."""
        models: Models = {}
        plan = self.plan
        self.image = Injector(shape=plan.image.frame_shape, buffer_size=plan.steps, name="image injector")
        self.line = Injector(shape=(1,), buffer_size=plan.steps, name="frame line injector")
        self.extractor = Extractor(shape=plan.output.frame_shape, buffer_size=plan.steps, name="output extractor")
        models.update({self.image: PyLoihiInjectorModel, self.line: PyLoihiInjectorModel})
        models[self.extractor] = PyLoihiExtractorModel
        ports: dict[str, Any] = {plan.image.name: self.image.out_port}
        for block in plan.blocks:
            connect_group(make_group(block, models), block, self.line.out_port, ports)
        ports[plan.output.name].connect(self.extractor.in_port)
        config = Loihi2SimCfg(exception_proc_model_map=models)
        executable = self.line.compile(config, {"pypy_channel_size": CHANNEL_SIZE})
        processes = list(executable.proc_builders)
        self.groups = {process.name: process for process in processes if isinstance(process, Group)}
        self.names = [process.name for process in processes]
        self.runtime = Runtime(executable, ActorType.MultiProcessing)
        executable.assign_runtime_to_all_processes(self.runtime)
        self.runtime.initialize()

    @property
    def actors(self) -> list[tuple[str, Any]]:
        """The operating-system processes that Lava has started so far, each with the name of its Lava process."""
        infrastructure = self.runtime._messaging_infrastructure if self.runtime else None
        actors = list(infrastructure.actors) if infrastructure else []
        return list(zip([*self.names, "runtime service"], actors, strict=False))

    def answer(self, request: str, argument: Any) -> Any:
        """Serve one request: 'run' an image, 'flush', or read the 'membrane' of a neuron."""
        if request == "run":
            return self.run(argument)
        return self.flush() if request == "flush" else self.membrane(argument)

    def run(self, image: NDArray[np.floating]) -> list[Flight]:
        """Feed one image (C, H, W), T steps; returns the images that came out meanwhile."""
        self.flights.append(Flight(self.steps))
        return self._advance(image, range(1, self.plan.steps + 1))

    def flush(self) -> list[Flight]:
        """Run until nothing is on its way; returns the images that came out."""
        done: list[Flight] = []
        while self.flights:
            done += self._advance(np.zeros(self.plan.image.frame_shape), [0] * self.plan.steps)
        return done

    def _advance(self, image: NDArray[np.floating], line: Any) -> list[Flight]:
        """T steps: as many frames fit into the pipes, and no process reports more than one image in them."""
        for mark in line:
            self.line.send(np.array([mark], np.float64))
            self.image.send(np.asarray(image, np.float64))
        self.runtime.start(RunSteps(num_steps=self.plan.steps))
        before, self.steps = self.steps, self.steps + self.plan.steps
        outputs = [self.extractor.receive() for _ in range(self.plan.steps)]
        for flight in self.flights:
            first = flight.start + self.plan.latency
            if before <= first < self.steps:
                flight.output = outputs[first - before]
            for leaf in self.leaves:
                if before < flight.start + leaf.start + self.plan.steps <= self.steps:
                    flight.records[leaf.name] = self.groups[leaf.name].record.external_pipe_csp_recv_port.recv()
        done: list[Flight] = []
        while self.flights and self._complete(self.flights[0]):
            done.append(self.flights.popleft())
        return done

    def _complete(self, flight: Flight) -> bool:
        return flight.output is not None and len(flight.records) == len(self.leaves)

    def membrane(self, neuron: str) -> NDArray[np.floating]:
        """The Lava variable `v` of a neuron's process: its membranes after the last step (C, H, W)."""
        return np.asarray(self.groups[neuron].v.get())
