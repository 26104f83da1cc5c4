"""Sequences: what the processes compute without Lava, and the real Lava, equal the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph.network import Network
from hw_sim.backends import simulator
from hw_sim.backends.lava import plan as planning
from hw_sim.backends.lava.collected import Collected
from hw_sim.backends.lava.partition import takes_any_length
from hw_sim.backends.lava.plan import make_plan
from hw_sim.backends.lava.records import Feed
from hw_sim.backends.result import Result, compare
from tests.hw_sim.backends.lava.play import play
from tests.hw_sim.backends.lava.random_sequences import SIDE, sequence_networks


def check(expected: Result, found: Result) -> None:
    comparison = compare(expected, found)
    assert comparison.equal_spikes, comparison
    assert set(found.counts) == set(expected.counts)
    assert np.array_equal(found.output, expected.output)
    assert found.outputs.keys() == expected.outputs.keys()
    assert all(np.array_equal(found.outputs[name], expected.outputs[name]) for name in expected.outputs)


def play_sequences(network: Network, sequences: Sequence[np.ndarray], model: str) -> Iterator[Result]:
    """Sequences one after the other through the same processes, some steps at a time."""
    plan = make_plan(network, (SIDE, SIDE), model=model)
    feeds = [
        Feed(part := frames[start : start + plan.steps], len(part), continues=start > 0)
        for frames in sequences
        for start in range(0, len(frames), plan.steps)
    ]
    flights = iter(play(plan, feeds))
    for frames in sequences:
        collected = Collected(network, plan, "float64")
        for _ in range(0, len(frames), plan.steps):
            collected.add(next(flights))
        yield collected.result(lambda values: values)


@settings(max_examples=80, deadline=None)
@given(drawn=sequence_networks(), model=st.sampled_from(["fused", "fine"]), at_once=st.integers(1, 4))
def test_random_networks_give_what_the_simulator_gives(drawn, model, at_once):
    """Two sequences, of other lengths where a network takes any."""
    network, frames = drawn
    second = frames[::-1].copy()[: 1 + at_once if takes_any_length(network) else None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "AT_ONCE", at_once)
        found = list(play_sequences(network, [frames, second], model))
    check(simulator.run_sequence(network, frames), found[0])
    check(simulator.run_sequence(network, second), found[1])
