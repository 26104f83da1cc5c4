"""Fan-outs of convolutions against torch's own gradients: the derivative of sum(conv(ones)) by an input element."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_sim.counter.synapses import Axis, dense_operations, operations, taps_along


def fan_out_by_gradient(axis: Axis) -> list[int]:
    ones = torch.ones(1, 1, axis.size, dtype=torch.float64, requires_grad=True)
    kernel = torch.ones(1, 1, axis.kernel, dtype=torch.float64)
    if axis.transposed:
        whole = (axis.size - 1) * axis.stride - 2 * axis.padding + axis.dilation * (axis.kernel - 1) + 1
        made = F.conv_transpose1d(ones, kernel, None, axis.stride, axis.padding, axis.outputs - whole, 1, axis.dilation)
    else:
        made = F.conv1d(ones, kernel, None, axis.stride, axis.padding, axis.dilation)
    assert made.shape[-1] == axis.outputs
    made.sum().backward()
    return ones.grad[0, 0].long().tolist()


@given(
    size=st.integers(1, 12), kernel=st.integers(1, 5), stride=st.integers(1, 4), padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_taps_are_the_gradient_of_a_sum(size, kernel, stride, padding, dilation):
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if outputs < 1:
        return
    axis = Axis(size, outputs, kernel, stride, padding, dilation)
    assert taps_along(axis).tolist() == fan_out_by_gradient(axis)


@given(
    size=st.integers(1, 9), kernel=st.integers(1, 5), stride=st.integers(1, 4), padding=st.integers(0, 3),
    dilation=st.integers(1, 3), more=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_taps_of_a_transposed_convolution_too(size, kernel, stride, padding, dilation, more):
    more = min(more, max(stride, dilation) - 1)
    outputs = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + more
    if outputs < 1:
        return
    axis = Axis(size, outputs, kernel, stride, padding, dilation, transposed=True)
    assert taps_along(axis).tolist() == fan_out_by_gradient(axis)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_elements_reach_the_product_of_their_taps(axes):
    given_axes = [Axis(4, 4, 3, 1, 1), Axis(5, 3, 2, 2, 1), Axis(6, 4, 3, 1, 0)][:axes]
    elements = np.random.default_rng(0).integers(0, 5, [axis.size for axis in given_axes])
    taps = np.ones((), np.int64)
    for axis in given_axes:
        taps = np.multiply.outer(taps, taps_along(axis))
    assert operations(given_axes, 7, elements) == int((taps * elements).sum()) * 7
    assert dense_operations(given_axes, 7, 3) == int(taps.sum()) * 3 * 7
