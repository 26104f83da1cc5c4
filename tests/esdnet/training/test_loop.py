"""The trainer: schedules, exact resumption, frozen norms, priced spikes, and losses that are not finite."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.checkpoint import read_checkpoint
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from esdnet.training.data import PairedFolder
from esdnet.training.loop import (
    SMALLEST_THRESHOLD,
    Trainer,
    TrainingConfig,
    Worker,
    average_of,
    batches,
    draw_batch,
    learning_rate,
)
from esdnet.training.optimizers import learnt_thresholds
from esdnet.training.validation import validate


class Watched:
    """The pairs of a folder; `on_draw` sees how many images were drawn before each, and may change the rainy one."""

    def __init__(self, folder: Path, on_draw: Callable[[int, np.ndarray], None]) -> None:
        self.source, self.on_draw, self.drawn = PairedFolder(folder, held_out=1), on_draw, 0

    def sample(self, rng: np.random.Generator, crop: int) -> tuple[np.ndarray, np.ndarray]:
        rainy, clean = self.source.sample(rng, crop)
        self.on_draw(self.drawn, rainy)
        self.drawn += 1
        return rainy, clean

    def validation_pairs(self, seed: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
        return self.source.validation_pairs(seed)


def make_trainer(source, out: Path, steps: int = 6, network: str = "tiny", **options) -> Trainer:
    torch.manual_seed(0)
    config = TrainingConfig(
        steps=steps, batch=1, crop=16, warmup=2, save_every=2, validate_every=4, validation_images=1, **options
    )
    return Trainer(ESDNet(preset(network)).train(), source, config, out, Worker())


def test_the_schedule_warms_up_and_ends_at_the_final_rate() -> None:
    config = TrainingConfig(steps=101, warmup=10, lr=1e-3, final_lr=1e-7)
    assert learning_rate(0, config) == pytest.approx(1e-4)
    assert learning_rate(9, config) == learning_rate(10, config) == pytest.approx(1e-3)
    assert learning_rate(55, config) == pytest.approx((1e-3 + 1e-7) / 2)  # the middle of the cosine
    assert learning_rate(100, config) == pytest.approx(1e-7)


def test_a_batch_depends_on_seed_rank_and_step_alone(pairs: Path) -> None:
    def rainy(seed: int, rank: int, step: int) -> torch.Tensor:
        return draw_batch(PairedFolder(pairs), TrainingConfig(batch=2, crop=16, seed=seed), rank, step)[0]

    assert rainy(3, 1, 5).shape == (2, 3, 16, 16)
    assert torch.equal(rainy(3, 1, 5), rainy(3, 1, 5))
    for other in ((4, 1, 5), (3, 0, 5), (3, 1, 6)):
        assert not torch.equal(rainy(3, 1, 5), rainy(*other))


@pytest.mark.parametrize("start", [0, 2, 4])
def test_exactly_the_batches_of_the_steps_to_come_are_drawn(start: int, pairs: Path) -> None:
    """One drawn ahead for a step that never comes would still have to be paid for, at the end of every run."""
    source = Watched(pairs, lambda drawn, rainy: None)
    config = TrainingConfig(steps=5, batch=2, crop=16)
    assert len(list(batches(source, config, 0, start))) == 5 - start
    assert source.drawn == 2 * (5 - start)


def test_averaged_weights_by_hand() -> None:
    model = ESDNet(preset("tiny"))
    average = average_of(model, decay=0.999)
    before = model.output[0].bias.detach().clone()
    with torch.no_grad():
        model.output[0].bias += 1
        model.down1_2.maxpool_conv[2].num_batches_tracked += 7
    average.update_parameters(model)  # decay 1/10 at first
    torch.testing.assert_close(average.module.output[0].bias, before + 0.9)
    assert int(average.module.down1_2.maxpool_conv[2].num_batches_tracked) == 7
    average.n_averaged.fill_(10**6)
    average.update_parameters(model)  # then 0.999
    torch.testing.assert_close(average.module.output[0].bias, before + 1 - 0.1 * 0.999)


def test_tensorboard_has_pictures_and_a_firing_rate_per_lif(pairs: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = make_trainer(PairedFolder(pairs, held_out=1), tmp_path, steps=2)
    assert trainer.run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert tags["images"] == ["rainy_restored_clean/0"]
    lifs = {name for name, module in trainer.model.named_modules() if type(module).__name__ == "LIF"}
    assert {tag.removeprefix("firing_rate/") for tag in tags["scalars"] if tag.startswith("firing_rate/")} == lifs
    assert all(0 <= events.Scalars(f"firing_rate/{name}")[0].value <= 1 for name in lifs)
    assert {"loss", "learning_rate", "validation/psnr_y", "validation/ssim_y"} <= set(tags["scalars"])


@pytest.mark.parametrize("network", [pytest.param("tiny", marks=pytest.mark.slow), "tiny_spike_driven"])
def test_interrupted_and_resumed_is_bit_identical(network: str, pairs: Path, tmp_path: Path) -> None:
    def interrupt(drawn: int, rainy: np.ndarray) -> None:
        if drawn == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = make_trainer(PairedFolder(pairs, held_out=1), tmp_path / "whole", network=network)
    (tmp_path / "whole").mkdir()
    assert whole.run()
    (tmp_path / "parts").mkdir()
    first = make_trainer(Watched(pairs, interrupt), tmp_path / "parts", network=network)
    assert not first.run()
    assert 2 <= first.step < 6
    second = make_trainer(PairedFolder(pairs, held_out=1), tmp_path / "parts", network=network)
    second.resume()
    assert second.step == first.step
    assert second.run()
    a, b = (read_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert all(torch.equal(value, b["state_dict"][key]) for key, value in a["state_dict"].items())
    assert all(torch.equal(value, b["extra"]["ema"][key]) for key, value in a["extra"]["ema"].items())
    for one, other in zip(a["extra"]["optimizers"], b["extra"]["optimizers"], strict=True):
        for index, state in one["state"].items():
            assert all(torch.equal(value, other["state"][index][key]) for key, value in state.items())
    steps = [line.split(",")[0] for line in (tmp_path / "parts" / "log.csv").read_text().splitlines()[1:]]
    assert steps == sorted({"2", "4", "6", str(first.step)})


def test_more_steps_go_on_as_in_a_run_that_began_with_so_many(pairs: Path, tmp_path: Path) -> None:
    """The learning rate is that of the longer run from there on, and so are the batches; nothing is warmed up again."""
    rates: list[float] = []

    class Noted(Trainer):
        def train_step(self, rainy, clean):
            rates.append(learning_rate(self.step, self.config))
            seen.append(float(rainy.sum()))
            return super().train_step(rainy, clean)

    seen: list[float] = []
    longer = TrainingConfig(steps=7, batch=1, crop=16, warmup=2)
    expected = [learning_rate(step, longer) for step in range(4, 7)]
    drawn = [float(draw_batch(PairedFolder(pairs, held_out=1), longer, 0, step)[0].sum()) for step in range(4, 7)]
    short = make_trainer(PairedFolder(pairs, held_out=1), tmp_path, steps=4)
    assert short.run()
    grown = make_trainer(PairedFolder(pairs, held_out=1), tmp_path, steps=7)
    with pytest.raises(UserError, match=r"last\.pt: the run began with steps 4, found 7; resume it with the former"):
        grown.resume()
    grown.__class__ = Noted
    grown.resume(may_grow=True)
    assert grown.run()
    assert rates == expected
    assert rates[0] > 100 * learning_rate(3, short.config)  # where the short run had ended
    assert seen == drawn
    assert read_checkpoint(tmp_path / "last.pt")["extra"]["training"]["steps"] == 7
    shrunk = make_trainer(PairedFolder(pairs, held_out=1), tmp_path, steps=6)
    with pytest.raises(UserError, match=r"the run began with steps 7, found 6"):
        shrunk.resume(may_grow=True)


def test_nan_stops_with_the_step_and_the_last_good_checkpoint(pairs: Path, tmp_path: Path) -> None:
    def poison(drawn: int, rainy: np.ndarray) -> None:
        if drawn == 5:
            rainy[0, 0, 0] = np.nan

    trainer = make_trainer(Watched(pairs, poison), tmp_path)
    message = r"loss nan, gradient norm nan at step 5: the last good checkpoint is .*last\.pt of step 4; lower --lr"
    with pytest.raises(UserError, match=message):
        trainer.run()
    kept = read_checkpoint(tmp_path / "last.pt")
    assert kept["extra"]["step"] == 4
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_nan_before_any_checkpoint(pairs: Path, tmp_path: Path) -> None:
    trainer = make_trainer(Watched(pairs, lambda drawn, rainy: rainy.fill(np.nan)), tmp_path)
    with pytest.raises(UserError, match="at step 0: no checkpoint was written yet"):
        trainer.run()


def test_bf16_trains_weights_that_stay_float32(pairs: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PairedFolder(pairs, held_out=1), tmp_path, steps=2, precision="bf16")
    before = trainer.model.output[0].weight.detach().clone()
    rainy, clean = draw_batch(trainer.source, trainer.config, 0, 0)
    assert 0 < trainer.train_step(rainy, clean) < 5
    assert trainer.model.output[0].weight.dtype is torch.float32
    assert not torch.equal(trainer.model.output[0].weight, before)


def test_frozen_norms_keep_their_statistics_while_weights_move(pairs: Path, tmp_path: Path) -> None:
    for freeze in (True, False):
        trainer = make_trainer(PairedFolder(pairs, held_out=1), tmp_path, steps=2, freeze_norm=freeze)
        before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
        for step in range(2):
            trainer.train_step(*draw_batch(trainer.source, trainer.config, 0, step))
        moved = {key for key, value in trainer.model.state_dict().items() if not torch.equal(value, before[key])}
        statistics = {key for key in before if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
        assert moved & statistics == (set() if freeze else statistics)
        assert {"patch_embed.proj.weight", "down1_2.maxpool_conv.2.weight", "output.0.bias"} <= moved


def test_priced_spikes_become_fewer(pairs: Path, tmp_path: Path) -> None:
    """The same start, data and steps, with a price and without one."""
    rates = []
    for price in (0.0, 3.0):
        source = PairedFolder(pairs, held_out=1)
        trainer = make_trainer(source, tmp_path, steps=8, network="tiny_spike_driven", lr=5e-3, firing_price=price)
        for step in range(8):
            trainer.train_step(*draw_batch(trainer.source, trainer.config, 0, step))
        rates.append(np.mean(list(validate(trainer.model, trainer.pairs, torch.device("cpu")).firing_rates.values())))
    assert rates[1] < 0.8 * rates[0]


def test_no_threshold_falls_below_the_smallest(pairs: Path, tmp_path: Path) -> None:
    """At a rate that takes any threshold from 0.15 below zero in one step, were it not held."""
    source = PairedFolder(pairs, held_out=1)
    trainer = make_trainer(source, tmp_path, network="tiny_spike_driven", lr=100.0)
    trainer.train_step(*draw_batch(source, trainer.config, 0, 0))
    values = np.array([float(threshold.detach()) for threshold in learnt_thresholds(trainer.model)])
    assert values.min() == np.float32(SMALLEST_THRESHOLD)
    assert values.max() > 1  # the others went up
