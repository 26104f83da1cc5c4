"""The session: a network compiled once on Lava's CPU simulator, then fed with images. In: images. Out: Results.

Lava itself runs in a process of its own (engine.py); this side sends images and understands what the processes report.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import UserError
from export.graph.counting import NodeCounts, count_node, operands_of
from export.graph.frames import check_image, output_of
from export.graph.network import Network
from export.graph.nodes import NetworkError, Node
from hw_sim.backends.lava.host import EngineProcess, LavaError, check_available
from hw_sim.backends.lava.memory import check_memory
from hw_sim.backends.lava.plan import Leaf, Model, Plan, make_plan, needs_all_frames
from hw_sim.backends.lava.records import read_record
from hw_sim.backends.result import Result

TIMEOUT_S = 300.0  # for the start, and again for each image


class LavaSession:
    """A network on Lava for images of one size. Use it in a `with`, or call `close`.

    `precision`: float32 or float64. `model`: 'fused', a process per block, or 'fine', a process per operation. `stock`:
    Lava's own Conv and LIFReset wherever they can express a node, float64 only. `plan`: one that was made by other
    rules. `timeout_s` bounds the start and each image. UserError: no Lava here, too little memory, a time-out.
    LavaError: something failed inside Lava.

    `facts`, what only Lava can know: `processes` (of the operating system), `shared_bytes` (Lava's channels), `latency`
    and `steps` (Lava time steps), `images`, and in seconds `start_s` (a Python with Lava), `compile_s` and `run_s`.
    """

    def __init__(
        self,
        network: Network,
        size: tuple[int, int],
        *,
        precision: str = "float32",
        model: Model = "fused",
        stock: bool = False,
        timeout_s: float = TIMEOUT_S,
        plan: Plan | None = None,
    ) -> None:
        check_available()
        if stock and precision != "float64":
            raise UserError(f"Lava: its own Conv and LIF compute in float64, not {precision}; use --precision float64")
        self.network, self.precision, self.timeout_s = network, precision, timeout_s
        self.plan = plan or make_plan(network, size, precision=precision, model=model, stock=stock)
        self.leaves = [leaf for leaf in self.plan.leaves if isinstance(leaf, Leaf)]
        check_memory(self.plan)
        self.facts: dict[str, Any] = {"latency": self.plan.latency, "steps": 0, "images": 0, "run_s": 0.0}
        self._engine = EngineProcess()
        self._asked = False  # whether a reply is on its way
        self.close = weakref.finalize(self, self._engine.end)
        began = time.perf_counter()
        self._ask(self.plan)
        self.facts |= self._reply("the start")
        self.facts["start_s"] = time.perf_counter() - began - self.facts["compile_s"]

    def __enter__(self) -> LavaSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, image: NDArray[np.floating[Any]]) -> Result:
        """One image (channels, H, W); returns when it has passed through the whole network."""
        (result,) = self.stream([image])
        return result

    def stream(self, images: Iterable[NDArray[np.floating[Any]]]) -> Iterator[Result]:
        """Images back to back, T steps each, many of them inside the network at once. Results come in order."""
        finished: list[Any] = []
        try:
            for image in images:
                self._ask(("run", self._frame(image)))
                yield from map(self._result, finished)  # while Lava works on the next one
                finished = self._work()
            self._ask(("flush", None))
            yield from map(self._result, finished)
            yield from map(self._result, self._work())
        except (Exception, GeneratorExit):  # a bad image, or a caller who wants no more: it must be empty for the next
            self._drain()
            raise
        except KeyboardInterrupt:
            self.close()
            raise

    def _frame(self, image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """What is fed to the network for an image, once it has been checked."""
        if image.shape != self.plan.image.frame_shape:
            expected = self.plan.image.frame_shape
            raise NetworkError(f"{self.network.name}: image of shape {image.shape}, this session takes {expected}")
        check_image(self.network, image)
        return image

    def _ask(self, request: Any) -> None:
        self._engine.send(request)
        self._asked = True

    def _reply(self, what: str) -> Any:
        """The engine's reply; a failure or a time-out ends the session and is raised."""
        try:
            reply = self._engine.receive(self.timeout_s, what)
        except BaseException:  # Ctrl-C too: an engine that nobody listens to any more must not live on
            self.close()
            raise
        self._asked = False
        return reply

    def _work(self) -> Any:
        """The reply to a request, with what it cost noted in the facts."""
        reply, self.facts["steps"], seconds = self._reply(f"image {self.facts['images'] + 1}")
        self.facts["run_s"] += seconds
        return reply

    def _drain(self) -> None:
        """Take what is on its way, so that nothing is left in the network."""
        if self.close.alive:
            if self._asked:
                self._work()
            self._ask(("flush", None))
            self._work()

    def _result(self, flight: Any) -> Result:
        """Output, spikes and counts of one image, as the processes reported them."""
        spikes: dict[str, NDArray[np.bool_]] = {}
        received: dict[str, NDArray[np.int64]] = {}
        for leaf in self.leaves:
            record = read_record(leaf, flight.records[leaf.name])
            spikes.update(record.spikes)
            received.update(record.received)
            for node in leaf.nodes:
                expected = 1 if needs_all_frames(node) else leaf.shapes[node.name][0]
                if record.runs[node.name] != expected:
                    raise LavaError(f"{node.name}: it ran {record.runs[node.name]} times for an image, not {expected}")
        counts = {node.name: self._count(node, spikes, received) for node in self.network.nodes}
        self.facts["images"] += 1
        ordered = {node.name: spikes[node.name] for node in self.network.neurons}
        output = output_of(np.stack(flight.frames)).astype(self.precision)
        return Result(output, ordered, counts, self.plan.image.frame_shape[1:])

    def _count(
        self, node: Node, spikes: dict[str, NDArray[np.bool_]], received: dict[str, NDArray[np.int64]]
    ) -> NodeCounts:
        fired = spikes[node.name].sum((1, 2, 3), dtype=np.int64) if node.name in spikes else None
        operands = operands_of(self.network, self.plan.shapes, node, received.get(node.name), fired)
        return count_node(node, operands)
