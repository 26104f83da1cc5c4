"""Modules watched from outside: what they read and give, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from esdnet.networks.watching import watching


def test_every_call_is_seen_with_its_name_inputs_and_output() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Flatten())
    seen = []
    x = torch.tensor([[[-1.0, 2.0]]])
    with watching({"first": network[0]}, lambda name, inputs, output: seen.append((name, inputs, output))):
        network(x)
        network(-x)
    network(x)
    assert [name for name, _, _ in seen] == ["first", "first"]
    assert torch.equal(seen[0][1][0], x)
    assert torch.equal(seen[0][2], torch.relu(x))
    assert torch.equal(seen[1][2], torch.relu(-x))


def test_nothing_is_left_after_an_error() -> None:
    module, seen = nn.Linear(2, 1), []
    with pytest.raises(RuntimeError), watching({"it": module}, lambda *call: seen.append(call)):
        module(torch.zeros(3))
    module(torch.zeros(2))
    assert not seen
