"""The session: a network compiled once on Lava's CPU simulator, then fed. In: images or sequences. Out: Results.

Lava itself runs in a process of its own (engine.py); this side sends images and understands what the processes report.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import UserError
from export.graph.frames import check_image, check_sequence, output_of
from export.graph.network import Network
from export.graph.nodes import NetworkError
from hw_sim.backends.lava.collected import Collected
from hw_sim.backends.lava.host import EngineProcess, check_available
from hw_sim.backends.lava.memory import check_memory
from hw_sim.backends.lava.plan import Model, Plan, make_plan
from hw_sim.backends.lava.records import Feed, Flight
from hw_sim.backends.result import Result

Taken = TypeVar("Taken")
TIMEOUT_S = 300.0  # for the start, and again for each image


class LavaSession:
    """A network on Lava for images or sequences of one size (H, W). Use it in a `with`, or call `close`.

    `precision`: float32 or float64. `model`: 'fused', a process per block, or 'fine', a process per operation. `stock`:
    Lava's own Conv and LIFReset wherever they can express a node, float64 only. `plan`: one that was made by other
    rules. `timeout_s` bounds the start, each image, and `plan.steps` steps of a sequence. UserError: no Lava here, too
    little memory, a time-out. NetworkError: what Lava cannot express. LavaError: something failed inside Lava.

    `facts`, what only Lava can know: `processes` (of the operating system), `shared_bytes` (Lava's channels), `latency`
    and `steps` (Lava time steps), `images` or `sequences`, and in seconds `start_s` (a Python with Lava), `compile_s`
    and `run_s`.
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
        check_memory(self.plan)
        self.facts: dict[str, Any] = {"latency": self.plan.latency, "steps": 0, "run_s": 0.0}
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
        numbered = enumerate(images, 1 + self.facts.get("images", 0))
        feeds = ((f"image {number}", Feed(self._frame(image)[None], self.plan.steps)) for number, image in numbered)
        return self._fly(feeds, self._result)

    def run_sequence(self, frames: NDArray[Any], *, keep_spikes: bool = True) -> Result:
        """A frame for every step, (T, *shape of the network's input), from fresh states; or the one frame of a network
        that shows itself the same at every step. As `simulator.run_sequence`, and bounded in memory like that."""
        frames = self._frames(frames)
        collected = Collected(self.network, self.plan, self.precision, keep_spikes)
        for _ in self._fly(self._feeds(frames), collected.add):
            pass
        self._done("sequences")
        return collected.result(lambda values: values)

    def _fly(self, feeds: Iterable[tuple[str, Feed]], take: Callable[[Flight], Taken]) -> Iterator[Taken]:
        """What `take` makes of all that comes out of the network, in order; meanwhile Lava works on the next."""
        finished: list[Flight] = []
        try:
            for name, feed in feeds:
                self._ask(("run", feed))
                yield from map(take, finished)
                finished = self._work(name)
            self._ask(("flush", None))
            yield from map(take, finished)
            yield from map(take, self._work("the last image"))
        except (Exception, GeneratorExit):  # a bad image, or a caller who wants no more: it must be empty for the next
            self._drain()
            raise
        except KeyboardInterrupt:
            self.close()
            raise

    def _frame(self, image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """What is fed to the network for an image, once it has been checked."""
        if self.network.input.every_step:
            raise NetworkError(f"{self.network.name}: takes a frame for every step, found one image; run_sequence does")
        if image.shape != self.plan.image.frame_shape:
            expected = self.plan.image.frame_shape
            raise NetworkError(f"{self.network.name}: image of shape {image.shape}, this session takes {expected}")
        check_image(self.network, image)
        return image

    def _frames(self, frames: NDArray[Any]) -> NDArray[Any]:
        """A sequence as (T, C, H, W), once it has been checked."""
        name, plan = self.network.name, self.plan
        frames = check_sequence(self.network, frames)
        if frames.shape[1:] != plan.image.frame_shape:
            expected = plan.image.frame_shape
            raise NetworkError(f"{name}: frames of shape {frames.shape[1:]}, this session takes {expected}")
        if len(frames) != plan.image.shape[0] and not plan.any_length:
            raise NetworkError(
                f"{name}: {len(frames)} steps, this session takes {plan.steps}, since a node looks at all of them, or"
                " Lava's own neurons; open one for network.with_steps"
            )
        return frames

    def _feeds(self, frames: NDArray[Any]) -> Iterator[tuple[str, Feed]]:
        most = self.plan.steps
        if not self.plan.any_length:
            yield f"a sequence of {most} steps", Feed(frames, most)
            return
        for start in range(0, len(frames), most):
            some = frames[start : start + most]
            yield f"steps {start + 1} to {start + len(some)}", Feed(some, len(some), continues=start > 0)

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

    def _work(self, what: str) -> list[Flight]:
        """The reply to a request, with what it cost noted in the facts."""
        flights: list[Flight]
        flights, self.facts["steps"], seconds = self._reply(what)
        self.facts["run_s"] += seconds
        return flights

    def _drain(self) -> None:
        """Take what is on its way, so that nothing is left in the network."""
        if self.close.alive:
            if self._asked:
                self._work("what was under way")
            self._ask(("flush", None))
            self._work("what was under way")

    def _result(self, flight: Flight) -> Result:
        """Output, spikes and counts of one image, as the processes reported them."""
        collected = Collected(self.network, self.plan, self.precision)
        collected.add(flight)
        self._done("images")
        return collected.result(output_of)

    def _done(self, what: str) -> None:
        self.facts[what] = self.facts.get(what, 0) + 1
