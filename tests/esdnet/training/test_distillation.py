"""The distance from a teacher: by hand, of a network from itself, and what it does to a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from esdnet.networks.watching import watching
from esdnet.training.distillation import DISTILLED, DistillationLoss
from esdnet.training.losses import RestorationLoss


def make(name: str, seed: int) -> ESDNet:
    torch.manual_seed(seed)
    return ESDNet(preset(name)).eval()


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    rainy, clean = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return rainy, clean


def test_the_distance_from_itself_is_nothing(images):
    rainy, clean = images
    student = make("tiny_spike_driven", 0)
    plain = RestorationLoss()
    loss = DistillationLoss(plain, student, student, weight=0.5)
    with torch.no_grad():
        restored = student(rainy)
        assert float(loss(restored, clean)) == pytest.approx(float(plain(restored, clean)), abs=1e-6)


def test_the_distance_by_hand(images):
    """Mean over the three decoders of mean((a - b)^2) / var(b), a and b the features' means over time."""
    rainy, clean = images
    student, teacher = make("tiny_spike_driven", 0), make("tiny", 1)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in DISTILLED}
    plain = RestorationLoss()
    with torch.no_grad():
        for network in (student, teacher):
            parts = {name: network.get_submodule(name) for name in DISTILLED}
            with watching(parts, lambda name, inputs, out: seen[name].append(out.mean(0).double())):
                restored = network(rainy)
        by_hand = sum(((a - b) ** 2).mean() / b.var() for a, b in seen.values()) / len(DISTILLED)
        loss = DistillationLoss(plain, student, teacher, weight=0.5)
        restored = student(rainy)
        assert float(loss(restored, clean) - plain(restored, clean)) == pytest.approx(0.5 * float(by_hand), rel=1e-4)
    assert float(by_hand) > 0.1


def test_a_student_comes_nearer_and_its_teacher_stays(images):
    rainy, clean = images
    student, teacher = make("tiny_spike_driven", 0).train(), make("tiny", 1).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    loss = DistillationLoss(RestorationLoss(), student, teacher, weight=1.0)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(loss(student(rainy), clean))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    # batch statistics too: a teacher in train mode would move them
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in loss.teacher.state_dict().items())
    assert teacher.training
    assert all(parameter.grad is None for parameter in loss.teacher.parameters())


def test_other_widths_are_refused():
    teacher = ESDNet(replace(preset("tiny"), dim=4))
    with pytest.raises(UserError, match="a network of dim 8 needs a teacher of the same, found 4"):
        DistillationLoss(RestorationLoss(), make("tiny_spike_driven", 0), teacher, weight=1.0)
