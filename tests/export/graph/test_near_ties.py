from __future__ import annotations

import numpy as np

from export.graph.near_ties import (
    astray,
    behind,
    describe_near_ties,
    explained,
    find_near_choices,
    find_near_ties,
    membranes,
)
from export.graph.nodes import ArgMax, Neuron


def lif(**fields) -> Neuron:
    values = {"threshold": np.array(0.75), "membrane_decay": 0.5, **fields}
    return Neuron(name="lif", inputs=("x",), **values)


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None, None, None]


CURRENTS = column(0.5, 0.5, 0.75)
SPIKES = column(0.0, 1.0, 1.0)  # H = .5, .75 (fires exactly at the threshold), .75 (fires again)


def test_membranes_by_hand():
    assert membranes(lif(), CURRENTS, SPIKES).ravel().tolist() == [0.5, 0.75, 0.75]
    soft = lif(reset="by", reset_value=0.5)
    assert membranes(soft, CURRENTS, SPIKES).ravel().tolist() == [0.5, 0.75, 0.875]
    slow = lif(current_decay=0.5, gain=np.array(2.0), bias=np.array(1.0), reset_value=-1.0)
    # I = .5, .75, 1.125; H = 2, 2.5 + .5*2 (no spike) = 3.5, 3.25 + .5*-1 = 2.75
    assert membranes(slow, CURRENTS, SPIKES).ravel().tolist() == [2.0, 3.5, 2.75]


def test_a_spike_that_fell_the_other_way_is_counted_once():
    """Missed at step 1, H = 1.125 at step 2: that it fires there follows from its own membrane."""
    wrong, distance = astray(lif(), CURRENTS, column(0, 0, 1))
    assert wrong.ravel().tolist() == [False, True, False]
    assert distance.max() == 0.0
    wrong, distance = astray(lif(), CURRENTS, column(1, 0, 1))
    assert (wrong.ravel().tolist(), distance.max()) == ([True, False, False], 0.25)
    assert not astray(lif(), CURRENTS, SPIKES)[0].any()
    assert astray(lif(fires=">"), CURRENTS, SPIKES)[0].ravel().tolist() == [False, True, True]


def test_near_ties_are_counted_by_step_with_the_nearest():
    membrane = np.array([[0.75, 0.75 + 1e-14], [0.5, 0.75 - 2e-14]])[:, None, None, :]
    ties = find_near_ties(lif(), membrane, 1.5e-14)
    assert ties.where.tolist() == [0, 1]
    assert ties.by_step() == {0: (2, 0.0)}
    ties = find_near_ties(lif(), membrane, 3e-14)
    assert ties.by_step()[1][0] == 1
    assert describe_near_ties([ties])[1] == ("lif, step 1: 1 within rounding of the threshold, the nearest 2.0e-14 off")
    assert find_near_ties(lif(), membrane[1:, ..., :1], 1e-3) is None


def test_thresholds_per_channel():
    membrane = np.array([0.5, 0.25]).reshape(1, 2, 1, 1)
    ties = find_near_ties(lif(threshold=np.array([0.25, 0.25]).reshape(2, 1, 1)), membrane, 1e-15)
    assert ties.where.tolist() == [1]


def test_a_difference_is_explained_by_a_near_tie_where_it_differs_and_by_nothing_else():
    differs = np.zeros((3, 1, 1, 3), bool)
    differs[1:, ..., 0] = True  # at a near-tie, and after it
    differs[2, ..., 1] = True  # a near-tie at step 1, where it did not differ
    differs[0, ..., 2] = True  # before its near-tie
    where = np.array([3, 4, 5])
    assert np.argwhere(explained(differs, where))[:, [0, 3]].tolist() == [[1, 0], [2, 0]]
    assert not explained(differs, np.zeros(0, np.int64)).any()


def test_choices_between_channels_that_are_nearly_equal():
    largest = ArgMax(name="largest", inputs=("x",))
    values = np.array([[1.0, 2.0, 5.0, 3.0], [1.0, 2.5, 4.0, 3.0 - 1e-14], [0.0, 0.0, 4.9, 3.0]]).reshape(1, 3, 2, 2)
    ties = find_near_choices(largest, values, 0.2)
    assert ties.where.tolist() == [0, 2, 3]
    assert describe_near_ties([ties]) == [
        "largest, step 0: 3 within rounding of another channel, the nearest 0.0e+00 off"
    ]
    assert find_near_choices(largest, values, 1e-14).where.tolist() == [0, 3]
    assert find_near_choices(largest, values[:, :, :1, 1:], 0.2) is None
    assert find_near_choices(largest, values[:, :1], 9.0) is None  # one channel is no choice


def test_how_far_a_choice_is_behind_the_largest():
    values = np.array([[1.0, 2.0], [4.0, 2.0]]).reshape(1, 2, 1, 2)
    assert behind(values, np.array([1, 0]).reshape(1, 1, 1, 2)).ravel().tolist() == [0.0, 0.0]
    assert behind(values, np.array([0, 1]).reshape(1, 1, 1, 2)).ravel().tolist() == [3.0, 0.0]
    assert behind(values, np.array([0.5, 2]).reshape(1, 1, 1, 2)).ravel().tolist() == [np.inf, np.inf]  # no channels
