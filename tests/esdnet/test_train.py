"""The training command: what it writes, what it starts from, and one clear line for every mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from esdnet.networks.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from esdnet.train import build_parser, main
from esdnet.training.config import DataConfig
from esdnet.training.data import DRY_SHARE, LIGHT_SHARE, PairedFolder
from esdnet.training.loop import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]


def command(pairs: Path, out: Path, *more: str) -> list[str]:
    flags = ["--preset", "tiny", "--batch", "1", "--crop", "16", "--held-out", "1", "--warmup", "2", "--threads", "1"]
    return [*flags, "--data", str(pairs), "--out", str(out), *more]


def test_every_setting_has_a_flag_that_says_its_default() -> None:
    shown = " ".join(build_parser().format_help().split())
    for config in (TrainingConfig, DataConfig):
        for item in fields(config):
            if item.name not in {"final_lr", "weight_decay", "ssim_on_luma"}:  # no flag, or one of another kind
                assert build_parser().get_default(item.name) is None
                assert f"--{item.name.replace('_', '-')} " in shown, item.name
                if item.default not in (None, False):
                    assert f"(default: {item.default})" in shown, item.name
    assert (DataConfig().dry_share, DataConfig().light_share) == (DRY_SHARE, LIGHT_SHARE)


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


def test_init_starts_from_a_checkpoint_s_weights(pairs: Path, tmp_path: Path) -> None:
    assert main(command(pairs, tmp_path / "a", "--steps", "1", "--lr", "1e-3")) == 0
    assert (
        main(command(pairs, tmp_path / "b", "--steps", "1", "--lr", "1e-7", "--init", str(tmp_path / "a/last.pt"))) == 0
    )
    a, b = (load_checkpoint(tmp_path / name / "last.pt").state_dict() for name in "ab")
    difference = max(float((a[key] - b[key]).abs().max()) for key, _ in ESDNet(preset("tiny")).named_parameters())
    assert 0 < difference < 1e-6


@pytest.mark.parametrize("share", ["dry", "light"])
def test_the_shares_of_drawn_rain_reach_the_source(pairs: Path, tmp_path: Path, capsys, share: str) -> None:
    data = ["--data", "synthetic", "--photos", str(pairs / "target"), f"--{share}-share", "2"]
    assert main(command(pairs, tmp_path / "run", *data)) == 2
    assert f"the share of {share} crops must be from 0 to 1, found 2.0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


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
    "distillation": (["--distillation", "-1"], "distillation must not be negative, found -1.0"),
    "no teacher": (["--distillation", "0.1"], "a teacher and distillation go together, found no teacher and 0.1"),
    "no teacher there": (["--teacher", "no.pt"], "no.pt: expected a checkpoint file, found nothing"),
    "held out": (["--held-out", "5"], "5 pairs, cannot hold out 5 and train on the rest"),
    "resume": (["--resume"], "nothing to resume from; leave out --resume"),
    "weight of no loss": (["--loss", "ssim", "--l1-weight", "2"], "--l1-weight: is that of --loss l1_ssim"),
    "weight of another loss": (["--log-weight", "1"], "--log-weight: is that of --loss log_ssim, found --loss l1_ssim"),
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


TEACHERS = {
    "not used": (preset("tiny"), [], "a teacher and distillation go together, found a teacher and 0.0"),
    "narrow": (replace(preset("tiny"), dim=4), ["--distillation", "1"], "dim 8 needs a teacher of the same, found 4"),
}


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_teacher_of_no_use_is_refused(teacher: str, pairs: Path, tmp_path: Path, capsys) -> None:
    config, flags, message = TEACHERS[teacher]
    save_checkpoint(tmp_path / "teacher.pt", ESDNet(config))
    flags = ["--steps", "1", "--teacher", str(tmp_path / "teacher.pt"), *flags]
    assert main(command(pairs, tmp_path / "run", *flags)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_part_of_the_loss(pairs: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_checkpoint(tmp_path / "teacher.pt", ESDNet(preset("tiny")))
    losses = []
    for weight in (0, 1, 2):
        more = ["--teacher", str(tmp_path / "teacher.pt"), "--distillation", str(weight)] if weight else []
        assert main(command(pairs, tmp_path / str(weight), "--steps", "1", *more)) == 0
        losses.append(float((tmp_path / str(weight) / "log.csv").read_text().splitlines()[1].split(",")[1]))
    assert losses[1] > losses[0] + 0.1
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-5)


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
    content["extra"]["optimizer"] = content["extra"].pop("optimizers")[0]
    torch.save(content, tmp_path / "last.pt")
    assert main(command(pairs, tmp_path, "--steps", "2", "--resume")) == 2
    assert "last.pt: written by an earlier version, cannot be resumed" in capsys.readouterr().err


def last_of(out: Path) -> dict:
    return read_checkpoint(out / "last.pt")


def test_a_run_goes_on_with_its_own_settings_from_anywhere(pairs: Path, tmp_path: Path, monkeypatch) -> None:
    """Stopped on the way and resumed with --resume alone, from another folder: the weights of one that ran through."""
    settings = ["--steps", "6", "--lr", "2e-3", "--seed", "3", "--loss", "ssim", "--ssim-on", "y", "--save-every", "2"]
    assert main(command(pairs, tmp_path / "whole", *settings)) == 0
    sample, drawn = PairedFolder.sample, []

    def interrupting(self, rng, crop):
        drawn.append(crop)
        if len(drawn) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return sample(self, rng, crop)

    monkeypatch.chdir(pairs.parent)
    with monkeypatch.context() as patch:
        patch.setattr(PairedFolder, "sample", interrupting)
        assert main(command(Path(pairs.name), tmp_path / "parts", *settings)) == 1
    assert 1 <= last_of(tmp_path / "parts")["extra"]["step"] < 6
    monkeypatch.chdir(tmp_path)
    assert main(["--out", "parts", "--resume", "--threads", "1"]) == 0
    whole, parts = last_of(tmp_path / "whole"), last_of(tmp_path / "parts")
    assert parts["extra"]["step"] == 6
    assert parts["extra"]["training"] == whole["extra"]["training"]
    assert parts["extra"]["data"] == whole["extra"]["data"]
    assert all(torch.equal(value, parts["state_dict"][key]) for key, value in whole["state_dict"].items())


def test_a_run_may_be_given_more_steps(pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path, "--steps", "4")) == 0
    assert main(["--out", str(tmp_path), "--resume", "--steps", "6", "--threads", "1"]) == 0
    said = "6 steps instead of 4: the learning rate goes on at 2.50e-04, after 1.00e-07, and falls until the new end"
    assert said in capsys.readouterr().err
    rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["4", "6"]
    assert last_of(tmp_path)["extra"]["training"]["steps"] == 6


OTHER_SETTINGS = {
    "--steps 1": "steps 2, found 1",
    "--seed 2": "seed 0, found 2",
    "--lr 2": "lr 0.001, found 2.0",
    "--freeze-norm": "freeze_norm False, found True",
    "--loss ssim": "loss l1_ssim, found ssim",
    "--loss log_ssim": "loss l1_ssim, found log_ssim",
    "--log-weight 0.2": "log_weight 0.0, found 0.2",
    "--ssim-on y": "ssim_on_luma False, found True",
    "--held-out 2": "held_out 1, found 2",
    "--dry-share 0.1": "dry_share 0.05, found 0.1",
    "--photos .": "photos None, found ",
    "--init small_released": "init None, found ",
    "--teacher small_released --distillation 0.5": "teacher None, found ",
}


@pytest.fixture(scope="module")
def finished(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    out = tmp_path_factory.mktemp("run")
    assert main(command(pairs, out, "--steps", "2")) == 0
    return out


@pytest.mark.parametrize("flags", OTHER_SETTINGS)
def test_resuming_with_another_setting_is_refused_by_name(flags: str, finished: Path, capsys) -> None:
    before = (finished / "last.pt").read_bytes()
    assert main(["--out", str(finished), "--resume", *flags.split()]) == 2
    assert f"last.pt: the run began with {OTHER_SETTINGS[flags]}" in capsys.readouterr().err
    assert (finished / "last.pt").read_bytes() == before


def test_the_loss_that_a_run_did_not_begin_with(pairs: Path, tmp_path: Path, capsys) -> None:
    assert main(command(pairs, tmp_path, "--steps", "1", "--loss", "ssim")) == 0
    assert main(["--out", str(tmp_path), "--resume", "--loss", "l1_ssim"]) == 2
    assert "the run began with loss ssim, found l1_ssim" in capsys.readouterr().err


def test_resuming_with_the_same_settings_or_how_often_it_saves(pairs: Path, finished: Path) -> None:
    assert main(command(pairs, finished, "--steps", "2", "--save-every", "7", "--resume")) == 0


def test_a_run_of_before_a_setting_goes_on(pairs: Path, tmp_path: Path, capsys) -> None:
    """What it did not know was the default; what it did not keep, its data, is asked for again."""
    assert main(command(pairs, tmp_path, "--steps", "1")) == 0
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    for setting in ("distillation", "log_weight"):
        del content["extra"]["training"][setting]
    del content["extra"]["data"], content["architecture"]
    torch.save(content, tmp_path / "last.pt")
    taught = ["--teacher", str(tmp_path / "ema.pt"), "--distillation", "0.5"]
    assert main(command(pairs, tmp_path, "--steps", "1", *taught, "--resume")) == 2
    assert "the run began with distillation 0.0, found 0.5" in capsys.readouterr().err
    assert main(["--out", str(tmp_path), "--resume"]) == 2
    assert "synthetic rain needs a folder of clean photos" in capsys.readouterr().err
    assert main(command(pairs, tmp_path, "--resume")) == 0


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


TWO_PROCESSES = """
import hashlib, sys
from pathlib import Path
from esdnet.training import loop as training
from esdnet.train import main

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
