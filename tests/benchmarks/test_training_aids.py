"""What each aid does to a trainer: what it starts from, what its network reads, and that nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.training_aids import anneal_shortcuts, start_from
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from esdnet.training.data import open_training_source
from esdnet.training.loop import Trainer, TrainingConfig, Worker, draw_batch


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


def test_copied_weights_are_those_trained_and_averaged(trainer, teacher):
    start_from(teacher, trainer)
    for network in (trainer.model, trainer.average.module):
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


@pytest.mark.parametrize("aid", ["copied weights", "annealed shortcuts"])
def test_both_train(aid, trainer, teacher):
    if aid == "copied weights":
        start_from(teacher, trainer)
    else:
        anneal_shortcuts(trainer)
    rainy, clean = draw_batch(trainer.source, trainer.config, 0, 0)
    losses = [trainer.train_step(rainy, clean) for _ in range(trainer.config.steps)]
    assert losses[-1] < losses[0]
