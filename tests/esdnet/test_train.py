"""The trainer: schedules, exact resumption, what it writes, and one clear line for every mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.checkpoint import load_checkpoint, read_checkpoint
from esdnet.config import preset
from esdnet.data import DRY_SHARE, LIGHT_SHARE, PairedFolder
from esdnet.errors import UserError
from esdnet.model import ESDNet
from esdnet.train import build_parser, main
from esdnet.training import (
    SMALLEST_THRESHOLD,
    AveragedWeights,
    Trainer,
    TrainingConfig,
    Worker,
    draw_batch,
    learning_rate,
    learnt_thresholds,
)
from esdnet.validation import validate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pairs of 24x20 pixels, input/ and target/."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for index in range(5):
        clean = np.kron(rng.integers(0, 200, (6, 5, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        for folder, image in (("target", clean), ("input", clean + rng.integers(0, 50, (24, 20, 1), dtype=np.uint8))):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{index}.png")
    return root


def command(pairs: Path, out: Path, *more: str) -> list[str]:
    flags = ["--preset", "tiny", "--batch", "1", "--crop", "16", "--held-out", "1", "--warmup", "2", "--threads", "1"]
    return [*flags, "--data", str(pairs), "--out", str(out), *more]


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


def test_the_flags_default_to_what_they_set() -> None:
    parser = build_parser()
    for name, field in TrainingConfig.__dataclass_fields__.items():
        if name not in {"final_lr", "weight_decay", "ssim_on_luma"}:  # no flag, or one of another kind
            assert parser.get_default(name) == field.default, name
    assert (parser.get_default("dry_share"), parser.get_default("light_share")) == (DRY_SHARE, LIGHT_SHARE)


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


def test_averaged_weights_by_hand() -> None:
    model = ESDNet(preset("tiny"))
    average = AveragedWeights(model, decay=0.999)
    before = model.output[0].bias.detach().clone()
    with torch.no_grad():
        model.output[0].bias += 1
        model.down1_2.maxpool_conv[2].num_batches_tracked += 7
    average.update(model, step=0)  # decay 1/10 at first
    torch.testing.assert_close(average.model.output[0].bias, before + 0.9)
    assert int(average.model.down1_2.maxpool_conv[2].num_batches_tracked) == 7
    average.update(model, step=10**6)  # then 0.999
    torch.testing.assert_close(average.model.output[0].bias, before + 1 - 0.1 * 0.999)


def test_a_run_writes_checkpoints_log_and_events(pairs: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert main(command(pairs, out, *["--steps", "4", "--save-every", "2", "--validate-every", "4"])) == 0
    assert sorted(path.name for path in out.iterdir()) == ["best.pt", "ema.pt", "last.pt", "log.csv", "tensorboard"]
    rows = [line.split(",") for line in (out / "log.csv").read_text().splitlines()]
    assert rows[0] == ["step", "loss", "lr", "psnr_y", "ssim_y", "seconds"]
    assert [row[0] for row in rows[1:]] == ["2", "4"]
    assert rows[1][3] == ""
    assert 5 < float(rows[2][3]) < 40
    assert not load_checkpoint(out / "best.pt").training
    last, averaged = read_checkpoint(out / "last.pt"), read_checkpoint(out / "ema.pt")
    assert last["extra"]["step"] == averaged["extra"]["step"] == 4
    assert all(torch.equal(last["extra"]["ema"][key], value) for key, value in averaged["state_dict"].items())
    assert any(not torch.equal(last["state_dict"][key], value) for key, value in averaged["state_dict"].items())
    assert "step 4: loss" in capsys.readouterr().err


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


@pytest.mark.parametrize("network", ["tiny", "tiny_spike_driven"])
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
    for index, state in a["extra"]["optimizer"]["state"].items():
        assert all(torch.equal(value, b["extra"]["optimizer"]["state"][index][key]) for key, value in state.items())
    steps = [line.split(",")[0] for line in (tmp_path / "parts" / "log.csv").read_text().splitlines()[1:]]
    assert steps == sorted({"2", "4", "6", str(first.step)})


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


def test_learnt_thresholds_are_a_group_of_their_own(pairs: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PairedFolder(pairs, held_out=1), tmp_path, network="tiny_spike_driven", weight_decay=0.01)
    weights, thresholds = trainer.optimizer.param_groups
    named = dict(trainer.model.named_parameters())
    assert {id(p) for p in thresholds["params"]} == {id(p) for n, p in named.items() if n.endswith(".threshold")}
    assert len(weights["params"]) + len(thresholds["params"]) == len(named)
    assert (weights["weight_decay"], thresholds["weight_decay"]) == (0.01, 0.0)
    trainer.train_step(*draw_batch(trainer.source, trainer.config, 0, 0))
    assert weights["lr"] == learning_rate(0, trainer.config)
    assert thresholds["lr"] == pytest.approx(0.1 * weights["lr"])
    values = [float(threshold.detach()) for threshold in learnt_thresholds(trainer.model)]
    assert any(value != pytest.approx(0.15, abs=1e-7) for value in values), "no threshold moved"
    assert len(make_trainer(trainer.source, tmp_path).optimizer.param_groups) == 1


def test_no_threshold_falls_below_the_smallest(pairs: Path, tmp_path: Path) -> None:
    """At a rate that takes any threshold from 0.15 below zero in one step, were it not held."""
    source = PairedFolder(pairs, held_out=1)
    trainer = make_trainer(source, tmp_path, network="tiny_spike_driven", lr=100.0)
    trainer.train_step(*draw_batch(source, trainer.config, 0, 0))
    values = np.array([float(threshold.detach()) for threshold in learnt_thresholds(trainer.model)])
    assert values.min() == np.float32(SMALLEST_THRESHOLD)
    assert values.max() > 1  # the others went up


def test_init_starts_from_a_checkpoint_s_weights(pairs: Path, tmp_path: Path) -> None:
    assert main(command(pairs, tmp_path / "a", "--steps", "1", "--lr", "1e-3")) == 0
    assert (
        main(command(pairs, tmp_path / "b", "--steps", "1", "--lr", "1e-7", "--init", str(tmp_path / "a/last.pt"))) == 0
    )
    a, b = (load_checkpoint(tmp_path / name / "last.pt").state_dict() for name in "ab")
    difference = max(float((a[key] - b[key]).abs().max()) for key, _ in ESDNet(preset("tiny")).named_parameters())
    assert 0 < difference < 1e-6


MISTAKES = {
    "no preset": (["--preset", ""], "preset '' is unknown"),
    "unknown preset": (["--preset", "huge"], "preset 'huge' is unknown: expected one of tiny"),
    "no folder": (["--data", "no/such"], "no/such: no such folder"),
    "no photos": (["--data", "synthetic"], "synthetic rain needs a folder of clean photos"),
    "too small": (["--crop", "32"], "20x24 pixels, too small for crops of 32x32"),
    "crop": (["--crop", "18"], "crop must be a multiple of 4 and at least 16, found 18"),
    "steps": (["--steps", "0"], "steps must be at least 1, found 0"),
    "lr": (["--lr", "-1"], "lr must be positive"),
    "firing price": (["--firing-price", "-1"], "firing_price must not be negative, found -1.0"),
    "held out": (["--held-out", "5"], "5 pairs, cannot hold out 5 and train on the rest"),
    "resume": (["--resume"], "nothing to resume from; leave out --resume"),
    "init": (["--init", "no.pt"], "no.pt: expected a checkpoint file, found nothing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake: str, pairs: Path, tmp_path: Path, capsys) -> None:
    flags, message = MISTAKES[mistake]
    assert main(command(pairs, tmp_path / "run", "--steps", "1", *flags)) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in error


def test_a_folder_with_a_run_is_not_overwritten(pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path, "--steps", "1")) == 0
    before = (tmp_path / "last.pt").read_bytes()
    assert main(command(pairs, tmp_path, "--steps", "1")) == 2
    assert "holds a run already; --resume continues it" in capsys.readouterr().err
    assert (tmp_path / "last.pt").read_bytes() == before


def test_init_carries_a_released_network_over_to_its_spike_driven_preset(pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path / "a", "--steps", "1")) == 0
    released = tmp_path / "a" / "last.pt"
    flags = ["--preset", "tiny_spike_driven", "--steps", "1", "--lr", "1e-7", "--init", str(released)]
    assert main(command(pairs, tmp_path / "b", *flags)) == 0
    assert "last.pt: its weights were copied to the spike-driven network" in capsys.readouterr().err
    ours, theirs = (load_checkpoint(path) for path in (tmp_path / "b" / "last.pt", released))
    assert ours.config == preset("tiny_spike_driven")
    torch.testing.assert_close(ours.output[0].weight, theirs.output[0].weight, rtol=0, atol=1e-6)


def test_a_released_networks_statistics_are_not_frozen_in_its_spike_driven_one(
    pairs: Path, tmp_path: Path, capsys
) -> None:
    assert main(command(pairs, tmp_path / "a", "--steps", "1")) == 0
    flags = ["--preset", "tiny_spike_driven", "--steps", "1", "--init", str(tmp_path / "a" / "last.pt")]
    assert main(command(pairs, tmp_path / "b", *flags, "--freeze-norm")) == 2
    assert "needs its own first, leave out --freeze-norm" in capsys.readouterr().err


def test_resuming_a_released_run_as_its_spike_driven_preset_is_refused(pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path, "--steps", "1")) == 0
    assert main(command(pairs, tmp_path, "--preset", "tiny_spike_driven", "--steps", "2", "--resume")) == 2
    assert "but --preset tiny_spike_driven is" in capsys.readouterr().err


def test_resuming_from_bare_weights_is_refused(pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path, "--steps", "1")) == 0
    (tmp_path / "ema.pt").replace(tmp_path / "last.pt")
    assert main(command(pairs, tmp_path, "--steps", "2", "--resume")) == 2
    assert "no optimizer state; use --init" in capsys.readouterr().err


def test_resuming_a_run_of_an_earlier_version_is_refused(pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path, "--steps", "1")) == 0
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    for group in content["extra"]["optimizer"]["param_groups"]:
        del group["lr_scale"]
    torch.save(content, tmp_path / "last.pt")
    assert main(command(pairs, tmp_path, "--steps", "2", "--resume")) == 2
    assert "last.pt: written by an earlier version, cannot be resumed" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("name", ["log.csv", "last.pt"])
def test_a_full_disk_is_one_line(name: str, pairs: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / f".{name}.{os.getpid()}.part").symlink_to("/dev/full")  # what is written first, then renamed
    assert main(command(pairs, tmp_path, "--steps", "1")) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert f"{name}: " in error
    assert "written" in error
    assert not (tmp_path / name).exists()
    assert "Traceback" not in error


def test_help_needs_no_torch() -> None:
    program = "import sys, esdnet.train as t; t.build_parser().format_help(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)


TWO_PROCESSES = """
import hashlib, sys
from pathlib import Path
from esdnet.train import build_parser, main
from esdnet import training

