"""A Lava process for a group of nodes, and its two models: one program for all of them, or a process for each.

Its ports: `in_<i>` and `out_<i>` for the values of its plan, and, where it is one program, two pipes to the host:
`starts` says how many steps come and what enters the network in them (an image, a sequence's first or next frames,
nothing), `record` tells what became of it. From `starts` each process knows which frame travels with which latency at
any step.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_sim.backends.lava.dataflow import Dataflow
from hw_sim.backends.lava.integer_dataflow import make_dataflow
from hw_sim.backends.lava.plan import CHANNEL_SIZE, Block, Leaf, Outlet, StockLeaf, Wire
from hw_sim.backends.lava.records import CONTINUES, NOTHING, STARTS_BYTES, record_size

STARTS_SHAPE, STARTS_DTYPE = (STARTS_BYTES // 4,), np.int32  # steps, and what enters the network in them
Models = dict[AbstractProcess, type]  # which model runs each process: Lava asks this before it searches files


class Group(AbstractProcess):
    """A block, or one process of a block."""

    def __init__(self, part: Block | Leaf, models: Models) -> None:
        super().__init__(name=part.name, part=part, models=models)
        for index, value in enumerate(part.inputs):
            setattr(self, f"in_{index}", InPort(shape=value.frame_shape))
        for index, value in enumerate(part.outputs):
            setattr(self, f"out_{index}", OutPort(shape=value.frame_shape))
        if isinstance(part, Leaf):
            self.starts = InPort(shape=STARTS_SHAPE)
            self.starts.flag_external_pipe(buffer_size=CHANNEL_SIZE)
            self.record = OutPort(shape=(record_size(part),))
            self.record.flag_external_pipe(buffer_size=CHANNEL_SIZE)


def make_group(part: Block | Leaf, models: Models) -> Group:
    """The process of a block or a leaf, with its model chosen: one program, or a process for each of its leaves."""
    if isinstance(part, Block) and len(part.leaves) == 1 and isinstance(part.leaves[0], Leaf):
        part = part.leaves[0]
    group = Group(part, models)
    models[group] = program_model(part) if isinstance(part, Leaf) else GroupOfProcesses
    return group


def program_model(leaf: Leaf) -> type:
    """The model class of one leaf: Lava wants each port's and variable's type as an attribute of the class."""
    kinds: dict[str, Any] = {"starts": LavaPyType(PyInPort.VEC_DENSE, STARTS_DTYPE)}
    kinds["record"] = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)
    for index, value in enumerate(leaf.inputs):
        kinds[f"in_{index}"] = LavaPyType(PyInPort.VEC_DENSE, np.dtype(value.dtype).type)
    for index, value in enumerate(leaf.outputs):
        kinds[f"out_{index}"] = LavaPyType(PyOutPort.VEC_DENSE, np.dtype(value.dtype).type)
    return type("GroupProgram", (GroupProgram,), kinds)


class Beat(NamedTuple):
    """What travels with a latency at a step: a frame of a Feed of so many steps; negative: none."""

    frame: int = -1
    steps: int = 0
    continues: bool = False


@implements(proc=Group, protocol=LoihiProtocol)
@requires(CPU)
class GroupProgram(PyLoihiProcessModel):
    """One program for all nodes of a group: a Dataflow, with delay lines before it."""

    starts: PyInPort
    record: PyOutPort

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        torch.set_num_threads(1)  # before anything else: a forked process must not use its parent's OpenMP threads
        self.leaf: Leaf = proc_params["part"]
        self.flow: Dataflow | None = None
        self.step, self.steps, self.entering = 0, 0, NOTHING
        self.waiting: list[deque[Any]] = [deque() for _ in self.leaf.wires]  # the delay lines
        self.rest = [np.zeros(value.frame_shape, value.dtype) for value in self.leaf.outputs]
        self.last = list(self.rest)
        latest = max([self.leaf.start, *(outlet.latency for outlet in self.leaf.outlets)])
        self.clock: deque[Beat] = deque([Beat()] * (latest + 1), maxlen=latest + 1)

    def run_spk(self) -> None:
        """One Lava step: receive, compute, send."""
        if self.step == self.steps:
            self.step, (self.steps, self.entering) = 0, self.starts.recv().tolist()
        entering = Beat(self.step, self.steps, self.entering == CONTINUES)
        self.clock.appendleft(Beat() if self.entering == NOTHING else entering)
        self.step += 1
        for index, wire in enumerate(self.leaf.wires):
            self._receive(index, wire)
        with torch.inference_mode():
            self._compute(*self.clock[self.leaf.start])
            for index, outlet in enumerate(self.leaf.outlets):
                self._send(index, outlet)

    def _frame(self, latency: int) -> int:
        """The number of the frame that travels with this latency now; negative if there is none."""
        return self.clock[latency].frame

    def _receive(self, index: int, wire: Wire) -> None:
        there = 0 <= self._frame(wire.latency) < wire.value.shape[0]
        if there or wire.value.every_step:
            data = getattr(self, f"in_{index}").recv().astype(wire.value.dtype, copy=False)
            if there:
                self.waiting[index].append(data)

    def _compute(self, frame: int, steps: int, continues: bool) -> None:
        if frame < 0:
            return
        flow = self._flow()
        if frame == 0:
            flow.begin(steps, continues)
        for wire, waiting in zip(self.leaf.wires, self.waiting, strict=True):
            if frame < wire.value.shape[0]:
                flow.receive(wire.value.name, waiting.popleft())
        flow.advance()
        if frame + 1 == steps:
            if not flow.complete():
                raise RuntimeError(f"{self.leaf.name}: not all frames were computed when the last had come")
            self.record.send(flow.recorder.message)

    def _send(self, index: int, outlet: Outlet) -> None:
        frame, value = self._frame(outlet.latency), outlet.value
        if 0 <= frame < value.shape[0]:
            self.last[index] = self._flow().emit(value.name)
        elif not value.every_step:
            return
        getattr(self, f"out_{index}").send(self.last[index] if frame >= 0 else self.rest[index])

    def _flow(self) -> Dataflow:
        """Made at the first frame, in the process that Lava has forked."""
        if self.flow is None:
            self.flow = make_dataflow(self.leaf)
        return self.flow


@implements(proc=Group, protocol=LoihiProtocol)
class GroupOfProcesses(AbstractSubProcessModel):
    """A process for each leaf of a block, wired as planned."""

    def __init__(self, proc: Group) -> None:
        block: Block = proc.proc_params["part"]
        models: Models = proc.proc_params["models"]
        ports = {value.name: getattr(proc, f"in_{index}") for index, value in enumerate(block.inputs)}
        for number, leaf in enumerate(block.leaves):
            if isinstance(leaf, StockLeaf):
                from hw_sim.backends.lava.processes.stock import connect_stock  # Lava's Conv takes a second to import

                process = connect_stock(leaf, ports, models)
            else:
                process = make_group(leaf, models)
                connect_group(process, leaf, ports)
            setattr(self, f"process_{number}", process)  # Lava finds sub-processes among the attributes
        for index, value in enumerate(block.outputs):
            ports[value.name].connect(getattr(proc, f"out_{index}"))


def connect_group(group: Group, part: Block | Leaf, ports: dict[str, Any]) -> None:
    """Connect the inputs of a process to the ports that offer them, and add its outputs to those."""
    for index, value in enumerate(part.inputs):
        ports[value.name].connect(getattr(group, f"in_{index}"))
    for index, value in enumerate(part.outputs):
        ports[value.name] = getattr(group, f"out_{index}")
