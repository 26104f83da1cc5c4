"""A Lava process for a group of nodes, and its two models: one program for all of them, or a process for each.

Its ports: `in_<i>` and `out_<i>` for the values of its plan, `line` for the frame line, and, where it is one program,
`record`, a pipe to the host. The frame line says in each step which frame of an image enters the network: t + 1 for
frame t, 0 for none. Each process delays it by its own start; that is its clock.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from export.network import Neuron
from hw_sim.lava_backend.dataflow import Dataflow, NeuronState
from hw_sim.lava_backend.plan import CHANNEL_SIZE, Block, Leaf, StockLeaf
from hw_sim.lava_backend.records import record_size

Models = dict[AbstractProcess, type]  # which model runs each process: Lava asks this before it searches files


class Group(AbstractProcess):  # type: ignore[misc]
    """A block, or one process of a block. Membranes of a single neuron node are the Lava variables `v` and `u`."""

    def __init__(self, part: Block | Leaf, models: Models) -> None:
        super().__init__(name=part.name, part=part, models=models)
        for index, value in enumerate(part.inputs):
            setattr(self, f"in_{index}", InPort(shape=value.frame_shape))
        for index, value in enumerate(part.outputs):
            setattr(self, f"out_{index}", OutPort(shape=value.frame_shape))
        self.line = InPort(shape=(1,))
        if isinstance(part, Leaf):
            self.record = OutPort(shape=(record_size(part),))
            self.record.flag_external_pipe(buffer_size=CHANNEL_SIZE)
            if part.membrane:
                shape = part.shapes[part.nodes[0].name][1:]
                self.v, self.u = Var(shape=shape, init=0), Var(shape=shape, init=0)


def make_group(part: Block | Leaf, models: Models) -> Group:
    """The process of a block or a leaf, with its model chosen: one program, or a process for each of its leaves."""
    if isinstance(part, Block) and len(part.leaves) == 1 and isinstance(part.leaves[0], Leaf):
        part = part.leaves[0]
    group = Group(part, models)
    models[group] = program_model(part) if isinstance(part, Leaf) else GroupOfProcesses
    return group


def program_model(leaf: Leaf) -> type:
    """The model class of one leaf: Lava wants each port's and variable's type as an attribute of the class."""
    kinds: dict[str, Any] = {"line": LavaPyType(PyInPort.VEC_DENSE, float)}
    kinds["record"] = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)
    for index, value in enumerate(leaf.inputs):
        kinds[f"in_{index}"] = LavaPyType(PyInPort.VEC_DENSE, np.dtype(value.dtype).type)
    for index, value in enumerate(leaf.outputs):
        kinds[f"out_{index}"] = LavaPyType(PyOutPort.VEC_DENSE, np.dtype(value.dtype).type)
    if leaf.membrane:
        number = np.dtype(leaf.precision).type
        kinds["v"], kinds["u"] = LavaPyType(np.ndarray, number), LavaPyType(np.ndarray, number)
    return type("GroupProgram", (GroupProgram,), kinds)


@implements(proc=Group, protocol=LoihiProtocol)
@requires(CPU)
class GroupProgram(PyLoihiProcessModel):  # type: ignore[misc]
    """One program for all nodes of a group: a Dataflow, with delay lines before it."""

    line: PyInPort
    record: PyOutPort

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        torch.set_num_threads(1)  # before anything else: a forked process must not use its parent's OpenMP threads
        self.leaf: Leaf = proc_params["part"]
        self.flow: Dataflow | None = None
        self.delays: list[deque[Any]] = [deque() for _ in self.leaf.wires]
        self.rest = [np.zeros(value.frame_shape, value.dtype) for value in self.leaf.outputs]
        latest = max([self.leaf.start, *(outlet.latency for outlet in self.leaf.outlets)])
        self.clock: deque[int] = deque([0] * (latest + 1), maxlen=latest + 1)

    def run_spk(self) -> None:
        """One Lava step: receive, compute, send."""
        self.clock.appendleft(int(self.line.recv()[0]))
        frames = [self._delayed(index) for index in range(len(self.leaf.wires))]
        with torch.inference_mode():
            self._compute(self.clock[self.leaf.start] - 1, frames)
            for index, outlet in enumerate(self.leaf.outlets):
                frame = self.clock[outlet.latency] - 1
                data = self.rest[index] if frame < 0 else self._flow().emit(outlet.value.name, frame)
                getattr(self, f"out_{index}").send(data)

    def _delayed(self, index: int) -> Any:
        """What came in `delay` steps ago."""
        wire, line = self.leaf.wires[index], self.delays[index]
        line.append(getattr(self, f"in_{index}").recv().astype(wire.value.dtype, copy=False))
        return line.popleft() if len(line) > wire.delay else None

    def _compute(self, frame: int, inputs: list[Any]) -> None:
        if frame < 0:
            return
        flow = self._flow()
        if frame == 0:
            flow.begin()
        for wire, data in zip(self.leaf.wires, inputs, strict=True):
            flow.receive(wire.value.name, data)
        flow.advance()
        if frame + 1 == self.leaf.steps:
            if not flow.complete():
                raise RuntimeError(f"{self.leaf.name}: not all frames were computed when the last had come")
            self.record.send(flow.recorder.message)

    def _flow(self) -> Dataflow:
        """Made at the first frame, when Lava has put its variables in place."""
        if self.flow is None:
            node = self.leaf.nodes[0] if self.leaf.membrane else None
            states = {node.name: NeuronState(node, self.v, self.u)} if isinstance(node, Neuron) else {}
            self.flow = Dataflow(self.leaf, states)
        return self.flow


@implements(proc=Group, protocol=LoihiProtocol)
class GroupOfProcesses(AbstractSubProcessModel):  # type: ignore[misc]
    """A process for each leaf of a block, wired as planned."""

    def __init__(self, proc: Group) -> None:
        block: Block = proc.proc_params["part"]
        models: Models = proc.proc_params["models"]
        ports = {value.name: getattr(proc, f"in_{index}") for index, value in enumerate(block.inputs)}
        for number, leaf in enumerate(block.leaves):
            if isinstance(leaf, StockLeaf):
                from hw_sim.lava_backend.processes.stock import connect_stock  # Lava's Conv takes a second to import

                process = connect_stock(leaf, ports, models)
            else:
                process = make_group(leaf, models)
                connect_group(process, leaf, proc.line, ports)
            setattr(self, f"process_{number}", process)  # Lava finds sub-processes among the attributes
        for index, value in enumerate(block.outputs):
            ports[value.name].connect(getattr(proc, f"out_{index}"))


def connect_group(group: Group, part: Block | Leaf, line: Any, ports: dict[str, Any]) -> None:
    """Connect the inputs of a process to the ports that offer them, and add its outputs to those."""
    line.connect(group.line)
    for index, value in enumerate(part.inputs):
        ports[value.name].connect(getattr(group, f"in_{index}"))
    for index, value in enumerate(part.outputs):
        ports[value.name] = getattr(group, f"out_{index}")
