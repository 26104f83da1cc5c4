"""A plan played without Lava: each process stepped at the times that the plan states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hw_sim.backends.lava.integer_dataflow import make_dataflow
from hw_sim.backends.lava.plan import Leaf, Plan
from hw_sim.backends.lava.records import Feed, Flight


def play(plan: Plan, feeds: Sequence[Feed]) -> list[Flight]:
    """What comes out for Feeds back to back."""
    starts = np.cumsum([0, *(feed.steps for feed in feeds)])
    messages: dict[tuple[str, int], np.ndarray] = {}  # (value, step) -> the frame sent in that step
    for feed, first in zip(feeds, starts, strict=False):
        for frame, pixels in enumerate(feed.frames):
            messages[plan.image.name, first + frame] = pixels

    def at(step: int) -> tuple[int, int]:
        """Number of the Feed that enters at a step, and its frame; -1 if none does."""
        number = int(np.searchsorted(starts, step, "right")) - 1
        return (number, step - int(starts[number])) if 0 <= number < len(feeds) else (-1, -1)

    flights = [Flight(int(first), feed.steps, {}) for feed, first in zip(feeds, starts, strict=False)]
    for leaf in plan.leaves:  # topological order: all that a process will receive has been sent
        assert isinstance(leaf, Leaf)
        flow = make_dataflow(leaf)
        for step in range(max([leaf.start, *(outlet.latency for outlet in leaf.outlets)]) + int(starts[-1])):
            number, frame = at(step - leaf.start)
            if number >= 0:
                if frame == 0:
                    flow.begin(feeds[number].steps, feeds[number].continues)
                for wire in leaf.wires:
                    if frame < wire.value.shape[0]:
                        dtype = wire.value.dtype
                        flow.receive(wire.value.name, messages[wire.value.name, step - wire.delay].astype(dtype))
                flow.advance()
                if frame + 1 == feeds[number].steps:
                    assert flow.complete()
                    flights[number].records[leaf.name] = flow.recorder.message.copy()
            for outlet in leaf.outlets:
                number, frame = at(step - outlet.latency)
                if number >= 0 and frame < outlet.value.shape[0]:
                    messages[outlet.value.name, step] = flow.emit(outlet.value.name)
        assert not any(flow.outbox.values())
    for flight in flights:
        for outlet in plan.outputs:
            first = flight.start + outlet.latency
            frames = range(first, first + min(flight.steps, outlet.value.shape[0]))
            flight.frames[outlet.value.name] = [messages[outlet.value.name, step] for step in frames]
    return flights
