from __future__ import annotations

import numpy as np
import pytest

from export.graph.counting import NodeCounts
from hw_sim.backends.result import Result, compare


def result(**spikes) -> Result:
    return Result(np.zeros((3, 2, 2)), {name: np.array(value, bool) for name, value in spikes.items()}, {})


def test_the_first_node_and_step_that_differ_are_named():
    reference = result(a=[[0, 1], [0, 0]], b=[[1, 1], [0, 0]], c=[[1, 1], [0, 0]])
    other = result(a=[[0, 1], [0, 0]], b=[[1, 1], [1, 0]], c=[[0, 0], [0, 0]])
    found = compare(reference, other)
    assert found.spike_mismatches == 3
    assert found.first == "b, step 1: 1 spikes differ"
    assert found.mismatches == {"b": 1, "c": 2}
    assert not found.equal_spikes


def test_equal_results_are_equal():
    found = compare(result(a=[[1]]), result(a=[[1]]))
    assert found.equal_spikes
    assert found.max_difference == 0
    assert found.psnr_db == float("inf")


def test_a_difference_of_the_output_is_measured():
    reference, other = result(a=[[1]]), result(a=[[1]])
    other.output[0, 0, 0] = 0.5
    found = compare(reference, other)
    assert found.max_difference == 0.5
    assert found.psnr_db == pytest.approx(10 * np.log10(12 / 0.25))


def test_counts_that_differ_are_named():
    one = NodeCounts.zeros(1)
    more = one.plus(NodeCounts(*(np.ones(1, np.int64) for _ in vars(one))))
    reference, other = (Result(np.zeros((3, 2, 2)), {}, {"conv": counts}) for counts in (one, more))
    found = compare(reference, other)
    assert found.count_mismatches == ("conv",)
    assert not found.equal_spikes


def test_different_networks_cannot_be_compared():
    with pytest.raises(ValueError, match="b is in one only"):
        compare(result(a=[[1]]), result(a=[[1]], b=[[1]]))
