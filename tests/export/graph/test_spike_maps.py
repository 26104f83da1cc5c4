"""Counts of ones, all and at each place: equal to torch's sums for every layout, size and number of channels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.graph.spike_maps import BLOCK, count_true, map_true

LAYOUTS = {
    "channels first": lambda marks: marks,
    "channels last": lambda marks: marks.movedim(1, -1).contiguous().movedim(-1, 1),
    "every other column": lambda marks: marks.repeat_interleave(2, -1)[..., ::2],
    "one step for all": lambda marks: marks[:1].expand(len(marks), *marks.shape[1:]),
}


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from([0, 1, 3, 8, 24, BLOCK - 1, BLOCK, BLOCK + 1, 256, 2 * BLOCK + 8]),
    st.integers(1, 3),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.integers(0, 99),
)
def test_every_place_and_all_of_them(places, channels, count, layout, rate, seed):
    marks = torch.rand((count, channels, *places), generator=torch.Generator().manual_seed(seed)) < rate
    marks = LAYOUTS[layout](marks)
    found = map_true(marks)
    assert found.dtype == np.int64
    assert found.tolist() == marks.sum(1).tolist()
    assert count_true(marks) == int(marks.sum())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_ones_than_a_byte_holds_do_not_overflow(layout):
    marks = LAYOUTS[layout](torch.ones(2, 1000, 3, 5, dtype=torch.bool))
    assert (map_true(marks) == 1000).all()
    assert count_true(marks) == 2 * 1000 * 15
