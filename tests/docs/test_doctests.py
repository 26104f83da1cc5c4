"""The examples in the docstrings of what is public print what stands there."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("module", ["esdnet.api", "export.api", "hw_sim.counter.torch_counter"])
def test_examples(module):
    found = doctest.testmod(import_module(module))
    assert found.attempted
    assert not found.failed
