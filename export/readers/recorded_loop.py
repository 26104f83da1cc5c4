"""The one step that a recorded run repeats. In: a Recording. Out: what each module reads, now or of the step before.

Every step of the run is held against this one; a run whose steps differ has no graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.graph.nodes import NetworkError
from export.readers.recording import Applied, Call, Frame, Given, Origin, Recording, Value


@dataclass(frozen=True)
class Source:
    """A value within one step. kind: 'frame' (the input), 'now', 'before' (of the last step), 'once' (of a module that
    ran once for all steps), 'zero', or 'applied' (a function of sources). name: the module or function."""

    kind: str
    name: str = ""
    port: str = "out"
    inputs: tuple[Source, ...] = ()
    options: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Loop:
    """What repeats. reads: what each module reads, by module in the order of a step; once: those that ran once.
    shapes: of what each module gives, without the batch; outputs: what the run returned, all steps of it."""

    steps: int
    static: bool
    reads: dict[str, Source]
    once: frozenset[str]
    shapes: dict[str, tuple[int, ...]]
    outputs: tuple[Source, ...]


def fold(recording: Recording, static: bool) -> Loop:
    """The loop of a run; `static`: it was given one frame for all steps. NetworkError where its steps differ."""
    steps = len(next(iter(recording.spikes.values())))
    if steps < 2:
        raise NetworkError(f"input: {steps} step, expected two or more: one step does not show what it remembers")
    once = frozenset(name for name, calls in recording.calls.items() if len(calls) == 1)
    folder = _Folder(steps, once, static)
    reads = {}
    for name, calls in recording.calls.items():
        if len(calls) not in (1, steps):
            raise NetworkError(
                f"{name}: called {len(calls)} times in {steps} steps, expected once a step; give each use"
            )
        reads[name] = folder.fold_calls(name, calls)
    shapes = {name: calls[0].shape[1:] for name, calls in recording.calls.items()}
    outputs = (folder.fold_output(number, stream) for number, stream in enumerate(recording.outputs))
    found = tuple(source for source in outputs if source is not None)
    if not found:
        raise NetworkError("output: the run returns no value of every step; return what the last layer gives, stacked")
    return Loop(steps, static, reads, once, shapes, found)


class _Folder:
    def __init__(self, steps: int, once: frozenset[str], static: bool) -> None:
        self.steps, self.once, self.static = steps, once, static

    def fold_calls(self, name: str, calls: list[Call]) -> Source:
        """What a module reads in every step."""
        if name in self.once:
            return self._at(name, calls[0].inputs[0], None)
        found = [self._at(name, call.inputs[0], step) for step, call in enumerate(calls)]
        self._check_alike(name, found)
        for step, call in enumerate(calls):
            for state in call.states:
                own = isinstance(state, Value) and (state.module, state.call) == (name, step - 1)
                if not own and not (step == 0 and state == Given(zero=True)):
                    expected = "zeros" if step == 0 else "its own of the step before"
                    raise NetworkError(f"{name}: its state at step {step} is not {expected}; states pass by unchanged")
        return found[-1]

    def fold_output(self, number: int, stream: tuple[Origin, ...]) -> Source | None:
        """A returned value: all steps stacked or listed; states of the last step are none."""
        origins = stream
        if len(stream) == 1 and isinstance(stream[0], Applied) and stream[0].function == "stack":
            origins = stream[0].inputs
        if len(origins) == self.steps:
            found = [self._at(f"output {number}", origin, step) for step, origin in enumerate(origins)]
            self._check_alike(f"output {number}", found)
            return found[-1]
        last = origins[0]
        if isinstance(last, Value) and last.call == self.steps - 1 and len(origins) == 1:
            return None
        made = f"torch function {last.function}" if isinstance(last, Applied) else "one step"
        raise NetworkError(f"output {number}: {made} over time, expected a value of every step, stacked or in a list")

    def _check_alike(self, name: str, found: list[Source]) -> None:
        for step, source in enumerate(found):
            if not _matches(source, found[-1], first=step == 0):
                raise NetworkError(f"{name}: reads other values at step {step} than at step {self.steps - 1}")

    def _at(self, name: str, origin: Origin, step: int | None) -> Source:
        if isinstance(origin, Given):
            if not origin.zero:
                raise NetworkError(f"{name}: reads a tensor that no known module made, and that is not zero")
            return Source("zero")
        if isinstance(origin, Applied):
            if Given(zero=False) in origin.inputs:
                raise NetworkError(
                    f"{name}: torch function {origin.function} reads a tensor that no known module made, such as a"
                    " parameter; use the module that holds it"
                )
            inputs = tuple(self._at(name, one, step) for one in origin.inputs)
            return Source("applied", origin.function, "out", inputs, origin.options)
        if isinstance(origin, Frame):
            if origin.step != (None if self.static else step):
                which = "all steps at once" if origin.step is None else f"step {origin.step}"
                raise NetworkError(f"{name}: reads the input of {which} at step {step}, expected that step's")
            return Source("frame")
        if origin.module in self.once:
            return Source("once", origin.module, origin.port)
        lag = 0 if step is None else step - origin.call
        if lag not in (0, 1):
            raise NetworkError(f"{name}: reads {origin.module} of {lag} steps before, expected this step or the last")
        return Source("before" if lag else "now", origin.module, origin.port)


def _matches(source: Source, later: Source, first: bool) -> bool:
    """Whether two steps read alike; before the first there is nothing: zeros."""
    if first and source.kind == "zero":
        return later.kind in ("before", "zero")
    same = (source.kind, source.name, source.port, source.options) == (
        later.kind, later.name, later.port, later.options,
    )  # fmt: skip
    same = same and len(source.inputs) == len(later.inputs)
    return same and all(_matches(one, other, first) for one, other in zip(source.inputs, later.inputs, strict=True))
