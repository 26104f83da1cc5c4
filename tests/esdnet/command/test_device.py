from __future__ import annotations

import pytest
import torch

from esdnet.command.device import choose_device, choose_exact_device
from esdnet.command.errors import UserError

SWITCHES = (
    (torch.backends.cuda.matmul, "allow_tf32", False),
    (torch.backends.cudnn, "allow_tf32", False),
    (torch.backends.cudnn, "deterministic", True),
    (torch.backends.cudnn, "benchmark", False),
)


@pytest.fixture
def loose_floats():
    """Every switch set to what a fast run would have; put back afterwards (monkeypatch deletes what is computed)."""
    before = [getattr(module, name) for module, name, _ in SWITCHES]
    for module, name, exact in SWITCHES:
        setattr(module, name, not exact)
    yield
    for (module, name, _), value in zip(SWITCHES, before, strict=True):
        setattr(module, name, value)


@pytest.mark.usefixtures("loose_floats")
def test_an_exact_device_computes_without_tf32():
    assert choose_exact_device("cpu") == "cpu"
    assert [getattr(module, name) for module, name, _ in SWITCHES] == [exact for *_, exact in SWITCHES]


@pytest.mark.usefixtures("loose_floats")
def test_a_plain_choice_leaves_the_switches_alone():
    """Training is not held to a float32 reference."""
    assert choose_device("cpu") == "cpu"
    assert [getattr(module, name) for module, name, _ in SWITCHES] == [not exact for *_, exact in SWITCHES]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("choose", [choose_device, choose_exact_device])
def test_a_gpu_that_is_not_there(choose):
    with pytest.raises(UserError, match="--device cuda: no CUDA device is available; use --device cpu or auto"):
        choose("cuda")
    assert choose("auto") == "cpu"
