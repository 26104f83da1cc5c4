"""What each aid does to a trainer: what it starts from, what it minimises, and that nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.training_aids import Aids, anneal_shortcuts
from esdnet.config import preset
from esdnet.data import open_training_source
from esdnet.model import ESDNet
from esdnet.training import Trainer, TrainingConfig, Worker, draw_batch


@pytest.fixture
def trainer(pairs: Path, tmp_path: Path) -> Trainer:
    torch.manual_seed(0)
    source = open_training_source(str(pairs), None, None, None, 1)
    config = TrainingConfig(steps=6, batch=1, warmup=1, validation_images=1)
    return Trainer(ESDNet(preset("tiny_spike_driven")).train(), source, config, tmp_path, Worker())


@pytest.fixture
def teacher() -> ESDNet:
    torch.manual_seed(1)
    return ESDNet(preset("tiny")).eval()


def test_no_aids_change_nothing(trainer):
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    loss = trainer.loss
    Aids().prepare(trainer, None)
    assert trainer.loss is loss
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in trainer.model.modules())


@pytest.mark.parametrize("aids", [Aids(copies_weights=True), Aids(distillation=0.1)])
def test_a_missing_teacher_is_named(aids, trainer):
    with pytest.raises(ValueError, match="need a teacher"):
        aids.prepare(trainer, None)


def test_copied_weights_are_those_trained_and_averaged(trainer, teacher):
    Aids(copies_weights=True).prepare(trainer, teacher)
    for network in (trainer.model, trainer.average.model):
        assert torch.equal(network.encoder_level1[0].residual[4].weight, teacher.encoder_level1[0].residual[4].weight)


def test_shortcuts_read_real_values_first_and_spikes_in_the_end(trainer):
    read: list[torch.Tensor] = []
    anneal_shortcuts(trainer)
    trainer.model.encoder_level1[0].shortcut[0].register_forward_pre_hook(lambda module, x: read.append(x[0]))
    rainy, _ = draw_batch(trainer.source, trainer.config, 0, 0)
    shares = []
    for trainer.step in (0, 1, 2):
        trainer.model(rainy)
        shares.append(float(((read[-1] == 0) | (read[-1] == 1)).float().mean()))
    assert shares[0] < 0.6  # half of relu(x) and relu(-x) is 0
    assert shares[1] < 0.6
    assert shares[2] == 1.0


def test_the_distance_from_itself_is_nothing_and_from_another_something(trainer, teacher):
    rainy, clean = draw_batch(trainer.source, trainer.config, 0, 0)
    plain = trainer.loss
    student = trainer.model.eval()
    Aids(distillation=0.5).prepare(trainer, student)
    with torch.no_grad():
        restored = student(rainy)
        assert float(trainer.loss(restored, clean)) == pytest.approx(float(plain(restored, clean)))
        trainer.loss = plain
        Aids(distillation=0.5).prepare(trainer, teacher)
        restored = student(rainy)
        assert float(trainer.loss(restored, clean)) > float(plain(restored, clean)) + 0.05
    assert all(parameter.requires_grad for parameter in teacher.parameters())  # the caller's is left as it is


@pytest.mark.parametrize(
    "aids",
    [Aids(anneals_shortcuts=True), Aids(copies_weights=True), Aids(distillation=0.1)],
)
def test_every_aid_trains(aids, trainer, teacher):
    aids.prepare(trainer, teacher)
    rainy, clean = draw_batch(trainer.source, trainer.config, 0, 0)
    losses = [trainer.train_step(rainy, clean) for _ in range(trainer.config.steps)]
    assert losses[-1] < losses[0]
