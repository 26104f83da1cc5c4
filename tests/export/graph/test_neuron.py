"""One step of a neuron, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.graph.neuron import NeuronState
from export.graph.nodes import Neuron


@pytest.mark.parametrize(
    ("change", "membranes"),
    [
        # threshold 0.5, decay 0.5, input 0.5, 0.25, 0.25, 1: fires at once, then 0.25, 0.375, then 1.1875 fires
        ({}, [0.0, 0.25, 0.375, 0.0]),
        ({"fires": ">"}, [0.5, 0.5, 0.5, 0.0]),  # 0.25 + 0.5/2 = 0.5 does not exceed 0.5; 1 + 0.25 does
        ({"reset": "by", "reset_value": 0.25}, [0.25, 0.375, 0.4375, 0.96875]),
        ({"reset_value": -0.5}, [-0.5, 0.0, 0.25, -0.5]),
        ({"gain": np.array(-1.0)}, [-0.5, -0.5, -0.5, -1.25]),
        ({"bias": np.array(0.25)}, [0.0, 0.0, 0.0, 0.0]),  # 0.75, 0.5, 0.5, 1.25: all fire
        ({"current_decay": 0.5}, [0.0, 0.0, 0.0, 0.0]),  # currents 0.5, 0.5, 0.5, 1.25
    ],
)
def test_membranes_of_one_neuron(change, membranes):
    given_ = {"name": "lif", "inputs": ("x",), "threshold": np.array(0.5), "membrane_decay": 0.5, **change}
    state = NeuronState(Neuron(**given_), torch.zeros(1, 1, 1, dtype=torch.float64))
    for _ in range(2):  # the second image starts from rest
        seen = []
        for x in (0.5, 0.25, 0.25, 1.0):
            state.step(torch.full((1, 1, 1), x, dtype=torch.float64))
            seen.append(float(state.membrane.item()))
        assert seen == membranes
        state.rest()
        assert not state.membrane.any()
        assert not state.current.any()


def test_threshold_is_exact_in_the_dtype_that_computes():
    for dtype in ("float32", "float64"):
        node = Neuron(name="lif", inputs=("x",), threshold=np.array(0.15), membrane_decay=0.5)
        state = NeuronState(node, torch.zeros(1, 1, 2, dtype=getattr(torch, dtype)))
        at = torch.tensor(0.15, dtype=getattr(torch, dtype))
        below = torch.nextafter(at, torch.zeros_like(at))
        assert state.step(torch.stack([at, below]).reshape(1, 1, 2)).flatten().tolist() == [1.0, 0.0]