class Watched(training.Trainer):
    def run(self):
        finished = super().run()
        weights = b"".join(p.detach().numpy().tobytes() for p in self.model.parameters())
        note = f"{self.worker.size} {hashlib.sha256(weights).hexdigest()}"
        Path(sys.argv[1], f"rank{self.worker.rank}").write_text(note)
        return finished

training.Trainer = Watched
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_gloo_processes_train_the_same_weights_and_save_once(pairs: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(TWO_PROCESSES)
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    flags = command(pairs, out, "--device", "cpu", "--steps", "4", "--save-every", "4")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*torchrun, str(program), str(tmp_path), *flags], env=environment) as process:
        try:
            assert process.wait(110) == 0
        finally:
            process.terminate()  # torchrun then ends its two children; killed, it would leave them behind
    notes = [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)]
    assert notes[0].startswith("2 ")
    assert notes[0] == notes[1], "the processes did not train the same weights"
    assert (out / "log.csv").read_text().splitlines()[1].startswith("4,")
    assert len((out / "log.csv").read_text().splitlines()) == 2
    assert main(command(pairs, tmp_path / "alone", "--steps", "4", "--save-every", "4")) == 0
    both, alone = (load_checkpoint(folder / "last.pt").state_dict() for folder in (out, tmp_path / "alone"))
    assert any(not torch.equal(both[key], alone[key]) for key in both), "the second process changed nothing"
